"""One round's updates on their way into the aggregator, never more than one of them in memory.

The first round has no norms before it to be held against, so its updates wait on disk until all are there and their
own median is known: the rule must not depend on the order in which they come.
"""

import logging
import shutil
from types import TracebackType
from typing import Self

import numpy as np

from hilum.common import records
from hilum.common.errors import UpdateRefused
from hilum.common.files import private_folder
from hilum.common.weights import FlatWeights
from hilum.server.federation.admission import Admitted, Terms, admit, check_norm, norm_bound
from hilum.server.federation.aggregators.base import Aggregator, UpdateFacts
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

    def put(self, site: str, update: FlatWeights) -> None:
        """Keep an update."""
        with self._store.writing():
            update.tofile(self._folder / f"{site}.f32")

    def get(self, site: str) -> FlatWeights:
        """Map an update; its pages are the disk's."""
        return np.memmap(self._folder / f"{site}.f32", np.float32, mode="r")


class RoundUpdates:
    """Admits a round's answers and hands them to the aggregator.

    Args:
        terms: What updates are held against.
        held: Where they wait, if there is no bound on their norms yet.
        aggregator: Has begun the round.
        ratio: Of a norm to the median of norms.

    Attributes:
        trained: By name: `examples`, `loss`, `seconds`, `attempts`, `norm` of each update that counts.
        failures: By name, `code: words`: why there is none.
        bytes_up: What all updates that could be read weighed.
    """

    def __init__(self, terms: Terms, held: HeldUpdates, aggregator: Aggregator, ratio: float) -> None:
        self._terms, self._held, self._ratio = terms, held, ratio
        self._aggregator = aggregator
        self._admitted: dict[str, Admitted] = {}
        self.trained: dict[str, dict[str, float]] = {}
        self.failures: dict[str, str] = {}
        self.bytes_up = 0

    def take(self, site: Site, answer: Answer) -> None:
        """Add what a site answered, or note why it does not count."""
        try:
            reply = records.unpack_training_reply(content_of(answer))
            self.bytes_up += reply.size_bytes
            admitted = admit(reply, self._terms, site=site.name, examples=site.examples)
        except UpdateRefused as refused:
            self._refuse(site.name, refused)
            return
        self.trained[site.name] = {
            "examples": reply.examples,
            "loss": reply.loss,
            "seconds": round(reply.seconds, 3),
            "attempts": answer.attempts,
            "norm": admitted.norm,
        }
        if self._terms.norm_bound is None:
            self._held.put(site.name, reply.update)
            self._admitted[site.name] = admitted
        else:
            self._add(site.name, reply.update, admitted.weight)

    def settle(self) -> None:
        """Hold the updates that wait on disk against their own median, and add the others."""
        bound = norm_bound((one.norm for one in self._admitted.values()), self._ratio)
        for name, one in sorted(self._admitted.items()):
            try:
                check_norm(one.norm, bound)
            except UpdateRefused as refused:
                del self.trained[name]
                self._refuse(name, refused)
            else:
                self._add(name, self._held.get(name), one.weight)
        self._admitted.clear()

    def _add(self, name: str, update: FlatWeights, weight: int) -> None:
        told = self.trained[name]
        facts = UpdateFacts(name, int(told["examples"]), told["loss"], told["norm"])
        self._aggregator.add(update, weight, facts)

    def _refuse(self, name: str, refused: UpdateRefused) -> None:
        # The words, not the exception: its traceback would keep the update in memory, here or with the log's handlers.
        self.failures[name] = str(refused)
        _log.warning("round %d: no update of %s: %s", self._terms.round_number, name, str(refused))
