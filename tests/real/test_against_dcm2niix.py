"""Every volume that an index makes of real scanners' files lies where dcm2niix puts it, with the same values.

Where the two disagree, the table says why. NIfTI is RAS and DICOM LPS; the order and sign of the axes may differ.
"""

import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d, map_coordinates

from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.reasons import Reason
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is absent"),
]
VENDORS = "dicom2nifti_vendors"
TOLERANCE_MM = 1e-3
# dcm2niix takes the distance from (0018,0088), here 3.313 mm; the positions say 3.3125 mm.
ROUNDED_DISTANCE = {f"{VENDORS}/philips_enhanced/fmri/001": 5e-3}
NO_IMAGES = {Reason.NOT_DICOM, Reason.NEEDS_FAMILY, Reason.PACKED, Reason.NOT_AN_IMAGE}
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

SAME = {  # folder: volumes in it, all of them as dcm2niix has them
    "ct_philips_head/S2010": 1,
    f"{VENDORS}/anatomical/001": 1,
    f"{VENDORS}/anatomical/001_implicit": 1,
    f"{VENDORS}/ge/anatomical/001": 1,
    f"{VENDORS}/ge/anatomical/001_implicit": 1,
    f"{VENDORS}/ge/dti/001": 2,
    f"{VENDORS}/ge/dti/001_implicit": 2,
    f"{VENDORS}/ge/fmri/001": 2,
    f"{VENDORS}/ge/fmri/001_implicit": 2,
    f"{VENDORS}/generic/anatomical/001": 1,
    f"{VENDORS}/generic/anatomical/001_implicit": 1,
    f"{VENDORS}/generic/anatomical/002_non_isotropic": 1,
    f"{VENDORS}/generic/compressed/001": 1,
    f"{VENDORS}/generic/compressed_j2k/001": 1,
    f"{VENDORS}/generic/compressed_jpeg/001": 1,
    f"{VENDORS}/generic/compressed_rle/001": 1,
    f"{VENDORS}/hitachi/anatomical/001": 1,
    f"{VENDORS}/hitachi/anatomical/001_implicit": 1,
    f"{VENDORS}/hyperfine/anatomical/001": 1,
    f"{VENDORS}/philips/anatomical/001": 1,
    f"{VENDORS}/philips_enhanced/anatomical/001": 1,
    f"{VENDORS}/philips_enhanced/dti/001": 4,
    f"{VENDORS}/philips_enhanced/fmri/001": 4,
    f"{VENDORS}/siemens/anatomical/001": 1,
    f"{VENDORS}/siemens_multiframe/anatomical/001": 1,
    "mr_enhanced/Philips": 2,
    "mr_enhanced/Siemens/XA10": 4,
    "mr_ge_siemens_nih/20180918GE/mr_0004": 10,
    "mr_ge_siemens_nih/20180918Si/mr_0003": 2,
    "mr_ge_siemens_nih/20180918Si/mr_0004": 2,
    "mr_ge_siemens_nih/20180918Si/mr_0005": 2,
    "mr_ge_siemens_nih/20180918Si/mr_0006": 2,
    "mr_toshiba_galan": 1,
}
REFUSED = {  # what dcm2niix writes and Hilum does not take
    "ct_philips_head/S1000": Reason.LOCALIZER,
    "dcmqi_seg_sr/segmentations/ct-3slice": Reason.TOO_FEW_SLICES,
    f"{VENDORS}/failing/notavolume/001": Reason.TOO_FEW_SLICES,
    f"{VENDORS}/failing/slicecount/001": Reason.TOO_FEW_SLICES,
    f"{VENDORS}/failing/sliceincrement/001": Reason.IRREGULAR_SPACING,
    f"{VENDORS}/failing/sliceorientation/001": Reason.MIXED_GEOMETRY,
    f"{VENDORS}/philips/dti/001": Reason.TOO_FEW_SLICES,
    f"{VENDORS}/philips/fmri/001": Reason.TOO_FEW_SLICES,
    # The private header that tells the order of the slices was removed.
    f"{VENDORS}/siemens/fmri/001": Reason.UNSUPPORTED_MOSAIC,
    # Three slices, and each has another number of phases.
    "mr_cardiac_contours/patient09/P09dicom": Reason.MULTIPLE_TIMES,
}


@pytest.fixture
def indexed(tmp_path):
    """What a whole index makes of a folder: volumes with their affines by key, and reasons of what it refuses."""

    def run(folder):
        workspace = Workspace(tmp_path / "site")
        counts = index_archive(folder, workspace, NullProgress()).counts
        catalogue, cache = Catalogue(workspace.catalogue), ArrayCache(workspace.cache)
        try:
            volumes = {
                item.item_key: (np.array(cache.get(item.content_sha256)), np.array(item.affine).reshape(4, 4))
                for item in catalogue.items(kind="volume")
            }
        finally:
            catalogue.close()
        reasons = {Reason(reason) for reason in counts.skipped} - NO_IMAGES
        return volumes, reasons

    return run


