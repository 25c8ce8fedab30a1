import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hilum.client.commands.site import app
from hilum.client.predictions.model import Masks, open_model
from hilum.client.predictions.run import predict_folder
from hilum.common.errors import ConfigError
from hilum.common.progress import progress_bar
from predicting import AT, RuleModel


@pytest.fixture
def films(tmp_path, dicom):
    """Two radiographs, one of them brighter, with a disc in each that is brighter still."""
    rows, columns = np.ogrid[:60, :80]
    disc = (rows - 30) ** 2 + (columns - 35) ** 2 < 15**2
    for name, ground in (("dark", 0), ("bright", 500)):
        pixels = ground + 500 * disc.astype(np.uint16)
        pixels[0, 0] = 0
        pixels[0, 1] = 1000
        dicom(tmp_path / "in" / f"{name}.dcm", pixels.astype(np.uint16), WindowCenter=500, WindowWidth=1000)
    return tmp_path / "in", disc


@pytest.fixture
def as_files(monkeypatch):
    """Let a model be what is read from any folder."""

    def install(model):
        monkeypatch.setattr("hilum.client.predictions.model.load_model", lambda folder: model)

    return install


def test_classes_of_a_model_go_from_the_command_line_into_table_and_reports(
    tmp_path, films, make_study, as_files
):
    as_files(RuleModel(make_study()))
    out = tmp_path / "out"
    command = ["predict", str(tmp_path / "model"), str(films[0]), str(out), "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    report = json.loads(done.stdout)
    assert (report["counts"], report["objects"], report["delivered"]) == ({"predicted": 2}, 2, [])
    with (out / "predictions.csv").open() as file:
        ill = {row["source"]: float(row["ill"]) for row in csv.DictReader(file)}
    assert 0 < ill["dark.dcm"] < ill["bright.dcm"] < 1
    assert len(list((out / "sr").iterdir())) == 2
    assert json.loads((out / "summary.json").read_text())["model"]["sha256"] == RuleModel.sha256


def test_masks_of_a_model_lie_on_the_images_own_grid(tmp_path, films, make_study, as_files):
    folder, disc = films
    study = make_study(data={"image_size": 64})
    as_files(RuleModel(study, kind="segmentation", names=("grey", "white")))
    model = open_model(tmp_path / "model", "cpu")
    assert isinstance(model, Masks)
    found = {}
    results = model.results

    def watched(prepared, arrays):
        for item, result in zip(prepared.items, results(prepared, arrays), strict=True):
            found[float(arrays.get(item.content_sha256).mean())] = result
            yield result

    model.results = watched
    predict_folder(model, folder, tmp_path / "out", progress_bar, overlay=True, at=AT)
    dark, bright = (found[key].labels for key in sorted(found))
    assert dark.shape == bright.shape == disc.shape
    for labels, inside in ((dark, 1), (bright, 2)):
        same = (labels == inside) == disc
        assert same.mean() > 0.95
        assert same[disc].mean() > 0.95


def test_there_is_nothing_to_lay_over_an_image_of_which_only_a_class_is_known(
    tmp_path, films, make_study, as_files
):
    as_files(RuleModel(make_study()))
    model = open_model(tmp_path / "model", "cpu")
    with pytest.raises(ConfigError, match="--overlay goes with a model of masks or boxes"):
        predict_folder(model, films[0], tmp_path / "out", progress_bar, overlay=True, at=AT)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--store", "pacs:104"), "--store and --called are given together"),
        (("--called", "PACS"), "--store and --called are given together"),
        (("--store-tls",), "--calling and --store-tls go with --store"),
        (("--insecure-http",), "--token-file and --insecure-http go with --send"),
        (("--send", "http://127.0.0.1/x", "--ca", "x.crt"), "go with --send https://"),
        ((), "say where to"),
    ],
)
def test_options_that_would_have_no_effect_are_refused_before_anything_is_done(tmp_path, words, problem):
    with pytest.raises(ConfigError, match=problem):
        CliRunner().invoke(app, ["send", str(tmp_path), *words], catch_exceptions=False)
