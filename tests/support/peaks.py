"""The peak memory of a process, as Linux counts it.

`ru_maxrss` will not do for a process just started: it keeps the peak of the one that started it, over exec too.
"""

from pathlib import Path


def resident_bytes(process: int | str = "self") -> int:
    """What the process holds now."""
    return _bytes(process, "VmRSS")


def peak_bytes(process: int | str = "self") -> int:
    """The most it held since it began, or since `forget_peak`."""
    return _bytes(process, "VmHWM")


def forget_peak(process: int | str = "self") -> None:
    """Let the peak count from here (proc(5), clear_refs)."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def _bytes(process: int | str, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    [line] = [one for one in lines if one.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024
