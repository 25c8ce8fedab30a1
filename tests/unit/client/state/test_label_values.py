"""Which cells are no label, which are one class, and which are refused."""

# ruff: noqa: RUF001 - letters that look alike are what is tested

import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.client.state.label_values import (
    MISSING,
    alike,
    check_is_classes,
    check_spellings,
    class_of,
    number_text,
    spellings,
)
from hilum.common.errors import LabelError


@pytest.mark.parametrize(
    "cell",
    ["", " ", "\t", "\xa0", "nan", "NaN", "NA", "n/a", "N/A", "null", "NULL", "None", "-", "–", "—", "?", "unknown",
     " Unknown ", "<NA>", "#N/A", "#DIV/0!", '"NA"', "''", "\ufeff", "ＮＡ", "NaT", "not available", "(null)", "\\N", "N / A", "na.", "[NA]", "(NA)", "UNK", "No data", "n.d."],
)  # fmt: skip
def test_a_cell_that_says_that_there_is_no_label_is_no_class(cell):
    assert class_of(cell) is None


@pytest.mark.parametrize(
    "cell", ["0", "no", "No finding", "nano", "n", "-1", "normal", "other", "uncertain", "+", "N0", "ND"]
)
def test_a_cell_that_only_looks_empty_is_a_class(cell):
    assert class_of(cell) == cell


@pytest.mark.parametrize(
    ("cells", "name"),
    [
        (["1", "1.0", "01", "+1", " 1 ", "1.", "1e0", "'1'", "1\u200b"], "1"),
        (["0", "-0", "0.0", "00", "-0.0"], "0"),
        (["0.5", ".5", "0.50", "5e-1"], "0.5"),
        (["-1", "-1.0"], "-1"),
        (["100", "1e2"], "100"),
        (["pneumonia", "pneumonia ", "\tpneumonia", "'pneumonia'", "\ufeffpneumonia"], "pneumonia"),
        (["no finding", "no  finding", "no\xa0finding"], "no finding"),
        (["œdème", "œde\u0300me"], "œdème"),
    ],
)
def test_what_is_the_same_to_the_eye_or_in_value_is_one_class(cells, name):
    assert {class_of(cell) for cell in cells} == {name}
    check_spellings("label", Counter(cells))


@pytest.mark.parametrize(
    "cells",
    [
        ["Yes", "yes"], ["Yes", "No", "NO"], ["YES", "yes", "Yes"], ["Pneumonia ", "pneumonia"], ["T1a", "T1A"],
        ["no finding", "no_finding"], ["COVID-19", "covid 19"], ["sévère", "severe"], ["pneumonia.", "pneumonia"],
        ["1", "１"], ["ﬁbrosis", "fibrosis"], ["А", "A"], ["yes", "1"], ["True", "T"], ["no", "0", "1"], ["pos", "+"],
        ["straße", "STRASSE"], ["non–smoker", "non-smoker"], ["1", "1 ", "one", "One"],
    ],
)  # fmt: skip
def test_what_may_be_one_class_is_refused_with_its_spellings(cells):
    with pytest.raises(LabelError, match="in several ways; write each class in one way") as caught:
        check_spellings("label", Counter(cells))
    assert "'" not in caught.value.message, "what goes into a log holds no cell of the table"
    assert caught.value.cells.count("(") >= 2
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.message, again.cells) == (caught.value.message, caught.value.cells)


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "2", "3"], ["-1", "1"], ["<5", ">5"], ["1+", "2+", "0"], ["grade 1", "grade 2"], ["1.5", "15"], ["M", "F"],
        ["yes", "no"], ["T", "F"], ["left", "right"], ["benign", "malignant"], ["N0", "N1"], ["a/b", "ab c"],
    ],
)  # fmt: skip
def test_different_classes_stay_different(cells):
    check_spellings("label", Counter(cells))
    assert len({class_of(cell) for cell in cells}) == len(cells)


@pytest.mark.parametrize("cell", ["1,5", "1,000", "1'000", "10 000", "1,234.5"])
def test_a_number_with_a_comma_is_neither_guessed_nor_a_word(cell):
    with pytest.raises(LabelError, match="decimal point, and without marks for thousands"):
        check_spellings("label", {cell: 3, "2": 1})


def test_a_minus_beside_a_plus_is_not_taken_for_a_missing_label():
    with pytest.raises(LabelError, match="`-`, which is read as no label; write `positive` and `negative`"):
        check_spellings("label", {"+": 4, "-": 5})


def test_a_long_list_of_spellings_is_cut():
    cells = Counter(
        [f"class {letter}" for letter in "abcdefgh"] + [f"Class {letter}" for letter in "abcdefgh"]
    )
    with pytest.raises(LabelError, match="; and 3 more") as caught:
        check_spellings("label", cells)
    assert "class h" not in str(caught.value)


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        ({f"{50.5 + n}": 1 for n in range(8)}, "8 different numbers of 8 patients: a quantity"),
        ({str(n): 4 for n in range(40, 90)}, "50 different numbers of 200 patients"),
        ({f"{n / 10}".removesuffix(".0"): 9 for n in range(9)}, "a quantity"),
        ({str(n): 1 for n in range(6)}, "a quantity"),
        ({**{str(n): 9 for n in range(40, 70)}, "adult": 5}, "30 different numbers"),
        (
            {f"2024-01-{n:02d}": 1 for n in range(1, 9)},
            "8 different values of 8 patients, so hardly two patients share",
        ),
        ({f"free text {n}": 1 for n in range(30)}, "are not classes; name another column"),
    ],
)
def test_a_quantity_or_a_free_text_is_no_class(patients, words):
    with pytest.raises(LabelError, match=words) as caught:
        check_is_classes("age", patients)
    assert "`age`" in str(caught.value)


@pytest.mark.parametrize(
    "patients",
    [
        {"0": 3, "1": 2},
        {str(n): 3 for n in range(7)},  # BI-RADS
        {"0": 9, "0.5": 9, "1": 5, "2": 2, "3": 1},  # clinical dementia rating
        {f"disease {n}": 3 for n in range(40)},
        {"a": 1, "b": 1, "c": 1},
        {},
    ],
)
def test_few_values_that_patients_share_are_classes(patients):
    check_is_classes("label", patients)


@given(st.text(max_size=12))
def test_reading_a_class_again_changes_nothing(cell):
    name = class_of(cell)
    if name is not None:
        assert class_of(name) in (name, None)
        assert number_text(name) in (name, None)
        assert alike(name)


@given(st.decimals(min_value=-(10**6), max_value=10**6, places=3))
def test_a_number_is_its_value(value):
    assert float(number_text(str(value)) or "nan") == float(value)
    assert number_text(f"{value}0") == number_text(str(value))


def test_spellings_are_grouped_and_each_name_is_in_one_group():
    groups = spellings({"a": 1, "A": 1, "b": 1, "yes": 1, "1": 1})
    assert sorted(map(sorted, groups)) == [["1", "yes"], ["A", "a"]]


def test_the_list_of_missing_words_is_that_of_the_documentation(request):
    page = (request.config.rootpath / "docs/how-to/prepare-archives.md").read_text()
    for word in MISSING:
        assert f"`{word}`" in page
