"""The reference page on DICOM objects says what the code does."""

import re
from pathlib import Path

from pydicom.uid import UID

from hilum.client.intake.decoders import DECODERS, NATIVE
from hilum.client.intake.receive import SYNTAXES
from hilum.client.intake.sop_classes import SOP_CLASSES
from hilum.client.intake.transfer_syntaxes import DEFLATED, READ

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "dicom.md").read_text()


def rows_with_uid():
    """Cells of every table row that has a UID in its second column, by that UID."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"
    ]
    return {row[1]: row for row in rows if re.fullmatch(r"[\d.]+", row[1])}


def test_every_sop_class_stands_in_the_page_with_what_becomes_of_it():
    written = rows_with_uid()
    for row in SOP_CLASSES.values():
        if row.taken is None:
            expected = [row.name, row.uid, f"`{row.reason}`"]
        else:
            pixels = "grey or colour" if row.taken.colour else "grey"
            several = "one or more" if row.taken.frames else "one"
            frames = "several, grouped" if row.taken.grouped else several
            expected = [row.name, row.uid, row.taken.family, pixels, frames]
        assert written[row.uid] == expected


def test_the_page_names_nothing_that_the_code_does_not_know():
    assert set(rows_with_uid()) == set(SOP_CLASSES) | READ


def test_every_syntax_that_is_read_stands_in_the_page_with_its_decoders():
    written = rows_with_uid()
    for syntax in READ:
        plain = "inflated within a bound" if syntax == DEFLATED else "as they are"
        decoders = ", ".join(decoder.name for decoder in DECODERS.get(syntax, ())) or plain
        assert written[syntax] == [UID(syntax).name, syntax, decoders]


def test_what_can_be_decoded_is_what_is_read_and_what_is_received():
    assert DECODERS.keys() | NATIVE == READ
    assert set(SYNTAXES) == READ
