"""What a study takes of a machine, by arithmetic: exact for weights, within a factor of 2 for the rest."""

import itertools
import time
import tracemalloc

import numpy as np
import pytest
import torch

import peaks
from batches import views_of
from hilum.common import encoders, methods
from hilum.common.config import parse_study
from hilum.common.encoders.blocks import recompute
from hilum.common.footprint import footprint_of, server_bytes, training_floats, update_floats
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest

ENCODERS = [
    {"name": spec.name, "size": size, **({"patch_size": 8} if spec.name == "vit" else {})}
    for spec in encoders.ENCODERS.values()
    for size in spec.sizes
]
VARIANTS = [
    {"name": "mae", "share_decoder": False, "decoder_depth": 3, "decoder_width": 64},
    {"name": "simclr", "projection_width": 77},
]
LEARNED = {"name": "vit", "size": "tiny", "patch_size": 8, "positions": "learned"}
PAIRS = [
    (encoder, method, dims)
    for encoder, method, dims in itertools.product(
        ENCODERS, [*({"name": name} for name in methods.METHODS), *VARIANTS], (2, 3)
    )
    if methods.METHODS[method["name"]].config.misfit(encoders.ENCODERS[encoder["name"]].config) is None
]
PAIRS += [(LEARNED, {"name": name}, dims) for name in methods.METHODS for dims in (2, 3)]
VIT_TINY, VIT_SMALL, RESNET_TINY, RESNET_SMALL, RESNET_BASE = (
    one
    for one in ENCODERS
    if (one["name"], one["size"])
    in {("vit", "tiny"), ("vit", "small"), ("resnet", "tiny"), ("resnet", "small"), ("resnet", "base")}
)
MAE, DEEP_MAE, SIMCLR = {"name": "mae"}, *VARIANTS


def study_of(
    encoder, method, dims, *, modality="ct", image_size=32, batch_size=2, training=(), data=None, **more
):
    return parse_study(
        {
            "study": {"name": "x"},
            "data": {"modality": modality, "dims": dims, "image_size": image_size, **(data or {})},
            "encoder": encoder,
            "method": method,
            "training": {"batch_size": batch_size, **dict(training)},
            **more,
        }
    )


def named(pair):
    return "-".join(map(str, [*pair[0].values(), *pair[1].values(), pair[2]]))


@pytest.mark.parametrize("pair", PAIRS, ids=named)
def test_parameters_are_counted_as_they_are_built(pair):
    study = study_of(*pair)
    with torch.device("meta"):
        method = _built(study)
    found = footprint_of(study)
    assert found.parameters == sum(p.numel() for p in method.parameters())
    assert found.travelling == federated_manifest(method).size
    assert found.update_bytes == 4 * federated_manifest(method).size


@pytest.mark.parametrize(
    "pair", [(VIT_TINY, MAE, 2), (VIT_TINY, SIMCLR, 2), (RESNET_TINY, SIMCLR, 2)], ids=named
)
def test_parameters_and_disk_of_images_in_colour_are_counted(pair):
    study = study_of(*pair, modality="photograph")
    with torch.device("meta"):
        method = _built(study)
    found, grey = footprint_of(study), footprint_of(study_of(*pair))
    assert found.parameters == sum(p.numel() for p in method.parameters())
    assert found.image_bytes == 3 * grey.image_bytes
    assert found.memory_bytes > grey.memory_bytes


def _built(study):
    """The method without first values: those can't be drawn on the meta device."""
    from hilum.common.methods import registry

    kept, registry.initialise = registry.initialise, lambda module, rng: None
    try:
        return registry.build_method(study)
    finally:
        registry.initialise = kept


