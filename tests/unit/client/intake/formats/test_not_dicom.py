"""A file that is no DICOM counts as what it is."""

import bz2
import gzip
import io
import lzma
import tarfile

import pytest

from hilum.client.intake.formats.not_dicom import what_it_is
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sources.scan import scan
from odd_files import zipped


def _tar():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as packed:
        packed.addfile(tarfile.TarInfo("image.dcm"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.zip", zipped(), Reason.PACKED),
        ("named-otherwise.dcm", zipped(), Reason.PACKED),
        ("none.zip", zipped(""), Reason.PACKED),
        ("report.docx", zipped("[Content_Types].xml"), Reason.NOT_DICOM),
        ("notes.odt", zipped("mimetype"), Reason.NOT_DICOM),
        ("arrays.npz", zipped("images.npy"), Reason.NOT_DICOM),
        ("tape", _tar(), Reason.PACKED),
        ("old.tar", b"v7 has no mark" + bytes(600), Reason.PACKED),
        ("a.tar.gz", gzip.compress(_tar()), Reason.PACKED),
        ("a.dcm.gz", gzip.compress(b"x"), Reason.PACKED),
        ("a.dcm.bz2", bz2.compress(b"x"), Reason.PACKED),
        ("a.dcm.xz", lzma.compress(b"x"), Reason.PACKED),
        ("seven", b"7z\xbc\xaf\x27\x1c" + bytes(30), Reason.PACKED),
        ("roshal", b"Rar!\x1a\x07\x01\x00" + bytes(30), Reason.PACKED),
        ("._one.dcm", b"\x00\x05\x16\x07" + bytes(80), Reason.SYSTEM_FILE),
        ("._one.png", b"\x00\x05\x16\x07" + bytes(80), Reason.SYSTEM_FILE),
        (".DS_Store", b"\x00\x00\x00\x01Bud1", Reason.SYSTEM_FILE),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0", Reason.SYSTEM_FILE),
        ("volume.nii.gz", gzip.compress(b"x"), Reason.NEEDS_FAMILY),
        ("slice.PNG", b"\x89PNG", Reason.NEEDS_FAMILY),
        ("notes.txt", b"hello", Reason.NOT_DICOM),
        ("empty.dcm", b"", Reason.EMPTY_FILE),
        ("empty.png", b"", Reason.EMPTY_FILE),
    ],
    ids=lambda value: (
        "" if isinstance(value, bytes) else str(value)
    ),  # archives hold the time, and ids must not
)
def test_a_file_that_is_no_dicom_counts_as_what_it_is(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    [found] = scan(tmp_path)
    assert (found.set_aside or what_it_is(found.path)) == reason
