"""Looks for text in the frames of one image as they are decoded.

Shapes: H rows, W columns.
"""

import numpy as np

from hilum.client.intake.pixels.crop import Crop, Pixels, cropped
from hilum.client.intake.quarantine.text_detector import has_text

FRAMES_LOOKED_AT = 12


class TextSearch:
    """Every frame of a short clip is looked at; of a long one some, and its brightest and darkest values over time.

    Text that comes and goes between the frames looked at still stands in one of the two.

    Args:
        part: Of the image; what lies outside is not looked at.
        frames: How many there will be.
    """

    def __init__(self, part: Crop, frames: int) -> None:
        self._part = part
        self._wanted = set(range(frames))
        self._brightest: Pixels | None = None
        self._darkest: Pixels | None = None
        self._over_time = frames > FRAMES_LOOKED_AT
        if self._over_time:
            self._wanted = set(np.linspace(0, frames - 1, FRAMES_LOOKED_AT).round().astype(int).tolist())
        self._found = False

    def look(self, number: int, frame: Pixels) -> None:
        """Take the next frame, counted from 0: (H, W) or (H, W, 3)."""
        if self._found:
            return
        inside = cropped(frame, self._part, 0)
        if self._over_time and (self._brightest is None or self._darkest is None):
            self._brightest, self._darkest = inside.copy(), inside.copy()
        elif self._brightest is not None and self._darkest is not None:
            np.maximum(self._brightest, inside, out=self._brightest)
            np.minimum(self._darkest, inside, out=self._darkest)
        if number in self._wanted:
            self._found = has_text(inside)

    def found(self) -> bool:
        """Tell whether any has text, once all frames were taken."""
        extremes = (self._brightest, self._darkest)
        return self._found or any(has_text(one) for one in extremes if one is not None)
