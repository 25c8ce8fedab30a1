"""Where a server finds what a run starts from, until the run is finished: `submit` puts it there."""

from pathlib import Path


def start_file(runs: Path, run: str, sha256: str) -> Path:
    """Return the place of a start, beside the run directories, among which no run's name begins with a dot."""
    return runs / ".starts" / f"{run}-{sha256}.safetensors"
