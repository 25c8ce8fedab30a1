"""The reference page on DICOM objects says what the code does."""

import re
from itertools import product

from hilum.client.intake.headers.pixel_header import is_read
from hilum.client.intake.headers.sop_classes import SOP_CLASSES
from hilum.client.intake.instance import MAX_EDGE, MAX_FRAMES
from hilum.client.intake.transfer_syntaxes import (
    BIT_BY_BIT,
    EXPLICIT_BIG,
    JPEG_2000,
    NATIVE,
    SUPPORTED_SYNTAXES,
)
from places import ROOT

PAGE = (ROOT / "docs" / "reference" / "dicom.md").read_text()


def rows_with_uid():
    """Cells of every table row that has a UID in its second column, by that UID."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"
    ]
    return {row[1]: row for row in rows if re.fullmatch(r"1\.2\.[\d.]+", row[1])}


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
    assert rows_with_uid().keys() == SOP_CLASSES.keys() | SUPPORTED_SYNTAXES.keys()


def test_the_page_tells_the_limits_of_what_a_header_may_claim():
    assert f"at most {MAX_EDGE:,} rows or columns and {MAX_FRAMES:,} frames" in PAGE


def test_every_pixel_format_that_is_read_stands_in_the_page():
    syntaxes = {
        "all": SUPPORTED_SYNTAXES.keys(),
        "uncompressed in little endian, RLE, JPEG 2000, HTJ2K": BIT_BY_BIT | JPEG_2000,
        "those that keep every bit: uncompressed, RLE": BIT_BY_BIT,
        "uncompressed": NATIVE,
    }
    grey = {"MONOCHROME1", "MONOCHROME2"}
    rows = {  # kind, whether the high bit is elsewhere, and photometric interpretations
        "whole numbers": ("whole", False, {*grey, "RGB", "PALETTE COLOR"}),
        "whole numbers, grey or RGB": ("whole", False, {*grey, "RGB"}),
        "whole numbers whose high bit lies above the stored ones": (
            "whole",
            True,
            {*grey, "RGB", "PALETTE COLOR"},
        ),
        "Float Pixel Data, grey": ("float", False, grey),
        "Double Float Pixel Data, grey": ("double", False, grey),
    }
    section = PAGE.partition("## Pixel formats")[2].partition("##")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")][2:]
    table = [[cell.strip() for cell in line] for line in lines]
    assert [row[0] for row in table] == list(rows)

    def stated(syntax, photometric, kind, bits, elsewhere):
        if kind == "whole" and bits == 32 and (syntax == EXPLICIT_BIG or photometric == "PALETTE COLOR"):
            return False
        return any(
            (kind, elsewhere) == rows[name][:2]
            and photometric in rows[name][2]
            and str(bits) in depths.split(", ")
            and syntax in syntaxes[named]
            for name, depths, named in table
        )

    for syntax, photometric, kind, bits in product(
        SUPPORTED_SYNTAXES, rows["whole numbers"][2], ("whole", "float", "double"), (8, 12, 16, 24, 32, 64)
    ):
        for below in (0, 2) if kind == "whole" else (0,):
            found = is_read(syntax, photometric, kind, (bits, bits - below, bits - 1))
            assert found == stated(syntax, photometric, kind, bits, below > 0), (
                syntax,
                photometric,
                kind,
                bits,
            )
