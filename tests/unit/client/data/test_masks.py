"""Masks go the way of their images: after preparation, views and the way back they still agree."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hilum.client.data.masks import annotated, chosen_classes, class_numbers, prepare_masks
from hilum.client.data.own_grid import OwnGrid
from hilum.client.data.prepared import fitted_channels, prepare
from hilum.client.data.volume_packing import packed_values
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.client.views import Viewer, to_unit
from hilum.common.config.data import DataSection
from hilum.common.errors import DamagedError, DataError
from tied_masks import DENSE, SPACING_MM, blobs, forget_masks, framed_pictures, picture_site, volume_site

PATCHES = DataSection(modality="ct", dims=3, image_size=16, spacing_mm=1.0)
FINE = DataSection(modality="ct", dims=3, image_size=16, spacing_mm=[2.0, 2.0, 2.0])
WHOLE = DataSection(modality="ct", dims=3, cut="whole", image_size=16)
SLICES = DataSection(modality="ct", cut="slices", image_size=16)
CPU = torch.device("cpu")
_TIE = 1e-4  # values are stored in 65,535 steps


def agree(unit, numbers):
    """Whether a mask is where an image is above one half; a value of one half belongs to either."""
    clear = np.abs(unit - 0.5) > _TIE
    assert clear.mean() > 0.9
    assert 0.02 < (numbers > 0).mean() < 0.98
    return np.array_equal((unit > 0.5)[clear], (numbers > 0)[clear])


@pytest.fixture
def site(tmp_path, write_series):
    volumes = [blobs(seed) for seed in range(3)]
    return volume_site(tmp_path, write_series, volumes, [volume == DENSE for volume in volumes])


def prepared_of(site, data, asked=()):
    workspace = Workspace(site.state.folder)
    prepared = prepare(workspace, data)
    return prepared, prepare_masks(workspace, prepared, data, asked)


@pytest.mark.parametrize("data", [PATCHES, FINE, WHOLE, SLICES], ids=["finer", "coarser", "whole", "slices"])
def test_the_mask_of_a_volume_agrees_with_it_to_the_voxel(site, data):
    prepared, masks = prepared_of(site, data)
    assert masks.classes == ("1",)
    for row in range(3):
        stored = prepared.images[row][0] if data is WHOLE else prepared.images.files[row].values()
        assert masks.of_row(row).dtype == np.uint8
        assert agree(stored / 65_535, masks.of_row(row))


@pytest.mark.parametrize("modality", ["pathology", "fundus", "photograph"])
def test_the_mask_of_a_picture_is_cut_and_scaled_with_it(tmp_path, modality):
    data = DataSection(modality=modality, image_size=32)
    pictures, marks = framed_pictures(2)
    site = picture_site(tmp_path, pictures, marks)
    prepared, masks = prepared_of(site, data)
    for row in range(2):
        unit = prepared.images[row, 0] / 65_535  # 55 / 255 on the slide, 200 / 255 where it is marked
        assert agree(unit - 127.5 / 255 + 0.5, masks.of_row(row))


def test_masks_are_prepared_once_and_again_when_they_change(site, monkeypatch):
    _, masks = prepared_of(site, PATCHES)
    first = [path.stat().st_mtime_ns for path in masks.paths]
    assert [path.stat().st_mtime_ns for path in prepared_of(site, PATCHES)[1].paths] == first
    folder = masks.paths[0].parent
    workspace = Workspace(site.state.folder)
    annotations = [one for some in annotated(workspace).values() for one in some]
    catalogue = Catalogue(workspace.catalogue)
    catalogue.annotate(annotations[0].folder_key, annotations[:2])
    catalogue.close()
    _, fewer = prepared_of(site, PATCHES)
    assert sorted(path is None for path in fewer.paths) == [False, False, True]
    assert not folder.exists()


def test_a_prepared_mask_that_is_gone_says_what_to_do(site):
    _, masks = prepared_of(site, PATCHES)
    masks.paths[0].unlink()
    with pytest.raises(DamagedError, match="remove `prepared`"):
        masks.of_row(0)


def test_where_masks_overlap_the_later_class_holds(tmp_path, write_series):
    mark = np.zeros((12, 26, 44), np.uint8)
    mark[2:6], mark[6:10] = 1, 2
    site = volume_site(tmp_path, write_series, [blobs(0)], [mark], labels={"1": "whole", "2": "tumour"})
    workspace = Workspace(site.state.folder)
    (masks,) = annotated(workspace).values()
    stored = ArrayCache(workspace.masks)
    # The tumour's mask, moved by two slices, lies over half of the whole.
    moved = [
        replace(one, place=(one.place[0] - 2, *one.place[1:])) if one.label == "tumour" else one
        for one in masks
    ]
    for classes, expected in ((("whole", "tumour"), [1, 1, 2, 2]), (("tumour", "whole"), [2, 2, 2, 2])):
        numbers = class_numbers(mark.shape, moved, stored, classes)
        assert numbers[2:6, 0, 0].tolist() == expected


def test_classes_that_are_asked_for_and_missing_are_named_with_those_that_are_there(site):
    workspace = Workspace(site.state.folder)
    items = prepare(workspace, PATCHES).items
    with pytest.raises(DataError, match='classes names "liver", and the masks here are of "1"'):
        chosen_classes(("liver",), items, annotated(workspace))
    forget_masks(site)
    with pytest.raises(DataError, match="no image of the study has a mask; `hilum site annotate"):
        chosen_classes((), items, annotated(workspace))


def test_classes_stand_in_natural_order(tmp_path, write_series):
    mark = np.zeros((12, 26, 44), np.uint8)
    for value in (1, 2, 10):
        mark[value] = value
    site = volume_site(tmp_path, write_series, [blobs(0)], [mark], labels={"2": "edge"})
    workspace = Workspace(site.state.folder)
    assert chosen_classes((), prepare(workspace, PATCHES).items, annotated(workspace)) == ("1", "10", "edge")


def test_pieces_of_a_mask_lie_where_those_of_its_volume_do(site):
    prepared, masks = prepared_of(site, PATCHES)
    rows = np.array([0, 1, 2, 2, 1, 0] * 4)
    origins = masks.origins(rows, prepared.images, np.random.default_rng(3))
    blocks, numbers = prepared.images.blocks(rows, origins), masks.blocks(rows, origins)
    assert numbers.shape == (24, 20, 20, 20)
    assert agree(blocks[:, 0] / 65_535, numbers)


def test_a_piece_beyond_a_volume_is_background_though_the_volume_is_all_of_a_class(tmp_path, write_series):
    volume = np.full((6, 12, 12), DENSE, np.uint16)
    volume[0] = 24
    site = volume_site(tmp_path, write_series, [volume], [volume > 0], spacing_mm=(2.0, 2.0, 2.0))
    data = DataSection(modality="ct", dims=3, image_size=[8, 8, 8], spacing_mm=2.0)
    _, masks = prepared_of(site, data)
    (block,) = masks.blocks(np.array([0]), np.array([[-2, 0, 0]]))
    assert [plane.any() for plane in block] == [False] * 2 + [True] * 6 + [False] * 2


def test_a_third_of_the_pieces_lie_about_a_class(tmp_path, write_series):
    volume = np.random.default_rng(0).integers(DENSE - 900, DENSE, (64, 64, 64)).astype(np.uint16)
    mark = np.zeros(volume.shape, bool)
    mark[56:, 56:, 56:] = True  # a corner, which few pieces that are placed anywhere show
    site = volume_site(tmp_path, write_series, [volume], [mark], spacing_mm=(1.0, 1.0, 1.0))
    prepared, masks = prepared_of(site, DataSection(modality="ct", dims=3, image_size=8, spacing_mm=1.0))
    rows = np.zeros(600, np.int64)
    origins = masks.origins(rows, prepared.images, np.random.default_rng(1))
    shown = masks.blocks(rows, origins).any((1, 2, 3)).mean()
    assert 0.28 < shown < 0.42


@pytest.mark.parametrize("modality", ["pathology", "fundus"])
def test_views_of_image_and_mask_agree(tmp_path, modality):
    """Crops, turns and flips; recipes of these modalities change no value of a mild view."""
    data = DataSection(modality=modality, image_size=40)
    pictures, marks = framed_pictures(4)
    prepared, masks = prepared_of(picture_site(tmp_path, pictures, marks), data)
    rows = np.arange(4).repeat(8)
    numbers = torch.from_numpy(masks.blocks(rows, None)).long()
    images = to_unit(prepared.images[rows], CPU)
    exact = (images[:, :1] > 127.5 / 255).float()  # what is bright, before the view
    assert torch.equal(exact[:, 0] > 0, numbers > 0)
    shares = torch.nn.functional.one_hot(numbers, 2).movedim(-1, 1).float()
    viewer = Viewer(data)
    view, along = viewer.one_with_shares(
        exact.expand(-1, 3, -1, -1), shares, torch.Generator().manual_seed(2)
    )
    assert torch.equal(view, viewer.one(exact.expand(-1, 3, -1, -1), torch.Generator().manual_seed(2)))
    assert agree(view[:, 0].numpy(), along.argmax(1).numpy())


def test_views_of_patches_and_masks_agree(site):
    prepared, masks = prepared_of(site, PATCHES)
    rows = np.arange(3).repeat(5)
    origins = masks.origins(rows, prepared.images, np.random.default_rng(5))
    numbers = torch.from_numpy(masks.blocks(rows, origins)).long()
    shares = torch.nn.functional.one_hot(numbers, 2).movedim(-1, 1).float()
    view, along = Viewer(PATCHES).one_with_shares(shares[:, 1:], shares, torch.Generator().manual_seed(2))
    assert agree(view[:, 0].numpy(), along.argmax(1).numpy())


@pytest.mark.parametrize("data", [PATCHES, FINE, WHOLE, SLICES], ids=["finer", "coarser", "whole", "slices"])
def test_the_way_back_gives_each_own_voxel_what_was_prepared_of_it(data):
    """A volume whose values are its own coordinates along one axis: the way back gives them within half a prepared voxel."""
    shape = (12, 26, 44)
    grid = OwnGrid.of(np.zeros(shape, np.int16), "volume", SPACING_MM, data)
    assert grid.shape == shape
    for axis, edge in enumerate(shape):
        line = (np.arange(edge) - (edge - 1) / 2) / edge * 1000
        own = np.broadcast_to(line.reshape([-1 if axis == other else 1 for other in range(3)]), shape)
        if data is WHOLE:
            made = fitted_channels(own, "volume", SPACING_MM, data)[0]
        else:
            made = packed_values(own, SPACING_MM, data)[0] / 65_535
        assert made.shape == grid.prepared
        scores = torch.from_numpy(np.stack([np.full(made.shape, 0.5), made])).float()
        back = grid.classes_back(scores)
        wrong = (back > 0) != (own > 0)
        step = max(1.0, 1 / grid.steps[axis])
        assert np.abs(own[wrong] / 1000 * edge).max(initial=0) <= 0.75 * step
        assert 0.3 < (back > 0).mean() < 0.7


def test_on_the_same_grid_the_way_back_is_exact(tmp_path, write_series):
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 4, (10, 24, 24)).astype(np.uint8)
    data = DataSection(modality="ct", dims=3, image_size=16, spacing_mm=SPACING_MM)
    grid = OwnGrid.of(np.zeros(numbers.shape, np.int16), "volume", SPACING_MM, data)
    scores = torch.nn.functional.one_hot(torch.from_numpy(numbers).long(), 4).movedim(-1, 0).float()
    assert np.array_equal(grid.classes_back(scores), numbers)


def test_the_black_around_a_picture_comes_back_as_background():
    (picture,), (mark,) = framed_pictures(1)
    data = DataSection(modality="fundus", image_size=64)
    grid = OwnGrid.of(picture, "image", (), data)
    assert grid.shape == mark.shape
    back = grid.classes_back(torch.stack([torch.zeros(80, 80), torch.ones(80, 80)]))
    assert back[grid.kept].all()
    assert back.sum() == back[grid.kept].size < mark.size
