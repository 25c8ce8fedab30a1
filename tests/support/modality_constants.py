"""Mean and deviation of a modality's values in [0, 1], measured on the real images beside the checkout.

    python tests/support/modality_constants.py ../shared/data

prints what stands in `hilum.common.config.modalities`. Every source of a modality weighs the same, and in it every image. What is
measured is the image itself, without the black that fills it up to a square or cube.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.instance import read_family
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue, Item
from hilum.client.state.workspace import Workspace
from hilum.common.config.modalities import MODALITIES
from hilum.common.preparation.intensity import unit_range
from hilum.common.preparation.picture import channels_of, content_box, still_of
from hilum.common.progress import NullProgress


@dataclass(frozen=True)
class Source:
    """One collection of images.

    Attributes:
        files: Patterns below the folder of data.
        dims: What is measured.
        images: Whether they are pictures or NIfTI files, so that the family has to be said.
    """

    files: tuple[str, ...]
    dims: int
    images: bool = False


SOURCES: dict[str, tuple[Source, ...]] = {
    "radiograph": (
        Source(("cxr_nih_a/images/*/*",), 2, images=True),
        Source(("cxr_ieee8023_boxes/images/*",), 2, images=True),
    ),
    "mr": (
        Source(("mr_hippocampus_a/images/*.nii*",), 3, images=True),
        Source(("mr_brain_tumour4/images/*/*",), 2, images=True),
        Source(("dicom/**/*",), 3),
    ),
    "ultrasound": (Source(("us_lung_pocus/pocus_images/**/*",), 2, images=True),),
    "fundus": (Source(("retina_vessels/CHASEDB1/*.jpg",), 2, images=True),),
}


def measure(data: Path, modality: str, work: Path) -> tuple[float, float, list[int]]:
    """Give mean and deviation, and how many images each source has."""
    moments, counts = [], []
    for number, source in enumerate(SOURCES[modality]):
        archive = work / f"{modality}-{number}"
        _copy(data, source.files, archive)
        family = read_family(MODALITIES[modality].family) if source.images else None
        workspace = Workspace(work / f"{modality}-{number}-state")
        index_archive(archive, workspace, NullProgress(), images=family)
        values = [
            _values(ArrayCache(workspace.cache), item, modality)
            for item in _items(workspace, modality, source)
        ]
        moments.append(np.mean([[one.mean(), (one**2).mean()] for one in values], axis=0))
        counts.append(len(values))
    mean, square = np.mean(moments, axis=0)
    return float(mean), float(np.sqrt(square - mean**2)), counts


def _items(workspace: Workspace, modality: str, source: Source) -> list[Item]:
    catalogue = Catalogue(workspace.catalogue)
    try:
        items = catalogue.items(family=MODALITIES[modality].family)
    finally:
        catalogue.close()
    return [one for one in items if one.has_known_units and (one.kind == "volume") == (source.dims == 3)]


def _values(cache: ArrayCache, item: Item, modality: str) -> np.ndarray:
    """Return the values of one image, (C, *S)."""
    facts = MODALITIES[modality]
    array = still_of(cache.get(item.content_sha256), item.kind)
    values = unit_range(channels_of(array, item.kind, facts), facts)
    if facts.dark_border:
        values = values[content_box(values)]
    return values.astype(np.float64)


def _copy(data: Path, patterns: Sequence[str], archive: Path) -> None:
    for pattern in patterns:
        for path in sorted(data.glob(pattern)):
            if path.is_file():
                target = archive / path.relative_to(data)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for modality in SOURCES:
            mean, deviation, counts = measure(Path(sys.argv[1]), modality, Path(folder))
            print(f"{modality} {counts} {mean:.3f} {deviation:.3f}")
