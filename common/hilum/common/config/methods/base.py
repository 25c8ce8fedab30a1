"""What the section of every method says of itself."""

import abc
from typing import ClassVar

from hilum.common.config.base import Section
from hilum.common.config.data import DataSection
from hilum.common.config.encoders.base import EncoderSection


class MethodSection(Section, abc.ABC):
    """A method's parameters, what it fits, and what it takes of a machine by arithmetic.

    Attributes:
        min_batch: Images that a step needs, and so a site.
        min_batch_reason: Why, in words that go on from the method's name.
        views: Views of an image that a step holds at once.
        strong_views: Whether it takes strong views; mild ones are taken by fine-tuning in any case.
        base_learning_rate: What its paper, or one like it, takes with AdamW for 256 images.
    """

    min_batch: ClassVar[int] = 1
    min_batch_reason: ClassVar[str] = ""
    views: ClassVar[int] = 1
    strong_views: ClassVar[bool] = False
    base_learning_rate: ClassVar[float]

    name: str

    @classmethod
    def misfit(cls, encoder: type[EncoderSection]) -> str | None:
        """Return what the method does that such an encoder can't do; None if it can."""
        del encoder
        return None

    def too_small(self, encoder: EncoderSection, data: DataSection) -> str | None:
        """Return why such images are too small for the method, and what to write instead; None if they are not."""
        del encoder, data
        return None

    @abc.abstractmethod
    def head_parameters(self, encoder: EncoderSection, data: DataSection) -> int:
        """Return how many parameters there are beside the encoder's."""

    def shared_head_parameters(self, encoder: EncoderSection, data: DataSection) -> int:
        """Return how many of the head's parameters travel."""
        del encoder, data
        return 0

    @abc.abstractmethod
    def kept_values(self, encoder: EncoderSection, data: DataSection, *, recomputed: bool = False) -> int:
        """Return how many values of one image, all its views, are kept for the backward pass; see `EncoderSection`."""

    def position_width(self, encoder: EncoderSection) -> int:
        """Return the width of positions that are computed when it is built, beside the encoder's."""
        del encoder
        return 0
