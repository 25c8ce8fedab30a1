import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from hilum.client.intake.headers.mosaic import mosaic_frames, read_csa, split_mosaic, tile_shape
from hilum.client.intake.instance import Frame
from hilum.client.intake.reasons import Reason, Skip
from siemens_csa import csa

MOSAIC = Frame(0, (3.0, 2.0), 4.0, (-100.0, -50.0, 7.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
NORMAL = ("0.0", "0.0", "1.0")


def header(count="7", normal=NORMAL, rows=12, columns=15, spacing=4.5, raw=None, **more):
    dataset = Dataset()
    dataset.Rows, dataset.Columns = rows, columns
    if spacing is not None:
        dataset.SpacingBetweenSlices = spacing
    tags = {"NumberOfImagesInMosaic": (count,), "SliceNormalVector": normal, **more}
    dataset.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
    dataset.add_new(0x00291010, "OB", csa(tags) if raw is None else raw)
    return dataset


def test_tiles_come_row_after_row_and_empty_ones_are_left_out():
    tiles = np.arange(7 * 4 * 5).reshape(7, 4, 5)
    filled = np.concatenate([tiles, np.zeros((2, 4, 5), int)])
    image = np.block([[filled[3 * row + column] for column in range(3)] for row in range(3)])
    np.testing.assert_array_equal(split_mosaic(image, 7), tiles)


@pytest.mark.parametrize(
    ("count", "side"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (64, 8), (65, 9)]
)
def test_the_mosaic_is_the_smallest_square_that_holds_all_slices(count, side):
    assert tile_shape(side * 4, side * 6, count) == (4, 6)


@pytest.mark.parametrize(
    ("rows", "columns", "count"), [(10, 9, 7), (9, 10, 7), (9, 9, 0), (9, 9, 2000), (2, 2, 5)]
)
def test_an_image_that_can_not_be_cut_is_refused(rows, columns, count):
    with pytest.raises(Skip, match=Reason.UNSUPPORTED_MOSAIC):
        tile_shape(rows, columns, count)


def test_the_first_slice_lies_half_the_surplus_inside_the_stated_corner():
    frames = mosaic_frames(header(), MOSAIC)
    # Columns: 15 of the mosaic, 5 of a tile, 2 mm each; rows: 12 and 4, 3 mm each.
    assert frames[0].position_mm == (-100.0 + 5 * 2.0, -50.0 + 4 * 3.0, 7.0)
    assert [frame.index for frame in frames] == list(range(7))
    assert frames[6].position_mm == (-90.0, -38.0, 7.0 + 6 * 4.5)


def test_slices_go_the_other_way_where_the_private_normal_does():
    frames = mosaic_frames(header(normal=("0.0", "0.0", "-1.0")), MOSAIC)
    assert frames[1].position_mm == (-90.0, -38.0, 7.0 - 4.5)


def test_the_distance_comes_from_the_private_header_where_the_public_one_has_none():
    frames = mosaic_frames(header(spacing=None, SpacingBetweenSlices=("6.5",)), MOSAIC)
    assert frames[1].position_mm == (-90.0, -38.0, 7.0 + 6.5)


@pytest.mark.parametrize(
    "dataset",
    [
        header(count="0"),
        header(count="-3"),
        header(count="7.5"),
        header(count="many"),
        header(count="nan"),
        header(count="65"),
        header(normal=("0.0", "1.0", "0.0")),
        header(normal=("0.0", "0.0")),
        header(normal=("nan", "0.0", "1.0")),
        header(normal=()),
        header(spacing=0.0),
        header(spacing=-1.0),
        header(spacing=None),
        header(spacing=4.5, SpacingBetweenSlices=("6.5",)),
        header(rows=13),
        header(rows=0),
        header(raw=b""),
        header(raw=b"SV10"),
        header(raw=b"SV10" + b"\xff" * 200),
        header(raw=b"\0" * 2_000_000),
        Dataset(),
    ],
)
def test_a_mosaic_that_is_not_understood_is_refused(dataset):
    with pytest.raises(Skip, match=Reason.UNSUPPORTED_MOSAIC):
        mosaic_frames(dataset, MOSAIC)


def test_another_private_creator_is_not_believed():
    dataset = header()
    dataset[0x00290010].value = "ACME"
    with pytest.raises(Skip, match=Reason.UNSUPPORTED_MOSAIC):
        mosaic_frames(dataset, MOSAIC)


@pytest.mark.parametrize("lost", ["position_mm", "orientation", "spacing_mm"])
def test_a_mosaic_without_a_place_is_refused(lost):
    with pytest.raises(Skip, match=Reason.UNSUPPORTED_MOSAIC):
        mosaic_frames(header(), replace(MOSAIC, **{lost: None}))


PRIVATE = {
    "EchoLinePosition": ("32",),
    "NumberOfImagesInMosaic": ("36",),
    "SliceNormalVector": ("0.1", "-0.25", "0.963"),
    "SpacingBetweenSlices": ("3.3",),
}


def test_version_two_reads_as_nibabel_reads_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says of itself that it is experimental
        from nibabel.nicom import csareader
    reference = csareader.read(csa(PRIVATE))["tags"]
    found = read_csa(csa(PRIVATE))
    assert set(found) == set(PRIVATE) - {"EchoLinePosition"}
    for name, values in found.items():
        assert [float(value) for value in values] == reference[name]["items"]


def test_version_one_gives_the_same_values():
    assert read_csa(csa(PRIVATE, second=False)) == read_csa(csa(PRIVATE))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_private_header_is_read_or_refused_and_nothing_else(data):
    raw = bytearray(csa({"NumberOfImagesInMosaic": ("7",), "SliceNormalVector": NORMAL}))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        frames = mosaic_frames(header(raw=cut), MOSAIC)
    except Skip as skip:
        assert skip.reason is Reason.UNSUPPORTED_MOSAIC  # noqa: PT017 - either outcome is right
    else:
        assert len(frames) in {5, 6, 7, 8, 9, 1}
