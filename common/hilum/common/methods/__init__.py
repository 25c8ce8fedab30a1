"""Self-supervised methods: one file each over the `SSLMethod` protocol."""

from hilum.common.methods.base import (
    Geometry,
    Loss,
    MethodSpec,
    Parts,
    RandomNumbers,
    SSLMethod,
    ViewGroup,
    ViewPlan,
    Views,
)
from hilum.common.methods.registry import METHODS, build_method

__all__ = [
    "METHODS",
    "Geometry",
    "Loss",
    "MethodSpec",
    "Parts",
    "RandomNumbers",
    "SSLMethod",
    "ViewGroup",
    "ViewPlan",
    "Views",
    "build_method",
]
