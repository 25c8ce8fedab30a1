"""The optimizer of pre-training, the same wherever a step is taken."""

import torch

from hilum.client.pretraining.parameter_groups import parameter_groups
from hilum.common.config import StudyConfig
from hilum.common.methods import SSLMethod

_BETAS = (0.9, 0.95)  # arXiv 2111.06377, appendix A.1


def make_optimizer(method: SSLMethod, study: StudyConfig) -> torch.optim.AdamW:
    """Return AdamW with the study's decay of matrices, its rate still to be set in each step."""
    groups = parameter_groups(method.parameters(), study.training.weight_decay)
    return torch.optim.AdamW(groups, lr=study.base_learning_rate, betas=_BETAS, fused=True)
