"""What a site keeps of a run on its own disk: step checkpoints and local parts.

Every file starts with the SHA-256 of the rest; one that does not match is taken for absent.
"""

import hashlib
import io
import logging
import re
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from hilum.common.files import replacing

_DIGEST_BYTES = 32
_LOCAL = re.compile(r"local-(\d{6})\.pt")
_log = logging.getLogger(__name__)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values in one step, without a copy of them in memory."""
    with replacing(path) as file:
        file.write(bytes(_DIGEST_BYTES))
        body = _Hashed(file)
        torch.save(state, cast("IO[bytes]", body))
        file.seek(0)
        file.write(body.digest.digest())


class _Hashed:
    """A file whose content is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        """Write on."""
        self.digest.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is whole."""


def load_state(path: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote; None if the file is absent or damaged."""
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        _log.warning("a checkpoint of this run is damaged; going on without it")
        return None
    # weights_only: the file is the site's own, yet nothing but tensors and plain values is accepted from it.
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


class LocalParts:
    """The parts of a method that stay at the site, one file for each of the last rounds.

    A round may be asked twice, when the server lost it: so it always starts from the parts of the round before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def before(self, round_number: int) -> dict[str, Tensor] | None:
        """Return the newest parts from a round before this one; None if there are none."""
        for number, path in sorted(self._stored().items(), reverse=True):
            if number < round_number and (state := load_state(path)) is not None:
                return state
        return None

    def save(self, round_number: int, parts: dict[str, Tensor]) -> None:
        """Keep the parts after a round and those it started from; drop all others, an earlier run's among them.

        A file of any other name is not one of them, and is left alone.
        """
        save_state(self.folder / f"local-{round_number:06d}.pt", parts)
        stored = self._stored()
        kept = {round_number, max((n for n in stored if n < round_number), default=round_number)}
        for number in stored.keys() - kept:
            stored[number].unlink()

    def _stored(self) -> dict[int, Path]:
        """Return the files that `save` wrote, by round."""
        named = {path: _LOCAL.fullmatch(path.name) for path in self.folder.glob("local-*.pt")}
        return {int(match[1]): path for path, match in named.items() if match}
