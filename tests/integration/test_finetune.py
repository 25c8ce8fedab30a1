"""A site engineer's own model: from an encoder and labels to files, a page and a second measurement; and what is refused."""

import contextlib
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tomli_w
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from hilum.client.data.kept_split import KeptSplits
from hilum.client.state.workspace import Workspace
from hilum.client.tasks.model_files import load_model, write_model
from hilum.common.cli import build
from hilum.common.errors import DamagedError, HilumError, RunError
from hilum.common.preparation.encoder_input import encoder_input
from one_line import fails
from studies import study_table

EVALUATION = {"finetune_min_steps": 6, "bootstrap_draws": 100, "finetune_epochs": 1}


class Commands:
    """The command line in this process, in a folder: a process for each would take most of the time."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, *words):
        umask = os.umask(0o022)
        environment = {"HILUM_HOME": str(self.folder / "home"), "COLUMNS": "200", "NO_COLOR": "1"}
        try:
            with contextlib.chdir(self.folder):
                done = CliRunner(env=environment).invoke(build(), list(map(str, words)))
        finally:
            os.umask(umask)
        told, code = done.stderr, done.exit_code
        if isinstance(done.exception, HilumError):
            told += f"error: {' '.join(str(done.exception).split())}\n"
            code = done.exception.exit_code
        elif done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return SimpleNamespace(returncode=code, stdout=done.stdout, stderr=told)


@pytest.fixture(scope="module")
def place(tmp_path_factory, hospitals):
    """A site that has pre-trained an encoder alone."""
    folder = tmp_path_factory.mktemp("own")
    site = hospitals / "site-0"
    shutil.copyfile(site / "labels.csv", folder / "labels.csv")
    (folder / "site.toml").write_text(
        f'[site]\nname = "site-0"\n[data]\ndicom = "{site / "dicom"}"\nlabels = "labels.csv"\n'
        '[state]\nfolder = "home/site"\n[compute]\ndevice = "cpu"\n'
    )
    table = study_table(
        encoder={"name": "resnet", "size": "tiny"},
        method={"name": "simclr"},
        federation={"rounds": 1, "sites": 3},
    )
    (folder / "study.toml").write_text(tomli_w.dumps(table))
    run = Commands(folder)
    done = run("site", "index", site / "dicom")
    assert done.returncode == 0, done.stderr
    done = run("site", "pretrain", "study.toml", "site.toml", "--out", "encoder")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def run(place):
    return Commands(place)


def task_file(place, name="task.toml", *, changes=(), **finetune):
    table = {
        "finetune": {"encoder": "encoder", "site": "site.toml", "out": "model", "mode": "frozen", **finetune},
        "tasks": {"classification": {"label": "label"}},
        "evaluation": EVALUATION,
        "privacy": {"min_patients": 11},
        **dict(changes),
    }
    (place / name).write_text(tomli_w.dumps(table))
    return name


@pytest.fixture(scope="module")
def tuned(place, run):
    """A model of each mode, by mode."""
    for mode in ("frozen", "lora", "finetune"):
        name = task_file(place, f"{mode}.toml", mode=mode, out=f"model-{mode}", label_share=0.5)
        done = run("site", "finetune", name, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == json.loads((place / f"model-{mode}" / "results.json").read_text())
    return place


@pytest.mark.parametrize("mode", ["frozen", "lora", "finetune"])
def test_a_model_is_measured_beside_the_baselines(tuned, mode):
    results = json.loads((tuned / f"model-{mode}" / "results.json").read_text())
    found = {(row["protocol"], row["arm"]) for row in results["evaluation"]}
    expected = {
        (mode, "federated"),
        ("linear", "federated"),
        ("linear", "raw"),
        ("linear", "random"),
        ("finetune", "scratch"),
    }
    assert found == expected | ({(mode, "random")} if mode != "finetune" else set())
    assert {row["label_fraction"] for row in results["evaluation"]} == {0.5}
    assert (mode, "federated") not in {(one["protocol"], one["arm"]) for one in results["comparisons"]}
    value = {(row["protocol"], row["arm"], row["metric"]): row["value"] for row in results["evaluation"]}
    for one in results["comparisons"]:
        key = (one["protocol"], one["arm"], one["metric"])
        assert one["difference"] == pytest.approx(value[mode, "federated", one["metric"]] - value[key])
    assert results["comparisons"]


def test_the_page_says_what_the_model_is_worth_and_names_nobody(tuned):
    page = (tuned / "model-frozen" / "report.html").read_text()
    results = json.loads((tuned / "model-frozen" / "results.json").read_text())
    for words in (
        "this model",
        "raw pixels",
        "from scratch",
        "AUROC",
        "Brier score",
        results["model_sha256"],
    ):
        assert words in page
    assert "http://" not in page
    assert "https://" not in page
    assert "NaN" not in page


def test_no_test_patient_of_the_encoders_run_is_trained_on(tuned):
    splits = KeptSplits(Workspace(tuned / "home" / "site"))
    encoder = json.loads((tuned / "encoder" / "manifest.json").read_text())["encoder_sha256"]
    before = splits.of_encoder(encoder)
    model = json.loads((tuned / "model-lora" / "manifest.json").read_text())["model_sha256"]
    after = splits.of_encoder(model)
    assert after.encoder == model
    assert after.sides == before.sides
    assert len(set(after.sides.values())) == 2


def test_a_model_comes_back_as_it_was_written_and_predicts(tuned, tmp_path):
    model = load_model(tuned / "model-lora")
    manifest = json.loads((tuned / "model-lora" / "manifest.json").read_text())
    assert model.names == ("0", "1")
    assert model.kind == "classification"
    assert model.sha256 == manifest["model_sha256"] == write_model(tmp_path / "again", model)
    assert (tmp_path / "again" / "manifest.json").read_text() == json.dumps(manifest, indent=2) + "\n"
    again = load_model(tmp_path / "again")
    image = np.random.default_rng(0).integers(0, 65_536, (40, 50)).astype(np.float32)
    pieces = encoder_input(image, model.study.data)
    found = model.predict(pieces)
    assert found.shape == (1, 2)
    assert found.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(found, again.predict(pieces))
    with torch.no_grad():
        plain = (again.module(pieces) / (again.temperature or 1.0)).double().softmax(1)
    np.testing.assert_allclose(found, plain.numpy(), atol=1e-6)
    tensors = set(load_file(tuned / "model-lora" / "model.safetensors"))
    assert {"head.weight", "head.bias", "encoder.stem.weight"} <= tensors
    assert all(name.startswith(("encoder.", "head.")) for name in tensors)


def test_a_model_tells_neither_paths_nor_numbers_of_few(tuned, place, run):
    for path in (tuned / "model-frozen").iterdir():
        assert str(place).encode() not in path.read_bytes()
    name = task_file(place, "few.toml", out="few", label_share=0.1, changes={"privacy": {"min_patients": 11}})
    assert run("site", "finetune", name).returncode == 0
    trained = json.loads((place / "few" / "manifest.json").read_text())["trained"]
    assert (trained["patients"], trained["images"]) == (None, None)
    assert "fewer than 11 patients" in (place / "few" / "MODEL_CARD.md").read_text()


def test_a_model_is_measured_again_on_the_same_test_patients(tuned, run):
    done = run("site", "evaluate", "model-frozen", "site.toml", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tuned / "model-frozen" / "results.json").read_text())
    expected = {
        row["metric"]: row["value"]
        for row in results["evaluation"]
        if (row["protocol"], row["arm"]) == ("frozen", "federated")
    }
    again = json.loads(done.stdout)
    assert {row["metric"]: row["value"] for row in again["rows"]} == pytest.approx(expected, abs=1e-6)
    assert again["model_sha256"] == results["model_sha256"]


def test_the_same_task_file_gives_the_same_model(tuned, place, run):
    name = task_file(place, "again.toml", mode="frozen", out="again", label_share=0.5)
    assert run("site", "finetune", name).returncode == 0
    assert (place / "again" / "model.safetensors").read_bytes() == (
        tuned / "model-frozen" / "model.safetensors"
    ).read_bytes()


SITE = "site.toml"


@pytest.mark.parametrize(
    ("finetune", "changes", "expected"),
    [
        ({"encoder": "nothing"}, {}, "there is no encoder in this folder"),
        ({"site": "nothing.toml"}, {}, "there is no such file"),
        ({"out": "encoder"}, {}, "the output folder is not empty"),
        ({"mode": "full"}, {}, "finetune.mode = 'full'"),
        ({"label_share": 0.0}, {}, "finetune.label_share = 0.0"),
        ({"moed": "lora"}, {}, "did you mean `mode`?"),
        ({}, {"tasks": {}}, "[tasks] names no task"),
        ({}, {"evaluation": {"protocols": ["knn"]}}, "evaluation.protocols does nothing in a task file"),
        ({}, {"privacy": {"max_update_norm": 1.0}}, "[privacy] of a task file has min_patients alone"),
        (
            {},
            {"data": {"modality": "ct", "dims": 3, "image_size": 16}},
            "the encoder takes images of 2D, 1 channel, radiograph, [data] of the task file says 3D, 1 channel, ct",
        ),
        (
            {},
            {"data": {"modality": "photograph", "image_size": 16}},
            "[data] of the task file says 2D, 3 channels, photograph",
        ),
        ({}, {"data": {"modality": "radiograph", "image_size": 32}}, "prepares images otherwise"),
        ({}, {"tasks": {"classification": {"label": "lable"}}}, "has no column `lable`"),
    ],
)
def test_a_wrong_task_file_is_refused_in_one_line_and_leaves_nothing(place, run, finetune, changes, expected):
    name = task_file(place, "wrong.toml", changes=changes, **{"out": "wrong", **finetune})
    fails(run("site", "finetune", name), expected)
    assert not (place / "wrong").exists()
    assert not list(place.glob(".*.partial"))


def labels_of(place):
    lines = (place / "labels.csv").read_text().splitlines()
    return lines[0].split(","), [line.split(",") for line in lines[1:]]


def with_labels(place, name, content, *, encoding="utf-8"):
    """A site file whose label table is another one."""
    (place / f"{name}.csv").write_bytes(content.encode(encoding))
    text = (place / SITE).read_text().replace('labels = "labels.csv"', f'labels = "{name}.csv"')
    (place / f"{name}.toml").write_text(text)
    return f"{name}.toml"


def relabelled(place, change):
    """The label table with each line's label changed by its number and patient."""
    header, rows = labels_of(place)
    where = header.index("label")
    patients = sorted({row[header.index("patient")] for row in rows})
    for row in rows:
        row[where] = change(patients.index(row[header.index("patient")]), row[where])
    return "\n".join(",".join(row) for row in [header, *rows]) + "\n"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda number, label: "", "no image has a label"),
        (lambda number, label: "a", "the test patients have 1 class(es), two are needed"),
        (lambda number, label: "a" if number else "b", "the test patients have 1 class(es), two are needed"),
    ],
    ids=["none", "one class", "a class of one patient"],
)
def test_labels_that_do_not_serve_are_refused_in_one_line(place, run, change, expected):
    site = with_labels(place, "unfit", relabelled(place, change))
    name = task_file(place, "wrong.toml", out="wrong", site=site)
    fails(run("site", "finetune", name), expected)
    assert not (place / "wrong").exists()


