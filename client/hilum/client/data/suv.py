"""PET in standardized uptake values by body weight: which volumes a study in SUV takes, and what makes SUV of their values."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from hilum.client.intake.no_suv import NoSuv
from hilum.client.state.catalogue import Item
from hilum.common.config.data import DataSection
from hilum.common.errors import DataError

_log = logging.getLogger(__name__)
_REASONS_SHOWN = 3


def factor_of(item: Item, data: DataSection) -> float:
    """Return what a volume's values are multiplied by to be on the study's scale; 1 but in SUV."""
    return float(item.suv) if data.in_suv else 1.0


def with_suv(items: Sequence[Item]) -> list[Item]:
    """Return the volumes that have SUV. How many are left out, and why, is said once.

    Raises:
        DataError: If none has.
    """
    kept, without = [one for one in items if isinstance(one.suv, float)], no_suv(items)
    left_out = f'data.intensity = "suv": {sum(without.values())} of the {len(items)} PET volumes have no SUV'
    if not kept:
        raise DataError(
            f"{left_out} ({in_words(without)}); index an archive of volumes that have one, or leave data.intensity out of the study"
        )
    if without:
        _say(f"{left_out} and are left out ({in_words(without)})", kept[0].item_key)
    return kept


@lru_cache(maxsize=64)
def _say(line: str, _site: str) -> None:
    _log.warning(line)


def no_suv(items: Sequence[Item]) -> dict[NoSuv, int]:
    """Return how many PET volumes have no SUV, by why, the most frequent first."""
    found = Counter(
        NoSuv(one.suv or (NoSuv.NOT_LOOKED_FOR if one.lacks_suv_answer else NoSuv.NO_HEADER))
        for one in items
        if one.kind == "volume" and isinstance(one.suv, str)
    )
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def in_words(without: Mapping[NoSuv, int]) -> str:
    """Return the most frequent reasons in words."""
    shown = [f"{count}: {reason.meaning}" for reason, count in list(without.items())[:_REASONS_SHOWN]]
    more = len(without) - len(shown)
    return "; ".join([*shown, f"and {more} more reasons: `hilum site status`"] if more > 0 else shown)
