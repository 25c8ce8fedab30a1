"""A fine-tuned model's folder is exported as an encoder's is."""

import json

import numpy as np
import pytest
import torch

from exported_encoders import make_encoder
from hilum.client.export.formats import export
from hilum.client.tasks.finetuning import EncoderWithHead
from hilum.client.tasks.model_files import TaskModel, TrainedOn, load_model, write_model
from hilum.client.tasks.model_kinds import MODEL_KINDS
from hilum.common import load_encoder
from hilum.common.errors import DamagedError, RunError


@pytest.fixture
def model(tmp_path):
    study = make_encoder("resnet 2D", tmp_path / "run")
    encoder = load_encoder(tmp_path / "run").encoder
    module = EncoderWithHead(encoder, MODEL_KINDS["classification"].head(study, encoder, ("no", "yes")))
    trained = TrainedOn("finetune", 1.0, 44, 50, validated=True)
    made = TaskModel(study, "classification", ("no", "yes"), module.eval(), 2.0, "0" * 64, trained)
    write_model(tmp_path / "model", made)
    return made


def test_a_models_scores_are_calibrated_and_their_softmax_is_what_it_predicts(model, tmp_path):
    export(tmp_path / "model", tmp_path / "out", ["torch", "safetensors"])
    files = {"description.json": ""}
    program = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=files)
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        scores = program.module()(images)
    np.testing.assert_allclose(scores.softmax(1).numpy(), model.predict(images), atol=1e-5)
    described = json.loads(files["description.json"])
    assert json.loads(described["output_names"]) == ["no", "yes"]
    assert described["sha256"] == model.sha256 == load_model(tmp_path / "out").sha256
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "44 patients, 50 images" in card
    assert "## Limits" in card


def test_what_a_model_can_not_be_is_refused(model, tmp_path):
    with pytest.raises(RunError, match="this is a model with a head"):
        export(tmp_path / "model", tmp_path / "out", ["timm"])
    (tmp_path / "model" / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(DamagedError):
        export(tmp_path / "model", tmp_path / "out", ["torch"])
    assert not (tmp_path / "out").exists()
