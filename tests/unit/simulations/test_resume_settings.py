"""What may differ between a run and its resumption, and what is refused with both values."""

import pytest

from hilum.common.config.resume import MAY_DIFFER, differences, in_words, lasting
from hilum.common.errors import DataError, RunError
from hilum.common.files import write_json, write_text
from hilum.server.federation.store import RunStore, check_output
from hilum.simulations.resume import check_same_sites, kept_run_name


def changed(table, key, value):
    first, _, rest = key.partition(".")
    return {**table, first: changed(table[first], rest, value) if rest else value}


def test_waiting_may_differ_and_gives_the_same_terms(make_study, make_order, tmp_path):
    study = make_study()
    longer = make_study(
        federation={"deadline_s": 999.0, "return_s": 9.0},
        evaluation={"deadline_s": 5.0},
        training={"checkpoint_minutes": 3.0},
    )
    table, now = study.model_dump(mode="json"), longer.model_dump(mode="json")
    assert table != now
    assert differences(table, now) == []
    assert lasting(table) == lasting(now)
    assert make_order(study)[1].terms == make_order(longer)[1].terms
    with RunStore.open(tmp_path / "run", make_order(study)[1], resume=False):
        pass
    with RunStore.open(tmp_path / "run", make_order(longer)[1], resume=True):
        pass
    check_output(tmp_path / "run", longer, resume=True)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        (
            "training",
            {"base_learning_rate": 0.5},
            "training.base_learning_rate was not set, is 0.5",
        ),
        ("federation", {"quorum": 2}, "federation.quorum was not set, is 2"),
        (
            "federation",
            {"aggregator": {"name": "fedavgm"}},
            "federation.aggregator.momentum was not set, is 0.9; federation.aggregator.name was 'fedavg', is 'fedavgm'",
        ),
        ("data", {"image_size": 32}, "data.image_size was 16, is 32"),
        ("evaluation", {"protocols": ["knn"]}, "evaluation.protocols was ['linear'], is ['knn']"),
    ],
)
def test_what_is_computed_may_not_differ(make_study, make_order, tmp_path, section, values, words):
    with RunStore.open(tmp_path / "run", make_order(make_study())[1], resume=False):
        pass
    other = make_study(**{section: values})
    assert make_order(other)[1].terms != make_order(make_study())[1].terms
    with pytest.raises(RunError) as refused:
        check_output(tmp_path / "run", other, resume=True)
    assert words in str(refused.value)
    assert all(key in str(refused.value) for key in MAY_DIFFER)


def test_a_run_of_before_there_was_a_choice_of_aggregators_is_the_same_study(
    make_study, make_order, tmp_path
):
    """Its stored study has no such table; its sites know it by terms, and the split that they keep by a digest, without one."""
    study = make_study()
    table = study.model_dump(mode="json")
    earlier = {**table, "federation": {**table["federation"]}}
    del earlier["federation"]["aggregator"]
    assert lasting(table) == lasting(earlier)
    assert differences(earlier, table) == []
    with RunStore.open(tmp_path / "run", make_order(study)[1], resume=False):
        pass
    stored = tmp_path / "run" / "study.resolved.toml"
    kept = stored.read_text().replace('[federation.aggregator]\nname = "fedavg"\n', "")
    assert "aggregator" not in kept
    stored.write_text(kept)
    check_output(tmp_path / "run", study, resume=True)
    with pytest.raises(RunError, match=r"federation\.aggregator\.name was 'fedavg', is 'fedavgm'"):
        check_output(
            tmp_path / "run", make_study(federation={"aggregator": {"name": "fedavgm"}}), resume=True
        )


def test_a_run_of_before_views_could_be_changed_is_the_same_study(make_study):
    study = make_study()
    table = study.model_dump(mode="json")
    earlier = {name: section for name, section in table.items() if name != "views"}
    written = {**earlier, "views": {"allow": []}}  # as study.resolved.toml has it
    assert lasting(table) == lasting(earlier) == lasting(written)
    assert differences(earlier, table) == differences(written, table) == []
    changed_views = make_study(views={"crop": {"rotation_deg": 3.0}}).model_dump(mode="json")
    [difference] = differences(earlier, changed_views)
    assert str(difference) == "views.crop.rotation_deg was not set, is 3.0"
    assert lasting(changed_views) != lasting(table)


def test_every_key_that_may_differ_exists(make_study):
    study = make_study(encoder={"init": {"file": "vit.safetensors", "sha256": "0" * 64}})
    table = study.model_dump(mode="json")
    for key in MAY_DIFFER:
        there = table
        for word in key.split("."):
            assert word in there
            there = there[word]
        assert differences(table, changed(table, key, 123)) == []


def test_a_run_of_before_encoders_could_start_from_a_file_is_the_same_study(make_study):
    """Its stored study has neither `encoder.init` nor `encoder.positions`, and neither had the terms that its sites keep."""
    table = make_study().model_dump(mode="json")
    earlier = {**table, "encoder": {key: table["encoder"][key] for key in ("name", "size", "patch_size")}}
    assert lasting(table) == lasting(earlier)
    assert differences(earlier, table) == []
    other = make_study(encoder={"init": {"file": "vit.safetensors", "sha256": "0" * 64}})
    found = in_words(differences(earlier, other.model_dump(mode="json")))
    assert found == f"encoder.init.sha256 was not set, is {'0' * 64!r}"


def test_many_differences_are_counted():
    found = differences({"a": dict.fromkeys("vwxyz", 1)}, {"a": dict.fromkeys("vwxyz", 2)})
    assert in_words(found) == "a.v was 1, is 2; a.w was 1, is 2; a.x was 1, is 2, and 2 more"


def test_another_version_of_hilum_does_not_go_on(make_study, make_order, tmp_path):
    with RunStore.open(tmp_path / "run", make_order(make_study())[1], resume=False) as store:
        store.write("environment.json", {"hilum": "0.0.1"})
    with pytest.raises(RunError, match=r"begun by Hilum 0\.0\.1, this is"):
        check_output(tmp_path / "run", make_study(), resume=True)


def test_a_site_that_is_missing_or_new_is_named(tmp_path):
    from hilum.simulations.archives import find_sites

    for name in ("a", "b"):
        (tmp_path / "archives" / name / "dicom").mkdir(parents=True)
    write_text(tmp_path / "run" / "rounds.jsonl", '{"sites": {"a": {}}, "failures": {"b": "late: x"}}\n')
    check_same_sites(tmp_path / "run", find_sites(tmp_path / "archives", tmp_path))
    (tmp_path / "archives" / "c" / "dicom").mkdir(parents=True)
    with pytest.raises(RunError, match="c did not take part in this run"):
        check_same_sites(tmp_path / "run", find_sites(tmp_path / "archives", tmp_path))
    (tmp_path / "archives" / "c" / "dicom").rmdir()
    (tmp_path / "archives" / "b" / "dicom").rmdir()
    with pytest.raises(RunError, match="b took part in this run and is missing"):
        check_same_sites(tmp_path / "run", find_sites(tmp_path / "archives", tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        find_sites(tmp_path / "nowhere", tmp_path)


def test_a_run_keeps_its_name_wherever_its_folder_is_moved(tmp_path):
    write_json(tmp_path / "run" / "run.json", {"run": "tiny-0123"})
    (tmp_path / "run").rename(tmp_path / "moved")
    assert kept_run_name(tmp_path / "moved") == "tiny-0123"
    assert kept_run_name(tmp_path / "nowhere") is None
