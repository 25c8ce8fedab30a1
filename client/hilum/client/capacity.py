"""What this machine has free: memory of the device that trains, and disk."""

import os
import shutil
from pathlib import Path

from hilum.common.config.site import ComputeSection

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_memory_bytes(compute: ComputeSection) -> int:
    """Memory that a training could still take: of the CUDA device where one trains, else of the machine."""
    import torch

    on_cuda = compute.device == "cuda" or (compute.device == "auto" and torch.cuda.is_available())
    if on_cuda and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    return min(_available_bytes(), _cgroup_bytes())


def free_disk_bytes(folder: Path) -> int:
    """Free space where a folder lies, or will lie."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _available_bytes() -> int:
    """What Linux calls available: free, and what it would give up; elsewhere the pages that are free."""
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _cgroup_bytes() -> int:
    """What a container's limit leaves (cgroup v2); without a limit, as good as endless."""
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        inactive = next(
            int(line.split()[1])
            for line in (_CGROUP / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, StopIteration):
        return 2**62
    return 2**62 if limit == "max" else max(0, int(limit) - int(used) + inactive)
