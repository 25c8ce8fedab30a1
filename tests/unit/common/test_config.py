import re
import tomllib

import pytest
from pydantic import JsonValue

from hilum.common.config import StudyConfig, load_site, load_study, parse_study, study_to_toml
from hilum.common.config.base import Section
from hilum.common.config.modalities import MODALITIES
from hilum.common.config.resume import differences
from hilum.common.config.template import STUDY_TEMPLATE
from hilum.common.errors import ConfigError
from hilum.common.signing import _Document


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
    assert parse_study(study.model_dump(mode="json")) == study


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
        (lambda t: t["training"].update(base_learning_rate=float("nan")), "finite number"),
        (
            lambda t: t["encoder"].update(name="vt"),
            "`encoder.name = 'vt'` is unknown; choose one of resnet, vit",
        ),
        (lambda t: t["method"].pop("name"), "`method.name` is missing; choose one of mae"),
        (
            lambda t: t["federation"].update(aggregator={"name": "fedavgn"}),
            "`federation.aggregator.name = 'fedavgn'` is unknown; choose one of fedavg, fedavgm",
        ),
        (
            lambda t: t["federation"].update(aggregator={"name": "fedavgm", "momentun": 0.5}),
            "unknown key `federation.aggregator.momentun`; did you mean `momentum`?",
        ),
        (
            lambda t: t["federation"].update(aggregator={"name": "fedavgm", "momentum": 1.0}),
            "`federation.aggregator.momentum = 1.0`: input should be less than 1",
        ),
        (
            lambda t: t["federation"].update(aggregator="fedavg"),
            "must be a table, `[federation.aggregator]`",
        ),
        (lambda t: t.pop("data"), "the table `data` is missing"),
        (lambda t: t.update(data=3), "must be a table, `[data]`"),
        (lambda t: t["study"].update(name="../x"), "`study.name = '../x'`: expected letters, digits"),
        (
            lambda t: t["encoder"].update(patch_size=7),
            "data.image_size = 64 is not a multiple of encoder.patch_size = 7",
        ),
        (
            lambda t: t.update(encoder={"name": "resnet"}),
            'write encoder.name = "vit", or method.name = "simclr"',
        ),
        (lambda t: t.update(evaluation={"arms": "raw"}), "must be a list, in brackets"),
        (lambda t: t.update(evaluation={"arms": ["raw", "raw"]}), "evaluation.arms names something twice"),
        (
            lambda t: (t["data"].update(image_size=32), t["encoder"].update(patch_size=32)),
            "an image has 1 patch for the encoder",
        ),
        (
            lambda t: t["data"].update(dims=3),
            'data.modality = "radiograph" has images alone; write data.dims = 2',
        ),
        (
            lambda t: t["federation"].update(quorum=4),
            "federation.quorum = 4 is more than federation.sites = 3",
        ),
        (
            lambda t: (t.update(method={"name": "simclr"}), t["training"].update(batch_size=1)),
            "must be 2 or more",
        ),
        (lambda t: t["data"].update(modality="fondus"), "did you mean 'fundus'?"),
        (
            lambda t: t.update(views={"strong": {"horizontal_flip": 0.5}}),
            'views.strong.horizontal_flip = 0.5 is no view of data.modality = "radiograph": the side of the heart',
        ),
        (
            lambda t: (t["data"].update(modality="ct"), t.update(views={"crop": {"gamma": [0.8, 1.2]}})),
            "it bends Hounsfield units",
        ),
        (
            lambda t: (t["data"].update(modality="ct"), t.update(views={"crop": {"gamma": [0.8, 1.2]}})),
            'or write views.allow = ["gamma"] to take it all the same',
        ),
        (
            lambda t: t.update(views={"allow": ["hue"]}),
            "`views.allow.0 = 'hue'`: input should be",
        ),
        (
            lambda t: t.update(views={"allow": ["gamma"]}),
            'views.allow names gamma, which data.modality = "radiograph" does not refuse; leave it out',
        ),
        (
            lambda t: t.update(views={"allow": ["horizontal_flip"], "strong": {"horizontal_flip": 0.0}}),
            "no range asks for it; write it under [views.crop] or [views.strong], or leave it out",
        ),
        (
            lambda t: t.update(views={"allow": ["stain"], "strong": {"stain": 0.1}}),
            'views.strong.stain = 0.1 changes colours, and data.modality = "radiograph" is grey; leave it out',
        ),
        (
            lambda t: (
                t["data"].update(modality="mr", dims=3, image_size=16),
                t.update(views={"allow": ["depth_gain"], "strong": {"depth_gain": 0.1}}),
            ),
            "views.strong.depth_gain = 0.1 is for images, and data.dims = 3; leave it out",
        ),
        (
            lambda t: t.update(views={"strong": {"rotation_deg": 90.0}}),
            'views.strong.rotation_deg = 90.0 is no view of data.modality = "radiograph": the image has an up and a down',
        ),
        (
            lambda t: t.update(views={"strong": {"gamma": [1.2, 0.8]}}),
            "views.strong.gamma = [1.2, 0.8] ends before it begins; write the smaller number first",
        ),
        (
            lambda t: t.update(views={"crop": {"blur": 0.01}}),
            "views.crop.blur and views.crop.blur_chance go together; write both, or neither",
        ),
        (
            lambda t: t.update(views={"strong": {"rotation": 5.0}}),
            "unknown key `views.strong.rotation`; did you mean `rotation_deg`?",
        ),
        (
            lambda t: t.update(views={"strong": {"noise": 0.1}}),
            'views.strong does nothing here: method.name = "mae" takes mild views alone; write views.crop',
        ),
        (lambda t: t.update(views={"strong": {"area": [0.0, 1.0]}}), "`views.strong.area.0 = 0.0`"),
    ],
)
def test_a_wrong_study_is_told_what_to_write_instead(change, expected):
    assert expected in problem_after(change)


