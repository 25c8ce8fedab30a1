"""Images that may carry burned-in text wait here until they are found free of it, or until a person decides.

`BurnedInAnnotation` (PS3.3 section C.7.6.1) is not believed. What is held lies decoded in `quarantine/` of the
workspace, readable by its owner alone, and is listed by pseudonym. A decision is kept by instance and content, so it
survives a new index of the archive; other pixels under the same instance are held anew.

Shapes: T frames, H rows, W columns; (H, W), (H, W, 3), and clips (T, H, W), (T, H, W, 3).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from sqlalchemy import (
    Column,
    Engine,
    MetaData,
    Row,
    String,
    Table,
    create_engine,
    delete,
    event,
    inspect,
    select,
    update,
)

from hilum.client.cache import ArrayCache
from hilum.client.catalogue import ACCEPTED, Catalogue, Item
from hilum.client.intake.crop import Crop, Pixels, cropped
from hilum.client.intake.instance import Family, Instance, Region
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.workspace import Workspace
from hilum.common.errors import DataError
from hilum.common.files import replacing

State = Literal["held", "released", "dropped"]
SUSPECT_FAMILIES: frozenset[Family] = frozenset({"ultrasound", "secondary", "angiogram", "photograph"})
_SUSPECT_TYPES = ("SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "SECONDARY", "DOSE", "REPORT")
_MIN_CROP = 8  # pixels; a smaller piece is no image


@dataclass(frozen=True)
class Verdict:
    """Whether an image waits.

    Attributes:
        held: True where it may carry text.
        crop: The part to take instead of the whole, or None.
        spacing_mm: Distance between rows and between columns of that part where the file states one for it.
    """

    held: bool
    crop: Crop | None = None
    spacing_mm: tuple[float, float] | None = None


def is_suspect(instance: Instance) -> bool:
    """Whether the image may carry burned-in text by what it is, whatever it says of itself.

    Ultrasound, secondary captures, angiograms and photographs always; any other whose ImageType (PS3.3 section
    C.7.6.1.1.2) tells of a screen or of a secondary image, though not a plain derived one such as a reformatted slice.
    """
    if instance.family in SUSPECT_FAMILIES:
        return True
    values = instance.image_type
    derived_secondary = values[:2] == ("DERIVED", "SECONDARY") and instance.family not in {"ct", "mr", "pet"}
    screens = any(words in value for value in values[2:] for words in _SUSPECT_TYPES)
    return derived_secondary or screens


def parts_to_search(instance: Instance) -> tuple[Crop, ...]:
    """The parts of an image that may free it if no text is in them, in order; none of one that is not suspect.

    Ultrasound's calibrated region (PS3.3 section C.8.5.5) comes first, then the whole.
    """
    if not is_suspect(instance):
        return ()
    shape = instance.pixels.rows, instance.pixels.columns
    region = _region(instance.regions, shape)
    whole = (0, 0, *shape)
    return (whole,) if region is None else (_crop_of(region), whole)


def hold_back(instance: Instance, free: Crop | None) -> Verdict:
    """Judge one image.

    Args:
        instance: What the header says.
        free: The first of `parts_to_search` in which a search of the pixels found no text; None where each has some, or
            where nothing was searched: then a suspect image counts as held.

    Returns:
        Held, or free; ultrasound of which the calibrated region alone was searched is cropped to it.
    """
    if not is_suspect(instance):
        return Verdict(held=False)
    if free is None:
        return Verdict(held=True)
    region = _region(instance.regions, (instance.pixels.rows, instance.pixels.columns))
    if region is not None and free == _crop_of(region):
        return Verdict(held=False, crop=free, spacing_mm=region.spacing_mm)
    return Verdict(held=False)


def _region(regions: Iterable[Region], shape: tuple[int, ...]) -> Region | None:
    """The largest calibrated region that is a plane of space and lies within the image."""
    within = [one for one in regions if one.spacing_mm is not None and _fits(_crop_of(one), shape)]
    return max(within, key=lambda one: _area(_crop_of(one)), default=None)


def _crop_of(region: Region) -> Crop:
    return region.row_first, region.column_first, region.row_last + 1, region.column_last + 1


def _area(crop: Crop) -> int:
    return (crop[2] - crop[0]) * (crop[3] - crop[1])


def _fits(crop: Crop, shape: tuple[int, ...]) -> bool:
    first_row, first_column, end_row, end_column = crop
    rows, columns = shape[:2]
    tall = first_row >= 0 and first_row + _MIN_CROP <= end_row <= rows
    return tall and first_column >= 0 and first_column + _MIN_CROP <= end_column <= columns


def content_of(array: Pixels) -> str:
    """The SHA-256 of dtype, shape and values, as the cache names arrays."""
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype.str}|{array.shape}|".encode())
    digest.update(array.data)
    return digest.hexdigest()


_metadata = MetaData()
_held = Table(
    "quarantine",
    _metadata,
    Column("item_key", String, primary_key=True),
    Column("content_sha256", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("family", String, nullable=False),
    Column("units", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("shape", String, nullable=False),
    Column("spacing_mm", String, nullable=False),
    Column("affine", String, nullable=False),
    Column("sop_key", String, nullable=False),
    Column("series_key", String, nullable=False),
    Column("study_key", String, nullable=False),
    Column("patient_key", String, nullable=False),
    Column("quality", String, nullable=False),
    Column("state", String, nullable=False),
    Column("crop", String, nullable=False),
)


@dataclass(frozen=True)
class HeldImage:
    """One image that is or was in quarantine; `item.content_sha256` names the whole, uncropped array."""

    item: Item
    reason: Reason
    state: State
    crop: Crop | None


class Quarantine:
    """The held images of one site. Changes are made under `Workspace.locked`."""

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.folder / "quarantine"
        self._cache = ArrayCache(workspace.cache)
        self._engine: Engine = create_engine(f"sqlite:///{workspace.catalogue}")
        event.listen(self._engine, "connect", _durable)
        _metadata.create_all(self._engine)

    def close(self) -> None:
        """Let go of the catalogue."""
        self._engine.dispose()

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
        """What waits, in the order of families and content."""
        return [one for one in self.list_all() if one.state == "held"]

    def list_all(self) -> list[HeldImage]:
        """What waits and what was decided."""
        with self._engine.begin() as connection:
            rows = [_held_image(row) for row in connection.execute(select(_held))]
        return sorted(rows, key=lambda one: (one.item.family, one.item.content_sha256, one.item.item_key))

    def array(self, one: HeldImage) -> Pixels:
        """The pixels of a held image, read-only.

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
        """The held images of these keys; the first eight or more characters of a key will do.

        Raises:
            DataError: If a key is unknown, fits several, or is decided already.
        """
        every = self.list_all()
        return [_find(key, every) for key in dict.fromkeys(keys)]

    def release(self, images: Iterable[HeldImage], catalogue: Catalogue, crop: Crop | None = None) -> int:
        """Move held images into the cache and the catalogue, whole or cropped. Gives how many.

        Raises:
            DataError: If the crop does not lie within every one of them; then none is released.
        """
        images = list(images)
        for one in images:
            if crop is not None and not _fits(crop, one.item.shape[_first_axis(one.item) :]):
                raise DataError(
                    f"the crop is not within every image, or less than {_MIN_CROP} pixels wide; "
                    "`hilum site quarantine show` tells their sizes"
                )
        items = [self._take(one.item, self.array(one), crop) for one in images]
        self._settle(catalogue, images, ACCEPTED, items)
        self._decide(images, "released", crop)
        return len(images)

    def drop(self, images: Iterable[HeldImage], catalogue: Catalogue) -> int:
        """Remove held images for good, their pixels included. Gives how many."""
        images = list(images)
        self._settle(catalogue, images, Reason.DROPPED, [])
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
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        path = self._path(one)
        if not path.exists():
            with replacing(path) as file:
                Path(file.name).chmod(0o600)
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        with self._engine.begin() as connection:
            connection.execute(delete(_held).where(_held.c.item_key == whole.item_key))
            connection.execute(_held.insert().values(**_values(one)))

    def _settle(self, catalogue: Catalogue, images: list[HeldImage], status: str, items: list[Item]) -> None:
        """Give the files of held instances their new status, and record what was made of them."""
        instances = {one.item.sop_key for one in images}
        waiting = [
            replace(row, status=status)
            for row in catalogue.files().values()
            if row.sop_key in instances and row.status == Reason.BURNED_IN_TEXT
        ]
        catalogue.record(waiting, items)

    def _decide(self, images: list[HeldImage], state: State, crop: Crop | None) -> None:
        with self._engine.begin() as connection:
            for one in images:
                connection.execute(
                    update(_held)
                    .where(_held.c.item_key == one.item.item_key)
                    .values(state=state, crop=json.dumps(crop))
                )
        self._remove_unused(images)

    def _forget(self, images: list[HeldImage]) -> None:
        with self._engine.begin() as connection:
            for one in images:
                connection.execute(delete(_held).where(_held.c.item_key == one.item.item_key))
        self._remove_unused(images)

    def _remove_unused(self, images: list[HeldImage]) -> None:
        """Remove the arrays of images that no longer wait, unless another one with the same pixels does."""
        waiting = {one.item.content_sha256 for one in self.list_held()}
        for one in images:
            if one.item.content_sha256 not in waiting:
                self._path(one).unlink(missing_ok=True)

    def _row(self, item_key: str) -> HeldImage | None:
        with self._engine.begin() as connection:
            row = connection.execute(select(_held).where(_held.c.item_key == item_key)).one_or_none()
        return None if row is None else _held_image(row)

    def _path(self, one: HeldImage) -> Path:
        return self.folder / f"{one.item.content_sha256}.npy"


