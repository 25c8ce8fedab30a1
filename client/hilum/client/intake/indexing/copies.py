"""Files of one instance are compared before one of them is believed: which to decode for that, and what it shows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hilum.client.intake.indexing.planning import Image, Planning
from hilum.client.intake.instance import Instance
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox.jobs import DecodeImage, DecodePlanes, ImageDecoded, Job, Refused, Result


class Copies:
    """The copies among a series' files; those of a volume's slices are compared as it is assembled."""

    def __init__(self, planning: Planning) -> None:
        self._planning = planning
        self._verified: set[int] = set()  # members that were seen to show what the one shows that is kept
        self._probed: set[int] = set()

    def to_look_at(self, image: Image, *, is_kept: bool) -> tuple[int, ...]:
        """Return the member of an image and its copies, as far as they have to be decoded: all, or nothing is new.

        Args:
            image: As planned.
            is_kept: Whether it is an item already.
        """
        index, members = image[0][0], self._planning.members
        copies = [copy for kept, copy in self._planning.planned.copies if kept == index]
        if members[index].item is not None:
            self._verified.update(copy for copy in copies if members[copy].was_copy)
        new = [copy for copy in copies if copy not in self._verified]
        return (index, *new) if new or not is_kept else ()

    def look_at(self, looks: tuple[int, ...], results: Iterator[Result]) -> ImageDecoded | None:
        """Return what an image shows; None if it can't be decoded, or a copy that can shows something else.

        Args:
            looks: By `to_look_at`. Those that can't be decoded fail, and all of them where they contradict each other.
            results: Of decoding them, in this order.
        """
        index, *copies = looks
        shown = self._shown(index, next(results))
        alike = True
        for copy in copies:
            other = self._shown(copy, next(results))
            alike = alike and (shown is None or other is None or np.array_equal(shown.image, other.image))
        if not alike:
            self._planning.distrust(index)
            return None
        if shown is not None:
            self._verified.update(copies)
        return shown

    def _shown(self, index: int, result: Result) -> ImageDecoded | None:
        if isinstance(result, Refused):
            self._planning.failed[index] = result.reason
            return None
        assert isinstance(result, ImageDecoded)
        return result

    def to_probe(self) -> tuple[int, ...]:
        """Return the members whose headers contradict another's, and of which it is not known if they can be decoded."""
        return tuple(
            index
            for index, reason in self._planning.planned.refused.items()
            if reason == Reason.CONTRADICTING_COPIES and index not in self._probed
        )

    def judge_probe(self, index: int, result: Result) -> None:
        """Drop what contradicts another file and can't be decoded itself: it speaks against nothing."""
        self._probed.add(index)
        if isinstance(result, Refused) and result.reason != Reason.CONSTANT_PIXELS:
            self._planning.failed[index] = result.reason


def probe(path: Path, instance: Instance) -> Job:
    """Return what shows whether the pixels of a file can be decoded."""
    frames = (0,) if instance.mosaic else tuple(frame.index for frame in instance.frames)
    if instance.pixels.photometric.startswith("MONOCHROME"):
        return DecodePlanes(path, instance, frames)
    return DecodeImage(path, instance, frames)
