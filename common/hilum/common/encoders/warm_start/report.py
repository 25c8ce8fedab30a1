"""What became of every tensor of a file and of every tensor of the encoder."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal["matched", "adapted", "left"]
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class KeyOutcome:
    """One tensor of the file.

    Attributes:
        source: Its name in the file.
        target: The encoder's tensor that it is in; None, if it is in none.
        outcome: `matched`: taken as it is. `adapted`: taken in another form. `left`: not taken.
        how: In which form, or why not.
    """

    source: str
    target: str | None
    outcome: Outcome
    how: str = ""


@dataclass(frozen=True)
class WarmStartReport:
    """What an encoder took from a file.

    Attributes:
        file: The file's name.
        sha256: Of the file.
        kind: Whose names it has: `timm`, `dino`, `mae`, `torchvision` or `hilum`.
        keys: Every tensor of the file, in the order of names.
        first_values: The encoder's tensors that are in none of them and keep the values that the study's seed gives.
        notes: What no single tensor tells.
    """

    file: str
    sha256: str
    kind: str
    keys: tuple[KeyOutcome, ...]
    first_values: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many tensors of the file were matched, adapted and left, and how many of the encoder keep first values."""
        found = Counter(one.outcome for one in self.keys)
        return {
            **{outcome: found[outcome] for outcome in ("matched", "adapted", "left")},
            "first_values": len(self.first_values),
        }

    def summary(self) -> dict[str, Any]:
        """Return what an encoder's manifest and a run's results say of its start."""
        return {"file": self.file, "sha256": self.sha256, "kind": self.kind, **self.counts}

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {**asdict(self), "counts": self.counts}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "WarmStartReport":
        """Return the inverse of `to_json`."""
        return cls(
            table["file"],
            table["sha256"],
            table["kind"],
            tuple(KeyOutcome(**one) for one in table["keys"]),
            tuple(table["first_values"]),
            tuple(table["notes"]),
        )

    def lines(self) -> list[str]:
        """Return a short table for a terminal: one line for all tensors that fared alike."""
        counts = self.counts
        found = [
            (
                f"start weights from {self.file} (names of {self.kind}): {counts['matched']} matched, {counts['adapted']} adapted, "
                f"{counts['left']} left; {counts['first_values']} tensors of the encoder keep first values"
            )
        ]
        alike: dict[tuple[str, str], list[str]] = {}
        for one in self.keys:
            if one.outcome != "matched":
                alike.setdefault((one.outcome, one.how), []).append(one.source)
        if self.first_values:
            alike["first", "nothing in the file is for them"] = list(self.first_values)
        found += [f"  {word:8} {_shown(names)}: {how}" for (word, how), names in sorted(alike.items())]
        return found + [f"  note     {note}" for note in self.notes]


def _shown(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
