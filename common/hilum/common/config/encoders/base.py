"""What the section of every encoder says of itself."""

import abc
from typing import ClassVar, Literal

from hilum.common.config.base import Section
from hilum.common.config.data import DataSection
from hilum.common.config.encoders.init import InitSection

Size = Literal["tiny", "small", "base"]


class EncoderSection(Section, abc.ABC):
    """An encoder's parameters, what it fits, and what it takes of a machine by arithmetic.

    The numbers of parameters are exact; those of kept values are estimates (`hilum.common.footprint`).

    Attributes:
        drops_patches: Whether patches can be left out before any of the work is done, as a masked autoencoder wants.
        layer_decay: What `evaluation.layer_decay` is unless the study says it.
        init: Where its first weights come from; random ones, if none.
    """

    drops_patches: ClassVar[bool] = False
    layer_decay: ClassVar[float] = 1.0

    name: str
    size: Size
    init: InitSection | None = None

    def misfit(self, data: DataSection) -> str | None:
        """Return why this encoder can't take such images, and what to write instead; None if it can."""
        del data
        return None

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """E, how many features it gives."""

    @abc.abstractmethod
    def parameters(self, data: DataSection) -> int:
        """Return how many parameters it has."""

    @abc.abstractmethod
    def tokens(self, data: DataSection) -> int:
        """Return the pieces that an image has for it: patches, or pixels or voxels in 1024, rounded up."""

    @abc.abstractmethod
    def patch_values(self, data: DataSection) -> int:
        """Return P, how many values a patch has.

        Raises:
            TypeError: If it has no patches.
        """

    @abc.abstractmethod
    def kept_values(self, data: DataSection, seen: int | None = None, *, recomputed: bool = False) -> int:
        """Return how many values of one view are kept for the backward pass.

        Args:
            data: The images.
            seen: How many of its patches are seen; all, unless it can drop them.
            recomputed: Whether blocks keep their inputs alone; one at a time is computed again.
        """

    @property
    @abc.abstractmethod
    def layers(self) -> int:
        """How many layers' values the backward pass keeps where inference keeps one layer's."""

    @property
    def position_width(self) -> int:
        """The width of positions that are computed when it is built, 0 for none."""
        return 0
