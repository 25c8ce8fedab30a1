"""Label tables: a CSV keyed by SOP, series or study UID or by file, with a patient column.

A file is named relative to the indexed folder. UIDs, files and patients become pseudonyms as they are read; nothing else remembers them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hilum.client.state.catalogue import ACCEPTED, Catalogue, FileRow, Item
from hilum.client.state.label_table import KEY_COLUMNS, LABEL_KEY, PATIENT_COLUMN, LabelTable, read_table
from hilum.client.state.label_values import check_spellings, class_of, is_missing, tidy
from hilum.client.state.workspace import Pseudonyms
from hilum.common.errors import LabelError

_WHOLE_AS_FLOAT = re.compile(r"\d+\.0", re.ASCII)


@dataclass(frozen=True)
class Labels:
    """One column of a label table, tied to the catalogue.

    Attributes:
        label_of: Item key to class; items without a label are absent.
        patient_of: Item key to patient pseudonym, where the table names a patient.
        without_image: Rows whose image was seen but set aside.
        set_aside: Of them, those with a label, by class.
        read_as_missing: Cells that are not empty and say that there is no label, as they stand, and how often.
    """

    label_of: dict[str, str] = field(repr=False)
    patient_of: dict[str, str] = field(repr=False)
    without_image: int
    set_aside: Mapping[str, int] = field(default_factory=dict, repr=False)
    read_as_missing: Mapping[str, int] = field(default_factory=dict, repr=False)


def read_labels(
    path: Path, column: str, catalogue: Catalogue, names: Pseudonyms, *, named_by: str = LABEL_KEY
) -> Labels:
    """Read one column.

    Args:
        path: The table.
        column: The column.
        catalogue: Of the images.
        names: Makes pseudonyms.
        named_by: The key or option that names the column, for the words of an error.

    Raises:
        LabelError: If the table can't be read, a column is missing, a class is spelled in several ways, a UID is unknown,
            or an image has two labels or two patients.
    """
    table = read_table(path, column, named_by=named_by)
    check_spellings(column, Counter(row.label for row in table.rows))
    return _read(path, table, catalogue, names)


def _read(
    path: Path, table: LabelTable, catalogue: Catalogue, names: Pseudonyms, *, labelled: bool = True
) -> Labels:
    """Tie the rows of a table to the catalogue; not `labelled`, whose image each is alone."""
    kind = KEY_COLUMNS[table.key_column]
    files = catalogue.files().values()
    by_key = (
        _items_by_file(files, catalogue.items()) if kind == "file" else _items_by(kind, catalogue.items())
    )
    seen = {getattr(file, f"{kind}_key") for file in files}
    label_of: dict[str, str] = {}
    patient_of: dict[str, str] = {}
    problems: Counter[str] = Counter()
    first_line: dict[str, int] = {}
    set_aside: Counter[str | None] = Counter()
    for row in table.rows:
        key = names.of(kind, relative_name(row.key) if kind == "file" else row.key)
        items, patient = by_key.get(key, []), _patient(row.patient)
        label = class_of(row.label) if labelled else None
        faults = []
        if not items:
            set_aside[label] += key in seen
            faults += [] if key in seen else ["unknown"]
        for item in items:
            if label is not None and label_of.setdefault(item.item_key, label) != label:
                faults.append("label")
            person = names.of("label patient", patient) if patient else None
            if person is not None and patient_of.setdefault(item.item_key, person) != person:
                faults.append("patient")
        for fault in faults:
            problems[fault] += 1
            first_line.setdefault(fault, row.line)
    _complain(path, table.key_column, problems, first_line)
    return Labels(
        label_of,
        patient_of,
        set_aside.total(),
        {label: count for label, count in sorted(set_aside.items(), key=str) if label is not None and count},
        Counter(tidy(row.label) for row in table.rows if tidy(row.label) and is_missing(row.label)),
    )


def read_patients(path: Path, catalogue: Catalogue, names: Pseudonyms) -> dict[str, str]:
    """Return what a label table says of whose image each item is: item key to patient pseudonym.

    Raises:
        LabelError: If the table can't be read, a UID is unknown, or an image has two patients.
    """
    return _read(path, read_table(path, PATIENT_COLUMN), catalogue, names, labelled=False).patient_of


def _patient(cell: str) -> str:
    """Return a patient in one spelling; empty where the table does not say who it is."""
    if is_missing(cell):
        return ""
    text = tidy(cell)
    if _WHOLE_AS_FLOAT.fullmatch(text):
        return text.removesuffix(".0")  # a table may have turned 17 into 17.0
    return text.casefold()  # 12.1 and 12.10 are two patients


def _items_by(kind: str, items: list[Item]) -> dict[str, list[Item]]:
    table: dict[str, list[Item]] = {}
    for item in items:
        table.setdefault(getattr(item, f"{kind}_key"), []).append(item)
    table.pop("", None)
    return table


def _items_by_file(files: Iterable[FileRow], items: list[Item]) -> dict[str, list[Item]]:
    """Return the items that a file gave, or, of a slice, that its series gave."""
    by_sop, by_series = _items_by("sop", items), _items_by("series", items)
    table = {}
    for file in files:
        if file.status == ACCEPTED:
            volumes = [item for item in by_series.get(file.series_key, []) if item.kind == "volume"]
            table[file.file_key] = by_sop.get(file.sop_key) or volumes
    return table


def relative_name(text: str) -> str:
    """Return a relative path in one spelling: forward slashes, no leading dot."""
    return str(PurePosixPath(text.strip().replace("\\", "/")))


def _complain(path: Path, key_column: str, problems: Counter[str], first_line: dict[str, int]) -> None:
    if problems["unknown"]:
        raise LabelError(
            f"{path.name} line {first_line['unknown']}: its {key_column} is in no indexed file "
            f"({problems['unknown']} such lines); index the archive that holds it, or remove the lines"
        )
    for what in ("label", "patient"):
        if problems[what]:
            raise LabelError(
                f"{path.name} line {first_line[what]}: this image already has another {what} "
                f"({problems[what]} such lines); keep one line an image"
            )
