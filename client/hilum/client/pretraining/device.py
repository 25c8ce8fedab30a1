"""Device, precision and threads, through Lightning Fabric."""

from typing import Literal

import torch
from lightning_fabric import Fabric

Device = Literal["auto", "cpu", "cuda"]


def make_fabric(device: Device, precision: str, threads: int) -> Fabric:
    """Return a Fabric on one device.

    Args:
        device: `auto` takes a CUDA device where there is one.
        precision: `auto` is bf16 autocast where the CUDA device has it, else fp32.
        threads: Of torch on the CPU; reductions depend on it, so it belongs to the study.
    """
    torch.set_num_threads(threads)
    on_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    bf16 = precision == "bf16" or (precision == "auto" and on_cuda and torch.cuda.is_bf16_supported())
    return Fabric(
        accelerator="cuda" if on_cuda else "cpu", devices=1, precision="bf16-mixed" if bf16 else "32-true"
    )


def device_name(fabric: Fabric) -> str:
    """Return what a person calls the device."""
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
