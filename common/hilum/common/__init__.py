"""The vocabulary that both sides of a federation share: config, weights, encoders, methods, records.

`load_encoder` is for whoever has an encoder that a run left; see `hilum.common.pretrained`.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hilum.common.pretrained import Pretrained, load_encoder

__all__ = ["Pretrained", "__version__", "load_encoder"]

try:
    __version__ = version("hilum")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Import `load_encoder` when it is asked for: torch comes with it, and most commands need none."""
    if name in {"Pretrained", "load_encoder"}:
        from hilum.common import pretrained

        return getattr(pretrained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
