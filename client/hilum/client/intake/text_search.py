"""Looks for text in the frames of one image as they are decoded, and tells which part of it is free.

Shapes: H rows, W columns.
"""

from collections.abc import Sequence

import numpy as np

from hilum.client.intake.crop import Crop, Pixels, cropped
from hilum.client.intake.text_detector import has_text

FRAMES_LOOKED_AT = 12


class TextSearch:
    """Every frame of a short clip is looked at; of a long one some, and its brightest and darkest values over time.

    Text that comes and goes between the frames looked at still stands in one of the two.

    Args:
        parts: Of the image; one is searched only where those before it hold text.
        frames: How many there will be.
    """

    def __init__(self, parts: Sequence[Crop], frames: int) -> None:
        self._parts = parts
        self._current = 0
        self._wanted = set(range(frames))
        self._brightest: Pixels | None = None
        self._darkest: Pixels | None = None
        self._over_time = frames > FRAMES_LOOKED_AT
        if self._over_time:
            self._wanted = set(np.linspace(0, frames - 1, FRAMES_LOOKED_AT).round().astype(int).tolist())
        self._seen: list[Pixels] = []  # kept while another part may have to be searched

    def look(self, number: int, frame: Pixels) -> None:
        """Take the next frame, counted from 0: (H, W) or (H, W, 3)."""
        if self._current == len(self._parts):
            return
        if self._over_time and (self._brightest is None or self._darkest is None):
            self._brightest, self._darkest = frame.copy(), frame.copy()
        elif self._brightest is not None and self._darkest is not None:
            np.maximum(self._brightest, frame, out=self._brightest)
            np.minimum(self._darkest, frame, out=self._darkest)
        if number in self._wanted:
            self._search(frame)

    def free_part(self) -> int | None:
        """The first of the parts that no frame has text in, once all frames were taken; None where each has."""
        for extreme in (self._brightest, self._darkest):
            if extreme is not None:
                self._search(extreme)
        return self._current if self._current < len(self._parts) else None

    def _search(self, frame: Pixels) -> None:
        if self._current + 1 < len(self._parts):
            self._seen.append(frame)
        frames = [frame]
        while self._current < len(self._parts) and any(
            has_text(cropped(one, self._parts[self._current], 0)) for one in frames
        ):
            self._current += 1
            frames = self._seen
