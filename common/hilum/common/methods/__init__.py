"""Self-supervised methods: one file each over the `SSLMethod` protocol."""

from hilum.common.methods.base import MethodSpec, SSLMethod, ViewPlan
from hilum.common.methods.registry import METHODS, build_method

__all__ = ["METHODS", "MethodSpec", "SSLMethod", "ViewPlan", "build_method"]
