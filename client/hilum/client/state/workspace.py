"""A site's own folder: catalogue, cache, key, checkpoints.

Only `inbox` and `incoming` hold identifiers in clear: DICOM files as a PACS gave them. The folder itself is closed to all
but its owner, whoever makes it; `hilum site` also sets a umask under which each file and folder in it is.

<state>/
    site.key            32 random bytes under which identifiers become pseudonyms
    catalogue.sqlite    what was indexed, by pseudonym
    cache/              one array an image or volume, named by its content
    inbox/              DICOM files that were pulled or received, until they are removed (`hilum.client.intake.sources.inbox`)
    incoming/           the same, on their way
    masks/              one array a mask, likewise
    prepared/           packed arrays at a study's size
    group/              rounds for processes on several machines (`hilum.client.pretraining.group`)
    compiled/           kernels made for the encoders that were trained on a GPU here
    splits/<run>.npz    who was set aside when a run began (`hilum.client.data.kept_split`)
    runs/<run>/         local parts and step checkpoints of one run
    runs.sqlite         what was asked in each run, and what it used up (`hilum.client.disclosure.run_ledger`)
    answers.sqlite      the answers given about the site (`hilum.client.disclosure.answers`)
"""

import hmac
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hilum.common import locks
from hilum.common.config.base import NAME_PATTERN
from hilum.common.errors import RunError
from hilum.common.files import private_folder, write_bytes

_KEY_BYTES = 32


@dataclass(frozen=True)
class Workspace:
    """The paths inside one site's state folder."""

    folder: Path

    @property
    def catalogue(self) -> Path:
        """The SQLite file."""
        return self.folder / "catalogue.sqlite"

    @property
    def cache(self) -> Path:
        """The decoded arrays."""
        return self.folder / "cache"

    @property
    def inbox(self) -> Path:
        """The DICOM files that were pulled or received."""
        return self.folder / "inbox"

    @property
    def masks(self) -> Path:
        """The arrays of masks, apart from the images so that an indexing leaves them alone."""
        return self.folder / "masks"

    @property
    def prepared(self) -> Path:
        """The packed arrays."""
        return self.folder / "prepared"

    @property
    def compiled(self) -> Path:
        """Kernels made for encoders."""
        return self.folder / "compiled"

    @property
    def group(self) -> Path:
        """Where processes on several machines look for work."""
        return self.folder / "group"

    @property
    def splits(self) -> Path:
        """Who was set aside in each run."""
        return self.folder / "splits"

    @property
    def runs(self) -> Path:
        """The ledger of what was asked in each run."""
        return self.folder / "runs.sqlite"

    @property
    def answers(self) -> Path:
        """The ledger of the answers given about the site."""
        return self.folder / "answers.sqlite"

    @property
    def not_indexed(self) -> str:
        """What to say where there is no catalogue: it names the folder, which a person may have meant otherwise."""
        return (
            f"nothing is indexed yet in {self.folder}; run `hilum site index FOLDER` first, or name the state folder with "
            "--home HOME: a site's part of it is HOME/site"
        )

    def run(self, run_id: str) -> Path:
        """Return the local state of one run.

        Raises:
            ValueError: If the run's name is none. Requests are checked before; this holds if that ever fails.
        """
        if not re.fullmatch(NAME_PATTERN, run_id):
            raise ValueError("a run's name is a folder's name and nothing more")
        return self.folder / "runs" / run_id

    def pseudonyms(self, first: bytes | None = None) -> "Pseudonyms":
        """Return the site's pseudonyms; the key is made at first use, readable by its owner alone.

        Args:
            first: The key to begin with, instead of a random one.
        """
        path = self.folder / "site.key"
        if not path.exists():
            with self.locked():
                if not path.exists():
                    write_bytes(path, first or secrets.token_bytes(_KEY_BYTES))
                    path.chmod(0o600)
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise RunError(
                "site.key is damaged: restore it from a backup; without one, move the state folder away, index again, and put "
                "runs.sqlite and answers.sqlite back: they are the ledgers"
            )
        return Pseudonyms(key)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process.

        Raises:
            RunError: If another process holds it.
        """
        try:
            private_folder(self.folder)
            lock = locks.take(self._lock, "another hilum process is working on this site; wait until it ends")
        except OSError as error:
            raise RunError(
                f"the state folder can't be written ({error.strerror}); make room there, or choose another with --home"
            ) from None
        with lock:
            yield

    def is_locked(self) -> bool:
        """Tell whether a process holds the folder now."""
        return locks.is_held(self._lock)

    @property
    def _lock(self) -> Path:
        return self.folder / ".lock"


@dataclass(frozen=True)
class Pseudonyms:
    """Identifiers to pseudonyms: HMAC-SHA256 under the site's key, apart for each kind of identifier."""

    key: bytes

    def of(self, kind: str, identifier: str) -> str:
        """32 hex digits; the same identifier of the same kind always gives the same.

        A file name that is not UTF-8 holds surrogates (PEP 383); each has bytes of its own here.
        """
        text = f"{kind}\0{identifier}".encode(errors="surrogatepass")
        return hmac.new(self.key, text, "sha256").hexdigest()[:32]
