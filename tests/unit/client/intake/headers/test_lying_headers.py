"""Headers that lie about encoding, bits and units: what comes out is right, or refused."""

import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite

import lies
from hilum.client.intake.headers.multiframe import frames_of
from hilum.client.intake.headers.read_instance import read_instance, read_tags
from hilum.client.intake.instance import Frame
from hilum.client.intake.pixels.codestream import j2k_info, jpeg_info
from hilum.client.intake.pixels.images import read_planes, read_stored
from hilum.client.intake.pixels.rescale import padding_mask
from hilum.client.intake.quantity import quantity_of
from hilum.client.intake.reasons import Reason, Skip
from pixel_files import (
    BIG,
    DEFLATED,
    ENCAPSULATED_NATIVE,
    EXPLICIT,
    HT_LOSSLESS,
    IMPLICIT,
    J2K,
    J2K_LOSSLESS,
    JPEGLS,
    JPEGLS_NEAR,
    LOSSLESS_SV1,
    RLE,
    picture,
    write_any,
    write_encoded,
    write_native,
    write_raw,
)

CR = "1.2.840.10008.5.1.4.1.1.1"
NATIVE = (IMPLICIT, EXPLICIT, BIG)


def pixels_of(path):
    instance = read_instance(path)
    return np.stack(list(read_stored(path, instance, range(instance.pixels.frames))))


def test_six_hundred_files_of_lies_are_right_or_refused():
    outcomes, wrong = lies.run(0, 600)
    assert wrong == []
    assert outcomes["same"] > 60
    assert sum(outcomes.values()) == 600


@pytest.mark.parametrize("claimed", NATIVE)
@pytest.mark.parametrize("written", NATIVE)
def test_native_pixels_are_read_as_they_are_written_whatever_is_claimed(tmp_path, written, claimed):
    image = picture()[None]
    path = tmp_path / "a"
    write_native(path, image, written, SOPClassUID=CR, BitsStored=12)
    path.write_bytes(lies.relabelled(path.read_bytes(), claimed))
    assert read_tags(path).syntax == written
    assert np.array_equal(pixels_of(path), image)


@pytest.mark.parametrize("written", NATIVE)
def test_a_file_without_meta_information_is_read_in_every_byte_order(tmp_path, written):
    image = picture()[None]
    path = tmp_path / "a"
    write_native(path, image, written, SOPClassUID=CR, BitsStored=12)
    content = path.read_bytes()
    start = 132 + 12 + struct.unpack_from("<I", content, 140)[0]
    path.write_bytes(content[start:])
    assert np.array_equal(pixels_of(path), image)


@pytest.mark.parametrize("syntax", [RLE, J2K_LOSSLESS, LOSSLESS_SV1])
def test_a_compressed_image_behind_an_implicit_header_is_read(tmp_path, syntax):
    image = picture()[None]
    path = tmp_path / "a"
    write_encoded(path, image, syntax, SOPClassUID=CR, BitsStored=12)
    dataset = pydicom.dcmread(path)
    dcmwrite(
        path, dataset, implicit_vr=True, little_endian=True, force_encoding=True, enforce_file_format=False
    )
    path.write_bytes(lies.relabelled(path.read_bytes(), syntax))
    assert np.array_equal(pixels_of(path), image)


@pytest.mark.parametrize("claimed", [EXPLICIT, IMPLICIT, RLE, J2K_LOSSLESS])
def test_a_deflated_data_set_that_is_called_something_else_is_a_damaged_image(tmp_path, claimed):
    path = tmp_path / "a"
    write_native(path, picture()[None], DEFLATED, SOPClassUID=CR, BitsStored=12)
    path.write_bytes(lies.relabelled(path.read_bytes(), claimed))
    with pytest.raises(Skip) as skip:
        read_instance(path)
    assert skip.value.reason is Reason.DAMAGED_HEADER


