"""What a fine-tuned model of each task is, without the site that it was trained at: its head, and what its outputs say.

Shapes: m images, K outputs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from hilum.client.data.site_data import SiteData
from hilum.client.tasks.base import Predictions, Task
from hilum.client.tasks.classification import Classification, probabilities
from hilum.client.tasks.finetuning import PooledLinear
from hilum.common.config import StudyConfig
from hilum.common.encoders import Encoder


class ModelKind(NamedTuple):
    """One kind of model.

    Attributes:
        head: Makes the head on an encoder, for outputs of these names.
        predictions: Gives predictions (m, ...) from outputs (m, ...), already divided by the temperature.
        task: Opens the task at a site for a model with these names of outputs.
    """

    head: Callable[[StudyConfig, Encoder, Sequence[str]], nn.Module]
    predictions: Callable[[Tensor], Predictions]
    task: Callable[[SiteData, StudyConfig, Sequence[str]], Task]


def _linear(study: StudyConfig, encoder: Encoder, names: Sequence[str]) -> nn.Module:
    del study
    return PooledLinear(encoder, len(names))


MODEL_KINDS: dict[str, ModelKind] = {
    "classification": ModelKind(_linear, probabilities, Classification.of),
}
"""By the task's key under `[tasks]`."""
