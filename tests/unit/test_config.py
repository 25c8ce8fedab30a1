import tomllib

import pytest

from hilum.common.config import load_site, load_study, parse_study, study_to_toml
from hilum.common.config.load import study_from_json
from hilum.common.config.template import STUDY_TEMPLATE
from hilum.common.errors import ConfigError


def template() -> dict:
    return tomllib.loads(STUDY_TEMPLATE.format(name="x"))


def problem_after(change) -> str:
    table = template()
    change(table)
    with pytest.raises(ConfigError) as caught:
        parse_study(table, source="s.toml")
    assert str(caught.value).startswith("s.toml: ")
    return caught.value.problems[0]


def test_the_template_is_a_valid_study_that_states_every_default():
    study = parse_study(template())
    bare = parse_study({key: template()[key] for key in ("study", "data", "encoder", "method", "tasks")})
    assert study == bare


def test_the_resolved_form_reads_back_as_the_same_study():
    study = parse_study(template())
    assert parse_study(tomllib.loads(study_to_toml(study))) == study
    assert study_from_json(study.model_dump_json()) == study


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda t: t["training"].update(bach_size=3),
            "unknown key `training.bach_size`; did you mean `batch_size`?",
        ),
        (
            lambda t: t["encoder"].update(patchsize=3),
            "unknown key `encoder.patchsize`; did you mean `patch_size`?",
        ),
        (
            lambda t: t["method"].update(temperature=0.1),
            "unknown key `method.temperature`; known here: decoder_depth",
        ),
        (lambda t: t.update(trainning={}), "unknown key `trainning`; did you mean `training`?"),
        (lambda t: t["tasks"]["classification"].update(lable="a"), "did you mean `label`?"),
        (
            lambda t: t["training"].update(batch_size="32"),
            "`training.batch_size = '32'`: input should be a valid integer",
        ),
        (lambda t: t["training"].update(batch_size=0), "greater than or equal to 1"),
        (lambda t: t["training"].update(learning_rate=float("nan")), "finite number"),
        (
            lambda t: t["encoder"].update(name="vt"),
            "`encoder.name = 'vt'` is unknown; choose one of resnet, vit",
        ),
        (lambda t: t["method"].pop("name"), "`method.name` is missing; choose one of mae, simclr"),
        (lambda t: t.pop("data"), "the table `data` is missing"),
        (lambda t: t.update(data=3), "must be a table, `[data]`"),
        (lambda t: t["study"].update(name="../x"), "should match pattern"),
        (
            lambda t: t["encoder"].update(patch_size=7),
            "data.image_size = 64 is not a multiple of encoder.patch_size = 7",
        ),
        (
            lambda t: t.update(encoder={"name": "resnet"}),
            'write encoder.name = "vit", or method.name = "simclr"',
        ),
        (
            lambda t: t["federation"].update(quorum=4),
            "federation.quorum = 4 is more than federation.sites = 3",
        ),
        (
            lambda t: (t.update(method={"name": "simclr"}), t["training"].update(batch_size=1)),
            "must be 2 or more",
        ),
    ],
)
def test_a_wrong_study_is_told_what_to_write_instead(change, expected):
    assert expected in problem_after(change)


def test_all_problems_are_found_at_once():
    table = template()
    table["training"].update(batch_size=0, threads="two")
    table["data"]["dims"] = 4
    with pytest.raises(ConfigError) as caught:
        parse_study(table)
    assert len(caught.value.problems) == 3


def test_a_study_is_frozen():
    study = parse_study(template())
    with pytest.raises(ValueError, match="frozen"):
        study.training.batch_size = 3


def test_unreadable_files_say_so(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        load_study(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_study(tmp_path / "binary.toml")
    (tmp_path / "broken.toml").write_text("[study\n")
    with pytest.raises(ConfigError, match=r"not valid TOML.*line 1"):
        load_study(tmp_path / "broken.toml")


def test_paths_in_a_site_file_start_from_its_folder(tmp_path):
    (tmp_path / "site.toml").write_text(
        '[site]\nname = "a"\n[data]\ndicom = "scans"\n[state]\nfolder = "/var/x"\n'
    )
    site = load_site(tmp_path / "site.toml")
    assert site.data.dicom == tmp_path / "scans"
    assert str(site.state.folder) == "/var/x"
