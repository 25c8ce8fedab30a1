"""The pseudonymous index of an archive: which files there are, and what they gave (SQLite; see `tables`)."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Row, delete, select, update

from hilum.client.state.tables import ANNOTATIONS, FILES, ITEMS, METADATA, REFILLED, VERSION
from hilum.common.database import Database
from hilum.common.preparation.kinds import Kind

Units = Literal["display", "hounsfield", "arbitrary"]

AnnotationKind = Literal["mask", "box"]
Source = Literal["seg", "seg_fractional", "rtstruct", "nifti", "csv", "coco"]

ACCEPTED = ""  # the status of a file that was taken in


@dataclass(frozen=True)
class FileRow:
    """One file of the archive: its status is `ACCEPTED` or a reason code.

    Attributes:
        item_key: The one item that the file is in; empty for files in none, or with frames in several.
    """

    file_key: str
    identity: str
    status: str
    sop_key: str = ""
    series_key: str = ""
    study_key: str = ""
    item_key: str = ""


@dataclass(frozen=True)
class Item:
    """One image (H, W), volume (D, H, W) or cine (T, H, W) in the cache; colour adds a last axis of 3.

    Attributes:
        content_sha256: Of dtype, shape and values; names the cached array and gives items their order.
        spacing_mm: One distance an axis, empty where unknown.
        affine: Array index to LPS millimetres, row by row; empty for images without a position.
        sop_key: Empty for volumes.
        quality: JSON of what was found and done on the way to a volume; empty elsewhere. It stays at the site: of PET it tells
            of weight and dose.
    """

    item_key: str
    kind: Kind
    family: str
    units: Units
    content_sha256: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    affine: tuple[float, ...]
    sop_key: str
    series_key: str
    study_key: str
    patient_key: str
    quality: str = ""

    @property
    def has_known_units(self) -> bool:
        """Whether its values mean the same at every site: of a CT, Hounsfield units."""
        return self.units != "arbitrary" or self.family != "ct"

    @property
    def suv(self) -> float | str:
        """Of a PET volume: what its values are multiplied by to be in SUV by body weight, or the code of why there is nothing.

        The code is empty where nobody has looked yet.
        """
        found: float | str = json.loads(self.quality or "{}").get("suv", "")
        return found

    @property
    def lacks_suv_answer(self) -> bool:
        """Whether it is a PET volume of DICOM files in which nobody has looked for SUV; what came of NIfTI has no `quality`."""
        return self.kind == "volume" and bool(self.quality) and self.suv == ""


@dataclass(frozen=True)
class Annotation:
    """One mask or box on one item.

    Attributes:
        item_state: `state_of` the item when the annotation was checked against it.
        label: A name from the site's own map or tables, a standard code, or a whole number; never DICOM text.
        content_sha256: Names the stored mask; empty for a box.
        place: Of a mask, the index in the item of the stored array's first voxel; of a box, x, y, width and height in
            pixels from the image's upper left corner.
        source: What it was read from; `seg_fractional` means cut at one half.
        folder_key: The folder or file that gave it; what that gives next replaces it.
    """

    annotation_key: str
    item_key: str
    item_state: str
    kind: AnnotationKind
    label: str
    content_sha256: str
    place: tuple[float, ...]
    source: Source
    folder_key: str


def state_of(item: Item) -> str:
    """Return what an annotation depends on: the item's values, shape and place in the patient."""
    state = json.dumps([item.content_sha256, item.shape, item.affine])
    return hashlib.sha256(state.encode()).hexdigest()


@dataclass(frozen=True)
class Counts:
    """What `hilum site index` and `hilum site status` tell; `files = instances + sum(skipped)`.

    Attributes:
        split_series: How many series hold several volumes, by what tells these apart: names of the planner's, such as
            `echo` or `run`, with a comma between them where it takes several.
    """

    files: int
    instances: int
    series: int
    volumes: int
    patients: int
    skipped: dict[str, int]
    split_series: dict[str, int]


_INDEX_AGAIN = (
    "move it away and run `hilum site index` again; what was decided in the quarantine is then forgotten"
)


