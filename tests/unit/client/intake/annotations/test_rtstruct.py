"""Contours fill the voxels inside them, against shapes that can be computed by hand."""

import numpy as np
import pytest
from pydicom.uid import generate_uid

from annotated_site import LIVER_CODE, SHAPE, SPACING_MM, ball, circle, points_mm, write_rtstruct
from hilum.client.intake.annotations.polygon import filled


def test_the_contours_of_a_ball_fill_its_voxels(site):
    middle = np.array([0.5, 0.45, 0.55]) * (np.array(SHAPE) - 1)
    contours = []
    for plane in range(SHAPE[0]):
        off_mm = (plane - middle[0]) * SPACING_MM[0]
        if abs(off_mm) < 9:
            radius_px = np.sqrt(9**2 - off_mm**2) / SPACING_MM[1]
            outline = circle(radius_px, middle[1:], squeeze=SPACING_MM[1] / SPACING_MM[2])
            contours.append(points_mm(site.affine, plane, outline))
    write_rtstruct(site.folder / "a.dcm", site, contours, code=LIVER_CODE)
    assert site.annotate().skipped == {}
    found, true = site.masks()["SCT:10200004"], ball(site.affine)
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.998


def test_a_fine_circle_has_the_area_of_a_circle():
    found = filled(circle(180.0, (255.2, 250.7), 5000), (512, 512))
    rows, columns = np.indices((512, 512))
    true = np.hypot(rows - 255.2, columns - 250.7) <= 180
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.9995
    assert found.sum() == pytest.approx(np.pi * 180**2, rel=1e-3)


def test_a_rectangle_between_pixel_centres_fills_exactly_those_inside():
    outline = np.array([[1.5, 2.5], [1.5, 6.5], [4.5, 6.5], [4.5, 2.5]])
    true = np.zeros((8, 9), bool)
    true[2:5, 3:7] = True
    for turn in range(4):
        np.testing.assert_array_equal(filled(np.roll(outline, turn, axis=0), (8, 9)), true)
    np.testing.assert_array_equal(filled(outline[::-1], (8, 9)), true)


def test_polygons_that_share_an_edge_through_pixel_centres_share_no_pixel_and_leave_no_gap():
    left = filled(np.array([[1, 1], [1, 4], [7, 4], [7, 1]], float), (9, 9))
    right = filled(np.array([[1, 4], [1, 7], [7, 7], [7, 4]], float), (9, 9))
    both = filled(np.array([[1, 1], [1, 7], [7, 7], [7, 1]], float), (9, 9))
    assert not (left & right).any()
    np.testing.assert_array_equal(left | right, both)


def test_a_polygon_that_leaves_the_image_is_cut_at_its_edge():
    found = filled(np.array([[-5, -5], [-5, 3.5], [20, 3.5], [20, -5]], float), (6, 8))
    true = np.zeros((6, 8), bool)
    true[:, :4] = True
    np.testing.assert_array_equal(found, true)


def test_a_keyhole_and_a_contour_inside_another_give_the_same_hole(site):
    outer = np.array([[5.3, 5.4], [5.3, 30.2], [25.6, 30.2], [25.6, 5.4]])
    inner = np.array([[10.1, 10.7], [10.1, 20.3], [18.9, 20.3], [18.9, 10.7]])
    keyhole = np.vstack([outer, outer[:1], inner, inner[:1]])
    true = np.zeros(SHAPE, bool)
    true[3, 6:26, 6:31] = True
    true[3, 11:19, 11:21] = False
    for contours in ([keyhole], [outer, inner], [outer, inner[::-1], outer]):
        drawn = [points_mm(site.affine, 3, outline) for outline in contours]
        write_rtstruct(site.folder / "a.dcm", site, drawn, code=LIVER_CODE)
        assert site.annotate().skipped == {}
        np.testing.assert_array_equal(site.masks()["SCT:10200004"], true)


def test_contours_within_half_a_slice_go_to_that_slice(site):
    write_rtstruct(site.folder / "a.dcm", site, [points_mm(site.affine, 6.4, circle(5))], code=LIVER_CODE)
    site.annotate()
    assert set(np.argwhere(site.masks()["SCT:10200004"])[:, 0]) == {6}


@pytest.mark.parametrize(
    ("planes", "shift"), [([-0.7], 0), ([SHAPE[0]], 0), ([5, 5.4], 0), ([5], 100), ([5], -100)]
)
def test_contours_off_the_grid_are_refused(site, planes, shift):
    contours = [points_mm(site.affine, plane, circle(5) + shift) for plane in planes]
    write_rtstruct(site.folder / "a.dcm", site, contours, code=LIVER_CODE)
    assert site.annotate().skipped == {"annotation_off_grid": 1}


def test_contours_that_cross_slices_are_refused(site):
    contour = points_mm(site.affine, 5, circle(5))
    contour[::2] += site.affine[:3, 0]
    write_rtstruct(site.folder / "a.dcm", site, [contour], code=LIVER_CODE)
    assert site.annotate().skipped == {"annotation_off_grid": 1}


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR"])
def test_open_contours_are_refused(site, kind):
    write_rtstruct(
        site.folder / "a.dcm", site, [points_mm(site.affine, 5, circle(5))], code=LIVER_CODE, kind=kind
    )
    assert site.annotate().skipped == {"unsupported_contour": 1}


def test_structures_of_an_unknown_series_and_broken_structure_sets_are_counted(site):
    contours = [points_mm(site.affine, 5, circle(5))]
    path = site.folder / "a.dcm"
    write_rtstruct(path, site, contours, code=LIVER_CODE, series=generate_uid())
    assert site.annotate().skipped == {"annotates_unknown_image": 1}
    write_rtstruct(path, site, contours, code=LIVER_CODE)
    whole = path.read_bytes()
    for length in (140, 300, len(whole) - 300):
        path.write_bytes(whole[:length])
        report = site.annotate()
        assert report.annotations == 0
        assert sum(report.skipped.values()) == 1
