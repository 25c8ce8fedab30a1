"""How counts of an index are shown."""

from typing import Any

from hilum.common.cli import print_json


def show_counts(counts: dict[str, Any], *, as_json: bool) -> None:
    """Print the counts of `hilum site index`, as lines or JSON."""
    if as_json:
        print_json(counts)
        return
    for name in ("files", "instances", "series", "volumes", "patients"):
        print(f"{counts[name]:8} {name}")
    show_skipped(counts["skipped"])
    if "decoded" in counts:
        print(f"{counts['decoded']:8} files had their pixels read in this call")


def show_skipped(skipped: dict[str, int]) -> None:
    """Print why files were set aside, and how many."""
    from hilum.client.intake.reasons import EXPLAINED, Reason

    for reason, count in skipped.items():
        print(f"{count:8} skipped: {EXPLAINED[Reason(reason)]} ({reason})")
