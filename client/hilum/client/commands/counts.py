"""How counts of an index are shown."""

from typing import TYPE_CHECKING, Any

from hilum.common.cli import print_json

if TYPE_CHECKING:
    from hilum.client.state.catalogue import Counts


def show_counts(counts: dict[str, Any], *, as_json: bool) -> None:
    """Print the counts of `hilum site index`, as lines or JSON."""
    if as_json:
        print_json(counts)
        return
    for name in ("files", "instances", "series", "volumes", "patients"):
        print(f"{counts[name]:8} {name}")
    _show_split(counts["split_series"])
    show_skipped(counts["skipped"])
    if counts["skipped"]:
        print("         which files: `hilum site skipped [REASON]`")
    if "decoded" in counts:
        print(f"{counts['decoded']:8} files had their pixels read in this call")


def _show_split(split_series: dict[str, int]) -> None:
    """Print how series became more volumes than there are series."""
    from hilum.client.intake.planner.naming import in_words

    if split_series:
        parts = [f"{count} by {in_words(names)}" for names, count in split_series.items()]
        print(f"{sum(split_series.values()):8} series of several volumes: {', '.join(parts)}")


def show_skipped(skipped: dict[str, int]) -> None:
    """Print why files were set aside, the most frequent reason first."""
    from hilum.client.intake.reasons import Reason

    for reason, count in sorted(skipped.items(), key=lambda one: (-one[1], one[0])):
        print(f"{count:8} skipped: {Reason(reason).meaning} ({reason})")


def nothing_usable(counts: "Counts") -> str:
    """Say that an index took nothing in, and what helps where that is known."""
    from hilum.client.intake.instance import FAMILIES
    from hilum.client.intake.reasons import Reason

    found = f"none of {counts.files} files is a usable image"
    pictures = counts.skipped.get(Reason.NEEDS_FAMILY, 0)
    if not pictures:
        return f"{found}; the reasons are listed above"
    return (
        f"{found}, but {pictures} are pictures or NIfTI files: to take them in, say what made them, `--images FAMILY` with "
        f"one of {', '.join(FAMILIES)} (NIfTI: ct, mr or pet)"
    )
