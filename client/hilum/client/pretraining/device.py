"""Device, precision and threads, through Lightning Fabric."""

import os
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import nn

from hilum.common.errors import RequestRefused

Device = Literal["auto", "cpu", "cuda"]


def make_fabric(device: Device, precision: str, threads: int, devices: int = 1, nodes: int = 1) -> Fabric:
    """Return a Fabric on one device, or for one of the processes that train on several.

    Args:
        device: `auto` takes a CUDA device where there is one.
        precision: `auto` is bf16 autocast where the CUDA device has it, else fp32.
        devices: How many processes of this machine train together; each has its number in its environment.
        nodes: How many machines do.
        threads: Of torch on the CPU; reductions depend on it, so it belongs to the study.

    Raises:
        RequestRefused: `machine`, if a GPU is asked for and there is none, or more than there are.
    """
    if (problem := lacks_devices(device, devices)) is not None:
        raise RequestRefused("machine", problem)
    torch.set_num_threads(threads)
    on_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    bf16 = precision == "bf16" or (precision == "auto" and on_cuda and torch.cuda.is_bf16_supported())
    if on_cuda:
        # What is in single precision is computed in it: no product is rounded to the 10 bits of TF32 first.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        # Read when the first product is computed; `training.deterministic` needs it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return Fabric(
        accelerator="cuda" if on_cuda else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision="bf16-mixed" if bf16 else "32-true",
    )


def lay_out(module: nn.Module, fabric: Fabric) -> None:
    """Order the kernels of convolutions as a GPU's matrix units read them, channels last; what is computed stays the same.

    A convolution gives its result in the order of its kernel. Compiled blocks keep it; otherwise a GroupNorm goes back to channels first.
    """
    if fabric.device.type != "cuda":
        return
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


def lacks_devices(device: Device, devices: int) -> str | None:
    """Return what is wrong where a site names a GPU and there is none, or more than there are; None if nothing is."""
    there = torch.cuda.device_count()
    if device == "cuda" and not there:
        return "compute.device = cuda, but torch sees no GPU; see to its driver (`nvidia-smi`), or write auto"
    if device == "cpu" or not there or devices <= there:
        return None
    return f"compute.devices = {devices}, but torch sees {there} GPU{'s' if there > 1 else ''}; write {there}, or see to the others"


def device_name(fabric: Fabric) -> str:
    """Return what a person calls the device."""
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
