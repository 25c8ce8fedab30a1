"""The section of SimCLR, and its size."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hilum.common.config.data import DataSection
from hilum.common.config.encoders.base import EncoderSection
from hilum.common.config.methods.base import MethodSection

_PROJECTED = 6  # widths kept of one view by the projection head


class SimclrConfig(MethodSection):
    """SimCLR (arXiv 2002.05709)."""

    min_batch: ClassVar[int] = 2
    min_batch_reason: ClassVar[str] = "contrasts images"
    views: ClassVar[int] = 2
    strong_views: ClassVar[bool] = True
    base_learning_rate: ClassVar[float] = (
        5e-4  # with AdamW as in DINO (arXiv 2104.14294); the paper's is for LARS
    )

    name: Literal["simclr"]
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.2
    projection_width: Annotated[int, Field(ge=1, le=4096)] = 128

    def head_parameters(self, encoder: EncoderSection, data: DataSection) -> int:
        """Return the projection head's parameters."""
        del data
        E = encoder.width
        return (E + 1) * E + 2 * E + (E + 1) * self.projection_width

    def kept_values(self, encoder: EncoderSection, data: DataSection, *, recomputed: bool = False) -> int:
        """See `MethodSection`."""
        return self.views * (encoder.kept_values(data, recomputed=recomputed) + _PROJECTED * encoder.width)
