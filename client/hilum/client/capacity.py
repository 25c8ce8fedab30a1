"""What this machine has free: memory of the device that trains, and disk."""

import shutil
from pathlib import Path

from hilum.common.config.site import ComputeSection
from hilum.common.memory import free_machine_bytes


def free_memory_bytes(compute: ComputeSection) -> int:
    """Memory that a training could still take: of the CUDA device where one trains, else of the machine."""
    import torch

    on_cuda = compute.device == "cuda" or (compute.device == "auto" and torch.cuda.is_available())
    if on_cuda and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    return free_machine_bytes()


def free_disk_bytes(folder: Path) -> int:
    """Free space where a folder lies, or will lie."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
