"""Encodings, separators and headers of label tables."""

import pytest

from hilum.client.state.label_table import read_table
from hilum.common.errors import LabelError

PLAIN = "file,patient,label\na.png,P1,1\nb.png,P2,no\n"


@pytest.fixture
def table(tmp_path):
    def write(content, column="label"):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, column)

    return write


def cells(found):
    return [(row.key, row.patient, row.label) for row in found.rows]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        "\n\n" + PLAIN,
        PLAIN.replace("file,patient,label", " File , PATIENT,Label "),
        PLAIN.replace("file,patient,label", '"file","patient","label"'),
        PLAIN.replace("label", "label,notes").replace("1\n", '1,"a, b"\n').replace("no\n", "no,\n"),
        PLAIN.replace("\n", ",,\n"),
        PLAIN.rstrip("\n") + "\n,,\n",
    ],
)
def test_one_table_is_read_from_many_forms(table, content):
    assert cells(table(content)) == [("a.png", "P1", "1"), ("b.png", "P2", "no")]


def test_hyphens_and_case_in_the_name_of_a_key_do_not_matter(table):
    found = table("SOP Instance-UID,Patient,label\n1.2,P,0\n")
    assert (found.key_column, cells(found)) == ("sop_instance_uid", [("1.2", "P", "0")])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PLAIN.replace(",label", ",labels"), "no column `label`, which tasks.classification.label of the study names; the nearest is `labels`: write that there, or rename the column to `label`"),
        (PLAIN.replace(",label", ",diagnosis label"), "the nearest is `diagnosis label`: write that there"),
        ("b_label_7.png,1\n", "needs one of the columns (?!.*nearest)"),
        (PLAIN.replace(",label", ",diagnosis"), "names; it has 3 others, none of a like name: correct the name there, or rename the column to `label`"),
        (PLAIN.replace("patient", "patient_id"), "no column `patient`; the nearest is `patient_id`"),
        (PLAIN.replace("file", "filename"), "needs one of the columns .*; the nearest is `filename`: rename it to `file`"),
        (PLAIN.replace("patient", "label"), "no column `patient`"),
        ("file,patient,label,label\na,P,1,0\n", "has 2 columns `label`; keep one"),
        ("file,patient,label,Label \na,P,1,0\n", "^(?!.*columns)"),
        ("file,patient,LABEL,Label\na,P,1,0\n", "has 2 columns `label`"),
        ("file,patient,label\na,P,1,0\n", "line 2 of the label table has 4 cells, the header has 3"),
        ("Ann Example,1960-01-01,f\nBob Example,1961-01-01,m\n", "needs one of the columns"),
        (PLAIN.encode() + "caf\xe9,P,1\n".encode("latin-1"), "neither UTF-8 nor UTF-16 .*: |save it as UTF-8"),
        (PLAIN.encode("utf-16-le"), "zero bytes"),
        (b"\xff\xfe\x00", "save it as UTF-8"),
        (b"PK\x03\x04\x00\x00", "zero bytes|neither UTF-8"),
        (PLAIN + 'c.png,"P3,1\nd.png,P4,0\n', "not CSV from line 4 on .*; close each quote"),
        (PLAIN + 'c.png,"P3,1\nd.png,"P4",0\n', "not CSV from line 4 on"),
        ('sep=;\nfile;patient;label\na;P;1\nb;"P;1\n', "not CSV from line 4 on"),
        ("", "is empty"),
        ("  \n \n", "is empty"),
    ],
)  # fmt: skip
def test_what_is_in_doubt_is_refused_with_what_to_mend(table, content, words):
    if words == "^(?!.*columns)":
        assert [row.label for row in table(content).rows] == ["1"], "the column of just this name is the one"
        return
    with pytest.raises(LabelError, match=words) as caught:
        table(content)
    assert "Ann" not in str(caught.value), "a table without a header shows no cell"


def test_rows_that_are_cut_short_have_empty_cells(table):
    assert cells(table("file,patient,label\na,P\nb\n")) == [("a", "P", ""), ("b", "", "")]
