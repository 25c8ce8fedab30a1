"""Weights from elsewhere for an encoder of a study: what is taken, what is adapted, what is left.

One file for each way of naming tensors (`timm`, `dino`, `mae`, `torchvision`, `own`); what several need lies beside them.
Safetensors alone, never pickles.
"""

from hilum.common.encoders.warm_start.load import Found, inspect_file, warm_start
from hilum.common.encoders.warm_start.report import WarmStartReport

__all__ = ["Found", "WarmStartReport", "inspect_file", "warm_start"]
