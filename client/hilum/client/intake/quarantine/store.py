"""Images that were held back wait here until a person decides.

They lie decoded in `quarantine/` of the workspace, readable by their owner alone, and are listed by pseudonym. A decision
is kept by instance and content, so it survives a new index of the archive; other pixels under the same instance are held
again.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from sqlalchemy import Row, delete, select, update

from hilum.client.intake.pixels.crop import Crop, Pixels, cropped
from hilum.client.intake.quarantine.rules import MIN_CROP, Verdict, fits
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.cache import ArrayCache, content_of
from hilum.client.state.catalogue import ACCEPTED, Catalogue, Item, item_of, item_values
from hilum.client.state.tables import QUARANTINE
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError
from hilum.common.files import private_folder, replacing

State = Literal["held", "released", "dropped"]


@dataclass(frozen=True)
class HeldImage:
    """One image that is or was in quarantine; `item.content_sha256` names the whole, uncropped array."""

    item: Item
    reason: Reason
    state: State
    crop: Crop | None


class Quarantine:
    """The held images of one site, listed in its catalogue. Changes are made under `Workspace.locked`."""

    def __init__(self, workspace: Workspace, catalogue: Catalogue) -> None:
        self.folder = workspace.folder / "quarantine"
        self._cache = ArrayCache(workspace.cache)
        self._catalogue = catalogue
        self._transaction = catalogue.database.transaction

    def admit(self, draft: Item, array: Pixels, verdict: Verdict) -> Item:
        """Bring one decoded image into the cache, unless it is held or dropped.

        Args:
            draft: The item of the whole image; its `content_sha256` and `shape` are filled in here.
            array: As it would lie in the cache.
            verdict: Of `hold_back`; an earlier decision of the site on the same pixels goes before it.

        Returns:
            The item to record, cropped where the verdict or the decision says so.

        Raises:
            Skip: `BURNED_IN_TEXT` where the image waits, `DROPPED` where the site dropped it.
        """
        whole = replace(draft, content_sha256=content_of(array), shape=array.shape)
        known = self._row(draft.item_key)
        if known is not None and known.item.content_sha256 == whole.content_sha256:
            if known.state == "dropped":
                raise Skip(Reason.DROPPED)
            if known.state == "released":
                return self._take(whole, array, known.crop)
        if verdict.held:
            self._hold(whole, array)
            raise Skip(Reason.BURNED_IN_TEXT)
        if known is not None:
            self._forget([known])
        return self._take(
            replace(whole, spacing_mm=verdict.spacing_mm or whole.spacing_mm), array, verdict.crop
        )

    def list_held(self) -> list[HeldImage]:
        """Return what waits, in the order of families and content."""
        return [one for one in self.list_all() if one.state == "held"]

    def list_all(self) -> list[HeldImage]:
        """Return what waits and what was decided."""
        with self._transaction() as connection:
            rows = [_held_image(row) for row in connection.execute(select(QUARANTINE))]
        return sorted(rows, key=lambda one: (one.item.family, one.item.content_sha256, one.item.item_key))

    def counts(self) -> dict[State, dict[str, int]]:
        """Return how many images wait, were released and were dropped, by family."""
        found = {state: Counter[str]() for state in get_args(State)}
        for one in self.list_all():
            found[one.state][one.item.family] += 1
        return {state: dict(sorted(families.items())) for state, families in found.items()}

    def array(self, one: HeldImage) -> Pixels:
        """Return the pixels of a held image, read-only.

        Raises:
            DataError: If its file is gone or damaged.
        """
        try:
            return np.load(self._path(one), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
        except (OSError, ValueError):
            raise DataError(
                "a held image is missing or damaged; drop it, or remove the site's state and index again"
            ) from None

    def find(self, keys: Collection[str]) -> list[HeldImage]:
        """Return the held images of these keys; the first eight or more characters of a key will do.

        Raises:
            DataError: If a key is unknown, fits several, or is decided already.
        """
        every = self.list_all()
        return [_find(key, every) for key in dict.fromkeys(keys)]

    def release(self, images: Iterable[HeldImage], crop: Crop | None = None) -> int:
        """Move held images into the cache and the catalogue, whole or cropped. Gives how many.

        Raises:
            DataError: If the crop does not lie within every one of them; then none is released.
        """
        images = list(images)
        for one in images:
            if crop is not None and not fits(crop, one.item.shape[_first_axis(one.item) :]):
                raise DataError(
                    f"the crop is not within every image, or less than {MIN_CROP} pixels wide; "
                    "`hilum site quarantine show` tells their sizes"
                )
        items = [self._take(one.item, self.array(one), crop) for one in images]
        self._settle(images, ACCEPTED, items)
        self._decide(images, "released", crop)
        return len(images)

    def drop(self, images: Iterable[HeldImage]) -> int:
        """Remove held images for good, their pixels included. Gives how many."""
        images = list(images)
        self._settle(images, Reason.DROPPED, [])
        self._decide(images, "dropped", None)
        return len(images)

    def sweep(self, instances: Collection[str]) -> int:
        """Forget what waits of instances that the archive no longer has; decisions stay. Gives how many."""
        gone = [one for one in self.list_held() if one.item.sop_key not in instances]
        self._forget(gone)
        wanted = {self._path(one) for one in self.list_held()}
        for path in self.folder.glob("*.npy"):
            if path not in wanted:
                path.unlink()
        return len(gone)

    def _take(self, whole: Item, array: Pixels, crop: Crop | None) -> Item:
        if crop is not None:
            array = cropped(array, crop, _first_axis(whole))
        return replace(whole, content_sha256=self._cache.put(array), shape=array.shape)

    def _hold(self, whole: Item, array: Pixels) -> None:
        one = HeldImage(whole, Reason.BURNED_IN_TEXT, "held", None)
        private_folder(self.folder)
        path = self._path(one)
        if not path.exists():
            with replacing(path) as file:
                Path(file.name).chmod(0o600)
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        with self._transaction() as connection:
            connection.execute(delete(QUARANTINE).where(QUARANTINE.c.item_key == whole.item_key))
            connection.execute(QUARANTINE.insert().values(**_values(one)))

    def _settle(self, images: list[HeldImage], status: str, items: list[Item]) -> None:
        """Give the files of held instances their new status, and record what was made of them."""
        instances = {one.item.sop_key for one in images}
        waiting = [
            replace(row, status=status)
            for row in self._catalogue.files().values()
            if row.sop_key in instances and row.status == Reason.BURNED_IN_TEXT
        ]
        self._catalogue.record(waiting, items)

    def _decide(self, images: list[HeldImage], state: State, crop: Crop | None) -> None:
        with self._transaction() as connection:
            for one in images:
                connection.execute(
                    update(QUARANTINE)
                    .where(QUARANTINE.c.item_key == one.item.item_key)
                    .values(state=state, crop=json.dumps(crop))
                )
        self._remove_unused(images)

    def _forget(self, images: list[HeldImage]) -> None:
        with self._transaction() as connection:
            for one in images:
                connection.execute(delete(QUARANTINE).where(QUARANTINE.c.item_key == one.item.item_key))
        self._remove_unused(images)

    def _remove_unused(self, images: list[HeldImage]) -> None:
        """Remove the arrays of images that no longer wait, unless another one with the same pixels does."""
        waiting = {one.item.content_sha256 for one in self.list_held()}
        for one in images:
            if one.item.content_sha256 not in waiting:
                self._path(one).unlink(missing_ok=True)

    def _row(self, item_key: str) -> HeldImage | None:
        with self._transaction() as connection:
            row = connection.execute(
                select(QUARANTINE).where(QUARANTINE.c.item_key == item_key)
            ).one_or_none()
        return None if row is None else _held_image(row)

    def _path(self, one: HeldImage) -> Path:
        return self.folder / f"{one.item.content_sha256}.npy"


def _find(key: str, every: list[HeldImage]) -> HeldImage:
    fits = [one for one in every if len(key) >= 8 and one.item.item_key.startswith(key)]  # noqa: PLR2004 - of 32
    if len(fits) != 1:
        why = "fits several images; give more of it" if fits else "is in quarantine's list nowhere"
        raise DataError(f"a given key {why}; `hilum site quarantine --json` lists the keys")
    if fits[0].state != "held":
        raise DataError(f"a given key was {fits[0].state} already; `hilum site quarantine` lists what waits")
    return fits[0]


def _first_axis(item: Item) -> int:
    """Return where rows stand in the shape: behind the frames of a clip."""
    return 0 if item.kind == "image" else 1


def _values(one: HeldImage) -> dict[str, Any]:
    return {
        **item_values(one.item),
        "reason": one.reason.value,
        "state": one.state,
        "crop": json.dumps(one.crop),
    }


def _held_image(row: Row[Any]) -> HeldImage:
    crop = json.loads(row.crop)
    return HeldImage(item_of(row), Reason(row.reason), row.state, tuple(crop) if crop else None)
