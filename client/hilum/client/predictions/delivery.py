"""Sending what was written to an archive, and what became of it."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from hilum.client.intake.network.c_store import StoreTarget, c_store
from hilum.client.intake.network.sending import Sent
from hilum.client.intake.network.shutdown import stop_signals
from hilum.client.intake.network.stow import StowTarget, stow
from hilum.common.errors import DataError
from hilum.common.progress import Progress

ProgressOf = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Delivery:
    """Where objects go, by one way or both."""

    stow: StowTarget | None = None
    store: StoreTarget | None = None

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return self.stow is not None or self.store is not None


@dataclass(frozen=True)
class Delivered:
    """What became of the objects by one way.

    Attributes:
        way: `STOW-RS` or `C-STORE`.
        stored: How many the archive holds.
        problems: Of the others, how many, by code.
        instances: By the name of the file: the code, empty where it was stored.
    """

    way: str
    stored: int
    problems: dict[str, int]
    instances: dict[str, str]


def deliver(paths: Sequence[Path], to: Delivery, show: ProgressOf) -> list[Delivered]:
    """Send files by every way that is asked for.

    Raises:
        ServiceError: If an archive can't be used.
    """
    done = []
    if to.stow is not None:
        with stop_signals() as stop, show("sending by STOW-RS", len(paths)) as progress:
            done.append(_summed("STOW-RS", stow(paths, to.stow, stop, progress)))
    if to.store is not None:
        with show("sending by C-STORE", len(paths)) as progress:
            done.append(_summed("C-STORE", c_store(paths, to.store, progress)))
    return done


def _summed(way: str, sent: Sequence[Sent]) -> Delivered:
    problems = Counter(one.problem for one in sent if one.problem)
    return Delivered(
        way,
        sum(not one.problem for one in sent),
        dict(problems.most_common()),
        {f"{one.path.parent.name}/{one.path.name}": one.problem for one in sent},
    )


def objects_in(folder: Path) -> list[Path]:
    """Return the objects in a folder that `hilum site predict` wrote.

    Raises:
        DataError: If it is not such a folder, or holds none.
    """
    if not (folder / "predictions.csv").is_file():
        raise DataError("this is not a folder that `hilum site predict` wrote: it has no predictions.csv")
    found = sorted(path for kind in ("seg", "sr") for path in (folder / kind).glob("*.dcm"))
    if not found:
        raise DataError(
            "the folder has no DICOM object to send: what was predicted came from other files, or has no findings"
        )
    return found
