"""Which files an index set aside, by path: for the eyes of the site alone.

The catalogue knows files by pseudonym. So the archive is walked again and each name is keyed as an index does it; no file
is opened, and no path is kept.
"""

import difflib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hilum.client.intake.reasons import Reason
from hilum.client.intake.sources.sources import find
from hilum.client.state.catalogue import ACCEPTED, Catalogue
from hilum.client.state.index_runs import index_runs
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError


@dataclass(frozen=True)
class SkippedFiles:
    """The files that were set aside for one reason.

    Attributes:
        count: As the index counted them.
        paths: Of those that are still there.
    """

    reason: Reason
    count: int
    paths: tuple[Path, ...] = field(repr=False)


def read_reason(name: str | None) -> Reason | None:
    """Return the reason of this code; None for None.

    Raises:
        DataError: If there is no such code.
    """
    if name is None:
        return None
    if name not in set(Reason):
        near = difflib.get_close_matches(name, list(Reason), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(f"there is no such reason; {hint}`hilum site status` lists those that occur")
    return Reason(name)


def skipped_files(
    workspace: Workspace, reason: Reason | None = None, folder: Path | None = None
) -> list[SkippedFiles]:
    """Find the files that were set aside, the most frequent reason first.

    Args:
        workspace: Of an indexed site.
        reason: This one alone.
        folder: The indexed folder; None takes that of the last index.

    Raises:
        DataError: If nothing is indexed yet, or the folder is not there.
    """
    if not workspace.catalogue.exists():
        raise DataError("nothing is indexed yet; run `hilum site index FOLDER` first")
    catalogue = Catalogue(workspace.catalogue)
    try:
        rows = {key: row.status for key, row in catalogue.files().items() if row.status != ACCEPTED}
        indexed = next((run.folder for run in index_runs(catalogue) if run.folder), None)
    finally:
        catalogue.close()
    if reason is not None:
        rows = {key: status for key, status in rows.items() if status == reason}
    if folder is None and indexed is not None:
        folder = Path(indexed)
        if not folder.is_dir():
            raise DataError(
                "the folder of the last index is not there (is the share mounted?); name it with --folder if it is elsewhere "
                "now, or its name is not UTF-8"
            )
    paths: dict[str, list[Path]] = {status: [] for status in rows.values()}
    for key, file in find(folder, workspace).keyed(workspace.pseudonyms()).items():
        if key in rows:
            paths[rows[key]].append(file.path)
    counts = Counter(rows.values())
    return [
        SkippedFiles(Reason(status), counts[status], tuple(sorted(paths[status])))
        for status in sorted(counts, key=lambda one: (-counts[one], one))
    ]


def shown(path: Path) -> str:
    """Return a path on one line: as it is, or as a shell takes it (`$'...'`) where it holds what can't be printed."""
    text = str(path)
    if text.isprintable() and not text.startswith("$'"):
        return text
    return "$'" + "".join(map(_shell, os.fsencode(path))) + "'"


def _shell(byte: int) -> str:
    letter = chr(byte)
    if letter in "'\\":
        return f"\\{letter}"
    return letter if " " <= letter <= "~" else f"\\x{byte:02x}"
