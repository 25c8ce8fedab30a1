"""Files as they are written every day, and how they are shown."""

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from hilum.client.intake.headers.read_instance import read_instance
from hilum.client.intake.pixels.images import read_image, read_stored

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 16


def shown_of(path):
    return read_image(path, read_instance(path))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_every_syntax_gives_the_pixels_that_were_written(dicom, tmp_path, syntax, dtype):
    pixels = np.random.default_rng(0).integers(0, 100, (7, 9)).astype(dtype)
    if dtype == np.int16:
        pixels -= 50
    dicom(tmp_path / "a.dcm", pixels, syntax=syntax)
    [stored] = read_stored(tmp_path / "a.dcm", read_instance(tmp_path / "a.dcm"), [0])
    assert np.array_equal(stored, pixels)


def test_a_window_is_applied_as_the_standard_says(dicom, tmp_path):
    dicom(tmp_path / "a.dcm", RAMP, WindowCenter=512, WindowWidth=1024, BitsStored=12, HighBit=11)
    shown = shown_of(tmp_path / "a.dcm") / 65535
    expected = np.clip((RAMP - 511.5) / 1023 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1
    assert np.allclose(shown, expected, atol=1e-5)


@pytest.mark.parametrize(("function", "at_centre"), [("LINEAR_EXACT", 0.5), ("SIGMOID", 0.5)])
def test_other_window_functions_are_centred(dicom, tmp_path, function, at_centre):
    dicom(tmp_path / "a.dcm", RAMP, WindowCenter=512, WindowWidth=400, VOILUTFunction=function)
    shown = shown_of(tmp_path / "a.dcm") / 65535
    assert shown[4, 0] == pytest.approx(at_centre, abs=1e-4)
    assert np.all(np.diff(shown.ravel()) >= 0)


def test_monochrome1_and_its_inverse_show_the_same_picture(dicom, tmp_path):
    common = {"WindowCenter": 512, "WindowWidth": 1024, "BitsStored": 10, "HighBit": 9}
    dicom(tmp_path / "a.dcm", RAMP, **common)
    dicom(
        tmp_path / "b.dcm", (1023 - RAMP).astype(np.uint16), PhotometricInterpretation="MONOCHROME1", **common
    )
    a = shown_of(tmp_path / "a.dcm").astype(int)
    b = shown_of(tmp_path / "b.dcm").astype(int)
    assert np.abs(a - b).max() <= 1


def test_padding_is_black_and_does_not_stretch_the_contrast(dicom, tmp_path):
    pixels = RAMP.copy()
    pixels[0] = 60_000
    dicom(tmp_path / "a.dcm", pixels, PixelPaddingValue=60_000)
    shown = shown_of(tmp_path / "a.dcm")
    assert shown[0].max() == 0
    assert shown[-1, -1] == 65535
