import dataclasses
from dataclasses import fields

import numpy as np
import pytest
import torch

from hilum.client.views import Viewer, operations, to_unit
from hilum.client.views.batch import recipes_of
from hilum.client.views.recipe import Recipe
from hilum.common.config.data import DataSection
from hilum.common.config.modalities import MODALITIES
from hilum.common.config.view_rules import COLOUR_ONLY
from hilum.common.config.views import ViewRanges, ViewsSection
from hilum.common.methods import ViewGroup, ViewPlan
from view_pictures import row_of

CPU = torch.device("cpu")


def centred(count, dims):
    return torch.zeros(count, dims)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_crop_of_everything_is_the_image(dims):
    images = torch.rand(3, 1, *[10] * dims)
    out = operations.crop_and_rotate(images, torch.ones(3), centred(3, dims), torch.zeros(3), 10)
    assert torch.allclose(out, images, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_corner_crop_shows_that_corner(dims):
    images = torch.rand(1, 1, *[8] * dims)
    out = operations.crop_and_rotate(images, torch.tensor([0.5]), -torch.ones(1, dims), torch.zeros(1), 4)
    corner = (slice(None), slice(None), *[slice(0, 4)] * dims)
    assert torch.allclose(out, images[corner], atol=1e-5)


def test_a_quarter_turn_turns_the_image():
    images = torch.rand(1, 1, 6, 6)
    out = operations.crop_and_rotate(images, torch.ones(1), centred(1, 2), torch.tensor([torch.pi / 2]), 6)
    assert torch.allclose(out, images.rot90(1, (2, 3)), atol=1e-4)


def test_a_quarter_turn_of_a_box_keeps_millimetres():
    images = torch.zeros(1, 1, 3, 21, 41)
    images[0, 0, :, 10, 28] = 1  # eight voxels from the middle along x
    turned = operations.crop_and_rotate(
        images, torch.ones(1), centred(1, 3), torch.tensor([torch.pi / 2]), (3, 21, 41)
    )
    z, y, x = np.unravel_index(turned.numpy().argmax(), (3, 21, 41))
    assert (abs(y - 10), x) == (8, 20)
    assert turned[0, 0, z, y, x] == pytest.approx(1, abs=1e-3)


def test_views_of_patches_have_the_studys_three_edges():
    data = DataSection(modality="mr", dims=3, image_size=[8, 16, 24])
    plan = ViewPlan({"image": ViewGroup(2, "strong"), "local": ViewGroup(1, "crop", edge=0.5)}, clean=True)
    views = Viewer(data, plan)(torch.rand(2, 1, *data.block_size), torch.Generator().manual_seed(1))
    assert views.groups["image"].shape == (2, 2, 1, 8, 16, 24)
    assert views.groups["local"].shape == (2, 1, 1, 4, 8, 12)
    assert views.clean.shape == (2, 1, 8, 16, 24)


def test_gamma_and_contrast_by_hand():
    images = torch.tensor([0.25, 0.75]).view(1, 1, 1, 2)
    assert torch.allclose(operations.adjust_gamma(images, torch.tensor([2.0])), images**2)
    assert operations.adjust_contrast(images, torch.tensor([0.5])).flatten().tolist() == [0.375, 0.625]


@pytest.mark.parametrize("shape", [(3, 1, 9, 17), (2, 3, 8, 8), (2, 1, 5, 7, 9)])
@pytest.mark.parametrize("radius", [1, 4])
def test_a_blur_by_products_is_the_one_by_convolutions(shape, radius):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    kernel = torch.rand(shape[0], 2 * radius + 1, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        operations.blur_by_products(images, kernel),
        operations.blur_by_convolutions(images, kernel),
        atol=1e-5,
        rtol=1e-5,
    )


def test_blur_keeps_the_sum_inside_and_zero_sigma_keeps_the_image():
    spot = torch.zeros(2, 1, 11, 11)
    spot[:, :, 5, 5] = 1
    out = operations.blur(spot, torch.tensor([0.0, 1.0]), radius=3)
    assert torch.allclose(out[0], spot[0])
    assert out[1].sum() == pytest.approx(1, abs=1e-5)
    assert out[1, 0, 5, 5] < 0.2


def test_a_bias_field_is_smooth_and_bounded():
    flat = torch.full((1, 1, 16, 16), 0.5)
    out = operations.apply_bias_field(flat, torch.tensor([[0.3, 0.0, 0.0, 0.0]]))[0, 0]
    assert torch.allclose(out[:, 0], out[:, -1])
    assert out[0, 0] == pytest.approx(0.5 * np.exp(-0.3), abs=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("turn", [0.0, 0.2, -0.7])
def test_no_corner_of_a_turned_crop_lies_outside_the_image(dims, turn):
    """Along each axis the sampled places reach from one border to the other, and not beyond."""
    angle = torch.full((2,), turn)
    scale = operations.largest_scale(angle)
    lines = [torch.linspace(0, 1, 101)] * dims
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"))[
        :, None
    ]  # an image of each axis' own coordinate
    centre = torch.ones(2, dims) * torch.tensor([-1.0, 1.0])[:, None]
    for size in (1, 0.5):
        seen = operations.crop_and_rotate(
            places.expand(dims, 2, *[101] * dims).transpose(0, 1), scale * size, centre, angle, 64
        )
        plane = seen[:, -2:].flatten(2)
        assert plane[0].min() == pytest.approx(0, abs=0.015)
        assert plane[1].max() == pytest.approx(1, abs=0.015)
        if size == 1:
            assert plane.amin(2).max() <= 0.015
            assert plane.amax(2).min() >= 0.985


@pytest.mark.parametrize("modality", ["radiograph", "ct"])
@pytest.mark.parametrize("dims", [2, 3])
def test_views_of_an_even_image_are_even(modality, dims):
    """Neither a turned crop nor a blur brings in what lies outside of the image."""
    data = DataSection(modality=modality, dims=dims, image_size=16)
    recipe = dataclasses.replace(
        Viewer(data, ViewPlan({"image": ViewGroup(1, "strong")}))._recipes["image"],
        noise=0,
        gamma=(1, 1),
        contrast=(1, 1),
        blur=0.1,
        blur_chance=1.0,
    )
    even = torch.full((6, 1, *[20] * dims), 0.7)
    view, _ = Viewer(data)._view(even, recipe, (16,) * dims, torch.Generator().manual_seed(0))
    assert torch.allclose(view, torch.full_like(view, 0.7), atol=1e-5)


@pytest.mark.parametrize(
    ("modality", "dims"),
    [(name, dims) for name, facts in MODALITIES.items() for dims in (2, 3) if dims == 2 or facts.volumes],
)
@pytest.mark.parametrize("strength", ["crop", "strong"])
def test_views_have_the_studys_size_and_stay_in_range_and_repeat(modality, strength, dims):
    data = DataSection(modality=modality, dims=dims, image_size=16)
    viewer = Viewer(data, ViewPlan({"image": ViewGroup(2, strength)}))
    channels = data.facts.channels
    images = torch.rand(3, channels, *[data.store_size] * dims)
    views, again, other = (
        viewer(images, torch.Generator().manual_seed(seed)).groups["image"] for seed in (4, 4, 5)
    )
    assert views.shape == (3, 2, channels, *[16] * dims)
    assert views.min() >= 0
    assert views.max() <= 1
    assert torch.equal(views, again)
    assert not torch.equal(views, other)
    assert not torch.equal(views[:, 0], views[:, 1])
    assert viewer.whole(images).shape == (3, channels, *[16] * dims)


def test_a_view_of_a_radiograph_is_never_mirrored():
    """The heart's side is a finding: brightness on the left stays on the left."""
    data = DataSection(modality="radiograph", image_size=16)
    images = torch.zeros(64, 1, 20, 20)
    images[..., :10] = 1
    views = Viewer(data, ViewPlan({"image": ViewGroup(1, "strong")}))(
        images, torch.Generator().manual_seed(0)
    )
    views = views.groups["image"][:, 0]
    left, right = views[..., :8].mean((1, 2, 3)), views[..., 8:].mean((1, 2, 3))
    assert torch.all(left >= right)


def test_stored_values_come_back_on_the_unit_scale():
    rows = np.array([[0, 1, 32767, 32768, 65535]], np.uint16)
    assert torch.allclose(to_unit(rows, CPU), torch.from_numpy(rows.astype(np.float32)) / 65535)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("modality", MODALITIES)
def test_views_on_a_gpu_are_those_of_the_cpu(modality):
    data = DataSection(modality=modality, image_size=32)
    viewer = Viewer(data, ViewPlan({"image": ViewGroup(2, "strong")}))
    images = torch.rand(4, data.facts.channels, 40, 40)
    one, other = (
        viewer(images.to(device), torch.Generator().manual_seed(1)).groups["image"].cpu()
        for device in ("cpu", "cuda")
    )
    assert torch.allclose(one, other, atol=1e-4)


def test_groups_have_sizes_and_areas_of_their_own_and_tell_where_they_were_cut_out():
    data = DataSection(modality="ct", image_size=32)
    plan = ViewPlan(
        {"whole": ViewGroup(2, "crop"), "local": ViewGroup(3, "strong", edge=0.5, area=(0.1, 0.2))},
        geometry=True,
        clean=True,
    )
    viewer = Viewer(data, plan)
    images = torch.rand(4, 1, data.store_size, data.store_size)
    views = viewer(images, torch.Generator().manual_seed(2))
    assert views.groups["whole"].shape == (4, 2, 1, 32, 32)
    assert views.groups["local"].shape == (4, 3, 1, 16, 16)
    assert torch.equal(views.clean, viewer.whole(images))
    local = views.geometry["local"]
    assert local.scale.shape == local.angle.shape == (4, 3)
    assert local.centre.shape == (4, 3, 2)
    assert (local.scale**2).min() >= 0.0999
    assert (local.scale**2).max() <= 0.2001
    # A mild view is what the geometry says, and nothing else.
    where = views.geometry["whole"]
    again = operations.crop_and_rotate(images, where.scale[:, 1], where.centre[:, 1], where.angle[:, 1], 32)
    assert torch.equal(again, views.groups["whole"][:, 1])


def test_a_plan_that_asks_for_neither_gets_neither():
    data = DataSection(modality="ct", image_size=16)
    views = Viewer(data, ViewPlan({"image": ViewGroup(1, "crop")}))(
        torch.rand(2, 1, 20, 20), torch.Generator().manual_seed(0)
    )
    assert views.clean is None
    assert views.geometry == {}


def corner(rows, columns):
    """An image that is bright in one of its four corners."""
    image = torch.zeros(1, 1, 16, 16)
    image[..., rows, columns] = 1
    return image


FIRST, LAST = slice(0, 8), slice(8, 16)
UPRIGHT, MIRRORED, OVER, BOTH = (
    corner(FIRST, FIRST),
    corner(FIRST, LAST),
    corner(LAST, FIRST),
    corner(LAST, LAST),
)


@pytest.mark.parametrize(
    ("ranges", "wanted"),
    [
        ({}, [UPRIGHT]),
        ({"horizontal_flip": 1.0}, [MIRRORED]),
        ({"vertical_flip": 1.0}, [OVER]),
        ({"horizontal_flip": 1.0, "vertical_flip": 1.0}, [BOTH]),
        ({"quarter_turns": 1.0}, [UPRIGHT, MIRRORED, OVER, BOTH]),
        ({"horizontal_flip": 0.5}, [UPRIGHT, MIRRORED]),
    ],
)
def test_flips_and_turns_give_these_corners_and_no_others(ranges, wanted):
    data = DataSection(modality="pathology", image_size=16)
    whole = {"area": (1.0, 1.0), "horizontal_flip": 0.0, "vertical_flip": 0.0, "quarter_turns": 0.0, **ranges}
    plan = ViewPlan({"image": ViewGroup(1, "crop")}, geometry=True)
    images = UPRIGHT.expand(64, 3, 16, 16)
    views = Viewer(data, plan, ViewsSection(crop=ViewRanges(**whole)))(
        images, torch.Generator().manual_seed(0)
    )
    made = views.groups["image"][:, 0, :1]
    found = [[torch.allclose(one, each[0], atol=1e-3) for each in wanted] for one in made]
    assert all(map(any, found))
    assert all(any(one[number] for one in found) for number in range(len(wanted)))
    # The geometry says all of it.
    where = views.geometry["image"]
    again = operations.crop_and_rotate(images, where.scale[:, 0], where.centre[:, 0], where.angle[:, 0], 16)
    again = torch.where(where.mirrored[:, :1, None, None], again.flip(-1), again)
    assert torch.equal(again, views.groups["image"][:, 0])


def test_pathology_shows_all_eight_orientations():
    data = DataSection(modality="pathology", image_size=16)
    image = torch.zeros(1, 1, 16, 16)
    image[..., :8, :8], image[..., :8, 8:] = 1, 0.5  # no symmetry
    orientations = [
        (image.flip(-1) if mirrored else image).rot90(turns, (2, 3))[0, 0]
        for mirrored in (False, True)
        for turns in range(4)
    ]
    whole = Viewer(
        data,
        ViewPlan({"image": ViewGroup(1, "crop")}),
        ViewsSection(crop=ViewRanges(area=(1.0, 1.0))),
    )
    views = whole(image.expand(200, 3, 16, 16), torch.Generator().manual_seed(0)).groups["image"][:, 0, 0]
    counts = [sum(torch.allclose(view, one, atol=1e-3) for view in views) for one in orientations]
    assert sum(counts) == 200
    assert min(counts) > 10


@pytest.mark.parametrize(
    "modality", [name for name, facts in MODALITIES.items() if "vertical_flip" in facts.refused]
)
def test_what_has_an_up_is_never_turned_over(modality):
    data = DataSection(modality=modality, image_size=16)
    images = torch.zeros(64, data.facts.channels, 20, 20)
    images[..., :10, :] = 1
    views = Viewer(data, ViewPlan({"image": ViewGroup(1, "strong")}))(
        images, torch.Generator().manual_seed(0)
    ).groups["image"][:, 0]
    upper, lower = views[..., :8, :].mean((1, 2, 3)), views[..., 8:, :].mean((1, 2, 3))
    assert torch.all(upper >= lower - 0.05)


@pytest.mark.parametrize("modality", MODALITIES)
def test_no_recipe_does_what_its_modality_refuses(modality):
    for recipe in recipes_of(modality, ViewsSection()).values():
        ranges = ViewRanges(**{one.name: getattr(recipe, one.name) for one in fields(recipe)})
        assert not ranges.active.keys() & set(MODALITIES[modality].refused)
        if MODALITIES[modality].channels == 1:
            assert not ranges.active.keys() & set(COLOUR_ONLY)


def test_a_study_may_name_every_range_of_a_recipe():
    assert [one.name for one in fields(Recipe)] == list(ViewRanges.model_fields)


def test_a_studys_ranges_take_the_place_of_the_modalitys_and_the_others_stay():
    made = recipes_of("radiograph", ViewsSection(strong=ViewRanges(rotation_deg=0.0, gamma=(0.9, 1.1))))
    before = recipes_of("radiograph", ViewsSection())
    assert made["crop"] == before["crop"]
    assert (made["strong"].rotation_deg, made["strong"].gamma) == (0.0, (0.9, 1.1))
    assert made["strong"].contrast == before["strong"].contrast


def test_fine_tuning_sees_the_studys_mild_views():
    data = DataSection(modality="radiograph", image_size=16)
    images = torch.rand(4, 1, 20, 20)
    still = ViewsSection(crop=ViewRanges(area=(1.0, 1.0), rotation_deg=0.0))
    one = Viewer(data, changes=still).one(images, torch.Generator().manual_seed(0))
    assert torch.allclose(one, torch.nn.functional.interpolate(images, 16, mode="bilinear"), atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_pictures_of_the_docs_show_what_each_modality_gives(modality):
    row = row_of(modality, edge=32)
    assert row.shape == (7, MODALITIES[modality].channels, 32, 32)
    assert all(not torch.allclose(row[0], view, atol=0.02) for view in row[1:])
    assert row.std((1, 2, 3)).min() > 0.03
