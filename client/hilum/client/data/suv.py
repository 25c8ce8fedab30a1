"""PET in standardized uptake values by body weight: which volumes a study in SUV takes, and what makes SUV of their values."""

from collections import Counter
from collections.abc import Mapping, Sequence

from hilum.client.intake.no_suv import NoSuv
from hilum.client.state.catalogue import Item
from hilum.common.config.data import DataSection
from hilum.common.errors import DataError

_REASONS_SHOWN = 3


def factor_of(item: Item, data: DataSection) -> float:
    """Return what a volume's values are multiplied by to be on the study's scale; 1 but in SUV."""
    return float(item.suv) if data.in_suv else 1.0


def check_scale(items: Sequence[Item], data: DataSection) -> None:
    """Make sure that every volume can be brought to the study's scale.

    Raises:
        DataError: If one can't: it would lie beside the others on a scale of its own.
    """
    if data.in_suv and (without := no_suv(items)):
        raise DataError(
            f'data.intensity = "suv": {sum(without.values())} of the {len(items)} PET volumes have no SUV ({in_words(without)}); '
            "index an archive of volumes that have one, or leave data.intensity out of the study"
        )


def no_suv(items: Sequence[Item]) -> dict[NoSuv, int]:
    """Return how many PET volumes have no SUV, by why, the most frequent first."""
    codes = [one.suv for one in items if one.kind == "volume"]
    found = Counter(NoSuv(code or NoSuv.NOT_LOOKED_FOR) for code in codes if isinstance(code, str))
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def in_words(without: Mapping[NoSuv, int]) -> str:
    """Return the most frequent reasons in words."""
    shown = [f"{count}: {reason.meaning}" for reason, count in list(without.items())[:_REASONS_SHOWN]]
    more = len(without) - len(shown)
    return "; ".join([*shown, f"and {more} more reasons: `hilum site status`"] if more > 0 else shown)
