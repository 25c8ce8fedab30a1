"""Where Hilum keeps its state: `HILUM_HOME`, or `~/.hilum`."""

import os
from pathlib import Path


def hilum_home(override: Path | None = None) -> Path:
    """The state folder: the given one, else `HILUM_HOME`, else `~/.hilum`."""
    if override is not None:
        return override.expanduser().absolute()
    return Path(os.environ.get("HILUM_HOME", "~/.hilum")).expanduser().absolute()
