"""Where a command may write: a folder that is new or empty, so that nothing of anybody's is mixed up or lost."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hilum.common.errors import RunError


def check_output_folder(
    folder: Path, *, called: str = "output folder", leftover: Callable[[Path], bool] = lambda _path: False
) -> None:
    """Check that a folder is new or empty; nothing is written.

    Args:
        folder: Where the command is to write.
        called: What people call it.
        leftover: Tells which files there do not count.

    Raises:
        RunError: If it is a file, or holds anything that counts.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"the {called} is a file; name a folder that is new or empty")
    if folder.exists() and not all(map(leftover, folder.iterdir())):
        raise RunError(f"the {called} is not empty; name a folder that is new or empty")


@contextmanager
def written_at_once(folder: Path) -> Iterator[Path]:
    """Open a folder that becomes `folder` when the block ends well, and vanishes when it does not.

    Args:
        folder: The final place, which is new or empty.

    Yields:
        A folder beside it to write into.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    aside.mkdir()
    try:
        yield aside
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