@pytest.mark.parametrize(
    ("modality", "views"),
    [
        ("radiograph", {"allow": ["horizontal_flip"], "strong": {"horizontal_flip": 0.5}}),
        ("radiograph", {"allow": ["quarter_turns"], "strong": {"rotation_deg": 90.0}}),
        ("radiograph", {"strong": {"rotation_deg": 45.0}}),
        ("ct", {"allow": ["gamma"], "crop": {"gamma": [0.9, 1.1]}}),
        (
            "radiograph",
            {"strong": {"gamma": [1, 1], "horizontal_flip": 0.0}},
        ),  # switching off is always valid
        ("fundus", {"strong": {"hue": 0.1, "blur": 0.0, "blur_chance": 0.0}}),
        ("ultrasound", {"strong": {"speckle": 0.1}, "crop": {"horizontal_flip": 0.0}}),
    ],
)
def test_a_study_may_change_the_views_of_its_modality_by_name(modality, views):
    data = {"modality": modality, "image_size": 64}
    study = parse_study({**template(), "data": data, "method": {"name": "simclr"}, "views": views})
    assert parse_study(tomllib.loads(study_to_toml(study))) == study


def test_every_reason_against_a_view_names_its_source():
    for facts in MODALITIES.values():
        for reason in facts.refused.values():
            assert (
                re.search(r"\((DICOM PS3|arXiv \d|doi 10|Burckhardt)", reason) or "ultrasound alone" in reason
            )


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


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(STUDY_TEMPLATE.format(name="x"), encoding="utf-8-sig")
    assert load_study(path) == parse_study(template())


def test_paths_in_a_site_file_start_from_its_folder(tmp_path):
    (tmp_path / "site.toml").write_text(
        '[site]\nname = "a"\n[data]\ndicom = "scans"\n[state]\nfolder = "/var/x"\n'
    )
    site = load_site(tmp_path / "site.toml")
    assert site.data.dicom == tmp_path / "scans"
    assert str(site.state.folder) == "/var/x"


SITE = '[site]\nname = "a"\n[data]\ndicom = "scans"\n[state]\nfolder = "state"\n'


