"""Where Hilum keeps its state: `HILUM_HOME`, or `~/.hilum`; and what happens where there is no home."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hilum.common.errors import ConfigError
from hilum.common.machine import name_place

_NO_HOME = (
    "this user has no home folder (HOME is not set, and the user is not in the system's list); give the state folder "
    "with --home, or set HILUM_HOME"
)
_STAND_IN = "HILUM_STAND_IN_HOME"


def hilum_home(override: Path | None = None) -> Path:
    """Return the state folder: the given one, else `HILUM_HOME`, else `~/.hilum`.

    Raises:
        ConfigError: If none is given and this user has no home.
    """
    named = override if override is not None else Path(os.environ.get("HILUM_HOME") or "~/.hilum")
    return name_place("the state folder (--home or HILUM_HOME)", expanded(named).absolute())


def expanded(path: Path) -> Path:
    """Return a path with `~` put in full.

    Raises:
        ConfigError: If it begins with `~` and there is no such home.
    """
    if not str(path).startswith("~"):
        return path
    if str(path).partition("/")[0] == "~" and not has_home():
        raise ConfigError("state folder", [_NO_HOME])
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError("path", [f"{str(path).partition('/')[0]} is not a user of this machine"]) from None


def has_home() -> bool:
    """Return whether this user has a home folder of its own."""
    if os.environ.get(_STAND_IN):
        return False
    try:
        return Path.home().is_absolute()
    except RuntimeError:
        return False


def lend_libraries_a_home() -> None:
    """Where there is no home, give libraries a folder for what they cache, gone with this process.

    Flower, matplotlib and torch ask for a home or a user's name as they are imported.
    """
    if has_home() or os.environ.get(_STAND_IN):
        return
    folder = tempfile.mkdtemp(prefix="hilum-no-home-")
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    os.environ["HOME"] = os.environ[_STAND_IN] = folder
    os.environ.setdefault("USER", "hilum")  # getpass.getuser, which torch's caches are named by