def test_a_site_without_a_label_table_is_told_so(place, run):
    (place / "bare.toml").write_text((place / SITE).read_text().replace('labels = "labels.csv"\n', ""))
    fails(
        run("site", "finetune", task_file(place, "wrong.toml", out="wrong", site="bare.toml")),
        "names no label table",
    )
    fails(run("site", "evaluate", "model-frozen", "bare.toml"), "names no label table")


def test_a_table_as_a_spreadsheet_writes_it_gives_the_same_model(tuned, place, run):
    """A byte-order mark, semicolons, blanks around cells."""
    text = (place / "labels.csv").read_text().replace(",", " ; ")
    site = with_labels(place, "excel", text, encoding="utf-8-sig")
    name = task_file(place, "excel-task.toml", mode="frozen", out="excel", label_share=0.5, site=site)
    done = run("site", "finetune", name)
    assert done.returncode == 0, done.stderr
    assert (place / "excel" / "model.safetensors").read_bytes() == (
        tuned / "model-frozen" / "model.safetensors"
    ).read_bytes()


def test_classes_that_a_model_does_not_know_are_named(tuned, place, run):
    site = with_labels(
        place, "third", relabelled(place, lambda number, label: "2" if number % 3 == 0 else label)
    )
    fails(run("site", "evaluate", "model-frozen", site), "has `2`, which the model does not know", "`0`, `1`")


