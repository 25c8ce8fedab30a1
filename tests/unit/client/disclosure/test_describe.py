"""What may leave a site: no number from fewer patients than the threshold, and no way to work one out."""

import itertools
import json
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hilum.client.disclosure.answers import AnswerLedger, Facts
from hilum.client.disclosure.counts import banded_total, protect
from hilum.client.disclosure.describe import EDGES, FAMILIES, describe_site, description
from hilum.client.state.catalogue import Catalogue, Item
from hilum.client.state.labels import Labels
from hilum.client.state.workspace import Workspace
from hilum.common.cli import build
from hilum.common.errors import ConfigError, PolicyRefused


def item(number, patient, family="ct", spacing_mm=(2.0, 0.7, 0.7), shape=(40, 512, 512), study=None):
    kind = "volume" if len(shape) == 3 else "image"
    return Item(
        item_key=f"item{number}",
        kind=kind,
        family=family,
        units="arbitrary",
        content_sha256=f"{number:064x}",
        shape=shape,
        spacing_mm=spacing_mm,
        affine=(),
        sop_key=f"sop{number}" if kind == "image" else "",
        series_key=f"series{number}",
        study_key=study or f"study{number}",
        patient_key=patient,
    )


def patients(count, first=0, **facts):
    return [item(number, f"patient{number}", **facts) for number in range(first, first + count)]


def numbers(content):
    """Every number of a description, in any depth."""
    if isinstance(content, dict):
        return [n for value in content.values() for n in numbers(value)]
    if isinstance(content, list):
        return [n for value in content for n in numbers(value)]
    return [content] if isinstance(content, int) else []


def cells(content, family, table):
    return {row["cell"]: row["patients"] for row in content["families"][family]["tables"][table]}


spacings = st.sampled_from([0.3, 0.5, 0.9, 1.0, 2.5, 6.0])
one_item = st.tuples(
    st.integers(0, 80),
    st.sampled_from(["ct", "mr", "radiograph"]),
    st.tuples(spacings, spacings, spacings),
    st.sampled_from([20, 40, 70, 300]),
    st.sampled_from([60, 128, 512]),
)


def drawn_items(drawn):
    return [
        item(
            number,
            f"p{patient}",
            family=family,
            spacing_mm=spacing[1:] if family == "radiograph" else spacing,
            shape=(edge, edge) if family == "radiograph" else (slices, edge, edge),
        )
        for number, (patient, family, spacing, slices, edge) in enumerate(drawn)
    ]


@settings(deadline=None, max_examples=150)
@given(st.lists(one_item, max_size=250), st.integers(11, 20))
def test_every_number_is_a_multiple_of_the_threshold_that_as_many_patients_reach(drawn, threshold):
    items = drawn_items(drawn)
    content = description(items, {}, threshold)
    assert all(n >= threshold and n % threshold == 0 for n in numbers(content))
    for family, facts in content["families"].items():
        people = {one.patient_key for one in items if one.family == family}
        if len(people) < threshold:
            assert numbers(facts) == []
            continue
        assert facts["patients"] <= len(people)
        for table in facts["tables"].values():
            assert sum(row["patients"] or 0 for row in table) <= len(people)


@settings(deadline=None, max_examples=60)
@given(st.lists(one_item, min_size=60, max_size=250), st.data())
def test_what_fewer_patients_than_the_threshold_do_in_a_cell_is_never_shown(drawn, data):
    """Each shown cell still has at least eleven patients, counted here from the items alone."""
    items = drawn_items(drawn)
    content = description(items, {}, 11)
    family = data.draw(st.sampled_from(["ct", "mr", "radiograph"]))
    for row in content["families"][family]["tables"].get("matrix_px", []):
        low, high = {"64 to 128": (64, 128), "below 64": (0, 64), "128 to 192": (128, 192)}.get(
            row["cell"], (192, 10**6)
        )
        holders = {o.patient_key for o in items if o.family == family and low <= o.shape[-1] < high}
        assert row["patients"] is None or len(holders) >= row["patients"] >= 11


def compositions(total, parts):
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


