"""A file of weights on one side, an encoder of a study on the other."""

import pytest
import torch

from foreign_weights import written
from hilum.common.encoders.base import AS_IT_IS
from hilum.common.encoders.warm_start import warm_start
from hilum.common.methods import build_method


@pytest.fixture
def encoder_of(make_study):
    """Return the encoder of a study with first values."""

    def make(name="vit", *, dims=2, image_size=64, channels=1, size="tiny", **more):
        study = make_study(
            data={"image_size": image_size, "dims": dims, "modality": "ct"},
            encoder={"name": name, "size": size, **more},
            method={"name": "simclr"},
        )
        assert channels == 1
        encoder = build_method(study).encoder.eval()
        encoder.scale = AS_IT_IS  # networks are compared on images that are standardised already
        return encoder

    return make


@pytest.fixture
def start(tmp_path):
    """Write a state and start an encoder from it; every tensor on both sides must be accounted for."""

    def run(encoder, state, name="weights.safetensors"):
        path = tmp_path / name
        sha256 = written(state, path)
        before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
        report = warm_start(encoder, path, sha256)
        assert sorted(one.source for one in report.keys) == sorted(state)
        assert all(one.how for one in report.keys if one.outcome != "matched")
        targets = {one.target for one in report.keys if one.target}
        own = encoder.state_dict()
        assert targets <= set(own)
        for key in report.first_values:
            assert torch.equal(own[key], before[key])
        assert set(report.first_values) | targets | ({"position_table.weight"} & set(own)) == set(own)
        counts = report.counts
        assert counts["matched"] + counts["adapted"] + counts["left"] == len(state)
        return report

    return run
