"""Every real image file decodes as pydicom does by its own plugins, or has a reason. Skipped where ../shared is absent."""

import logging
import warnings
from collections import Counter

import numpy as np
import pydicom
import pytest
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.client.intake.headers.read_instance import read_instance
from hilum.client.intake.pixels.images import read_planes, read_stored
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sandbox.jobs import DecodePlanes, PlanesDecoded
from hilum.client.intake.sandbox.pool import DecodePool
from pixel_files import facts

pytestmark = pytest.mark.timeout(300)

INDEPENDENT = {"1.2.840.10008.1.2.4.70": "gdcm", "1.2.840.10008.1.2.4.80": "pyjpegls"}
"""Where pydicom has a plugin of other code than the first of our decoders."""
HTJ2K = {"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.203"}


@pytest.fixture(scope="module")
def images(shared_data):
    """Path, data set and facts of every file with pixels."""
    found = []
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted((shared_data / "data" / "dicom").rglob("*")):
            if not path.is_file():
                continue
            try:
                dataset = pydicom.dcmread(path, force=True)
            except Exception:
                continue
            if "Rows" not in dataset or not any(
                name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
            ):
                continue
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit = dataset.original_encoding[0]
                dataset.file_meta.TransferSyntaxUID = (
                    ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
                )
            found.append((path, dataset, facts(dataset)))
    yield found
    logging.disable(logging.NOTSET)


def decoded(path, instance):
    try:
        return np.stack(list(read_stored(path, instance, range(instance.pixels.frames))))
    except Skip as skip:
        return skip.reason


def independent(dataset):
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    plugin = INDEPENDENT.get(syntax, "")
    decoder = get_decoder(syntax)
    if plugin not in decoder.available_plugins:
        plugin = ""
    pixels, _ = decoder.as_array(dataset, raw=True, decoding_plugin=plugin)
    return pixels


def test_every_image_is_pydicoms_or_has_a_reason(images):
    compared, reasons = 0, Counter()
    for path, dataset, instance in images:
        ours = decoded(path, instance)
        if isinstance(ours, Reason):
            reasons[ours] += 1
            assert instance.pixels.bits_allocated == 1 or ours == Reason.UNSUPPORTED_SYNTAX, path.name
            continue
        if instance.pixels.syntax in HTJ2K:
            continue  # pydicom has no plugin for these without another package; see the test below
        theirs = independent(dataset)
        np.testing.assert_array_equal(ours.squeeze(), theirs.squeeze(), err_msg=path.name)
        assert ours.dtype == theirs.dtype.newbyteorder("=")
        compared += 1
    assert compared >= 450
    assert reasons[Reason.UNSUPPORTED_PIXELS] >= 18


def test_htj2k_is_what_another_build_of_openjpeg_gives(images):
    from openjpeg.utils import decode_pixel_data

    seen = 0
    for path, dataset, instance in images:
        if instance.pixels.syntax in HTJ2K:
            (ours,) = read_stored(path, instance, [0])
            stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
            theirs = np.frombuffer(decode_pixel_data(stream, version=2), np.uint8)
            np.testing.assert_array_equal(ours.ravel(), theirs)
            seen += 1
    assert seen == 2


def test_the_pool_gives_what_one_process_gives(images):
    grey = [one for one in images if one[2].pixels.photometric.startswith("MONO")][::3]
    jobs = [DecodePlanes(path, instance, tuple(range(instance.pixels.frames))) for path, _, instance in grey]
    with DecodePool(2) as pool:
        results = list(pool.map(jobs))
    taken = 0
    for (path, _, instance), result in zip(grey, results, strict=True):
        ours = decoded(path, instance)
        if isinstance(ours, Reason):
            assert result.reason == ours
            continue
        assert isinstance(result, PlanesDecoded)
        np.testing.assert_array_equal(result.values, ours.astype(np.float32))
        taken += 1
    assert taken > 100


def test_float_pixels_make_the_volume_that_pydicom_reads(shared_data, tmp_path):
    """The two float files at hand are maps made of images, which are not taken: so their class is rewritten here."""
    for name in ("parametric_map_float.dcm", "parametric_map_double_float.dcm"):
        path = shared_data / "data" / "dicom" / "pydicom_data" / name
        with pytest.raises(Skip, match=Reason.OTHER_MODALITY):
            read_instance(path)
        dataset = pydicom.dcmread(path)
        expected = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
        dataset.save_as(tmp_path / name)
        instance = read_instance(tmp_path / name)
        assert instance.pixels.kind == ("double" if "double" in name else "float")
        for plane, wanted in zip(
            read_planes(tmp_path / name, instance, range(len(expected))), expected, strict=True
        ):
            slope, intercept = instance.frames[0].slope, instance.frames[0].intercept
            np.testing.assert_array_equal(plane.values, (wanted * slope + intercept).astype(np.float32))
