"""Who was in which round, in words."""

from collections.abc import Sequence
from typing import Any

_MAX_SPANS = 12


def participation(rounds: Sequence[dict[str, Any]]) -> str:
    """Say how many of the sites contributed to each round, and why others did not: `Round 4: 2 of 3 sites contributed (b: lost).`."""
    spans: list[tuple[int, int, str]] = []
    for record in rounds:
        missing = ", ".join(f"{name}: {why.split(':', 1)[0]}" for name, why in record["failures"].items())
        words = f"{record['contributed']} of {record['expected']} sites contributed{f' ({missing})' if missing else ''}"
        number = record["round"]
        if spans and spans[-1][2] == words:
            spans[-1] = (spans[-1][0], number, words)
        else:
            spans.append((number, number, words))
    if len(spans) > _MAX_SPANS:
        counts, expected = [record["contributed"] for record in rounds], rounds[-1]["expected"]
        return (
            f"Rounds 1 to {len(rounds)}: {min(counts)} to {max(counts)} of {expected} sites contributed, "
            f"all of them in {sum(count == expected for count in counts)} rounds."
        )
    shown = [
        f"{f'rounds {first} to {last}' if first < last else f'round {first}'}: {words}"
        for first, last, words in spans
    ]
    text = "; ".join(shown)
    return f"{text[:1].upper()}{text[1:]}." if text else "There was no round."
