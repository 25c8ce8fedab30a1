"""Where files come from: a folder that is only read, and the inbox of what the network brought."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hilum.client.intake.sources.scan import FoundFile, scan
from hilum.client.state.workspace import Pseudonyms, Workspace
from hilum.common.errors import DataError

# What the keys of files start with: a file of the folder has a bare pseudonym.
_INBOX = "inbox:"
_REMOVED = "removed:"  # it was in the inbox, and no index looks for it again; see `inbox_cleanup`


@dataclass(frozen=True)
class Source:
    """One place and what is in it.

    Attributes:
        prefix: Starts the keys of its files.
    """

    folder: Path
    prefix: str
    files: tuple[FoundFile, ...]


@dataclass(frozen=True)
class Found:
    """The files of one pass, all of them: whoever shows its progress knows the total before it begins.

    Attributes:
        archive: The folder that was looked at beside the inbox, or None.
    """

    archive: Path | None
    sources: tuple[Source, ...]

    @property
    def count(self) -> int:
        """How many files."""
        return sum(len(source.files) for source in self.sources)

    def keyed(self, names: Pseudonyms) -> dict[str, FoundFile]:
        """Return every file by its key in the catalogue."""
        return {
            source.prefix + names.of("file", relative_name(file, source.folder)): file
            for source in self.sources
            for file in source.files
        }

    def relative_name(self, file: FoundFile) -> str:
        """Return a file's name within the source that it is in; an identifier."""
        source = next(source for source in self.sources if file.path.is_relative_to(source.folder))
        return relative_name(file, source.folder)

    def covers(self, file_key: str) -> bool:
        """Tell whether this pass looked where the file would be."""
        if is_removed(file_key):
            return False
        prefix = _INBOX if is_of_inbox(file_key) else ""
        return any(prefix == source.prefix for source in self.sources)


def relative_name(file: FoundFile, folder: Path) -> str:
    """Return a file's name within its folder, with forward slashes; an identifier."""
    return file.path.relative_to(folder).as_posix()


def is_of_inbox(file_key: str) -> bool:
    """Tell whether a key is that of a file of the inbox."""
    return file_key.startswith(_INBOX)


def is_removed(file_key: str) -> bool:
    """Tell whether a key is that of a file that was removed from the inbox."""
    return file_key.startswith(_REMOVED)


def removed_key(inbox_key: str) -> str:
    """Return the key that a file of the inbox has once it is removed."""
    return _REMOVED + inbox_key.removeprefix(_INBOX)


def key_if_removed(name: str, names: Pseudonyms) -> str:
    """Return the key that a file of the inbox, named relative to it, has once it is removed."""
    return _REMOVED + names.of("file", name)


def find(
    archive: Path | None,
    workspace: Workspace,
    held_back: Callable[[FoundFile], bool] = lambda _file: False,
) -> Found:
    """Look for files.

    Args:
        archive: The folder; None looks at the inbox alone.
        workspace: Has the inbox.
        held_back: Says of a file of the folder that it is to count as not there yet.

    Raises:
        DataError: If the archive is not a readable folder, or holds no file at all.
    """
    sources = []
    if archive is not None:
        there = list(scan(archive))
        if not there:
            raise DataError("the archive folder is empty; check the path (is the share mounted?)")
        sources.append(Source(archive, "", tuple(file for file in there if not held_back(file))))
    if workspace.inbox.exists():
        sources.append(Source(workspace.inbox, _INBOX, tuple(scan(workspace.inbox))))
    return Found(archive, tuple(sources))
