"""The one list of methods."""

from typing import Any

import torch

from hilum.common.config import StudyConfig
from hilum.common.encoders import build_encoder
from hilum.common.encoders.base import initialise
from hilum.common.methods.base import SSLMethod
from hilum.common.methods.mae import MAE
from hilum.common.methods.parts import freeze
from hilum.common.methods.simclr import SimCLR
from hilum.common.seeding import derive

_METHODS: dict[str, Any] = {method.spec.name: method for method in (MAE, SimCLR)}
"""Each takes an encoder that its section accepts, and its section."""

METHODS = {name: method.spec for name, method in _METHODS.items()}


def build_method(study: StudyConfig) -> SSLMethod:
    """Return the study's method around the study's encoder, with first values that the study's seed decides.

    Every participant who builds it gets the same bits, the local parts included.
    """
    method: SSLMethod = _METHODS[study.method.name](build_encoder(study), study.method)
    initialise(method, torch.Generator().manual_seed(derive(study.study.seed, "initial weights")))
    freeze(method)
    return method
