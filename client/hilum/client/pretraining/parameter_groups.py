"""Which parameters of a module decay."""

from torch import nn


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Return optimizer groups: weight decay for matrices, none for biases and norms, as is usual for transformers."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
