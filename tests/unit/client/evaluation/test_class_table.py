"""What a site's owner is told of its classes before anything is trained."""

import numpy as np
import pytest

from hilum.client.data.site_data import Origin, SiteData
from hilum.client.data.splits import Split
from hilum.client.evaluation.class_table import class_table, table_lines, warnings_across
from hilum.client.state.labels import Labels


@pytest.fixture
def site():
    """A site of given (patient, label, side) rows; sides: `train`, `test`, `out`."""

    def make(rows, name="a", **facts):
        labels = Labels({}, {}, 0, facts.get("set_aside", {}), facts.get("missing", {}))
        origin = Origin(None, None, {"classification": labels}, (), (), facts.get("joined", 0))
        at = {
            side: np.array([n for n, row in enumerate(rows) if row[2] == side], np.int64)
            for side in ("train", "test", "out")
        }
        labelled = np.array([row[1] is not None for row in rows])
        split = Split(
            at["train"],
            at["train"][labelled[at["train"]]],
            at["test"][labelled[at["test"]]],
            np.array([row[0] for row in rows], np.int64),
            at["out"],
        )
        return SiteData(name, None, tuple(row[1] for row in rows), split, "", {}, origin)

    return make


def rows(label, first, train, test):
    return [(first + n, label, "train" if n < train else "test") for n in range(train + test)]


def test_patients_and_images_are_counted_by_class_and_side(site):
    data = site(
        [(0, "x", "train"), (0, "x", "train"), (1, "x", "test"), (2, "y", "train"), (3, "y", "test"), (4, None, "train"), (3, None, "test"), (5, "y", "out")],
        set_aside={"y": 2, "z": 1},
    )  # fmt: skip
    lines = {line.name: line for line in class_table(data, "classification").lines}
    assert set(lines) == {"x", "y", "z", None}
    assert (lines["x"].train.patients, lines["x"].train.images, lines["x"].test.images) == (1, 2, 1)
    assert (lines["y"].left_out.images, lines["y"].set_aside, lines["z"].set_aside) == (1, 2, 1)
    assert (lines[None].train.images, lines[None].test.images) == (1, 1)
    text = table_lines([class_table(data, "classification")], "finding")
    assert text[1].split() == ["site", "class", "(`finding`)", "train", "test", "left", "out", "set", "aside"]
    assert text[2].split() == ["a", "x", "1", "(2)", "1", "(1)", "-", "-"]


@pytest.mark.parametrize(
    ("made", "facts", "said"),
    [
        (rows("x", 0, 7, 5), {}, "there is one class, `x`: two are needed"),
        (rows("x", 0, 7, 5) + rows("y", 20, 1, 0), {}, "never tested, for want of patients: `y`"),
        (rows("x", 0, 7, 5) + rows("y", 20, 1, 0), {}, "fewer than two classes have test patients"),
        (rows("x", 0, 7, 5) + rows("y", 20, 7, 4), {}, "fewer than 5 test patients (`y`: 4)"),
        (
            [*rows("x", 0, 7, 5), *rows("y", 20, 7, 5), (0, "y", "train")],
            {},
            "1 patient(s) have images of several classes",
        ),
        (
            rows("1", 0, 7, 5) + rows("other", 20, 7, 5),
            {},
            "numbers and words are mixed; of the words (other)",
        ),
        (rows("x", 0, 7, 5), {"missing": {"NA": 3}}, "read as no label: `NA` (3)"),
        (rows("x", 0, 7, 5), {"joined": 2}, "2 pair(s) of images show the same under two patients"),
        ([(0, None, "train")], {}, "no image has a label, so nothing can be evaluated"),
    ],
)
def test_what_may_mislead_is_warned_of(site, made, facts, said):
    assert any(said in warning for warning in class_table(site(made, **facts), "classification").warnings)


def test_a_site_with_nothing_odd_gets_no_warning(site):
    assert class_table(site(rows("0", 0, 7, 5) + rows("1", 20, 7, 5)), "classification").warnings == ()


def test_what_differs_between_sites_is_warned_of_and_what_does_not_is_not(site):
    def table(name, *classes):
        made = [row for n, label in enumerate(classes) for row in rows(label, 20 * n, 6, 5)]
        return class_table(site(made or [(0, None, "train")], name), "classification")

    assert warnings_across([table("a", "0", "1"), table("b", "0", "1")]) == []
    told = warnings_across(
        [table("a", "pneumonia", "no"), table("b", "Pneumonia", "no", "effusion"), table("c")]
    )
    assert told[0].startswith(
        "one class may be spelled in several ways: `Pneumonia` at b; `pneumonia` at a; each site"
    )
    assert told[1:] == [
        "the class `effusion` is at b, not at a",
        "no image has a label at c",
    ]
    assert "`1` at b; `yes` at a" in warnings_across([table("a", "yes", "no"), table("b", "1", "2")])[0]