def rubbish(image, stored, seed=5):
    """Cells of 16 bits that hold samples of fewer, and noise above."""
    above = np.random.default_rng(seed).integers(0, 1 << (16 - stored), image.shape)
    return ((image.astype(np.int64) & ((1 << stored) - 1)) | (above << stored)).astype(np.uint16)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("stored", [9, 12, 15])
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG, RLE, LOSSLESS_SV1, JPEGLS, J2K_LOSSLESS, J2K, HT_LOSSLESS])
def test_what_stands_above_the_stored_bits_is_no_part_of_a_value(tmp_path, syntax, stored, signed):
    image = picture(bits=stored, signed=signed)
    cells = rubbish(image, stored)
    path = tmp_path / "a"
    streams = None
    if syntax in (J2K_LOSSLESS, J2K):
        streams = [imagecodecs.jpeg2k_encode(cells, level=0, codecformat="j2k", reversible=True)]
    elif syntax == LOSSLESS_SV1:
        streams = [imagecodecs.jpeg8_encode(cells, lossless=True, predictor=1, bitspersample=16)]
    more = {"BitsStored": stored, "PixelRepresentation": int(signed), "SOPClassUID": CR}
    if syntax in (EXPLICIT, BIG):
        write_native(path, cells[None], syntax, **more)
    else:
        write_encoded(path, cells[None], syntax, streams=streams, **more)
    assert np.array_equal(pixels_of(path)[0], image)


def test_near_lossless_jpeg_ls_that_loses_nothing_is_cut_and_one_that_loses_is_clipped(tmp_path):
    image = picture(bits=12)
    exact = imagecodecs.jpegls_encode(rubbish(image, 12))
    assert jpeg_info(exact).reversible
    write_encoded(tmp_path / "a", image[None], JPEGLS_NEAR, streams=[exact], BitsStored=12, SOPClassUID=CR)
    assert np.array_equal(pixels_of(tmp_path / "a")[0], image)
    white = np.full((16, 16), 4095, np.uint16)
    white[::2, ::3] = 4090
    near = imagecodecs.jpegls_encode(white, level=3)
    assert not jpeg_info(near).reversible
    write_encoded(tmp_path / "b", white[None], JPEGLS_NEAR, streams=[near], BitsStored=12, SOPClassUID=CR)
    found = pixels_of(tmp_path / "b")[0]
    assert 4085 <= found.min() <= found.max() <= 4095


@pytest.mark.parametrize("sign", [1, -1])
def test_a_signed_value_that_overshoots_does_not_turn_round(tmp_path, sign):
    """Of 12 bits, beside a sharp edge: cutting the bit would make the highest value the lowest."""
    image = np.full((64, 64), -2048 if sign > 0 else 2047, np.int16)
    image[20:40, 20:40] = image[::7] = 2047 if sign > 0 else -2048
    stream = imagecodecs.jpeg2k_encode(image, level=45, codecformat="j2k", reversible=False)
    write_encoded(tmp_path / "a", image[None], J2K, streams=[stream], BitsStored=12, SOPClassUID=CR)
    decoded = imagecodecs.jpeg2k_decode(stream)
    assert decoded.max() > 2047 or decoded.min() < -2048, "it overshoots"
    assert np.array_equal(pixels_of(tmp_path / "a")[0], decoded.clip(-2048, 2047))


@pytest.mark.parametrize("padding", [b"\xff", b"\0", b"\xff\xff\xff", b"\0\0\0\0", b"\xff\xd9\xff"])
@pytest.mark.parametrize("end", [True, False])
def test_padding_behind_a_jpeg_2000_stream_is_no_part_of_it(padding, end):
    stream = imagecodecs.jpeg2k_encode(picture(), level=0, codecformat="j2k", reversible=True)
    assert stream.endswith(b"\xff\xd9")
    assert j2k_info((stream if end else stream[:-2]) + padding).rows == 40


