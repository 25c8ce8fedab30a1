"""Reads a DICOM file of annotations in a decoding process: a segmentation, or a structure set."""

from pathlib import Path

from hilum.client.intake.formats.ipc import Facts, Write
from hilum.client.intake.formats.objects import sop_class_of
from hilum.client.intake.formats.read_rtstruct import SOP_CLASS, read_rtstruct
from hilum.client.intake.formats.read_seg import SOP_CLASSES, read_seg
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.silence import silent_readers


def read_object(path: Path, write: Write) -> Facts:
    """Write what the object marks, and tell what it says of it.

    Raises:
        Skip: If it is no such object, or the whole of it can't be taken.
    """
    with silent_readers():
        sop_class = sop_class_of(path)
        if sop_class in SOP_CLASSES:
            return read_seg(path, write)
        if sop_class == SOP_CLASS:
            return read_rtstruct(path, write)
    raise Skip(Reason.NOT_AN_ANNOTATION)