def test_a_model_that_was_trained_on_all_labelled_patients_is_not_measured_on_them(tuned, place, run):
    """The kept split of the model says that everybody was trained on."""
    model = load_model(tuned / "model-finetune")
    splits = KeptSplits(Workspace(place / "home" / "site"))
    [path] = [one for one in splits.folder.glob("*.npz") if model.sha256[:12] in one.name]
    kept, whole = splits.of_run(path.stem), path.read_bytes()
    everybody = dict.fromkeys(kept.sides, max(kept.sides.values()))
    splits.keep(path.stem, type(kept)(kept.study, everybody, kept.labels, kept.encoder))
    fails(run("site", "evaluate", "model-finetune", "site.toml"), "was trained on every labelled patient")
    path.write_bytes(whole)


def damaged(folder, how):
    if how == "cut":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[:-100])
    elif how == "changed":
        tensors = load_file(folder / "model.safetensors")
        tensors["head.bias"] = tensors["head.bias"] + 1
        save_file(tensors, folder / "model.safetensors")
    elif how == "not json":
        (folder / "manifest.json").write_text("{")
    else:
        facts = json.loads((folder / "manifest.json").read_text())
        facts |= {"names": ["0", "1", "2"]} if how == "names" else {"version": 99}
        (folder / "manifest.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("cut", DamagedError, "tensors are damaged"),
        ("changed", DamagedError, "does not have the SHA-256"),
        ("not json", DamagedError, "it is not JSON"),
        ("names", DamagedError, "does not describe the model's tensors"),
        ("version", RunError, "has the form 99"),
    ],
)
def test_a_damaged_model_is_refused(tuned, tmp_path, how, kind, words):
    shutil.copytree(tuned / "model-frozen", tmp_path / "model")
    damaged(tmp_path / "model", how)
    with pytest.raises(kind, match=words):
        load_model(tmp_path / "model")


def test_a_folder_without_a_model_is_refused(tuned, place, run, tmp_path):
    with pytest.raises(RunError, match="there is no fine-tuned model"):
        load_model(tmp_path)
    fails(run("site", "evaluate", "encoder", "site.toml"), "holds an encoder and not a fine-tuned model")


def test_evaluate_says_which_of_its_two_ways_is_meant(place, run):
    for words, told in (
        (("study.toml", "site.toml"), "with --encoder FOLDER"),
        (("model-frozen", "site.toml", "--encoder", "encoder"), "without --encoder"),
    ):
        done = run("site", "evaluate", *words)
        assert done.returncode == 2
        assert told in " ".join(done.stderr.replace("│", " ").split())
