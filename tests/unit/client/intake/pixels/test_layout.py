"""Where in a file the pixels lie."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended

from pixel_files import (
    BIG,
    ENCODERS,
    EXPLICIT,
    IMPLICIT,
    J2K_LOSSLESS,
    dataset_of,
    facts,
    picture,
    write_native,
)
from pixel_reads import stored


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_frames_of_several_fragments_are_put_together(tmp_path, table):
    pixels = np.stack([picture(seed=k) for k in range(3)])
    streams = [ENCODERS[J2K_LOSSLESS](frame, 12) for frame in pixels]
    dataset = dataset_of(pixels, J2K_LOSSLESS, BitsStored=12)
    if table == "extended":
        content, offsets, lengths = encapsulate_extended(streams)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    else:
        content = encapsulate(streams, fragments_per_frame=3, has_bot=table == "basic")
    dataset.PixelData = content
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
    np.testing.assert_array_equal(stored(tmp_path / "a", facts(dataset)), pixels)
    np.testing.assert_array_equal(stored(tmp_path / "a", facts(dataset), [2, 0]), pixels[[2, 0]])


def test_an_icons_pixels_are_not_the_images(tmp_path):
    icon = Dataset()
    icon.Rows = icon.Columns = 4
    icon.PixelData = bytes(16)
    icon["PixelData"].VR = "OB"
    icon.is_undefined_length_sequence_item = True
    pixels = picture()[None]
    for syntax in (IMPLICIT, EXPLICIT, BIG):
        dataset = dataset_of(pixels, syntax)
        dataset.IconImageSequence = [icon]
        dataset["IconImageSequence"].is_undefined_length = True
        order = ">" if syntax == BIG else "<"
        dataset.PixelData = pixels.astype(f"{order}u2").tobytes()
        dataset["PixelData"].VR = "OW"
        pydicom.dcmwrite(tmp_path / "a", dataset, enforce_file_format=True)
        np.testing.assert_array_equal(stored(tmp_path / "a", facts(dataset)), pixels)


def test_a_file_without_preamble_or_meta_is_read(tmp_path):
    pixels = picture()[None]
    instance = write_native(tmp_path / "a", pixels, IMPLICIT)
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "b").write_bytes(content[132:])
    np.testing.assert_array_equal(stored(tmp_path / "b", instance), pixels)
    meta_end = 12 + int.from_bytes(content[140:144], "little")
    (tmp_path / "c").write_bytes(content[132 + meta_end :])
    np.testing.assert_array_equal(stored(tmp_path / "c", instance), pixels)


def test_no_copy_of_the_whole_file_is_made_to_read_one_frame(tmp_path):
    import tracemalloc

    pixels = np.stack([picture((256, 256))] * 100)
    instance = write_native(tmp_path / "a", pixels, EXPLICIT)
    tracemalloc.start()
    stored(tmp_path / "a", instance, [99])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20 < pixels.nbytes
