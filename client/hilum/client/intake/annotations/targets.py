"""From what an annotation says of its image to the item that it marks."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.catalogue import ACCEPTED, Catalogue, Item
from hilum.client.state.file_names import spellings
from hilum.client.state.workspace import Pseudonyms

T = TypeVar("T")


class Targets:
    """The items of a catalogue, to be found by UID or by relative file name.

    Args:
        catalogue: Of the site.
        names: Its pseudonyms.
    """

    def __init__(self, catalogue: Catalogue, names: Pseudonyms) -> None:
        self._names = names
        self._by_key: dict[str, Item] = {}
        self._by_sop: dict[str, list[Item]] = {}
        self._by_series: dict[str, list[Item]] = {}
        for item in catalogue.items():
            self._by_key[item.item_key] = item
            if item.sop_key:
                self._by_sop.setdefault(item.sop_key, []).append(item)
            self._by_series.setdefault(item.series_key, []).append(item)
        accepted = [row for row in catalogue.files().values() if row.status == ACCEPTED]
        self._item_of_sop = {row.sop_key: row.item_key for row in accepted if row.sop_key}
        self._series_of_sop = {row.sop_key: row.series_key for row in accepted if row.sop_key}
        self._row_of_file = {row.file_key: row for row in accepted}

    def of_series(self, uid: str) -> list[Item]:
        """Items of a series."""
        return self._by_series.get(self._names.of("series", uid.strip()), [])

    def of_instances(self, uids: Iterable[str]) -> list[Item]:
        """Items that were made of these instances; where a slice's item is not known, every volume of its series."""
        found: dict[str, Item] = {}
        for uid in uids:
            for item in self._of_sop(self._names.of("sop", uid.strip())):
                found.setdefault(item.item_key, item)
        return list(found.values())

    def of_image(self, uid: str) -> list[Item]:
        """Items that are images, and were made of this instance."""
        return [item for item in self.of_instances([uid]) if item.kind == "image"]

    def _of_sop(self, key: str) -> list[Item]:
        if key in self._by_sop:
            return self._by_sop[key]
        item = self._by_key.get(self._item_of_sop.get(key, ""))
        if item is not None:
            return [item]
        series = self._by_series.get(self._series_of_sop.get(key, ""), [])
        return [item for item in series if item.kind == "volume"]

    def of_file(self, relative: str) -> list[Item]:
        """Items that were made of the file with this name, relative to the indexed folder."""
        keys = (self._names.of("file", name) for name in spellings(relative))
        row = next((self._row_of_file[key] for key in keys if key in self._row_of_file), None)
        if row is None:
            return []
        return self._of_sop(row.sop_key) or self._by_series.get(row.series_key, [])


def the_one_that_fits(candidates: Iterable[Item], fit: Callable[[Item], T]) -> tuple[Item, T]:
    """Return the only candidate that `fit` does not refuse, and what it gave.

    Raises:
        Skip: If there is no candidate, none that fits, or several that do.
    """
    known = list(candidates)
    if not known:
        raise Skip(Reason.UNKNOWN_IMAGE)
    fitting = []
    for item in known:
        try:
            fitting.append((item, fit(item)))
        except Skip as skip:
            if skip.reason != Reason.OFF_GRID:
                raise
    if not fitting:
        raise Skip(Reason.OFF_GRID)
    if len(fitting) > 1:
        raise Skip(Reason.AMBIGUOUS_IMAGE)
    return fitting[0]
