"""A NIfTI mask is tied to its image by name and place, whatever its axes."""

import nibabel
import numpy as np
import pytest

from annotated_site import SHAPE, SPACING_MM, ball, series_name, write_nifti
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.state.cache import ArrayCache
from nifti_files import read_nifti


@pytest.mark.parametrize(
    ("order", "flips"),
    [((2, 1, 0), (1, 1, 1)), ((2, 1, 0), (-1, -1, 1)), ((0, 1, 2), (1, -1, 1)), ((1, 2, 0), (-1, 1, -1))],
)
def test_a_nifti_mask_keeps_every_voxel_in_its_place_whatever_its_axes(site, order, flips):
    values = ball(site.affine).astype(np.uint8)
    values[2:5, 3:9, 4:8] = 2
    write_nifti(site.folder / "masks" / series_name(site), values, site.affine, axes_order=order, flips=flips)
    report = site.annotate()
    assert (report.masks, report.skipped) == (2, {})
    for value in (1, 2):
        np.testing.assert_array_equal(site.masks()[str(value)], values == value)


def test_the_label_map_names_the_values_of_a_nifti_mask(site):
    write_nifti(site.folder / series_name(site), ball(site.affine), site.affine, dtype=np.float32)
    site.annotate(labels=LabelMap({"1": "tumour"}))
    assert list(site.masks()) == ["tumour"]


def test_a_series_converted_to_nifti_reads_as_the_catalogue_has_it(site):
    volume = np.stack([ds.pixel_array for ds in site.datasets[:-1]])
    # As dcm2niix lays it out: columns, rows from the bottom up, slices.
    write_nifti(site.folder / "a.nii.gz", volume, site.affine, flips=(1, -1, 1), dtype=np.int16)
    file = read_nifti(site.folder / "a.nii.gz")
    np.testing.assert_array_equal(
        file.volumes[0], ArrayCache(site.workspace.cache).get(site.item.content_sha256)
    )
    np.testing.assert_allclose(file.affine.ravel(), site.item.affine, atol=1e-4)
    np.testing.assert_allclose(file.spacing_mm, site.item.spacing_mm, rtol=1e-5)


@pytest.mark.parametrize("columns", ["mask,series_instance_uid", "file,series_instance_uid"])
def test_a_table_ties_a_mask_of_any_name(site, columns):
    write_nifti(site.folder / "m" / "x.nii", ball(site.affine), site.affine)
    (site.folder / "ties.csv").write_text(f"{columns}\nm/x.nii,{site.datasets[0].SeriesInstanceUID}\n")
    report = site.annotate()
    assert (report.files, report.masks, report.skipped) == (2, 1, {})


@pytest.mark.parametrize("wrong", ["shifted", "scaled", "cropped", "mirrored"])
def test_a_nifti_mask_on_another_grid_is_refused(site, wrong):
    affine, mask = site.affine.copy(), ball(site.affine)
    if wrong == "shifted":
        affine[:3, 3] += affine[:3, 0] / SPACING_MM[0] * 0.3
    elif wrong == "scaled":
        affine[:3, 2] *= 1.02
    elif wrong == "cropped":
        mask = mask[:-1]
    else:
        affine[:3, 1] *= -1
    write_nifti(site.folder / series_name(site), mask, affine)
    assert site.annotate().skipped == {"annotation_off_grid": 1}


def test_a_nifti_image_is_no_mask_and_an_untied_one_marks_nothing(site):
    values = np.random.default_rng(0).normal(size=SHAPE)
    write_nifti(site.folder / series_name(site), values, site.affine, dtype=np.float32)
    write_nifti(site.folder / "other.nii", ball(site.affine), site.affine)
    assert site.annotate().skipped == {"annotates_unknown_image": 1, "malformed_annotation": 1}


@pytest.mark.parametrize("flip", [1, -1])
def test_a_nifti_mask_on_a_radiograph_has_its_instance_as_name(site, flip):
    """As `hilum phantom` writes masks."""
    values = np.zeros((60, 50, 1), np.uint8)
    values[30:45, 10:20] = 1
    image = nibabel.Nifti1Image(values, np.diag([-0.2, -0.2 * flip, 1.0, 1.0]))
    site.folder.mkdir(exist_ok=True)
    nibabel.save(image, site.folder / f"{site.datasets[-1].SOPInstanceUID}.nii.gz")
    report = site.annotate()
    assert (report.masks, report.skipped) == (1, {})
    (one,) = site.catalogue.annotations()
    assert one.place == (10 if flip > 0 else 50 - 20, 30)  # the other header has its rows from the bottom up
    assert ArrayCache(site.workspace.masks).get(one.content_sha256).shape == (10, 15)


@pytest.mark.parametrize("wrong", ["size", "aslant", "slice of a volume"])
def test_a_nifti_mask_that_does_not_fit_a_radiograph_is_refused(site, wrong):
    values = np.ones((60, 49 if wrong == "size" else 50, 1), np.uint8)
    affine = np.diag([-0.2, -0.2, 1.0, 1.0])
    affine[1, 0] = 0.05 if wrong == "aslant" else 0.0
    image = site.datasets[0 if wrong == "slice of a volume" else -1]
    site.folder.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), site.folder / f"{image.SOPInstanceUID}.nii.gz")
    reason = "annotates_unknown_image" if wrong == "slice of a volume" else "annotation_off_grid"
    assert site.annotate().skipped == {reason: 1}
