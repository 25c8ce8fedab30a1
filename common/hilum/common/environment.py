"""The machine and the versions behind a run, for `environment.json`."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hilum.common import __version__
from hilum.common.cores import usable_cores

_PACKAGES = ("flwr", "lightning-fabric", "numpy", "pydicom", "ray", "scikit-learn", "torch")


def describe_environment() -> dict[str, Any]:
    """Versions, processor, cores and device; nothing that names the machine or its user."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "hilum": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": usable_cores(),
        "device": device,
        "packages": {name: _version_of(name) for name in _PACKAGES},
    }


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