def site_problem(tmp_path, text):
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_site(tmp_path / "site.toml")
    assert "hilum study" not in str(caught.value), "a site file is not a study"
    return str(caught.value)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ('methods = ["moco"]', "`policy.methods.0 = 'moco'`: input should be 'mae'"),
        ('encoders = ["swin"]', "input should be 'vit' or 'resnet'"),
        ('sizes = ["huge"]', "input should be 'tiny', 'small' or 'base'"),
        ("max_patches = 0", "greater than or equal to 1"),
        ("min_patients = 10", "greater than or equal to 11"),
        ("max_test_share = 1.0", "less than 1"),
        ("max_hour = 3", "unknown key `policy.max_hour`; did you mean `max_hours`?"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(tmp_path, policy, expected):
    assert expected in site_problem(tmp_path, f"{SITE}[policy]\n{policy}\n")


def test_a_wrong_site_file_is_told_all_that_is_wrong_and_where_to_look(tmp_path):
    problem = site_problem(tmp_path, '[site]\nname = "a b"\n[data]\n')
    assert "the key `data.dicom` is missing; `hilum site new FILE` writes a complete one" in problem
    assert "the table `state` is missing" in problem
    assert "`site.name = 'a b'`: expected letters, digits" in problem
    with pytest.raises(ConfigError, match=r"there is no such file; `hilum site new FILE` writes"):
        load_site(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("server", "fits"),
    [
        ("federation.example:9443", True),
        ("10.0.0.7:9443", True),
        ("[::1]:9443", True),
        ("::1:9443", False),
        ("federation.example", False),
        ("https://federation.example:9443", False),
    ],
)
def test_a_server_is_a_host_and_a_port(tmp_path, server, fits):
    paths = "\n".join(f'{key} = "x"' for key in ("root_certificate", "certificate", "key"))
    link = f'[link]\nserver = "{server}"\n{paths}\nstudy_key = "ed25519:{"A" * 43}="\n'
    if fits:
        (tmp_path / "site.toml").write_text(SITE + link)
        assert load_site(tmp_path / "site.toml").link.server == server
    else:
        assert "expected HOST:PORT, without https://" in site_problem(tmp_path, SITE + link)


def test_a_site_file_can_not_do_without_a_policy(tmp_path):
    (tmp_path / "site.toml").write_text(SITE)
    assert load_site(tmp_path / "site.toml").policy is not None
    assert "policy" in site_problem(tmp_path, 'policy = "none"\n' + SITE)


def is_bounded(schema):
    """Whether a number has two bounds, a text or list a longest length, and a table no keys but its own."""
    match schema.get("type"):
        case "integer" | "number":
            low, high = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
            return bool(low & set(schema) and high & set(schema))
        case "string":
            pattern = schema.get("pattern", "*")
            closed = pattern.startswith("^") and pattern.endswith("$") and not re.search(r"[*+]|,\}", pattern)
            return "maxLength" in schema or closed
        case "array":
            return "maxItems" in schema
        case "object":
            return schema.get("additionalProperties") is False
        case "boolean" | "null":
            return True
    return bool({"anyOf", "oneOf"} & set(schema))


def unbounded(schema, place):
    """The places of a schema that are not bounded; what it refers to is walked by itself."""
    if {"$ref", "enum", "const"} & set(schema):
        return []
    inner = {f"{place}.{key}": part for key, part in schema.get("properties", {}).items()}
    inner |= {
        f"{place}|{n}": part for kind in ("anyOf", "oneOf") for n, part in enumerate(schema.get(kind, []))
    }
    inner |= {f"{place}[]": schema["items"]} if "items" in schema else {}
    found = [] if is_bounded(schema) else [place]
    return found + [one for where, part in inner.items() for one in unbounded(part, where)]


def all_unbounded(model):
    schema = model.model_json_schema()
    return [
        place
        for name, part in {model.__name__: schema, **schema.get("$defs", {})}.items()
        for place in unbounded(part, name)
    ]


def test_every_number_of_a_study_has_two_bounds_and_every_list_and_text_a_longest_length():
    assert all_unbounded(StudyConfig) == []


def test_a_signed_document_is_bounded_but_for_the_study_that_is_checked_after_it():
    assert [place for place in all_unbounded(_Document) if not place.startswith("JsonValue")] == [
        "_Document.study"
    ]


def test_the_walk_would_find_a_missing_bound():
    class Loose(Section):
        number: int
        share: float | None
        text: str
        rows: tuple[int, ...]
        pairs: dict[str, int]
        anything: JsonValue

    found = all_unbounded(Loose)
    for place in ("number", "share|0", "text", "rows", "rows[]", "pairs"):
        assert f"Loose.{place}" in found
    assert "JsonValue" in found or "Loose.anything" in found


def test_of_a_list_the_item_that_is_wrong_is_told_and_nothing_else():
    with pytest.raises(ConfigError) as found:
        parse_study({**template(), "evaluation": {"protocols": ["svm"]}})
    [problem] = found.value.problems
    assert "svm" in problem


NEW_KEYS = {
    *("layer_decay", "validation_share", "patience", "class_weights", "precision"),
    *("frozen_learning_rate", "lora_learning_rate", "lora_rank", "lora_alpha"),
}


def test_a_run_of_before_goes_on_with_a_study_that_fine_tunes_as_it_did():
    resolved = parse_study(template()).model_dump(mode="json")
    kept = {key: value for key, value in resolved["evaluation"].items() if key not in NEW_KEYS}
    before = {**resolved, "evaluation": {**kept, "finetune_min_steps": 200}}
    told = differences(before, resolved)
    assert {one.key for one in told} == {
        "evaluation.finetune_min_steps",
        "evaluation.layer_decay",
        "evaluation.validation_share",
    }
    as_before = template()
    as_before["evaluation"] |= {"finetune_min_steps": 200, "layer_decay": 1.0, "validation_share": 0.0}
    assert differences(before, parse_study(as_before).model_dump(mode="json")) == []


def test_a_layer_decay_that_is_none_is_told_in_one_line():
    problem = problem_after(lambda t: t["evaluation"].update(layer_decay=1.5))
    assert problem == 'evaluation.layer_decay = 1.5: expected "auto", or a number above 0 and at most 1'
