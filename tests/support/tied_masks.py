"""Sites of a few images whose masks are a threshold of their values, tied as `hilum site annotate` ties them."""

from pathlib import Path

import numpy as np
from PIL import Image

from annotated_site import write_nifti
from hilum.client.data.site_data import open_site
from hilum.client.intake.annotations.annotate import annotate
from hilum.client.intake.formats.naming import LabelMap
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.config import SiteConfig
from hilum.common.config.site import SiteDataSection, SiteSection, SiteStateSection
from hilum.common.progress import NullProgress

SPACING_MM = (2.5, 1.5, 0.8)
AIR, MIDDLE, DENSE = 24, 1024, 2024  # -1000, 0 and 1000 HU: 0, 1/2 and 1 of the CT window


def blobs(seed, shape=(12, 26, 44)):
    """Dense blocks of several sizes in air: where there is one is a threshold of what the image shows."""
    rng = np.random.default_rng(seed)
    volume = np.full(shape, AIR, np.uint16)
    for _ in range(6):
        begin = [rng.integers(0, edge - edge // 3) for edge in shape]
        volume[tuple(slice(at, at + edge // 3) for at, edge in zip(begin, shape, strict=True))] = DENSE
    return volume


def framed_pictures(count):
    """Slides on a black ground, grey with bright blocks, and where they are bright: (90, 150, 3) and (90, 150) each."""
    pictures, marks = [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        picture = np.zeros((90, 150), np.uint8)
        picture[11:71, 23:139] = 55
        for _ in range(5):
            y, x = rng.integers(15, 50), rng.integers(28, 110)
            picture[y : y + 17, x : x + 23] = 200
        pictures.append(np.repeat(picture[..., None], 3, axis=2))
        marks.append(picture == 200)
    return pictures, marks


def volume_site(
    tmp_path: Path, write_series, volumes, marks, spacing_mm=SPACING_MM, labels=None
) -> SiteConfig:
    """Index CT volumes, and tie to each the label volume that `marks` has for it; None leaves it without.

    Args:
        marks: (D, H, W) whole numbers each.
        labels: Names of the numbers.
    """
    masks = tmp_path / "masks"
    masks.mkdir(parents=True)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing_mm)[::-1]  # (d, h, w) runs along z, y, x
    affine[:3, 3] = [-10, -20, 5]
    for n, (volume, mark) in enumerate(zip(volumes, marks, strict=True)):
        slices = write_series(
            tmp_path / "dicom" / str(n),
            volume,
            spacing_mm=spacing_mm,
            RescaleSlope=1,
            RescaleIntercept=-1024,
            PatientID=f"P{n}",
        )
        if mark is not None:
            write_nifti(masks / f"{slices[0].SeriesInstanceUID}.nii.gz", mark, affine)
    return _indexed(tmp_path, LabelMap(labels or {}))


def picture_site(tmp_path: Path, pictures, marks) -> SiteConfig:
    """Index pictures (H, W, 3), and tie to each the mask (H, W) that `marks` has for it."""
    folder, masks = tmp_path / "dicom", tmp_path / "masks"
    folder.mkdir(parents=True)
    masks.mkdir()
    lines = ["mask,file"]
    for n, (picture, mark) in enumerate(zip(pictures, marks, strict=True)):
        Image.fromarray(picture).save(folder / f"{n}.png")
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[:, ::-1]
        write_nifti(masks / f"{n}.nii.gz", mark[None], affine)
        lines.append(f"{n}.nii.gz,{n}.png")
    (masks / "masks.csv").write_text("\n".join(lines))
    return _indexed(tmp_path, LabelMap(), "photograph")


def _indexed(tmp_path, labels, images=None) -> SiteConfig:
    workspace = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", workspace, NullProgress(), images=images)
    annotate(tmp_path / "masks", workspace, labels, NullProgress())
    return SiteConfig(
        site=SiteSection(name="site-0"),
        data=SiteDataSection(dicom=tmp_path / "dicom"),
        state=SiteStateSection(folder=tmp_path / "state"),
        policy=None,
    )


def opened(site, study):
    return open_site(site, study, anew=True)


def forget_masks(site):
    """Drop all annotations of a site."""
    catalogue = Catalogue(Workspace(site.state.folder).catalogue)
    for key in {one.folder_key for one in catalogue.annotations()}:
        catalogue.annotate(key, [])
    catalogue.close()