def quarantine_counts(workspace: Workspace) -> dict[State, dict[str, int]]:
    """How many images wait, were released and were dropped, by family. Nothing is written."""
    counts: dict[State, Counter[str]] = {state: Counter() for state in get_args(State)}
    if not workspace.catalogue.exists():
        return {state: {} for state in counts}
    engine = create_engine(f"sqlite:///{workspace.catalogue}")
    try:
        if inspect(engine).has_table(_held.name):
            with engine.begin() as connection:
                for family, state in connection.execute(select(_held.c.family, _held.c.state)):
                    counts[state][family] += 1
    finally:
        engine.dispose()
    return {state: dict(sorted(found.items())) for state, found in counts.items()}


def _find(key: str, every: list[HeldImage]) -> HeldImage:
    fits = [one for one in every if len(key) >= 8 and one.item.item_key.startswith(key)]  # noqa: PLR2004 - of 32
    if len(fits) != 1:
        why = "fits several images; give more of it" if fits else "is in quarantine's list nowhere"
        raise DataError(f"a given key {why}; `hilum site quarantine --json` lists the keys")
    if fits[0].state != "held":
        raise DataError(f"a given key was {fits[0].state} already; `hilum site quarantine` lists what waits")
    return fits[0]


def _first_axis(item: Item) -> int:
    """Where rows stand in the shape: behind the frames of a clip."""
    return 0 if item.kind == "image" else 1


def _durable(connection: Any, _record: Any) -> None:
    """As the catalogue, whose file it shares: a committed row survives a power cut."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=30000")


_ITEM_FIELDS = tuple(one.name for one in fields(Item))
_LISTS = ("shape", "spacing_mm", "affine")


def _values(one: HeldImage) -> dict[str, Any]:
    item = {name: getattr(one.item, name) for name in _ITEM_FIELDS}
    item |= {name: json.dumps(item[name]) for name in _LISTS}
    return {**item, "reason": one.reason.value, "state": one.state, "crop": json.dumps(one.crop)}


def _held_image(row: Row[Any]) -> HeldImage:
    values = row._asdict()
    item = {name: values[name] for name in _ITEM_FIELDS}
    item |= {name: tuple(json.loads(item[name])) for name in _LISTS}
    crop = json.loads(values["crop"])
    return HeldImage(Item(**item), Reason(values["reason"]), values["state"], tuple(crop) if crop else None)
