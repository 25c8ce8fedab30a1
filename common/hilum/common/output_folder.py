"""Where a command may write: a folder that is new or empty, so that nothing of anybody's is mixed up or lost."""

from collections.abc import Callable
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
