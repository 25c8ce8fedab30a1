"""A file of tensors: which it is, and one tensor at a time."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hilum.common.errors import ConfigError, DamagedError

WHERE = "encoder.init"
_PICKLES = {".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".tar", ".th"}
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02\x8a\x0a")  # torch.save since 1.6, and before
_CONVERT = (
    "is a pickle, which can run code when it is read; on a machine where that may happen, convert it: "
    "python -c \"import sys, torch, safetensors.torch as s; t = torch.load(open(sys.argv[1], 'rb'), weights_only=True); "
    "t = next((t[k] for k in ('model', 'teacher', 'state_dict') if k in t), t); "
    "s.save_file({k: v.clone() for k, v in t.items() if hasattr(v, 'clone')}, sys.argv[2])\" IN.pth OUT.safetensors"
)


class Source:
    """An open file of tensors. Where all that counts lies under one prefix, names are without it.

    Attributes:
        path: The file.
        sha256: Of its bytes.
        names: Of the tensors under the prefix, sorted.
        outside: Of all others, in full.
    """

    def __init__(self, path: Path, sha256: str, handle: Any, prefix: str = "") -> None:
        self.path, self.sha256 = path, sha256
        self._handle, self._prefix = handle, prefix
        stored = sorted(handle.keys())
        self.names = [name.removeprefix(prefix) for name in stored if name.startswith(prefix)]
        self.outside = [name for name in stored if not name.startswith(prefix)]

    def under(self, prefix: str) -> "Source":
        """Return the same file, seen under a prefix."""
        return Source(self.path, self.sha256, self._handle, prefix)

    def stored(self, name: str) -> str:
        """Return a tensor's name in full."""
        return self._prefix + name

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return tuple(self._handle.get_slice(self.stored(name)).get_shape())

    def tensor(self, name: str) -> Tensor:
        """Read a tensor as float32.

        Raises:
            DamagedError: If it is not whole, or holds a NaN or an infinity.
        """
        try:
            read: Tensor = self._handle.get_tensor(self.stored(name)).to(torch.float32)
        except (SafetensorError, OSError):
            raise _broken(self.path) from None
        if not read.isfinite().all():
            raise DamagedError(
                f"{self.path.name}: {self.stored(name)} holds a NaN or an infinity; take another file of weights"
            )
        return read


@contextmanager
def open_source(path: Path, sha256: str | None) -> Iterator[Source]:
    """Open a file of tensors, once it is known to be the one that is meant.

    Args:
        path: The file.
        sha256: What its bytes must have; None takes any.

    Raises:
        ConfigError: If there is no such file, it is a pickle, or its hash is another.
        DamagedError: If it is not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        problem = f"there is no file {path}; a relative path starts from the study file's own folder"
        raise ConfigError(WHERE, [problem]) from None
    except OSError as error:
        problem = f"{path} can't be read ({type(error).__name__}); name a file that you may read"
        raise ConfigError(WHERE, [problem]) from None
    if path.suffix in _PICKLES or start.startswith(_PICKLE_STARTS):
        raise ConfigError(WHERE, [f"{path.name} {_CONVERT}"])
    if sha256 is not None and found != sha256:
        problem = (
            f"{path.name} has the SHA-256 {found}, encoder.init.sha256 is {sha256}; fetch the file again, or write the hash "
            "of the file that you mean"
        )
        raise ConfigError(WHERE, [problem])
    try:
        opened = safe_open(path, "pt")
    except (SafetensorError, OSError):
        raise _broken(path) from None
    with opened as handle:
        yield Source(path, found, handle)


def _broken(path: Path) -> DamagedError:
    return DamagedError(f"{path.name} is not a whole safetensors file; fetch it again")
