"""From what the cache holds to the channels that a modality wants."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from hilum.client.data.prepared import prepare
from hilum.client.data.twins import fingerprints, twins_within
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.workspace import Workspace
from hilum.common.config.data import DataSection
from hilum.common.config.modalities import MODALITIES
from hilum.common.preparation.fitting import fitted_channels
from hilum.common.preparation.intensity import unit_range
from hilum.common.preparation.picture import channels_of, content_box, grey_of, still_of
from hilum.common.progress import NullProgress

XA = "1.2.840.10008.5.1.4.1.1.12.1"
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 5, 3)).astype(np.uint8)


def test_a_clip_gives_its_middle_frame_and_a_volume_stays():
    clip = RNG.integers(0, 9, (5, 4, 4)).astype(np.uint16)
    assert np.array_equal(still_of(clip, "cine"), clip[2])
    assert np.array_equal(still_of(np.stack([COLOUR] * 3), "cine"), COLOUR)
    assert still_of(clip, "volume") is clip


def test_luminance_is_pillows():
    wanted = np.asarray(Image.fromarray(COLOUR).convert("L"), np.float32)
    assert np.abs(grey_of(COLOUR, "image") - wanted).max() < 1
    assert np.array_equal(grey_of(COLOUR[..., 0], "image"), COLOUR[..., 0])


def test_three_slices_are_no_colours():
    volume = RNG.random((4, 5, 3)).astype(np.float32)
    assert np.array_equal(grey_of(volume, "volume"), volume)
    assert channels_of(volume, "volume", MODALITIES["pet"]).shape == (1, 4, 5, 3)


def test_colour_becomes_three_channels_from_black_to_white():
    values = unit_range(channels_of(COLOUR, "image", MODALITIES["photograph"]), MODALITIES["photograph"])
    assert np.allclose(values, np.moveaxis(COLOUR / 255, -1, 0), atol=1e-6)


def test_grey_of_a_colour_modality_is_three_equal_channels():
    grey = np.array([[0, 30_000], [65_535, 7]], np.uint16)
    values = unit_range(channels_of(grey, "image", MODALITIES["fundus"]), MODALITIES["fundus"])
    assert values.shape == (3, 2, 2)
    assert np.allclose(values, grey / 65_535)


def test_colour_of_a_grey_modality_becomes_its_luminance():
    values = unit_range(channels_of(COLOUR, "image", MODALITIES["ultrasound"]), MODALITIES["ultrasound"])
    assert np.allclose(values[0], COLOUR @ np.array([0.299, 0.587, 0.114]) / 255, atol=1e-5)


def test_black_borders_go_and_letters_in_them():
    image = np.zeros((1, 100, 120), np.float32)
    image[:, 20:70, 30:90] = 0.4
    image[:, 5:9, 100:110] = 1
    _, rows, columns = content_box(image)
    assert (rows.start, rows.stop) == pytest.approx((20, 70), abs=2)
    assert (columns.start, columns.stop) == pytest.approx((30, 90), abs=2)


def test_a_fan_that_fluid_parts_is_kept_whole():
    image = np.zeros((1, 128, 128), np.float32)
    image[:, 10:22, 50:80] = 0.3  # the near field, a twentieth of what lies below the fluid
    image[:, 60:120, 10:118] = 0.3
    _, rows, columns = content_box(image)
    assert (rows.start, rows.stop) == pytest.approx((10, 120), abs=2)
    assert (columns.start, columns.stop) == pytest.approx((10, 118), abs=2)


@pytest.mark.parametrize(
    "image", [np.zeros((1, 50, 50)), np.pad(np.ones((1, 3, 3)), ((0, 0), (5, 9), (9, 9)))]
)
def test_where_hardly_anything_is_shown_the_whole_is_taken(image):
    values = image.astype(np.float32)
    assert values[content_box(values)].shape == image.shape


def test_only_what_lies_on_black_is_cut():
    dark = np.zeros((64, 64), np.uint16)
    dark[10:40, 20:50] = 40_000
    cut, whole = (
        fitted_channels(dark, "image", (), DataSection(modality=name, image_size=32))
        for name in ("mammogram", "angiogram")
    )
    assert cut.mean() > 0.5
    assert whole.mean() == pytest.approx(dark.mean() / 65_535, abs=0.01)


@pytest.fixture
def clips(dicom, tmp_path):
    """Two clips whose middle frames are the same."""
    blobs = gaussian_filter(np.random.default_rng(3).standard_normal((5, 32, 40)), (0, 3, 3))
    frames = np.rint((blobs - blobs.min()) / np.ptp(blobs) * 200).astype(np.uint8)
    for name, stored in (("a", frames), ("b", frames[::-1].copy())):
        dicom(
            tmp_path / "dicom" / name,
            stored.reshape(160, 40),
            sop_class=XA,
            Rows=32,
            NumberOfFrames=5,
            PatientID=name,
        )
    workspace = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", workspace, NullProgress())
    return workspace


def test_clips_are_trained_on_and_those_of_one_middle_are_twins(clips):
    prepared = prepare(clips, DataSection(modality="angiogram", image_size=16))
    assert [item.kind for item in prepared.items] == ["cine", "cine"]
    assert prepared.images.shape == (2, 1, 20, 20)
    assert np.array_equal(prepared.images[0], prepared.images[1])
    assert fingerprints(clips, prepared).shape == (2, 32 * 32)
    assert twins_within(clips, prepared).tolist() == [[0, 1]]


def test_photographs_in_colour_are_packed_and_serve_each_modality_of_their_family(tmp_path):
    (tmp_path / "p").mkdir()
    for n in range(3):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(
            tmp_path / "p" / f"{n}.png"
        )
    workspace = Workspace(tmp_path / "state")
    index_archive(tmp_path / "p", workspace, NullProgress(), images="photograph")
    for modality in ("photograph", "fundus", "pathology"):
        prepared = prepare(workspace, DataSection(modality=modality, image_size=16))
        assert prepared.images.shape == (3, 3, 20, 20)
    assert twins_within(workspace, prepared).shape == (0, 2)
