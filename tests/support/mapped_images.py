"""Images of a site in a memory map, as a study's prepared ones are."""

from pathlib import Path

import numpy as np

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split


def mapped_data(folder: Path) -> SiteData:
    """Return twenty images, two of most patients, none with a label."""
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint16, (20, 1, 20, 20))
    images[:] = np.random.default_rng(0).integers(0, 65_535, images.shape)
    images.flush()
    rows = np.arange(20)
    mapped = np.load(folder / "images.npy", mmap_mode="r")
    return SiteData("site-0", mapped, (None,) * 20, Split(rows, rows[:0], rows[:0], rows // 2), "content")
