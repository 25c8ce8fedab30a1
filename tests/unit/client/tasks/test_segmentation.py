"""Segmentation: decoders, loss, masks back on their own grid, and metrics beside MONAI's own."""

import math

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from hilum.client.data.site_data import open_site
from hilum.client.evaluation.label_tables import label_lines, labels_json
from hilum.client.evaluation.protocol import evaluate_site
from hilum.client.pretraining.device import make_fabric
from hilum.client.tasks.base import DenseTask, Interval
from hilum.client.tasks.decoders import Decoder, finer_strides
from hilum.client.tasks.finetuning import predict_by_finetuning
from hilum.client.tasks.mask_metrics import MEASURES, measure_masks
from hilum.client.tasks.registry import open_task
from hilum.client.tasks.small_samples import widened_mean
from hilum.client.views import Viewer
from hilum.common.config.data import DataSection
from hilum.common.encoders import build_encoder
from hilum.common.encoders.base import initialise
from hilum.common.errors import ConfigError, DataError
from hilum.common.footprint import footprint_of
from hilum.common.progress import NullProgress
from tied_masks import DENSE, SPACING_MM, blobs, forget_masks, framed_pictures, picture_site, volume_site

CPU = torch.device("cpu")
SEGMENT = {
    "tasks": {"classification": None, "segmentation": {}},
    "evaluation": {"protocols": ["finetune"], "arms": ["federated", "scratch"], "finetune_batch_size": 4},
}
PATCHES = {"modality": "ct", "dims": 3, "image_size": 16, "spacing_mm": 1.0}
RESNET = {"name": "resnet", "size": "tiny"}


@pytest.fixture
def segmentation(make_study):
    """Make a study of segmentation; changes are of sections."""

    def make(**changes):
        table = {name: dict(section) for name, section in SEGMENT.items()}
        for name, section in changes.items():
            table[name] = {**table.get(name, {}), **section}
        return make_study(**table)

    return make


@pytest.fixture
def site(tmp_path, write_series):
    volumes = [blobs(seed) for seed in range(10)]
    return volume_site(tmp_path, write_series, volumes, [volume == DENSE for volume in volumes])


def threshold(images):
    """A network that knows the answer: dense voxels lie above one half."""
    return torch.cat([0.5 - images[:, :1], images[:, :1] - 0.5], dim=1) * 50


@pytest.mark.parametrize(
    "data",
    [
        {**PATCHES, "spacing_mm": list(SPACING_MM)},
        {**PATCHES, "image_size": [16, 32, 24], "spacing_mm": list(SPACING_MM)},
        {"modality": "ct", "cut": "slices", "image_size": 176},
    ],
    ids=["patches", "long patches", "slices"],
)
def test_what_a_network_that_knows_gives_comes_back_to_the_voxel(site, segmentation, data):
    study = segmentation(data=data, encoder=RESNET, method={"name": "simclr"})
    task = open_task(open_site(site, study, anew=True), study, "segmentation")
    table = task.predict(threshold, task.test, Viewer(study.data), CPU)
    assert table.shape == (3, 1, 3)
    exact = data.get("cut") != "slices"
    assert table[..., 0].min() >= (1.0 if exact else 0.97)
    assert table[..., 2].max() <= (0.0 if exact else 0.8)


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0])
def test_a_mask_on_another_grid_than_the_images_is_measured_on_the_images(site, segmentation, spacing_mm):
    study = segmentation(
        data={**PATCHES, "spacing_mm": spacing_mm}, encoder=RESNET, method={"name": "simclr"}
    )
    task = open_task(open_site(site, study, anew=True), study, "segmentation")
    table = task.predict(threshold, task.test, Viewer(study.data), CPU)
    assert table[..., 0].min() > 0.85
    assert table[..., 2].max() <= 2.5  # a slice


def test_a_picture_comes_back_to_its_own_size(tmp_path, segmentation):
    pictures, marks = framed_pictures(8)
    site = picture_site(tmp_path, pictures, marks)
    study = segmentation(data={"modality": "pathology", "image_size": 96})
    task = open_task(open_site(site, study, anew=True), study, "segmentation")

    def bright(images):
        return threshold(images - 127.5 / 255 + 0.5)

    table = task.predict(bright, task.test, Viewer(study.data), CPU)
    assert table[..., 0].min() > 0.95
    assert table[..., 2].max() <= 1.5  # pixels: a picture has no spacing


