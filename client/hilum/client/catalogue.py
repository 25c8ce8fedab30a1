"""The pseudonymous index of an archive (SQLite).

Keys are pseudonyms (`Pseudonyms`); the only other columns are typed technical facts. No path, UID, name, date or text
of a DICOM attribute is stored.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Index,
    MetaData,
    Row,
    String,
    Table,
    create_engine,
    delete,
    event,
    select,
)

Kind = Literal["image", "volume", "cine"]
Units = Literal["display", "hounsfield", "arbitrary"]

AnnotationKind = Literal["mask", "box"]
Source = Literal["seg", "seg_fractional", "rtstruct", "nifti", "csv", "coco"]

_VERSION = (
    2  # of the tables below: a catalogue of another version is emptied, and the next index fills it again
)
ACCEPTED = ""  # the status of a file that was taken in

_metadata = MetaData()
_files = Table(
    "files",
    _metadata,
    Column("file_key", String, primary_key=True),
    Column("identity", String, nullable=False),
    Column("status", String, nullable=False),
    Column("sop_key", String, nullable=False),
    Column("series_key", String, nullable=False),
    Column("study_key", String, nullable=False),
    Column("item_key", String, nullable=False),
    Index("files_series", "series_key"),
    Index("files_sop", "sop_key"),
)
_items = Table(
    "items",
    _metadata,
    Column("item_key", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("family", String, nullable=False),
    Column("units", String, nullable=False),
    Column("content_sha256", String, nullable=False),
    Column("shape", String, nullable=False),
    Column("spacing_mm", String, nullable=False),
    Column("affine", String, nullable=False),
    Column("sop_key", String, nullable=False),
    Column("series_key", String, nullable=False),
    Column("study_key", String, nullable=False),
    Column("patient_key", String, nullable=False),
    Column("quality", String, nullable=False),
    Index("items_series", "series_key"),
)
_annotations = Table(
    "annotations",
    _metadata,
    Column("annotation_key", String, primary_key=True),
    Column("item_key", String, nullable=False),
    Column("item_state", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("label", String, nullable=False),
    Column("content_sha256", String, nullable=False),
    Column("place", String, nullable=False),
    Column("source", String, nullable=False),
    Column("folder_key", String, nullable=False),
    Index("annotations_item", "item_key"),
)


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
        quality: JSON of what was found and done on the way to a volume; empty elsewhere.
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
    """What an annotation depends on: the item's values, shape and place in the patient."""
    state = json.dumps([item.content_sha256, item.shape, item.affine])
    return hashlib.sha256(state.encode()).hexdigest()


@dataclass(frozen=True)
class Counts:
    """What `hilum site index` and `hilum site status` tell; `files = instances + sum(skipped)`."""

    files: int
    instances: int
    series: int
    volumes: int
    patients: int
    skipped: dict[str, int]


class Catalogue:
    """Reads and writes one site's catalogue."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine: Engine = create_engine(f"sqlite:///{path}")
        event.listen(self._engine, "connect", _durable)
        with self._transaction() as connection:
            if connection.exec_driver_sql("PRAGMA user_version").scalar_one() != _VERSION:
                _metadata.drop_all(connection)
                _metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    def files(self) -> dict[str, FileRow]:
        """Every known file by its key."""
        with self._transaction() as connection:
            return {row.file_key: FileRow(*row) for row in connection.execute(select(_files))}

    def items(self, *, family: str | None = None, kind: Kind | None = None) -> list[Item]:
        """The items of one family and kind, in the order of their content, the same on every machine."""
        query = select(_items)
        if family is not None:
            query = query.where(_items.c.family == family)
        if kind is not None:
            query = query.where(_items.c.kind == kind)
        with self._transaction() as connection:
            items = [_item(row) for row in connection.execute(query)]
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
        with self._transaction() as connection:
            for key in forget_files:
                sop_key = connection.scalar(select(_files.c.sop_key).where(_files.c.file_key == key))
                status = connection.scalar(select(_files.c.status).where(_files.c.file_key == key))
                if sop_key and status == ACCEPTED:
                    connection.execute(delete(_items).where(_items.c.sop_key == sop_key))
                connection.execute(delete(_files).where(_files.c.file_key == key))
            for key in forget_series:
                connection.execute(
                    delete(_items).where(_items.c.series_key == key, _items.c.kind == "volume")
                )
            for file in files:
                connection.execute(delete(_files).where(_files.c.file_key == file.file_key))
                connection.execute(_files.insert().values(**asdict(file)))
            for item in items:
                connection.execute(delete(_items).where(_items.c.item_key == item.item_key))
                connection.execute(_items.insert().values(**_item_values(item)))

    def annotate(self, folder_key: str, annotations: Iterable[Annotation]) -> None:
        """Replace what one folder or file gave, in one transaction."""
        with self._transaction() as connection:
            connection.execute(delete(_annotations).where(_annotations.c.folder_key == folder_key))
            for one in annotations:
                same = _annotations.c.annotation_key == one.annotation_key
                connection.execute(delete(_annotations).where(same))
                values = {**asdict(one), "place": json.dumps(one.place)}
                connection.execute(_annotations.insert().values(**values))

    def annotations(self, *, kind: AnnotationKind | None = None) -> list[Annotation]:
        """Annotations whose item is as it was when they were checked against it, in a stable order.

        Those of an item that has gone or changed are left out until the site annotates anew.
        """
        query = select(_annotations)
        if kind is not None:
            query = query.where(_annotations.c.kind == kind)
        with self._transaction() as connection:
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
        """The content names of every mask, also of items that have changed."""
        with self._transaction() as connection:
            return set(connection.scalars(select(_annotations.c.content_sha256))) - {""}

    def counts(self) -> Counts:
        """What is in the catalogue now."""
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
        )


def _durable(connection: Any, _record: Any) -> None:
    """WAL with a full flush: a committed row survives a power cut."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=30000")


def _item(row: Row[Any]) -> Item:
    values = row._asdict()
    for name in ("shape", "spacing_mm", "affine"):
        values[name] = tuple(json.loads(values[name]))
    return Item(**values)


def _item_values(item: Item) -> dict[str, Any]:
    values = asdict(item)
    for name in ("shape", "spacing_mm", "affine"):
        values[name] = json.dumps(values[name])
    return values
