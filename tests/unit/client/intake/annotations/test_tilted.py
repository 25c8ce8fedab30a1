"""Masks of a tilted series are brought upright with its volume."""

import json

import numpy as np
import pytest

from annotated_site import (
    LIVER_CODE,
    OBLIQUE,
    SHAPE,
    SPACING_MM,
    ball,
    circle,
    make_site,
    points_mm,
    series_name,
    write_nifti,
    write_rtstruct,
    write_seg,
)
from hilum.client.state.cache import ArrayCache

TILTS = {
    "rows": (np.eye(3), (0.5, 0.0)),
    "both ways": (np.eye(3), (-0.33, 0.21)),
    "oblique": (OBLIQUE, (0.45, -0.1)),
}


@pytest.fixture(params=TILTS)
def tilted(request, tmp_path_factory, dicom, made):
    """A tilted series with a bright ball, which the catalogue holds upright."""
    rotation, sideways_mm = TILTS[request.param]
    key = f"tilted {request.param}"
    if key not in made:
        made[key] = make_site(tmp_path_factory.mktemp("tilted"), dicom, rotation, sideways_mm, lesion=True)
    site = made[key]
    for path in site.folder.iterdir():
        path.unlink()
    assert json.loads(site.item.quality)["tilt_deg"] > 5
    assert site.item.shape != SHAPE
    return site


def overlap(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def check_lesion(site, mask):
    """The mask lies where the lesion lies in the patient, and where the upright volume shows it."""
    upright = np.array(site.item.affine).reshape(4, 4)
    index = np.indices(site.item.shape).reshape(3, -1)
    places_mm = upright[:3, :3] @ index + upright[:3, 3:]
    middle_mm = (
        site.affine[:3, :3] @ (np.array((0.5, 0.45, 0.55)) * (np.array(SHAPE) - 1)) + site.affine[:3, 3]
    )
    true = (np.linalg.norm(places_mm.T - middle_mm, axis=1) <= 9).reshape(site.item.shape)
    assert overlap(mask, true) > 0.97
    shown = ArrayCache(site.workspace.cache).get(site.item.content_sha256) > 600
    assert overlap(mask, shown) > 0.97  # contours are filled anew, masks are interpolated with the voxels
    found_mm = places_mm[:, mask.ravel()].mean(axis=1)
    np.testing.assert_allclose(found_mm, middle_mm, atol=0.1)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
def test_a_segment_of_a_tilted_series_is_brought_upright_with_it(tilted, kind):
    mask = ball(tilted.affine)
    order = np.random.default_rng(1).permutation(SHAPE[0])
    more = {"max_fractional_value": 200} if kind == "FRACTIONAL" else {}
    shown = mask.astype(float) if kind == "FRACTIONAL" else mask
    write_seg(tilted.folder / "a.dcm", [tilted.datasets[k] for k in order], shown[order], kind=kind, **more)
    assert tilted.annotate().skipped == {}
    check_lesion(tilted, tilted.masks()["SCT:10200004"])


def test_a_segment_of_some_slices_of_a_tilted_series_is_brought_upright(tilted):
    mask = ball(tilted.affine)
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    write_seg(tilted.folder / "a.dcm", [tilted.datasets[k] for k in slices], mask[slices])
    assert tilted.annotate().skipped == {}
    check_lesion(tilted, tilted.masks()["SCT:10200004"])


def test_contours_on_a_tilted_series_are_filled_on_the_upright_grid(tilted):
    middle = np.array([0.5, 0.45, 0.55]) * (np.array(SHAPE) - 1)
    normal = np.cross(tilted.affine[:3, 2], tilted.affine[:3, 1])
    normal /= np.linalg.norm(normal)
    contours = []
    for plane in range(SHAPE[0]):
        away_mm = (plane - middle[0]) * tilted.affine[:3, 0]
        off_mm = away_mm @ normal
        if abs(off_mm) < 9:
            radius_px = np.sqrt(9**2 - off_mm**2) / SPACING_MM[1]
            sideways_mm = [away_mm @ tilted.affine[:3, axis] / SPACING_MM[axis] for axis in (1, 2)]
            centre = middle[1:] - np.array(sideways_mm) / SPACING_MM[1:]
            outline = circle(radius_px, centre, squeeze=SPACING_MM[1] / SPACING_MM[2])
            contours.append(points_mm(tilted.affine, plane, outline))
    write_rtstruct(tilted.folder / "a.dcm", tilted, contours, code=LIVER_CODE)
    assert tilted.annotate().skipped == {}
    check_lesion(tilted, tilted.masks()["SCT:10200004"])


@pytest.mark.parametrize("flips", [(1, 1, 1), (1, -1, 1), (-1, 1, -1)])
def test_a_nifti_mask_on_the_slices_of_a_tilted_series_is_brought_upright(tilted, flips):
    write_nifti(tilted.folder / series_name(tilted), ball(tilted.affine), tilted.affine, flips=flips)
    assert tilted.annotate().skipped == {}
    check_lesion(tilted, tilted.masks()["1"])


def test_a_nifti_mask_on_the_upright_volume_of_a_tilted_series_is_kept_as_it_is(tilted):
    upright = np.array(tilted.item.affine).reshape(4, 4)
    mask = np.zeros(tilted.item.shape, bool)
    mask[5:9, 10:20, 12:30] = True
    write_nifti(tilted.folder / series_name(tilted), mask, upright)
    assert tilted.annotate().skipped == {}
    np.testing.assert_array_equal(tilted.masks()["1"], mask)


def test_a_mask_that_denies_the_tilt_is_refused(tilted):
    straight = tilted.affine.copy()
    normal = np.cross(straight[:3, 2], straight[:3, 1])
    straight[:3, 0] = normal / np.linalg.norm(normal) * SPACING_MM[0]
    write_nifti(tilted.folder / series_name(tilted), ball(tilted.affine), straight)
    assert tilted.annotate().skipped == {"annotation_off_grid": 1}
