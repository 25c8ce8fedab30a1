"""Admit: which of a round's answers count, never more than one of them in memory.

The first round has no norms before it to be held against, so its updates wait on disk until all are there and their
own median is known: the rule must not depend on the order in which they come.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import numpy as np

from hilum.common import records
from hilum.common.errors import UpdateRefused
from hilum.common.files import private_folder
from hilum.server.federation.admission import Admitted, Terms, admit, check_norm, norm_bound
from hilum.server.federation.exchange import Answer, content_of
from hilum.server.federation.roster import Site
from hilum.server.federation.store import RunStore

_log = logging.getLogger(__name__)


class HeldUpdates:
    """Updates on disk, as plain float32, until the round is over.

    Args:
        store: The run directory; what a killed round left in it is removed.
    """

    def __init__(self, store: RunStore) -> None:
        self._store, self._folder = store, store.folder / ".held"

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        with self._store.writing():
            private_folder(self._folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, one: Admitted) -> Admitted:
        """Keep an update, and return it mapped: its pages are the disk's."""
        path = self._folder / f"{one.facts.site}.f32"
        with self._store.writing():
            one.update.tofile(path)
        return replace(one, update=np.memmap(path, np.float32, mode="r"))


@dataclass
class RoundTally:
    """How a round stands.

    Attributes:
        trained: By name: `examples`, `loss`, `seconds`, `attempts`, `norm` and health of each update that counts so far.
        failures: By name, `code: words`: why there is none.
        sent: How many times the weights went out.
        bytes_up: What all updates that could be read weighed.
    """

    number: int
    trained: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    sent: int = 0
    bytes_up: int = 0

    def refuse(self, name: str, refused: UpdateRefused) -> None:
        """Note why a site's update does not count."""
        # The words, not the exception: its traceback would keep the update in memory, here or with the log's handlers.
        self.failures[name] = str(refused)
        self.trained.pop(name, None)
        _log.warning("round %d: no update of %s: %s", self.number, name, str(refused))


def admit_round(
    answers: Iterable[tuple[Site, Answer]], terms: Terms, held: HeldUpdates, tally: RoundTally
) -> Iterator[Admitted]:
    """Yield the updates that count, each let go before the next is asked for.

    Args:
        answers: What the sites answered.
        terms: What updates are held against.
        held: Where they wait, if there is no bound on their norms yet.
        tally: Told of every answer.
    """
    waiting: dict[str, Admitted] = {}
    for site, answer in answers:
        admitted = _admit(site, answer, terms, tally)
        if admitted is not None and terms.norm_bound is None:
            waiting[site.name] = held.put(admitted)
        elif admitted is not None:
            yield admitted
        del answer, admitted
    bound = norm_bound((one.facts.norm for one in waiting.values()), terms.norm_ratio)
    for name in sorted(waiting):
        one = waiting.pop(name)  # so that its pages may go once it is added
        try:
            check_norm(one.facts.norm, bound)
        except UpdateRefused as refused:
            tally.refuse(name, refused)
        else:
            yield one


def _admit(site: Site, answer: Answer, terms: Terms, tally: RoundTally) -> Admitted | None:
    """Return an answer's update if it may count, and tell the tally."""
    tally.sent += answer.attempts
    try:
        reply = records.unpack_training_reply(content_of(answer))
        tally.bytes_up += reply.size_bytes
        admitted = admit(reply, terms, site=site.name, examples=site.examples)
    except UpdateRefused as refused:
        tally.refuse(site.name, refused)
        return None
    tally.trained[site.name] = {
        "examples": reply.examples,
        "loss": reply.loss,
        "seconds": round(reply.seconds, 3),
        "attempts": answer.attempts,
        "norm": admitted.facts.norm,
        **reply.health,
    }
    return admitted