class Catalogue:
    """Reads and writes one site's catalogue."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path, METADATA, version=VERSION, refilled=REFILLED, remedy=_INDEX_AGAIN)

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    def files(self) -> dict[str, FileRow]:
        """Return every known file by its key."""
        with self.database.transaction() as connection:
            return {row.file_key: FileRow(*row) for row in connection.execute(select(FILES))}

    def items(self, *, family: str | None = None, kind: Kind | None = None) -> list[Item]:
        """Return the items of one family and kind, in the order of their content, the same on every machine."""
        query = select(ITEMS)
        if family is not None:
            query = query.where(ITEMS.c.family == family)
        if kind is not None:
            query = query.where(ITEMS.c.kind == kind)
        with self.database.transaction() as connection:
            items = [item_of(row) for row in connection.execute(query)]
        return sorted(items, key=lambda item: (item.content_sha256, item.item_key))

    def record(
        self,
        files: Iterable[FileRow],
        items: Iterable[Item] = (),
        *,
        forget_files: Iterable[str] = (),
        forget_series: Iterable[str] = (),
    ) -> None:
        """Replace rows in one transaction: all of it is kept, or nothing.

        Args:
            files: New or changed files.
            items: New or changed items.
            forget_files: Keys of files that are gone or replaced; the items of their instances go with them.
            forget_series: Keys of series whose volumes go, before `items` are added.
        """
        with self.database.transaction() as connection:
            for key in forget_files:
                sop_key = connection.scalar(select(FILES.c.sop_key).where(FILES.c.file_key == key))
                status = connection.scalar(select(FILES.c.status).where(FILES.c.file_key == key))
                if sop_key and status == ACCEPTED:
                    connection.execute(delete(ITEMS).where(ITEMS.c.sop_key == sop_key))
                connection.execute(delete(FILES).where(FILES.c.file_key == key))
            for key in forget_series:
                connection.execute(delete(ITEMS).where(ITEMS.c.series_key == key, ITEMS.c.kind == "volume"))
            for file in files:
                connection.execute(delete(FILES).where(FILES.c.file_key == file.file_key))
                connection.execute(FILES.insert().values(**asdict(file)))
            for item in items:
                connection.execute(delete(ITEMS).where(ITEMS.c.item_key == item.item_key))
                connection.execute(ITEMS.insert().values(**item_values(item)))

    def rename_files(self, keys: Mapping[str, str]) -> None:
        """Give files other keys, in one transaction; their items stay.

        A file that stands under its other key already stays as it is there if it was taken in, else it is replaced.
        """
        with self.database.transaction() as connection:
            for old, new in keys.items():
                status = connection.scalar(select(FILES.c.status).where(FILES.c.file_key == new))
                leaving = old if status == ACCEPTED else new
                connection.execute(delete(FILES).where(FILES.c.file_key == leaving))
                connection.execute(update(FILES).where(FILES.c.file_key == old).values(file_key=new))

    def annotate(self, folder_key: str, annotations: Iterable[Annotation]) -> None:
        """Replace what one folder or file gave, in one transaction."""
        with self.database.transaction() as connection:
            connection.execute(delete(ANNOTATIONS).where(ANNOTATIONS.c.folder_key == folder_key))
            for one in annotations:
                same = ANNOTATIONS.c.annotation_key == one.annotation_key
                connection.execute(delete(ANNOTATIONS).where(same))
                values = {**asdict(one), "place": json.dumps(one.place)}
                connection.execute(ANNOTATIONS.insert().values(**values))

    def annotations(self, *, kind: AnnotationKind | None = None) -> list[Annotation]:
        """Annotations whose item is as it was when they were checked against it, in a stable order.

        Those of an item that has gone or changed are left out until the site annotates again.
        """
        query = select(ANNOTATIONS)
        if kind is not None:
            query = query.where(ANNOTATIONS.c.kind == kind)
        with self.database.transaction() as connection:
            rows = [row._asdict() for row in connection.execute(query)]
        states = {item.item_key: state_of(item) for item in self.items()}
        return sorted(
            (
                Annotation(**{**row, "place": tuple(json.loads(row["place"]))})
                for row in rows
                if states.get(row["item_key"]) == row["item_state"]
            ),
            key=lambda one: one.annotation_key,
        )

    def stored_masks(self) -> set[str]:
        """Return the content names of every mask, also of items that have changed."""
        with self.database.transaction() as connection:
            return set(connection.scalars(select(ANNOTATIONS.c.content_sha256))) - {""}

    def counts(self) -> Counts:
        """Return what is in the catalogue now."""
        files = list(self.files().values())
        items = self.items()
        skipped = Counter(file.status for file in files if file.status != ACCEPTED)
        accepted = [file for file in files if file.status == ACCEPTED]
        return Counts(
            files=len(files),
            instances=len(accepted),
            series=len({file.series_key for file in accepted}),
            volumes=sum(item.kind == "volume" for item in items),
            patients=len({item.patient_key for item in items}),
            skipped=dict(sorted(skipped.items())),
            split_series=_split_series(items),
        )


def _split_series(items: Iterable[Item]) -> dict[str, int]:
    """Return how many series hold several volumes, by what tells these apart."""
    volumes: dict[str, list[Item]] = {}
    for item in items:
        if item.kind == "volume":
            volumes.setdefault(item.series_key, []).append(item)
    several = (found[0] for found in volumes.values() if len(found) > 1)
    by = Counter(",".join(json.loads(one.quality or "{}").get("split_on", ["time"])) for one in several)
    return dict(sorted(by.items()))


def item_of(row: Row[Any]) -> Item:
    """Return the item that a row of a table with an item's columns holds."""
    values = {name: getattr(row, name) for name in _ITEM_FIELDS}
    return Item(**values | {name: tuple(json.loads(values[name])) for name in _LISTS})


def item_values(item: Item) -> dict[str, Any]:
    """Return the inverse of `item_of`: a value for each of an item's columns."""
    values = asdict(item)
    return values | {name: json.dumps(values[name]) for name in _LISTS}


_ITEM_FIELDS = tuple(one.name for one in fields(Item))
_LISTS = ("shape", "spacing_mm", "affine")
