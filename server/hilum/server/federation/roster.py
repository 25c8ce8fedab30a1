"""Who takes part in a run: which of the study's sites have greeted, and which have lost their place.

In each round every site of the study either contributes or has a reason why it does not. Reasons that are the site's
own doing are strikes: an update that is not admitted, a refusal, a wrong greeting. A strike costs the turn, `STRIKES`
of them the rest of the study. A site that is gone, late, or not there yet has no strike. Strikes are counted from the
rounds' records alone, so a resumed run knows them.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hilum.common.errors import UpdateRefused
from hilum.server.federation.store import RoundRecord

STRIKES = 3
NO_STRIKE = frozenset({"lost", "late", "absent", "suspended", "machine"})
_SUSPENDED = f"suspended: it was refused {STRIKES} times in this study"
_ABSENT = "absent: it had not greeted when the round began"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Site:
    """A site of this run.

    Attributes:
        examples: The band of images that its greeting said; its updates must say the same.
    """

    name: str
    node_id: int
    examples: int


class Roster:
    """The sites of one run.

    Args:
        names: All that the study names.
        rounds: Those that are done.

    Attributes:
        names: In order.
        suspended: By name, the round in which the site lost its place.
        strangers: What was refused without being one of the study's sites, for the notes.
    """

    def __init__(self, names: Iterable[str], rounds: Iterable[RoundRecord] = ()) -> None:
        self.names = tuple(sorted(names))
        self.suspended: dict[str, int] = {}
        self.strangers: list[str] = []
        self._strikes: Counter[str] = Counter()
        self._bound: dict[str, Site] = {}
        self._refused: dict[str, str] = {}
        for record in rounds:
            self.close_round(record.round, record.failures)

    @property
    def present(self) -> tuple[Site, ...]:
        """The sites that have greeted and have their place, by name."""
        return tuple(
            self._bound[name] for name in self.names if name in self._bound and name not in self.suspended
        )

    @property
    def settled(self) -> bool:
        """Whether every site has greeted, been refused in this turn, or lost its place."""
        return all(
            name in self._bound or name in self._refused or name in self.suspended for name in self.names
        )

    def is_open(self, name: str) -> bool:
        """Return whether a site of this name may still greet."""
        return name in self.names and name not in self._bound and name not in self.suspended

    def bind(self, site: Site) -> None:
        """Let a site that has greeted take part from the next round on."""
        self._bound[site.name] = site
        self._refused.pop(site.name, None)
        _log.info("%s has greeted, with %d images or more", site.name, site.examples)

    def refuse(self, name: str | None, refused: UpdateRefused) -> None:
        """Note a greeting that was not accepted; without a name it is nobody's strike."""
        _log.warning(
            "%s is refused at its greeting: %s", name or "a site that the study does not know", str(refused)
        )
        if name is not None:
            self._refused[name] = str(refused)
        elif (note := f"a site was refused at its greeting: {refused}") not in self.strangers:
            self.strangers.append(note)

    def absences(self, taking_part: Iterable[str]) -> dict[str, str]:
        """Why each site that is not among those of a round is not, as `code: words`."""
        reasons = {}
        for name in set(self.names) - set(taking_part):
            reasons[name] = _SUSPENDED if name in self.suspended else self._refused.get(name, _ABSENT)
        return reasons

    def close_round(self, number: int, failures: Mapping[str, str]) -> list[str]:
        """Count a round's strikes, and let those who were refused greet again.

        Returns:
            The sites that lost their place with it.
        """
        self._refused.clear()
        fallen = []
        for name in sorted(failures):
            if code_of(failures[name]) in NO_STRIKE:
                continue
            self._strikes[name] += 1
            if self._strikes[name] == STRIKES:
                self.suspended[name] = number
                fallen.append(name)
        return fallen


def code_of(failure: str) -> str:
    """Return the code of a failure as records have it: `code: words`."""
    return failure.split(":", 1)[0]