@pytest.mark.parametrize(
    "encoder", [RESNET, {"name": "vit", "size": "tiny", "patch_size": 8}], ids=["resnet", "vit"]
)
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("size", [32, 104])
def test_a_decoder_gives_scores_of_the_images_size_and_all_of_it_learns(make_study, encoder, dims, size):
    if dims == 3 and size > 32:
        size = 40
    data = {"modality": "mr" if dims == 3 else "radiograph", "dims": dims, "image_size": size}
    method = {"name": "simclr"} if encoder is RESNET else {}
    made = build_encoder(make_study(data=data, encoder=encoder, method=method))
    decoder = Decoder(made, 1, 3, torch.Generator().manual_seed(1))
    again = Decoder(made, 1, 3, torch.Generator().manual_seed(1))
    assert all(map(torch.equal, decoder.state_dict().values(), again.state_dict().values()))
    images = torch.rand(2, 1, *[size] * dims)
    maps = made.feature_maps(images)
    whole = decoder([images, *maps])
    assert whole.shape == (2, 3, *[size] * dims)
    (whole[:, 1] - whole[:, 0]).square().mean().backward()
    assert all(one.grad is not None and one.grad.any() for one in decoder.parameters() if one.ndim > 1)
    alone = decoder([images[:1], *(one[:1] for one in maps)])
    assert torch.allclose(whole[:1], alone, atol=1e-4)  # no norm over the batch
    dark = decoder([torch.zeros_like(images), *maps])
    assert not torch.allclose(whole, dark, atol=1e-3)  # the image itself is seen


def test_a_decoder_of_an_odd_pyramid(make_study):
    """Maps of 27, 14, 7 and 4 pixels: none is twice the next."""
    made = build_encoder(
        make_study(
            data={"modality": "radiograph", "image_size": 53}, encoder=RESNET, method={"name": "simclr"}
        )
    )
    decoder = Decoder(made, 1, 2, torch.Generator().manual_seed(1))
    images = torch.rand(1, 1, 53, 53)
    assert decoder([images, *made.feature_maps(images)]).shape == (1, 2, 53, 53)


def test_levels_above_an_encoder_double():
    assert [finer_strides(one) for one in (1, 2, 4, 14, 16)] == [
        (),
        (1,),
        (1, 2),
        (1, 2, 4, 8),
        (1, 2, 4, 8),
    ]


@pytest.mark.parametrize("spacing", [(2.5, 1.5, 0.8), (1.0, 1.0, 1.0), ()])
def test_metrics_are_monais(spacing):
    rng = np.random.default_rng(4)
    drawn = np.zeros((9, 20, 22), np.uint8)
    drawn[2:6, 3:12, 4:15], drawn[5:8, 8:15, 10:20] = 1, 2
    predicted = np.where(
        rng.random(drawn.shape) < 0.05, rng.integers(0, 3, drawn.shape), np.roll(drawn, 1, 2)
    )
    table = measure_masks(predicted.astype(np.uint8), drawn, 2, spacing, 1.5)
    a, b = (
        torch.nn.functional.one_hot(torch.from_numpy(one).long(), 3).movedim(-1, 0)[None].float()
        for one in (predicted, drawn)
    )
    distances = {"spacing": spacing or (1.0,) * 3, "include_background": False}
    expected = (
        compute_dice(a, b, include_background=False),
        compute_surface_dice(a, b, [1.5, 1.5], **distances),
        compute_hausdorff_distance(a, b, percentile=95, **distances),
    )
    for column, found in enumerate(expected):
        np.testing.assert_allclose(table[:, column], found[0].numpy(), atol=1e-6)


def test_dice_and_distance_of_two_squares_by_hand():
    drawn, predicted = (np.zeros((20, 20), np.uint8) for _ in range(2))
    drawn[5:15, 5:15], predicted[5:15, 7:17] = 1, 1
    ((dice, surface, distance),) = measure_masks(predicted, drawn, 1, (0.5, 0.5), 1.0)
    assert dice == pytest.approx(2 * 80 / 200)
    assert distance == pytest.approx(2 * 0.5)  # two pixels of half a millimetre
    assert surface == 1.0  # all within a millimetre
    assert measure_masks(predicted, drawn, 1, (0.5, 0.5), 0.4)[0, 1] < 1.0


def test_a_class_that_is_in_neither_is_left_out_and_one_that_is_in_one_has_nothing_in_common():
    drawn, predicted = (np.zeros((6, 8), np.uint8) for _ in range(2))
    drawn[1:3, 1:3], predicted[1:3, 1:3], predicted[4, 4] = 1, 1, 2
    table = measure_masks(predicted, drawn, 3, (), 1.0)
    assert table[0].tolist() == [1.0, 1.0, 0.0]
    assert table[1].tolist() == [0.0, 0.0, math.hypot(6, 8)]
    assert np.isnan(table[2]).all()


