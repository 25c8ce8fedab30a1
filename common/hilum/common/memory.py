"""What memory this machine, or the container that this process is in, has free."""

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_machine_bytes() -> int:
    """Memory that this process could still take before something is killed for it."""
    return min(_available_bytes(), _cgroup_bytes())


def _available_bytes() -> int:
    """Return what Linux calls available: free, and what it would give up; elsewhere the pages that are free."""
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _cgroup_bytes() -> int:
    """Return what a container's limit leaves (cgroup v2); without a limit, as good as endless."""
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