def test_what_was_cut_off_a_jpeg_2000_stream_is_still_missed():
    stream = imagecodecs.jpeg2k_encode(picture(), level=0, codecformat="j2k", reversible=True)
    for missing in (4, 10, 200):
        for padding in (b"", b"\xff", b"\0"):
            with pytest.raises(Skip):
                j2k_info(stream[:-missing] + padding)


@pytest.mark.parametrize("syntax", [RLE, LOSSLESS_SV1, JPEGLS, HT_LOSSLESS])
@pytest.mark.parametrize("padding", [b"\xff\xff", b"\0\0"])
def test_padding_behind_other_streams_is_no_part_of_them(tmp_path, syntax, padding):
    image = picture()[None]
    write_encoded(tmp_path / "a", image, syntax, BitsStored=12, SOPClassUID=CR)
    dataset = pydicom.dcmread(tmp_path / "a")
    [stream] = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([stream + padding])
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert np.array_equal(pixels_of(tmp_path / "a"), image)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("syntax", [ENCAPSULATED_NATIVE, EXPLICIT, DEFLATED])
def test_uncompressed_colour_that_shares_its_chroma_is_whole(tmp_path, syntax, frames):
    rng = np.random.default_rng(1)
    stored = rng.integers(0, 256, (frames, 8, 5, 4), np.uint8)  # Y1 Y2 Cb Cr
    shape = np.zeros((frames, 8, 10, 3), np.uint8)
    more = {"PhotometricInterpretation": "YBR_FULL_422", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}
    if syntax == ENCAPSULATED_NATIVE:
        write_encoded(tmp_path / "a", shape, syntax, streams=[one.tobytes() for one in stored], **more)
    else:
        write_raw(tmp_path / "a", shape, stored.tobytes(), syntax, **more)
    found = pixels_of(tmp_path / "a")
    assert np.array_equal(found[..., 0].reshape(frames, 8, 5, 2), stored[..., :2])
    assert np.array_equal(found[:, :, ::2, 1:], stored[..., 2:])


WHOLE = {"slope": True, "intercept": True}


@pytest.mark.parametrize(
    ("family", "stated", "image_type", "there", "quantity"),
    [
        ("ct", "HU", ("ORIGINAL", "PRIMARY", "AXIAL"), WHOLE, "HU"),
        ("ct", " hu ", (), WHOLE, "HU"),
        ("ct", "", ("ORIGINAL", "PRIMARY", "AXIAL"), WHOLE, "HU"),
        ("ct", "", ("DERIVED", "PRIMARY", "AXIAL"), WHOLE, "HU"),
        ("ct", "", ("DERIVED", "PRIMARY", "AXIAL", "VMI"), WHOLE, "HU"),
        ("ct", "", ("DERIVED", "PRIMARY", "AXIAL", "EFF_ATOMIC_NUM"), WHOLE, ""),
        ("ct", "", ("DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"), WHOLE, ""),
        ("ct", "HU", (), {"slope": False, "intercept": True}, ""),
        ("ct", "", (), {"slope": True, "intercept": False}, ""),
        ("ct", "", (), {"slope": False, "intercept": False}, ""),
        ("ct", "US", (), WHOLE, "US"),
        ("ct", "mgml", (), WHOLE, "MGML"),
        ("ct", "HU_MOD", (), WHOLE, "HU_MOD"),
        ("ct", "Z_EFF", (), {"slope": False, "intercept": False}, "Z_EFF"),
        ("pet", "HU", (), WHOLE, ""),
        ("mr", "", (), WHOLE, ""),
    ],
)
def test_values_are_hounsfield_units_only_where_the_file_bears_it_out(
    family, stated, image_type, there, quantity
):
    assert quantity_of(family, stated, image_type, **there) == quantity


def enhanced(top=(), shared=(), own=((), ())):
    dataset = Dataset()
    dataset.NumberOfFrames = len(own)
    dataset.SharedFunctionalGroupsSequence = [_group(shared)]
    dataset.PerFrameFunctionalGroupsSequence = [_group(one) for one in own]
    _rescale(dataset, top)
    return frames_of(dataset, "ct")


