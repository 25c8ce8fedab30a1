"""What a method may ask for beside a loss: teachers, frozen parts, a say in what it receives."""

import numpy as np
import pytest
import torch
from torch import nn

from hilum.common.methods import Loss, MethodSpec, Parts, SSLMethod, ViewGroup, ViewPlan
from hilum.common.methods.parts import (
    federated_manifest,
    freeze,
    get_federated,
    get_frozen,
    get_kept,
    receive,
    set_federated,
    start_sha256,
)
from hilum.common.weights import sha256_of


class Distilled(SSLMethod):
    """A student near a teacher that follows it, on targets of a frozen layer; the site keeps half of its own student."""

    spec = MethodSpec(
        name="distilled",
        paradigm="predictive",
        dims=(2,),
        parts=Parts(
            federated=("encoder.*",),
            local=("teacher.*",),
            frozen=("targets.*",),
            remembered=("encoder.weight",),
        ),
        dp=False,
        dp_reason="a test's",
        views=ViewPlan({"whole": ViewGroup(1, "crop"), "local": ViewGroup(2, "strong", edge=0.5)}),
        paper="none",
        config=None,
    )

    def __init__(self):
        super().__init__()
        self.encoder, self.teacher, self.targets = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        freeze(self)

    def draw(self, batch, rng):
        return {"jitter": torch.rand(batch, 2, generator=rng)}

    def forward(self, views, numbers):
        images = views.groups["whole"].flatten(1)[:, :2] + numbers["jitter"]
        error = (self.encoder(images) - self.targets(self.teacher(images)).detach()).square().mean(1)
        return Loss(error, {"near": error.detach().mean()}, {"spread": images.std()})

    def preview(self, views, numbers):
        return {}

    def after_step(self, done):
        with torch.no_grad():
            for own, taught in zip(self.teacher.parameters(), self.encoder.parameters(), strict=True):
                own.lerp_(taught, 1 - done)

    def receive(self, received, kept):
        super().receive(received, kept)
        if "encoder.weight" in kept:
            with torch.no_grad():
                self.encoder.weight.lerp_(kept["encoder.weight"], 0.5)


def test_a_method_that_mixes_takes_up_what_it_remembers_and_its_local_parts():
    torch.manual_seed(0)
    method = Distilled()
    base = get_federated(method)
    with torch.no_grad():
        for parameter in [*method.encoder.parameters(), *method.teacher.parameters()]:
            parameter.add_(1.0)
    kept = get_kept(method)
    assert set(kept) == {"encoder.weight", "teacher.weight", "teacher.bias"}
    again = Distilled()
    set_federated(again, base)
    with torch.no_grad():
        again.targets.weight.copy_(method.targets.weight)
    receive(again, base, kept)
    assert torch.equal(again.teacher.weight, method.teacher.weight)
    expected = federated_manifest(method).unflatten(base)["encoder.weight"] + 0.5
    assert np.allclose(again.encoder.weight.detach(), expected)
    assert np.allclose(get_federated(again)[:2], federated_manifest(method).unflatten(base)["encoder.bias"])


def test_a_site_without_a_round_behind_it_takes_what_it_receives():
    method = Distilled()
    wanted = np.arange(6, dtype=np.float32)
    receive(method, wanted, None)
    assert np.array_equal(get_federated(method), wanted)


def test_what_another_method_kept_is_refused():
    with pytest.raises(ValueError, match="another method"):
        receive(Distilled(), np.zeros(6, np.float32), {"projector.weight": torch.zeros(1)})


def test_frozen_parts_neither_travel_nor_move_and_belong_to_what_a_round_starts_from():
    method = Distilled()
    assert [name for name, _ in federated_manifest(method).entries] == ["encoder.bias", "encoder.weight"]
    assert not method.targets.weight.requires_grad
    base = get_federated(method)
    manifest = federated_manifest(method)
    before = start_sha256(manifest, base, get_frozen(method))
    assert before != sha256_of(manifest.unflatten(base))
    with torch.no_grad():
        method.targets.weight.add_(1e-3)
    assert start_sha256(manifest, base, get_frozen(method)) != before


def test_a_tensor_of_two_parts_is_refused():
    method = Distilled()
    method.spec = None
    method.__class__ = type(
        "Both", (Distilled,), {"parts": Parts(federated=("encoder.*",), local=("encoder.weight", "*"))}
    )
    with pytest.raises(ValueError, match="several parts: federated, local"):
        get_federated(method)