def test_scores_are_means_over_classes_then_images_then_patients(site, segmentation):
    study = segmentation(data=PATCHES, encoder=RESNET, method={"name": "simclr"})
    task = open_task(open_site(site, study, anew=True), study, "segmentation")
    task._share = np.array([0.5, 0.5, 1.0])  # two images of one patient, and one of another
    table = np.full((3, 2, len(MEASURES)), np.nan)
    table[:, :, 0] = [[0.2, np.nan], [0.4, 0.8], [1.0, 0.8]]
    weights = np.array([[1.0, 1, 1], [2, 2, 0]])
    draws = task.scores(table, weights)["dice"].draws
    np.testing.assert_allclose(draws, [((0.2 + 0.6) / 2 + 0.9) / 2, 0.4])
    assert np.isnan(task.scores(table, weights)["surface_dice"].draws).all()


def test_the_interval_of_a_mean_is_students():
    """Bootstrap percentiles of ten values, widened, against t by hand."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.6, 0.05, 10)
    means = values[rng.integers(0, 10, (40_000, 10))].mean(1)
    bootstrap = Interval(values.mean(), *np.quantile(means, (0.025, 0.975)))
    found = widened_mean(bootstrap, 10, 0.0, 1.0)
    half = 2.262157 * values.std(ddof=1) / math.sqrt(10)
    np.testing.assert_allclose(
        [found.low, found.high], [values.mean() - half, values.mean() + half], atol=2e-3
    )
    assert widened_mean(bootstrap, 1, 0.0, 1.0) == Interval(values.mean(), 0.0, 1.0)


def test_the_loss_is_monais_dice_and_the_cross_entropy(site, segmentation):
    study = segmentation(data=PATCHES, encoder=RESNET, method={"name": "simclr"})
    task = open_task(open_site(site, study, anew=True), study, "segmentation")
    outputs, targets = torch.randn(3, 2, 6, 6, 6), torch.randint(0, 2, (3, 6, 6, 6))
    dice = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)(
        outputs, targets[:, None]
    )
    expected = dice + torch.nn.functional.cross_entropy(outputs, targets)
    torch.testing.assert_close(task.criterion(task.test, CPU)(outputs, targets), expected)


@pytest.mark.parametrize(
    "encoder", [RESNET, {"name": "vit", "size": "tiny", "patch_size": 8}], ids=["resnet", "vit"]
)
def test_fine_tuning_learns_a_threshold(site, segmentation, encoder):
    method = {"name": "simclr"} if encoder is RESNET else {}
    learning = {"finetune_min_steps": 60, "finetune_learning_rate": 3e-3}
    study = segmentation(
        data={**PATCHES, "spacing_mm": list(SPACING_MM)}, encoder=encoder, method=method, evaluation=learning
    )
    data = open_site(site, study, anew=True)
    task = open_task(data, study, "segmentation")
    assert isinstance(task, DenseTask)
    made = build_encoder(study)
    initialise(made, torch.Generator().manual_seed(1))
    fabric = make_fabric("cpu", "fp32", 1)
    rows = task.training_rows(1.0)
    table, _ = predict_by_finetuning(task, made, data.images, rows, study, fabric, NullProgress())
    everywhere = np.mean(
        [2 * share / (1 + share) for share in ((blobs(seed) == DENSE).mean() for seed in range(10))]
    )
    assert everywhere < 0.5  # what a mask of all voxels has
    assert np.nanmean(table[..., 0]) > 0.6


def test_a_site_is_evaluated_as_for_any_task(site, segmentation):
    study = segmentation(data=PATCHES, encoder=RESNET, method={"name": "simclr"})
    data = open_site(site, study, anew=True)
    weights = {name: tensor.numpy() for name, tensor in build_encoder(study).state_dict().items()}
    found = evaluate_site(data, study, {"federated": weights}, make_fabric("cpu", "fp32", 1), NullProgress())
    assert {(row.task, row.protocol, row.arm, row.metric) for row in found.rows} == {
        ("segmentation", "finetune", arm, metric)
        for arm in ("federated", "scratch")
        for metric in ("dice", "surface_dice", "hd95_mm")
    }
    assert all(row.n_patients == 3 and row.note == "too_few" for row in found.rows)
    assert not found.comparisons  # of three patients


def test_who_has_masks_is_told_before_anything_is_trained(site, segmentation):
    study = segmentation(data=PATCHES, encoder=RESNET, method={"name": "simclr"})
    data = open_site(site, study, anew=True)
    assert label_lines(study, [data]) == [
        "patients whose images have masks, and images in brackets:",
        "site    train  test   left out  without a mask",
        "site-0  7 (7)  3 (3)  -         -",
        "site-0: fewer than 5 test patients with a mask (3): arms are not compared",
    ]
    (told,) = labels_json(study, [data]).values()
    assert (told["column"], told["holds"]) == ("masks", "masks")
    assert told["sites"][0]["train"] == {"patients": 7, "images": 7}


def test_smaller_shares_of_marked_images_are_parts_of_larger_ones(site, segmentation):
    study = segmentation(data=PATCHES, encoder=RESNET, method={"name": "simclr"})
    task = open_task(open_site(site, study, anew=True), study, "segmentation")
    few, all_of_them = task.training_rows(0.3), task.training_rows(1.0)
    assert len(few) == 2
    assert set(few) <= set(all_of_them)
    assert len(all_of_them) == 7


@pytest.mark.parametrize("protocols", [["knn"], ["linear", "finetune"]])
def test_protocols_of_whole_images_do_not_apply(segmentation, protocols):
    with pytest.raises(ConfigError, match=r"does not apply to tasks\.segmentation"):
        segmentation(evaluation={"protocols": protocols})


def test_encoders_are_not_scored_by_neighbours(segmentation):
    with pytest.raises(ConfigError, match=r'write training\.select = "loss"'):
        segmentation(training={"select": "knn"})


def test_a_class_is_named_once(segmentation):
    with pytest.raises(ConfigError, match="names something twice"):
        segmentation(tasks={"segmentation": {"classes": ["liver", "liver"]}})


def test_unknown_classes_and_images_without_masks_are_told_when_the_site_opens(site, segmentation):
    study = segmentation(
        data=PATCHES,
        encoder=RESNET,
        method={"name": "simclr"},
        tasks={"segmentation": {"classes": ["liver"]}},
    )
    with pytest.raises(
        DataError, match=r'^site-0: tasks\.segmentation\.classes names "liver", and the masks here are of "1"'
    ):
        open_site(site, study, anew=True)
    forget_masks(site)
    plain = segmentation(data=PATCHES, encoder=RESNET, method={"name": "simclr"})
    with pytest.raises(DataError, match=r"^site-0: no image of the study has a mask"):
        open_site(site, plain, anew=True)


def test_one_patient_with_a_mask_leaves_none_to_test(tmp_path, write_series, segmentation):
    volumes = [blobs(seed) for seed in range(4)]
    site = volume_site(tmp_path, write_series, volumes, [volumes[0] == DENSE, None, None, None])
    study = segmentation(data=PATCHES, encoder=RESNET, method={"name": "simclr"})
    with pytest.raises(
        DataError, match=r"^site-0: no test patient has a mask: .* of 1 patient\(s\), and two are needed"
    ):
        open_site(site, study, anew=True)


def test_a_site_lists_masks_in_its_policy_and_no_study_renames_them(segmentation):
    assert segmentation().tasks.first.label == "masks"
    with pytest.raises(ConfigError, match="label"):
        segmentation(tasks={"segmentation": {"label": "other"}})


def test_data_of_a_study_may_be_taken_whole(tmp_path, write_series, segmentation):
    volumes = [blobs(seed) for seed in range(6)]
    site = volume_site(tmp_path, write_series, volumes, [volume == DENSE for volume in volumes])
    study = segmentation(data={"modality": "ct", "dims": 3, "cut": "whole", "image_size": 32})
    task = open_task(open_site(site, study, anew=True), study, "segmentation")
    table = task.predict(threshold, task.test, Viewer(DataSection(**study.data.model_dump())), CPU)
    assert table[..., 0].min() > 0.8


def test_memory_for_a_decoder_is_reckoned_with(segmentation):
    """What is kept for the gradients of one more image, counted, against what the estimate grows by."""
    changes = {"data": {**PATCHES, "image_size": 32}, "encoder": RESNET, "method": {"name": "simclr"}}
    one, two = (
        segmentation(
            **changes, evaluation={"finetune_batch_size": batch}, tasks={"segmentation": {"classes": ["a"]}}
        )
        for batch in (64, 65)
    )
    encoder = build_encoder(one)
    decoder = Decoder(encoder, 1, 2, torch.Generator().manual_seed(1))
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        images = torch.rand(1, 1, 32, 32, 32)
        scores = decoder([images, *encoder.feature_maps(images)])
    weights = {one.data_ptr() for module in (encoder, decoder) for one in module.parameters()}
    measured = sum(size for place, size in kept.items() if place not in weights)
    estimated = footprint_of(two).memory_bytes - footprint_of(one).memory_bytes
    assert scores.shape == (1, 2, 32, 32, 32)
    assert measured < estimated < 4 * measured