def kept_for_backward(study, *, recomputed=False):
    """Bytes of the tensors that the backward pass keeps for one micro-batch, each storage once."""
    method = build_method(study)
    recompute(method, recomputed)
    views = study.method.views
    batch = study.training.batch_size
    images = torch.rand(batch, views, 1, *study.data.view_size)
    numbers = method.draw(batch, torch.Generator().manual_seed(1))
    own = {p.untyped_storage().data_ptr() for p in method.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = method(views_of(images), numbers).per_image.mean()
        assert loss.isfinite()
        return sum(size for size, _ in kept.values())


@pytest.mark.parametrize(
    ("encoder", "method", "dims", "image_size"),
    [
        (VIT_TINY, MAE, 2, 64),
        (VIT_TINY, MAE, 2, 256),
        (VIT_TINY, DEEP_MAE, 3, 32),
        (VIT_TINY, MAE, 3, [16, 32, 48]),
        (RESNET_TINY, SIMCLR, 3, [16, 24, 48]),
        (VIT_SMALL, SIMCLR, 2, 64),
        (VIT_TINY, SIMCLR, 2, 256),
        (RESNET_TINY, SIMCLR, 2, 128),
        (RESNET_SMALL, SIMCLR, 3, 32),
        (RESNET_BASE, SIMCLR, 2, 32),
    ],
)
def test_activations_are_within_a_factor_of_two(encoder, method, dims, image_size):
    """At 1,024 patches an attention that is not fused would keep 12 times as much."""
    study = study_of(encoder, method, dims, image_size=image_size)
    estimate = 4 * study.training.batch_size * study.method.kept_values(study.encoder, study.data)
    assert 1 <= estimate / kept_for_backward(study) < 2


@pytest.mark.parametrize(("encoder", "method"), [(VIT_TINY, MAE), (VIT_SMALL, SIMCLR), (RESNET_BASE, SIMCLR)])
def test_blocks_that_are_recomputed_keep_their_inputs_alone(encoder, method):
    study = study_of(encoder, method, 2, image_size=64, training={"batch_size": 2})
    plain = kept_for_backward(study)
    kept = kept_for_backward(study, recomputed=True)
    estimate = 4 * 2 * study.method.kept_values(study.encoder, study.data, recomputed=True)
    assert kept < 0.4 * plain
    assert kept <= estimate < 0.65 * plain
    less, more = (
        footprint_of(
            study_of(encoder, method, 2, batch_size=4096, training={"gradient_checkpointing": recomputed})
        )
        for recomputed in (True, False)
    )
    assert less.memory_bytes < 0.8 * more.memory_bytes


@pytest.mark.parametrize(
    "pair", [(VIT_TINY, MAE, 2), (VIT_SMALL, MAE, 3), (RESNET_SMALL, SIMCLR, 2)], ids=named
)
def test_weights_gradients_and_moments_are_what_a_step_leaves(pair):
    study = study_of(*pair)
    method = build_method(study)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3, fused=True)
    views = study.method.views
    images = torch.rand(2, views, 1, *[32] * study.data.dims)
    method(views_of(images), method.draw(2, torch.Generator().manual_seed(1))).per_image.mean().backward()
    optimizer.step()
    parameters = list(method.parameters())
    held = sum(p.nbytes + p.grad.nbytes for p in parameters)
    held += sum(
        value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim > 0
    )
    found = footprint_of(study)
    estimate = 4 * training_floats(found.parameters, found.travelling)
    assert 1 <= estimate / held < 2


def test_the_updates_arithmetic_takes_what_is_estimated():
    from hilum.common.weights import difference

    size = 10**6
    tracemalloc.start()
    try:
        before, after = np.ones(size, np.float32), np.full(size, 2, np.float32)
        assert difference(after, before).size == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 4 * update_floats(0, size) / peak == pytest.approx(1, rel=0.1)


def test_a_step_checkpoint_is_no_larger_than_estimated(tmp_path):
    from hilum.client.pretraining.checkpoint import save_state

    study = study_of(VIT_TINY, SIMCLR, 2)
    method = build_method(study)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
    for p in method.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    save_state(tmp_path / "step.pt", {"method": method.state_dict(), "optimizer": optimizer.state_dict()})
    written = (tmp_path / "step.pt").stat().st_size
    assert written < footprint_of(study).state_bytes < 8 * written


