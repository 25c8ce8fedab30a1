"""From a file to its facts: the fast way where it is certain, pydicom for the rest.

`walk` is safe in any process. `read_with_pydicom` is not: a hostile header can make pydicom recurse and allocate, so
it belongs in a worker with a memory and a time limit.
"""

from dataclasses import dataclass
from pathlib import Path

from hilum.client.intake.headers.build_instance import (
    Planes,
    frames_in_time,
    has_groups,
    instance_of,
    is_mosaic,
    judge_syntax,
    needs_dataset,
)
from hilum.client.intake.headers.mosaic import mosaic_frames
from hilum.client.intake.headers.multiframe import frames_of, regions_of
from hilum.client.intake.headers.pydicom_tags import pydicom_tags, whole_dataset
from hilum.client.intake.headers.sop_classes import taken
from hilum.client.intake.headers.tags import Tags
from hilum.client.intake.headers.walker import walk_tags
from hilum.client.intake.instance import Frame, Instance
from hilum.client.intake.transfer_syntaxes import DEFLATED


@dataclass(frozen=True)
class NeedsPydicom:
    """The walker can't tell: `read_with_pydicom` must be asked."""


_ASK = NeedsPydicom()


def read_tags(path: Path) -> Tags:
    """Return the allow-listed tags of a file, the same whichever way they were read.

    Raises:
        Skip: If the file can't be read, is not a DICOM file, or its header is broken.
    """
    return walk_tags(path) or pydicom_tags(path)


def walk(path: Path) -> Instance | NeedsPydicom:
    """Read one header the fast way.

    Raises:
        Skip: With the reason why this file is not an image that Hilum takes.
    """
    tags = walk_tags(path)
    if tags is None or needs_dataset(tags):
        return _ASK
    return instance_of(tags)


def read_with_pydicom(path: Path) -> Instance:
    """Read one header with pydicom; of an enhanced object or an ultrasound image the whole data set before the pixels.

    Raises:
        Skip: With the reason why this file is not an image that Hilum takes.
    """
    tags = pydicom_tags(path)
    judge_syntax(tags)

    def planes(first: Frame) -> Planes:
        dataset = whole_dataset(path, deflated=tags.syntax == DEFLATED)
        kind = taken(str(tags.get("SOPClassUID")))
        assert kind is not None
        if is_mosaic(tags, kind):
            return mosaic_frames(dataset, first), ()
        if has_groups(tags, kind):
            return frames_of(dataset, kind.family), regions_of(dataset)
        return frames_in_time(first, tags), regions_of(dataset)

    return instance_of(tags, planes)


def read_instance(path: Path) -> Instance:
    """Read one header, in this process whatever it takes.

    Raises:
        Skip: With the reason why this file is not an image that Hilum takes.
    """
    found = walk(path)
    return read_with_pydicom(path) if isinstance(found, NeedsPydicom) else found
