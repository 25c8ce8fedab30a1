"""Read a label table from bytes: its encoding, its separator, its header.

Nothing is guessed that could be wrong in silence. Text is UTF-8, or UTF-16 with a byte order mark; the separator is the
one of comma, semicolon, tab and `|` that cuts the header into columns among which is a known key. Blanks, case,
hyphens and quotes in a header do not matter, as long as one column alone fits.
"""

import codecs
import csv
import difflib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hilum.common.errors import LabelError

KEY_COLUMNS = {
    "sop_instance_uid": "sop",
    "series_instance_uid": "series",
    "study_instance_uid": "study",
    "file": "file",
}
PATIENT_COLUMN = "patient"
LABEL_KEY = "tasks.classification.label of the study"
"""What names the label column in a training."""

_SEPARATORS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r"\A\s*\"?sep=(.)\"?\s*\r?\n", re.IGNORECASE)  # what Excel writes and reads
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SAVE_AS = "save it as UTF-8 (in Excel: `CSV UTF-8`)"
_NEAR = 0.6
_WORDS = re.compile(r"[^\W\d]{1,40}")


@dataclass(frozen=True)
class TableRow:
    """One line of a table: its number in the file, and the cells that were asked for."""

    line: int
    key: str = field(repr=False)
    patient: str = field(repr=False)
    label: str = field(repr=False)


@dataclass(frozen=True)
class LabelTable:
    """One label column of a table.

    Attributes:
        key_column: Of `KEY_COLUMNS`.
        rows: In the order of the file.
    """

    key_column: str
    rows: tuple[TableRow, ...] = field(repr=False)


def read_table(path: Path, column: str, *, named_by: str = LABEL_KEY) -> LabelTable:
    """Read the key, the patient and one label of each row.

    Args:
        path: The table.
        column: The label's.
        named_by: The key or option that names the column, for the words of an error.

    Raises:
        LabelError: If the table can't be read, lacks a column, or has one twice.
    """
    lines = _cells(_text(path))
    if not lines:
        raise LabelError(f"the label table is empty; it needs one of the columns {', '.join(KEY_COLUMNS)}")
    header = [_plain(cell) for cell in lines[0][1]]
    key_column = next((name for name in KEY_COLUMNS if name in header), None)
    if key_column is None:
        raise LabelError(
            f"the label table needs one of the columns {', '.join(KEY_COLUMNS)}{_nearest(KEY_COLUMNS, header)}"
        )
    key, patient = _place(key_column, lines[0][1]), _place(PATIENT_COLUMN, lines[0][1])
    label = _place(column, lines[0][1], named_by)
    rows = []
    for number, cells in lines[1:]:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise LabelError(
                f"line {number} of the label table has {len(cells)} cells, the header has {len(header)}; put a cell that "
                "holds the separator in double quotes"
            )
        full = [*cells, *[""] * (len(header) - len(cells))]
        rows.append(TableRow(number, full[key].strip(), full[patient].strip(), full[label]))
    return LabelTable(key_column, tuple(rows))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise LabelError("the label table does not exist; check `data.labels` of the site") from None
    except OSError as error:
        raise LabelError(f"the label table can't be read ({type(error).__name__})") from None
    try:
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise LabelError(f"the label table is neither UTF-8 nor UTF-16 with its mark; {_SAVE_AS}") from None
    if "\0" in text:
        raise LabelError(
            f"the label table holds zero bytes, so it is not text, or UTF-16 without its mark; {_SAVE_AS}"
        )
    return text


def _cells(text: str) -> list[tuple[int, list[str]]]:
    """Return the lines that hold anything, with their numbers, cut at the table's separator."""
    stated = _SEPARATOR_LINE.match(text)
    if stated:
        return _rows(text[stated.end() :], stated[1], first=2)
    headers = {separator: _header(text, separator) for separator in _SEPARATORS}
    for separator, header in headers.items():
        if set(KEY_COLUMNS) & {_plain(cell) for cell in header}:
            return _rows(text, separator)
    return _rows(text, max(headers, key=lambda separator: len(headers[separator])))


def _header(text: str, separator: str) -> list[str]:
    """Return the first line that holds anything, if it were cut at this separator."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        return next((cells for cells in reader if any(cell.strip() for cell in cells)), [])
    except csv.Error:
        return []


def _rows(text: str, separator: str, first: int = 1) -> list[tuple[int, list[str]]]:
    """Return the lines that hold anything, with their numbers; `first` is that of the text's first line.

    Raises:
        LabelError: With the line in which a quote opens that is not closed where its cell ends.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines, begins = [], first
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((reader.line_num + first - 1, cells))
            begins = reader.line_num + first
    except csv.Error as error:
        raise LabelError(
            f"the label table is not CSV from line {begins} on ({error}); close each quote at the end of its cell, and write "
            "a quote inside a quoted cell twice"
        ) from None
    return lines


def _place(name: str, header: Sequence[str], named_by: str = "") -> int:
    """Return where a column is: the one of just this name, or the only one that differs in blanks, case or hyphens alone."""
    stripped = [cell.strip() for cell in header]
    exact = [index for index, cell in enumerate(stripped) if cell == name]
    near = exact or [index for index, cell in enumerate(header) if _plain(cell) == _plain(name)]
    if len(near) == 1:
        return near[0]
    if near:
        raise LabelError(
            f"the label table has {len(near)} columns `{name}`; keep one, or give them different names"
        )
    others = f"; it has {len(header)} others, none of a like name"
    if not named_by:
        raise LabelError(
            f"the label table has no column `{name}`"
            f"{_nearest([name], header) or f'{others}: add the column, or rename the one that holds it'}"
        )
    best, _ = _best([name], header)
    cure = f"; the nearest is `{best}`: write that there" if best else f"{others}: correct the name there"
    raise LabelError(
        f"the label table has no column `{name}`, which {named_by} names{cure}, or rename the column to `{name}`"
    )


def _nearest(wanted: Iterable[str], header: Sequence[str]) -> str:
    """Name the column that is most like a wanted one, and how to rename it; empty if none is."""
    best, name = _best(wanted, header)
    return f"; the nearest is `{best}`: rename it to `{name}`" if best else ""


def _best(wanted: Iterable[str], header: Sequence[str]) -> tuple[str, str]:
    """Return the column that is most like a wanted one, and that one. One that is not is not named: it may be the cell of a patient."""
    likeness, name, best = max(
        ((_likeness(_plain(name), _plain(cell)), name, cell.strip()) for name in wanted for cell in header),
        default=(0.0, "", ""),
    )
    return (best, name) if likeness >= _NEAR else ("", "")


def _likeness(name: str, cell: str) -> float:
    """From 0 to 1; a name of words that holds the other, such as `diagnosis_label`, is near."""
    holds = _WORDS.fullmatch(cell) is not None and name in cell
    return max(difflib.SequenceMatcher(None, name, cell).ratio(), _NEAR if holds else 0.0)


def _plain(name: str) -> str:
    """Return a column's name without what people do not see: case, blanks around it, and which kind of gap joins its words."""
    return re.sub(r"[\s_\-]+", "_", name.strip("\ufeff\u200b\"' \t\r\n\xa0")).casefold()
