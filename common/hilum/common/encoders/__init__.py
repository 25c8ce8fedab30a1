"""Encoders of our own: 2D and 3D, LayerNorm or GroupNorm only, nothing that DP-SGD can't serve."""

from hilum.common.encoders.base import Encoder
from hilum.common.encoders.registry import ENCODERS, EncoderSpec, build_encoder, encoders_for

__all__ = ["ENCODERS", "Encoder", "EncoderSpec", "build_encoder", "encoders_for"]
