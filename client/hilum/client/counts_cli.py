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
    _show_split(counts["split_series"])
    show_skipped(counts["skipped"])
    if "decoded" in counts:
        print(f"{counts['decoded']:8} files had their pixels read in this call")


def _show_split(split_series: dict[str, int]) -> None:
    """Print how series became more volumes than there are series."""
    from hilum.client.intake.planner.naming import in_words

    if split_series:
        parts = [f"{count} by {in_words(names)}" for names, count in split_series.items()]
        print(f"{sum(split_series.values()):8} series of several volumes: {', '.join(parts)}")


def show_skipped(skipped: dict[str, int]) -> None:
    """Print why files were set aside, and how many."""
    from hilum.client.intake.reasons import EXPLAINED, Reason

    for reason, count in skipped.items():
        print(f"{count:8} skipped: {EXPLAINED[Reason(reason)]} ({reason})")