def _group(values):
    group = Dataset()
    if values:
        item = Dataset()
        _rescale(item, values)
        group.PixelValueTransformationSequence = [item]
    return group


def _rescale(dataset, values):
    for name, value in zip(("RescaleSlope", "RescaleIntercept", "RescaleType"), values, strict=False):
        setattr(dataset, name, value)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ({"shared": (1, -1024, "HU")}, [(1, -1024, "HU")] * 2),
        ({"top": (1, -1024, "HU")}, [(1, -1024, "HU")] * 2),
        ({"top": (1, -1000, "HU"), "shared": (2, -1024, "HU")}, [(2, -1024, "HU")] * 2),
        ({"own": ((1, -1024, "HU"), (2, 0, "US"))}, [(1, -1024, "HU"), (2, 0, "US")]),
        ({"own": ((1, -1024, "HU"), ())}, [(1, -1024, "HU"), (1, 0, "")]),
        ({"top": (1, -5, "HU"), "own": ((1, -1024, "HU"), ())}, [(1, -1024, "HU"), (1, -5, "HU")]),
        ({}, [(1, 0, "")] * 2),
        ({"top": (1,)}, [(1, 0, "")] * 2),
    ],
)
def test_a_frames_rescale_is_its_own_then_the_shared_one_then_that_of_the_top(places, expected):
    found = enhanced(**places)
    assert [(frame.slope, frame.intercept, frame.quantity) for frame in found] == expected


def test_padding_that_a_lossy_compression_spread_is_padding(tmp_path):
    image = np.full((64, 64), 40, np.int16)
    image[:, :8] = -2000
    image[:, 8:12] = -1000
    more = {"PixelPaddingValue": -2000, "BitsStored": 16}
    write_native(tmp_path / "a", image[None], EXPLICIT, SOPClassUID=CR, **more)
    spread = image.copy()
    spread[::3, :8] += 37
    write_native(tmp_path / "b", spread[None], EXPLICIT, SOPClassUID=CR, **more)
    whole = read_instance(tmp_path / "a")
    frame = Frame(0, quantity="HU")
    for name, lossy, expected in (("a", False, 512), ("b", False, 336), ("b", True, 512)):
        instance = replace(whole, lossy=lossy)
        [plane] = read_planes(tmp_path / name, replace(instance, frames=(frame,)), [0])
        assert plane.empty.sum() == expected
        assert not plane.empty[:, 8:].any(), "air is not padding"


@pytest.mark.parametrize(("slope", "intercept", "padding"), [(1, 0, -1030), (1, -1024, 0), (2, -1024, 0)])
def test_padding_near_air_spreads_to_nothing(slope, intercept, padding):
    from hilum.client.intake.pixels.raw_frames import StoredFrame

    values = np.array([[padding, padding + 1, padding + 30, 900]], np.int16)
    instance = replace(_instance(), padding=(padding, padding), lossy=True)
    frame = Frame(0, slope=slope, intercept=intercept, quantity="HU")
    assert padding_mask(StoredFrame(values, values), instance, frame).tolist() == [
        [True, False, False, False]
    ]


def _instance():
    from hilum.client.intake.instance import Instance, PixelFormat

    pixels = PixelFormat(EXPLICIT, 1, 4, 1, 1, "MONOCHROME2", False, 16, 16, 15, True)
    return Instance("1", "1", "1", "", "", "", "ct", (), pixels, (Frame(0),))


def test_a_file_says_that_it_lost_something(tmp_path):
    write_any(tmp_path / "a", picture()[None], EXPLICIT, SOPClassUID=CR, LossyImageCompression="01")
    write_any(tmp_path / "b", picture()[None], EXPLICIT, SOPClassUID=CR, LossyImageCompression="00")
    assert read_instance(tmp_path / "a").lossy
    assert not read_instance(tmp_path / "b").lossy
