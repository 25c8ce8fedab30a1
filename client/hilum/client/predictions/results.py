"""What a model says of one image, before it is written as any kind of file.

Shapes: K classes; *S space of the item: H W of an image, D H W of a volume.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Classes:
    """Probabilities of classes of the whole image.

    Attributes:
        names: Of the K classes.
        values: (K,) in [0, 1]; their sum is 1 where classes exclude each other.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Numbers:
    """Measured quantities of the whole image.

    Attributes:
        units: As UCUM writes them (unitsofmeasure.org), `1` where there is none; one a quantity.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    units: tuple[str, ...]


@dataclass(frozen=True)
class LabelMap:
    """Which class each pixel or voxel of an item belongs to.

    Attributes:
        names: Of the K classes, without the background.
        labels: (*S) on the item's own grid: 0 for the background, else 1 + the place of the class in `names`.
        probabilities: (K, *S) in [0, 1], or None.
    """

    names: tuple[str, ...]
    labels: npt.NDArray[np.uint8] = field(repr=False)
    probabilities: npt.NDArray[np.float32] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class FoundBox:
    """One finding, in pixels of the item: (0, 0) is the upper left corner of the first pixel, x runs along a row.

    Attributes:
        score: In [0, 1].
        slices: First and last slice of a volume, both inside; None of an image.
    """

    name: str
    score: float
    x: float
    y: float
    width: float
    height: float
    slices: tuple[int, int] | None = None


@dataclass(frozen=True)
class Boxes:
    """The findings of an image; there may be none."""

    found: tuple[FoundBox, ...]


Result = Classes | Numbers | LabelMap | Boxes


@dataclass(frozen=True)
class Identity:
    """Which model said it.

    Attributes:
        name: Of the study that it was made in.
        sha256: Of its weights and what they mean, in hexadecimal digits.
    """

    name: str
    sha256: str