@pytest.mark.parametrize(
    ("threshold", "parts", "most", "tables"),
    [(3, 2, 20, 1), (3, 3, 20, 1), (3, 2, 20, 2), (2, 3, 11, 2), (3, 3, 14, 2), (3, 2, 12, 3)],
)
def test_a_hidden_cell_may_still_be_anything_small_for_who_knows_the_procedure(
    threshold, parts, most, tables
):
    """Brute force: all data sets that lead to one publication hold every small value in every hidden cell."""
    worlds = defaultdict(list)
    for total in range(1, most + 1):
        for counts in itertools.product(list(compositions(total, parts)), repeat=tables):
            named = {str(t): {str(c): n for c, n in enumerate(table)} for t, table in enumerate(counts)}
            release = protect(total, named, threshold)
            shown = tuple(tuple(table.values()) for table in release.tables.values())
            worlds[release.patients, shown].append(counts)
    hidden = 0
    for (_, shown), counts in worlds.items():
        # A publication that data sets beyond the enumeration lead to as well can't be judged here.
        reach = [sum(n or 0 for n in table) + parts * (threshold - 1) for table in shown]
        if not shown or min(reach) > most:
            continue
        for t, table in enumerate(shown):
            for c, count in enumerate(table):
                if count is None:
                    hidden += 1
                    assert set(range(threshold)) <= {world[t][c] for world in counts}
    assert hidden > 5


def test_without_the_audit_the_same_tables_would_give_a_small_cell_away():
    """21 + 10 = 31 patients: 22 published in all and 11 in one cell leave at least one in the other."""
    release = protect(31, {"a": {"x": 21, "y": 10}}, 11)
    assert release.tables["a"] == {"x": 11, "y": None}
    assert release.patients == 11


def test_tables_that_give_each_other_away_are_withheld_together():
    release = protect(33, {"a": {"x": 33}, "b": {"x": 23 - 2, "y": 10, "z": 2}}, 11)
    assert release.tables == {}
    assert release.patients == 33


def test_the_threshold_can_be_raised_and_not_lowered(tmp_path):
    workspace = Workspace(tmp_path)
    Catalogue(workspace.catalogue).record([], patients(24))
    with pytest.raises(ConfigError, match="11"):
        describe_site(workspace, threshold=10)
    content = describe_site(workspace, threshold=25).content
    assert content["families"]["ct"]["patients"] is None


def test_families_and_cells_are_listed_whether_they_hold_patients_or_not():
    content = description(patients(30), {}, 11)
    assert tuple(content["families"]) == FAMILIES
    spacing = cells(content, "ct", "slice_spacing_mm")
    assert len(spacing) == len(EDGES["slice_spacing_mm"]) + 2
    assert {cell: n for cell, n in spacing.items() if n} == {"2 to 3": 22}
    assert content["families"]["mr"] == {
        "patients": None,
        "studies": None,
        "images": None,
        "volumes": None,
        "tables": {},
    }


def test_one_patient_with_very_many_images_does_not_show_in_the_sum():
    many = [item(1000 + n, "patient0", family="radiograph", shape=(64, 64)) for n in range(5000)]
    ones = patients(30, family="radiograph", shape=(64, 64))
    content = description([*ones, *many], {}, 11)
    assert content["families"]["radiograph"]["images"] == 22


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 12))
def test_a_band_is_a_multiple_that_is_reached_and_one_is_the_exact_number(counts, threshold):
    band = banded_total(counts, threshold)
    contributing = [count for count in counts if count]
    assert banded_total(counts, 1) == (sum(counts) or None)
    if len(contributing) < threshold:
        assert band is None
    else:
        assert band % threshold == 0
        assert threshold <= band <= sum(counts)
        if threshold > 1:
            bounded = banded_total([*counts, 10**6], threshold)
            assert bounded <= sum(counts) + threshold * max(contributing), (
                "nobody counts for nearly all of it"
            )


def test_labels_of_few_patients_are_not_even_named():
    items = patients(60)
    label_of = {f"item{n}": "effusion" if n < 40 else "ZZPHI rare" if n < 42 else "none" for n in range(60)}
    labels = Labels(label_of, {f"item{n}": f"person{n}" for n in range(60)}, 0)
    content = description(items, {"finding": labels}, 11)
    assert "ZZPHI" not in json.dumps(content)
    shown = cells(content, "ct", "label: finding")
    assert shown["effusion"] == 33
    assert shown["none"] == 11
    assert shown["labels of few patients"] is None


def test_two_pseudonyms_that_the_label_table_calls_one_patient_count_once():
    items = patients(22)
    labels = Labels({}, {f"item{n}": f"person{n // 2}" for n in range(22)}, 0)
    assert description(items, {}, 11)["families"]["ct"]["patients"] == 22
    assert description(items, {"finding": labels}, 11)["families"]["ct"]["patients"] == 11