@pytest.mark.parametrize(
    ("encoder", "method", "more"),
    [
        (
            {"name": "vit", "size": "base", "patch_size": 1},
            {"name": "mae", "decoder_width": 1024, "decoder_depth": 16},
            {},
        ),
        ({"name": "resnet", "size": "base"}, {"name": "simclr", "projection_width": 4096}, {}),
        (
            {"name": "vit", "size": "tiny", "patch_size": 1},
            {"name": "simclr"},
            {"evaluation": {"bootstrap_draws": 100_000}},
        ),
    ],
)
def test_the_largest_study_is_estimated_in_milliseconds_with_nothing_allocated(encoder, method, more):
    study = study_of(encoder, method, 3, image_size=1024, batch_size=8192, data={"cut": "whole"}, **more)
    tracemalloc.start()
    try:
        started = time.perf_counter()
        found = footprint_of(study, 10**6)
        seconds = time.perf_counter() - started
        assert tracemalloc.get_traced_memory()[1] < 10**5
    finally:
        tracemalloc.stop()
    assert seconds < 1
    assert found.memory_bytes > 10**13
    assert found.image_bytes == 2 * 1280**3


def test_the_bootstrap_grows_with_the_patients():
    table = {"tasks": {"classification": {}}, "evaluation": {"bootstrap_draws": 100_000}}
    study = study_of(VIT_TINY, MAE, 2, **table)
    assert footprint_of(study, 10_000).memory_bytes > 8 * 100_000 * 10_000
    assert footprint_of(study, 10_000).memory_bytes > 10 * footprint_of(study, 10).memory_bytes


def test_raw_pixels_cost_memory_where_they_are_an_arm():
    memory = {}
    for arms in (["federated"], ["federated", "raw"]):
        table = {"tasks": {"classification": {}}, "evaluation": {"arms": arms, "bootstrap_draws": 100}}
        memory[len(arms)] = footprint_of(study_of(VIT_TINY, MAE, 2, **table), 10**6).memory_bytes
    assert memory[2] > memory[1] + 10**9


def test_volumes_of_any_shape_are_counted_by_the_site_and_raw_values_of_them_are_few():
    table = {"tasks": {"classification": {}}, "evaluation": {"arms": ["raw"], "bootstrap_draws": 100}}
    patches, whole = (
        study_of(VIT_TINY, MAE, 3, image_size=96, data={"cut": cut}, **table) for cut in ("patches", "whole")
    )
    assert footprint_of(patches).image_bytes == 0
    assert footprint_of(whole).image_bytes == 2 * 120**3
    assert footprint_of(patches).parameters == footprint_of(whole).parameters
    assert footprint_of(patches, 10_000).memory_bytes < footprint_of(whole, 10_000).memory_bytes / 10


def test_patches_and_their_like():
    for encoder, method, count in ((VIT_TINY, MAE, 512), (RESNET_TINY, SIMCLR, 256)):
        study = study_of(encoder, method, 3, image_size=64)
        assert study.encoder.tokens(study.data) == count


@pytest.mark.parametrize("changes", [{"image_size": 64}, {"image_size": 32, "patch": 1}])
def test_what_building_takes_of_a_server_is_within_a_factor_of_three(changes):
    patch = changes.pop("patch", 8)
    study = study_of({"name": "vit", "size": "tiny", "patch_size": patch}, {"name": "mae"}, 3, **changes)
    peaks.forget_peak()
    before = peaks.resident_bytes()
    method = build_method(study)
    assert (peaks.peak_bytes() - before) / 3 < server_bytes(study, 0)
    del method


def test_a_batch_is_of_no_more_pieces_than_there_are():
    """A volume gives several patches, so that four volumes may fill a batch of 64."""
    data = {"cut": "patches", "per_volume": 16}
    few, many, one = (
        footprint_of(study_of(VIT_TINY, MAE, 3, image_size=64, batch_size=64, data=data), images).memory_bytes
        for images in (4, 400, 1)
    )
    assert few == many
    assert one < few
