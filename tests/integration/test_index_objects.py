"""Every kind of object through a whole index. In each, the value of a voxel is a known function of where it lies.

So values, their units, the affine, the order of slices and their spacing are held against one truth that no part of
intake computes: `field` at the millimetres that the catalogue's affine gives.
"""

import json

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress
from pixel_files import write_any
from siemens_csa import csa

STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, MR, ENHANCED_MR, US_CLIP, PHOTOGRAPH = (STORAGE + end for end in ("2", "4", "4.1", "3.1", "77.1.4"))
ROWS, COLUMNS = 20, 24
SPACING = (2.5, 0.7, 0.8)
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)  # a row's and a column's direction
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
ORIGIN = np.array([-10.0, -20.0, 5.0])
SLOPE, INTERCEPT = 0.25, -300.0


def field(points, offset=0.0):
    """Of LPS millimetres, along the first axis."""
    return 3.0 * points[0] - 2.0 * points[1] + 5.0 * points[2] + offset


def position(k, orientation=OBLIQUE, sideways=(0.0, 0.0)):
    """Of slice k's first voxel; `sideways` are rows and columns by which each slice is shifted."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    step = SPACING[0] * np.cross(row, column)
    return ORIGIN + k * (step + sideways[0] * SPACING[1] * column + sideways[1] * SPACING[2] * row)


def stored(place, orientation=OBLIQUE, offset=0.0, slope=SLOPE, intercept=INTERCEPT):
    """A slice at a place, as a scanner stores it."""
    row, column = np.array(orientation[:3])[:, None, None], np.array(orientation[3:])[:, None, None]
    r, c = np.mgrid[:ROWS, :COLUMNS]
    points = np.array(place)[:, None, None] + r * SPACING[1] * column + c * SPACING[2] * row
    return np.round((field(points, offset) - intercept) / slope).astype(np.int16)


def items(*all_values):
    made = []
    for values in all_values:
        one = Dataset()
        for name, value in values.items():
            setattr(one, name, value)
        made.append(one)
    return Sequence(made)


def floats(values):
    return [float(f"{value:.9g}") for value in values]


@pytest.fixture
def index(tmp_path):
    """Index the archive; gives the counts, and items with their arrays."""

    def run():
        workspace = Workspace(tmp_path / "site")
        counts = index_archive(tmp_path / "archive", workspace, NullProgress()).counts
        catalogue, cache = Catalogue(workspace.catalogue), ArrayCache(workspace.cache)
        try:
            return counts, [(item, np.array(cache.get(item.content_sha256))) for item in catalogue.items()]
        finally:
            catalogue.close()

    return run


def differences(item, array, offset=0.0, margin=0):
    """Of every voxel from the field at the place that the affine gives."""
    affine = np.array(item.affine).reshape(4, 4)
    assert np.linalg.norm(affine[:3, :3], axis=0) == pytest.approx(item.spacing_mm, rel=1e-6)
    index = np.indices(array.shape).reshape(3, -1)
    points = affine[:3, :3] @ index + affine[:3, 3:]
    wrong = np.abs(array - field(points, offset).reshape(array.shape))
    return wrong[:, margin : wrong.shape[1] - margin, margin : wrong.shape[2] - margin]


def write_slices(
    dicom, folder, n=6, *, orientation=OBLIQUE, sideways=(0, 0), offset=0.0, series="1.2.3", **more
):
    rng = np.random.default_rng(n)
    numbers = rng.permutation(n)
    for k in range(n):
        place = position(k, orientation, sideways)
        dicom(
            folder / f"{generate_uid()}.dcm",
            stored(place, orientation, offset),
            **{
                "SeriesInstanceUID": series,
                "StudyInstanceUID": "1.2.4",
                "ImagePositionPatient": floats(place),
                "ImageOrientationPatient": list(orientation),
                "PixelSpacing": list(SPACING[1:]),
                "SliceThickness": SPACING[0],
                "RescaleSlope": SLOPE,
                "RescaleIntercept": INTERCEPT,
                "InstanceNumber": int(numbers[k]),
                **more,
            },
        )


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_an_enhanced_object_with_shuffled_frames_and_a_rescale_for_each(syntax, dicom, index, tmp_path):
    order, slopes = [3, 0, 4, 1, 5, 2], [0.5, 0.25, 0.5, 0.125, 0.25, 0.5]
    places = [position(k) for k in order]
    frames = [
        stored(place, slope=slope, intercept=-k)
        for k, (place, slope) in enumerate(zip(places, slopes, strict=True))
    ]
    groups = [
        {
            "PlanePositionSequence": items({"ImagePositionPatient": floats(place)}),
            "PixelValueTransformationSequence": items({"RescaleSlope": slope, "RescaleIntercept": -k}),
        }
        for k, (place, slope) in enumerate(zip(places, slopes, strict=True))
    ]
    dicom(
        tmp_path / "archive" / "a.dcm",
        np.concatenate(frames),
        sop_class=ENHANCED_MR,
        syntax=syntax,
        Rows=ROWS,
        NumberOfFrames=6,
        SharedFunctionalGroupsSequence=items(
            {
                "PixelMeasuresSequence": items({"PixelSpacing": list(SPACING[1:]), "SliceThickness": 3.0}),
                "PlaneOrientationSequence": items({"ImageOrientationPatient": list(OBLIQUE)}),
            }
        ),
        PerFrameFunctionalGroupsSequence=items(*groups),
    )
    counts, ((item, array),) = index()
    assert (counts.instances, counts.volumes, counts.skipped) == (1, 1, {})
    assert (item.kind, item.family, item.units, item.shape) == (
        "volume",
        "mr",
        "arbitrary",
        (6, ROWS, COLUMNS),
    )
    assert item.spacing_mm == pytest.approx(SPACING)
    assert differences(item, array).max() < 0.26
    quality = json.loads(item.quality)
    assert (quality["planes"], quality["thickness_mm"], quality["coverage"]) == (6, 3.0, "overlapping")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_mosaic_is_cut_and_put_in_its_place(syntax, dicom, index, tmp_path):
    tiles = [stored(position(k), slope=0.5) for k in range(7)] + [np.zeros((ROWS, COLUMNS), np.int16)] * 2
    whole = np.block([tiles[3 * k : 3 * k + 3] for k in range(3)])
    row, column = np.array(OBLIQUE[:3]), np.array(OBLIQUE[3:])
    # The stated corner is that of a slice as large as the whole mosaic (as nibabel's notes on Siemens mosaics say).
    corner = position(0) - ROWS * SPACING[1] * column - COLUMNS * SPACING[2] * row
    path = tmp_path / "archive" / "a.dcm"
    dataset = dicom(
        path,
        whole,
        sop_class=MR,
        syntax=syntax,
        Manufacturer="SIEMENS",
        ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
        ImagePositionPatient=floats(corner),
        ImageOrientationPatient=list(OBLIQUE),
        PixelSpacing=list(SPACING[1:]),
        SpacingBetweenSlices=SPACING[0],
        RescaleSlope=0.5,
        RescaleIntercept=INTERCEPT,
    )
    normal = tuple(f"{value:.8f}" for value in np.cross(row, column))
    dataset.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
    dataset.add_new(0x00291010, "OB", csa({"NumberOfImagesInMosaic": ("7",), "SliceNormalVector": normal}))
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    counts, ((item, array),) = index()
    assert (counts.instances, counts.volumes, counts.skipped) == (1, 1, {})
    assert (item.kind, item.family, item.shape) == ("volume", "mr", (7, ROWS, COLUMNS))
    assert item.spacing_mm == pytest.approx(SPACING)
    assert differences(item, array).max() < 0.26
    assert json.loads(item.quality)["planes"] == 7


def test_a_series_of_two_echoes_is_two_volumes(dicom, index, tmp_path):
    for echo in (1, 2):
        write_slices(
            dicom,
            tmp_path / "archive",
            sop_class=MR,
            offset=100.0 * echo,
            EchoNumbers=echo,
            EchoTime=10.0 * echo,
        )
    counts, made = index()
    assert (counts.instances, counts.series, counts.volumes, counts.skipped) == (12, 1, 2, {})
    parts = {json.loads(item.quality)["part"]: (item, array) for item, array in made}
    assert set(parts) == {"echo=1", "echo=2"}
    assert len({item.item_key for item, _array in made}) == 2
    for echo in (1, 2):
        item, array = parts[f"echo={echo}"]
        assert (item.kind, item.family, item.units) == ("volume", "mr", "arbitrary")
        assert differences(item, array, offset=100.0 * echo).max() <= SLOPE / 2 + 1e-3
        assert "echo" in " ".join(json.loads(item.quality)["split_on"])


def test_a_tilted_ct_is_stacked_upright_with_every_value_where_it_was(dicom, index, tmp_path):
    # 0.9 rows a slice: atan(0.9 * 0.7 / 2.5) is 14.1 degrees.
    write_slices(dicom, tmp_path / "archive", 8, orientation=AXIAL, sideways=(0.9, 0.0), sop_class=CT)
    counts, ((item, array),) = index()
    assert (counts.instances, counts.volumes, counts.skipped) == (8, 1, {})
    assert (item.kind, item.family, item.units) == ("volume", "ct", "hounsfield")
    assert item.spacing_mm == pytest.approx(SPACING)
    affine = np.array(item.affine).reshape(4, 4)[:3, :3]
    assert affine[:, 0] @ affine[:, 1] == pytest.approx(0, abs=1e-9)
    assert affine[:, 0] @ affine[:, 2] == pytest.approx(0, abs=1e-9)
    inside = differences(item, array)[:, 7 : ROWS - 1]
    assert inside.size > 1000
    assert inside.max() <= SLOPE / 2 + 1e-3
    assert json.loads(item.quality)["tilt_deg"] == pytest.approx(14.1, abs=0.1)


def test_a_missing_slice_is_told_in_the_quality_of_both_halves(dicom, index, tmp_path):
    write_slices(dicom, tmp_path / "archive", 9, sop_class=CT)
    gap = floats(position(4))
    for path in (tmp_path / "archive").iterdir():
        if floats(pydicom.dcmread(path).ImagePositionPatient) == gap:
            path.unlink()
    counts, made = index()
    assert (counts.instances, counts.volumes) == (8, 2)
    qualities = [json.loads(item.quality) for item, _array in made]
    assert sorted(one["run"] for one in qualities) == [1, 2]
    assert {one["runs"] for one in qualities} == {2}
    for item, array in made:
        assert array.shape == (4, ROWS, COLUMNS)
        assert differences(item, array).max() <= SLOPE / 2 + 1e-3


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_clip_is_one_cine_whose_frames_keep_their_order(syntax, index, tmp_path):
    (tmp_path / "archive").mkdir()
    rows, columns = np.mgrid[:64, :80]
    frames = np.stack([40 + rows + columns // 2 + 10 * k for k in range(5)]).astype(np.uint8)
    path = tmp_path / "archive" / "a.dcm"
    write_any(path, frames, syntax, SOPClassUID=US_CLIP, FrameTime="40", WindowCenter=128, WindowWidth=256)
    counts, ((item, array),) = index()
    assert (counts.instances, counts.volumes, counts.skipped) == (1, 0, {})
    assert (item.kind, item.family, item.units, item.shape) == ("cine", "ultrasound", "display", (5, 64, 80))
    assert array.dtype == np.uint16
    # LINEAR of PS3.3 section C.11.2.1.2.1 with centre 128 and width 256 maps 0 to 0 and 255 to the full range.
    assert np.abs(array / 65535 * 255 - frames).max() < 0.01


def test_a_photograph_keeps_its_colours(index, tmp_path):
    (tmp_path / "archive").mkdir()
    rows, columns = np.mgrid[:64, :80]
    pixels = np.stack([rows * 3, columns * 2, 255 - rows - columns], axis=-1).astype(np.uint8)[None]
    write_any(tmp_path / "archive" / "a.dcm", pixels, ExplicitVRLittleEndian, SOPClassUID=PHOTOGRAPH)
    counts, ((item, array),) = index()
    assert (counts.instances, counts.skipped) == (1, {})
    assert (item.kind, item.family, item.units, item.shape) == ("image", "photograph", "display", (64, 80, 3))
    assert np.array_equal(array, pixels[0])
    assert item.quality == ""