def test_adding_a_patient_changes_no_answer_and_costs_nothing(tmp_path):
    workspace = Workspace(tmp_path)
    catalogue = Catalogue(workspace.catalogue)
    catalogue.record([], patients(32))
    first = describe_site(workspace)
    assert first.new
    catalogue.record([], patients(1, first=32))  # 33 patients would round to another number
    second = describe_site(workspace)
    assert (second.content, second.new, second.left) == (first.content, False, first.left)
    catalogue.record([], patients(10, first=33))
    third = describe_site(workspace)
    assert third.new
    assert third.content["families"]["ct"]["patients"] == 33


def test_before_a_new_answer_is_spent_somebody_is_asked_and_may_keep_it(tmp_path):
    workspace = Workspace(tmp_path)
    Catalogue(workspace.catalogue).record([], patients(32))
    asked = []

    def no(left):
        asked.append(left)
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            describe_site(workspace, agree=no)
    assert describe_site(workspace).left == 19
    assert describe_site(workspace, agree=no).new is False
    assert asked == [20, 20]


def test_at_a_terminal_describe_asks_and_elsewhere_it_does_not(tmp_path, monkeypatch):
    Catalogue(Workspace(tmp_path / "site").catalogue).record([], patients(32))
    words = ["site", "describe", "--home", str(tmp_path)]
    runner = CliRunner()
    assert runner.invoke(build(), words).exit_code == 0
    Catalogue(Workspace(tmp_path / "site").catalogue).record([], patients(20, first=32))
    monkeypatch.setattr("hilum.client.commands.describe._at_a_terminal", lambda: True)
    refused = runner.invoke(build(), words, input="n\n")
    assert refused.exit_code == 1
    assert "costs one of the 19 that are left" in refused.stderr
    assert "patients" not in refused.stdout
    assert "18 new answers are left" in runner.invoke(build(), words, input="y\n").stderr


def test_an_answer_differs_from_every_earlier_one_not_only_the_last(tmp_path):
    ledger = AnswerLedger(tmp_path / "answers.sqlite")

    def ask(names):
        return ledger.ask({}, {n: Facts("x") for n in names}, lambda: {"n": len(names)}, threshold=11)

    assert ask(range_names(0, 30)).new
    assert ask(range_names(0, 41)).new
    again = ask(range_names(1, 31))  # two patients away from the first, eleven from the second
    assert (again.new, again.content) == (False, {"n": 30})


def range_names(first, last):
    return [f"p{n}" for n in range(first, last)]


def test_another_question_about_the_same_patients_is_refused(tmp_path):
    workspace = Workspace(tmp_path)
    Catalogue(workspace.catalogue).record([], patients(40))
    describe_site(workspace)
    with pytest.raises(PolicyRefused, match="another question"):
        describe_site(workspace, threshold=13)
    labels = Labels({f"item{n}": "a" for n in range(40)}, {}, 0)
    with pytest.raises(PolicyRefused, match="another question"):
        describe_site(workspace, labels={"finding": labels})
    for word in ("A", "z"):  # the table's names of patients, before and behind the pseudonyms
        named = Labels(labels.label_of, {f"item{n}": f"{word}{n}" for n in range(40)}, 0)
        with pytest.raises(PolicyRefused, match="another question"):
            describe_site(workspace, labels={"finding": named})


def test_a_spent_budget_refuses_new_answers_and_repeats_the_old(tmp_path):
    workspace = Workspace(tmp_path)
    catalogue = Catalogue(workspace.catalogue)
    for number in range(2):
        catalogue.record([], patients(20, first=20 * number))
        assert describe_site(workspace, budget=2).left == 1 - number
    assert not describe_site(workspace, budget=2).new
    catalogue.record([], patients(20, first=40))
    with pytest.raises(PolicyRefused, match="budget of 2"):
        describe_site(workspace, budget=2)
    assert describe_site(workspace, budget=3).new


def test_the_ledger_is_its_owners_alone(tmp_path):
    AnswerLedger(tmp_path / "answers.sqlite").close()
    assert (tmp_path / "answers.sqlite").stat().st_mode & 0o077 == 0


def test_the_command_prints_what_may_leave(run_hilum, tmp_path):
    folder = tmp_path / "hilum-home" / "site"
    Catalogue(Workspace(folder).catalogue).record([], patients(40))
    done = run_hilum("site", "describe", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["families"]["ct"]["patients"] == 33
    assert "19 new answers are left" in done.stderr
    text = run_hilum("site", "describe")
    assert "33 patients" in text.stdout
    assert "at no cost" in text.stderr
    refused = run_hilum("site", "describe", "--min-patients", 5)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "11" in refused.stderr
