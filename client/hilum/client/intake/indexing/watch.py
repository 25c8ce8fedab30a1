"""Keep the catalogue in line with a folder that changes: look, wait until what is new is quiet, index, look again.

Network shares tell of no changes, so the folder is walked. A file counts as there once its size, time and inode are the
same in two looks; one that is still being written is left for the next.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from hilum.client.intake.indexing.index import IndexReport, index_found
from hilum.client.intake.instance import Family
from hilum.client.intake.network.shutdown import Stoppable, StoppedError
from hilum.client.intake.sources.scan import FoundFile, scan
from hilum.client.intake.sources.sources import find
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError, RunError
from hilum.common.progress import Progress

_FIRST_WAIT_S = 2.0  # between the first two looks


def watch(
    folder: Path,
    workspace: Workspace,
    every_s: float,
    stop: threading.Event,
    show: Callable[[str, int], AbstractContextManager[Progress]],
    tell: Callable[[IndexReport], None],
    warn: Callable[[str], None],
    *,
    images: Family | None = None,
) -> None:
    """Index a folder now, and again whenever it has changed, until stopped.

    Args:
        folder: To watch; it is only read.
        workspace: Of the site.
        every_s: Seconds from one look to the next.
        stop: Ends it, between two files.
        show: Gives a progress bar for a title and a total.
        tell: Told the report of each pass.
        warn: Told why a pass could not be made; the next look tries again.
        images: As of `index_found`.

    Raises:
        DataError: If the folder can't be read at the first look. Later, a share that is away for a while is waited for.
    """
    before = _look(folder)
    indexed: frozenset[int] | None = None
    wait_s = min(_FIRST_WAIT_S, every_s)
    while not stop.wait(wait_s):
        wait_s = every_s
        try:
            now = _look(folder)
            quiet = now & before
            before = now
            if quiet == indexed or not quiet:
                continue
            tell(_index(folder, workspace, quiet, stop, show, images))
            indexed = quiet
        except StoppedError:
            return
        except (DataError, RunError) as error:
            warn(str(error))


def _index(
    folder: Path,
    workspace: Workspace,
    quiet: frozenset[int],
    stop: threading.Event,
    show: Callable[[str, int], AbstractContextManager[Progress]],
    images: Family | None,
) -> IndexReport:
    found = find(folder, workspace, held_back=lambda file: _mark(file) not in quiet)
    with show("indexing", found.count) as progress:
        return index_found(found, workspace, Stoppable(progress, stop), images=images)


def _look(folder: Path) -> frozenset[int]:
    """Return a mark for each file: a number, so that a look at millions of files takes little memory."""
    return frozenset(_mark(file) for file in scan(folder))


def _mark(file: FoundFile) -> int:
    return hash((str(file.path), file.identity, file.mode))
