"""Label tables: a CSV keyed by SOP, series or study UID or by file, with a patient column.

A file is named relative to the indexed folder. UIDs, files and patients become pseudonyms as they are read; nothing else remembers them.
"""

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hilum.client.catalogue import ACCEPTED, Catalogue, FileRow, Item
from hilum.client.workspace import Pseudonyms
from hilum.common.errors import LabelError

_KEY_COLUMNS = {
    "sop_instance_uid": "sop",
    "series_instance_uid": "series",
    "study_instance_uid": "study",
    "file": "file",
}
_PATIENT_COLUMN = "patient"


@dataclass(frozen=True)
class Labels:
    """One column of a label table, tied to the catalogue.

    Attributes:
        label_of: Item key to label; items without a label are absent.
        patient_of: Item key to patient pseudonym, as the table groups patients.
        without_image: Rows whose image was seen but set aside.
    """

    label_of: dict[str, str] = field(repr=False)
    patient_of: dict[str, str] = field(repr=False)
    without_image: int


def read_labels(path: Path, column: str, catalogue: Catalogue, names: Pseudonyms) -> Labels:
    """Read one column.

    Raises:
        LabelError: If the table can't be read, a column is missing, a UID is unknown or labelled twice unlike.
    """
    rows, key_column = _read_rows(path, column)
    kind = _KEY_COLUMNS[key_column]
    files = catalogue.files().values()
    by_key = (
        _items_by_file(files, catalogue.items()) if kind == "file" else _items_by(kind, catalogue.items())
    )
    seen = {getattr(file, f"{kind}_key") for file in files}
    label_of: dict[str, str] = {}
    patient_of: dict[str, str] = {}
    problems: Counter[str] = Counter()
    first_line: dict[str, int] = {}
    without_image = 0
    for line, row in rows:
        identifier = (row[key_column] or "").strip()
        key = names.of(kind, relative_name(identifier) if kind == "file" else identifier)
        items, label = by_key.get(key, []), (row[column] or "").strip()
        if not items:
            if key in seen:
                without_image += 1
            else:
                problems["unknown"] += 1
                first_line.setdefault("unknown", line)
        for item in items:
            if label and label_of.setdefault(item.item_key, label) != label:
                problems["twice"] += 1
                first_line.setdefault("twice", line)
            patient = (row[_PATIENT_COLUMN] or "").strip()
            patient_of[item.item_key] = names.of("label patient", patient) if patient else item.patient_key
    _complain(path, key_column, problems, first_line)
    return Labels(label_of, patient_of, without_image)


def _read_rows(path: Path, column: str) -> tuple[list[tuple[int, dict[str, str | None]]], str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name for name in reader.fieldnames or [] if name]
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise LabelError("the label table does not exist; check `data.labels` of the site") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"the label table can't be read as UTF-8 CSV ({type(error).__name__})") from None
    key_column = next((name for name in _KEY_COLUMNS if name in columns), None)
    if key_column is None:
        raise LabelError(f"the label table needs one of the columns {', '.join(_KEY_COLUMNS)}")
    for name in (_PATIENT_COLUMN, column):
        if name not in columns:
            raise LabelError(f"the label table has no column `{name}`; it has {len(columns)} others")
    return rows, key_column


def _items_by(kind: str, items: list[Item]) -> dict[str, list[Item]]:
    table: dict[str, list[Item]] = {}
    for item in items:
        table.setdefault(getattr(item, f"{kind}_key"), []).append(item)
    table.pop("", None)
    return table


def _items_by_file(files: Iterable[FileRow], items: list[Item]) -> dict[str, list[Item]]:
    """The items that a file gave, or, of a slice, that its series gave."""
    by_sop, by_series = _items_by("sop", items), _items_by("series", items)
    table = {}
    for file in files:
        if file.status == ACCEPTED:
            volumes = [item for item in by_series.get(file.series_key, []) if item.kind == "volume"]
            table[file.file_key] = by_sop.get(file.sop_key) or volumes
    return table


def relative_name(text: str) -> str:
    """A relative path in one spelling: forward slashes, no leading dot."""
    return str(PurePosixPath(text.strip().replace("\\", "/")))


def _complain(path: Path, key_column: str, problems: Counter[str], first_line: dict[str, int]) -> None:
    if problems["unknown"]:
        raise LabelError(
            f"{path.name} line {first_line['unknown']}: its {key_column} is in no indexed file "
            f"({problems['unknown']} such lines); index the archive that holds it, or remove the lines"
        )
    if problems["twice"]:
        raise LabelError(
            f"{path.name} line {first_line['twice']}: this image already has another label "
            f"({problems['twice']} such lines); keep one line an image"
        )