def converted(folder, out):
    """What dcm2niix makes of it: (I, J, K, T) arrays with their LPS affines."""
    # `-p n`: what the screen shows, not Philips' private scale.
    command = ["dcm2niix", "-z", "n", "-b", "y", "-p", "n", "-d", "0", "-f", "%j_%s_%e", "-o", out, folder]
    subprocess.run(command, check=False, capture_output=True)
    images = [nibabel.load(path) for path in sorted(out.glob("*.nii"))]
    return [
        (np.asarray(image.dataobj).reshape((*image.shape[:3], -1)), RAS @ image.affine) for image in images
    ]


def matches(volume, affine, data, other, tolerance_mm):
    """Times at which the other image has our values at our coordinates."""
    mapping = np.linalg.inv(other) @ affine
    whole = np.rint(mapping)
    index = np.indices(volume.shape).reshape(3, -1)
    there = (whole[:3, :3] @ index + whole[:3, 3:]).astype(int)
    if (there < 0).any() or (there >= np.array(data.shape[:3])[:, None]).any():
        return []
    ours = affine[:3, :3] @ index + affine[:3, 3:]
    theirs = other[:3, :3] @ there + other[:3, 3:]
    if np.linalg.norm(ours - theirs, axis=0).max() > tolerance_mm:
        return []
    values = data[tuple(there)].astype(np.float64)
    return [
        time
        for time in range(data.shape[3])
        if np.allclose(values[:, time], volume.reshape(-1), rtol=1e-6, atol=1e-6 * np.abs(values).max())
    ]


@pytest.fixture
def real_folder(shared_data):
    def get(name):
        folder = shared_data / "data" / "dicom" / name
        if not folder.exists():
            pytest.skip(f"{name} is absent")
        return folder

    return get


@pytest.mark.parametrize("name", SAME)
def test_volumes_have_dcm2niixs_values_at_dcm2niixs_coordinates(name, real_folder, indexed, tmp_path):
    volumes, _reasons = indexed(real_folder(name))
    assert len(volumes) == SAME[name]
    images = converted(real_folder(name), tmp_path)
    tolerance_mm = ROUNDED_DISTANCE.get(name, TOLERANCE_MM)
    found = set()
    for key, (volume, affine) in volumes.items():
        same = {
            (k, time)
            for k, image in enumerate(images)
            for time in matches(volume, affine, *image, tolerance_mm)
        }
        assert same, f"dcm2niix has no image like {key}"
        found |= same
    assert len(found) == sum(data.shape[3] for data, _affine in images)


@pytest.mark.parametrize("name", REFUSED)
def test_what_only_dcm2niix_takes_is_refused_with_a_reason(name, real_folder, indexed):
    volumes, reasons = indexed(real_folder(name))
    assert volumes == {}
    assert reasons == {REFUSED[name]}


def blurred_at(points, data):
    """The image's values at points of index space, without the fine noise that interpolation changes."""
    smooth = gaussian_filter1d(data[..., 0].astype(np.float64), 3.0, axis=1)
    return map_coordinates(smooth, points, order=1, mode="nearest")


def test_a_tilted_head_lies_upright_where_dcm2niix_has_it(real_folder, indexed, tmp_path):
    folder = real_folder(f"{VENDORS}/failing/gantrytilting/001")
    ((volume, affine),) = indexed(folder)[0].values()
    upright = [(data, other) for data, other in converted(folder, tmp_path) if data.shape[:2] != (512, 512)]
    ((data, other),) = upright
    # The two grids differ by a third of a row; away from the air at the rim, where each fills in its own way.
    index = np.indices(volume.shape)[:, :, 60:-60:2, 60:-60:2]
    points = np.tensordot(np.linalg.inv(other) @ affine, np.concatenate([index, np.ones_like(index[:1])]), 1)[
        :3
    ]
    ours = gaussian_filter1d(volume.astype(np.float64), 3.0, axis=1)[:, 60:-60:2, 60:-60:2]
    difference = [
        float(np.abs(blurred_at(points + np.array([0, rows, 0])[:, None, None, None], data) - ours).mean())
        for rows in (-1.0, -0.5, 0.0, 0.5, 1.0)
    ]
    assert min(difference) == difference[2] < min(difference[1], difference[3]) / 5, difference


@pytest.fixture(scope="module")
def brains(shared_data, tmp_path_factory):
    """Three hospitals of real brain volumes: other vendors, syntaxes, bits and orders of slices."""
    out = tmp_path_factory.mktemp("real") / "brains"
    wrap, source = shared_data / "tools" / "wrap_as_dicom.py", shared_data / "data" / "mr_hippocampus_a"
    subprocess.run([sys.executable, wrap, "mr3d", source, out], check=True, capture_output=True)
    return out


@pytest.mark.parametrize("site", range(3))
def test_the_volumes_of_three_hospitals_are_dcm2niixs(site, brains, indexed, tmp_path):
    folder = brains / f"site-{site}" / "dicom"
    volumes, reasons = indexed(folder)
    names = Workspace(tmp_path / "site").pseudonyms()
    out = tmp_path / "converted"
    out.mkdir()
    images = converted(folder, out)
    series = [names.of("series", path.name.split("_")[0]) for path in sorted(out.glob("*.nii"))]
    assert reasons == set()
    assert len(volumes) == len(images) > 20
    assert set(series) == set(volumes)
    for key, image in zip(series, images, strict=True):
        assert matches(*volumes[key], *image, TOLERANCE_MM) == [0]
