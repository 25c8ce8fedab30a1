"""What a report says, and that no table that the server admits can break it."""

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from health import DRIFTING, HEALTHY
from hilum.common.config import parse_study, study_to_toml
from hilum.common.config.tasks import ClassificationTask
from hilum.common.errors import RunError
from hilum.common.participation import participation
from hilum.common.results_table import (
    NOTE_WORDS,
    Comparison,
    Evaluation,
    Row,
    RowNote,
    check_table,
    combinations,
)
from hilum.server.federation.results import build_results, in_words, run_notes
from hilum.server.federation.roster import Roster
from hilum.server.federation.store import RoundRecord, RunState
from hilum.simulations.charts import health_chart
from hilum.simulations.report import judge_runs, write_report
from hilum.simulations.table import _marks, print_table


def record(number, failures=(), suspended=(), names=("a", "b", "c")):
    missing = dict(failures)
    sites = {
        name: {"examples": 16, "loss": 1.0, "seconds": 1.0, "attempts": 1, "norm": 1.0}
        for name in names
        if name not in missing
    }
    return RoundRecord(number, 1.0, 1, 1, len(names), len(sites), sites, missing, list(suspended), 1.0)


def as_json(*rounds):
    return json.loads(json.dumps([one.__dict__ for one in rounds]))


def test_a_run_says_how_many_contributed_to_each_round():
    lost = {"a": "lost: no sign of life"}
    rounds = [record(1), record(2), record(3), record(4, lost), record(5)]
    assert participation(as_json(*rounds)) == (
        "Rounds 1 to 3: 3 of 3 sites contributed; round 4: 2 of 3 sites contributed (a: lost); "
        "round 5: 3 of 3 sites contributed."
    )
    assert participation([]) == "There was no round."
    flickering = [record(n, lost if n % 2 else {}) for n in range(1, 41)]
    assert participation(as_json(*flickering)) == (
        "Rounds 1 to 40: 2 to 3 of 3 sites contributed, all of them in 20 rounds."
    )


def still(number, norm=0.0, sites=(0.0, 0.0, 0.0)):
    one = record(number)
    for name, value in zip(one.sites, sites, strict=True):
        one.sites[name]["norm"] = value
    return replace(one, update_norm=norm)


@pytest.mark.parametrize(
    ("rounds", "notes"),
    [
        (
            [still(1), still(2)],
            [
                "no round moved a weight: the encoder is the untrained start, whatever it is called below",
                *(
                    f"{name} sent an update of zero in rounds 1 to 2: its training moved no weight"
                    for name in "abc"
                ),
            ],
        ),
        (
            [still(1, 1.0, (1.0, 1.0, 1.0)), still(2, 0.0, (1.0, 1.0, 1.0))],
            ["the encoder did not move in round 2: the change of the round was zero"],
        ),
        (
            [still(1, 1.0, (1.0, 0.0, 1.0))],
            ["b sent an update of zero in round 1: its training moved no weight"],
        ),
        ([still(1, 1.0, (1.0, 1.0, 1.0))], []),
    ],
)
def test_an_encoder_that_was_not_trained_is_told(make_study, rounds, notes):
    roster = Roster(["a", "b", "c"], rounds)
    done = RunState(np.zeros(1, np.float32), tuple(rounds))
    study = make_study(privacy={"min_patients": 11})
    assert run_notes(study, done, roster) == notes
    headline = build_results(study, done, roster, [], notes)["verdicts"][0]["headline"]
    assert ("was not trained" in headline) == (len(notes) == 4)


def test_rounds_in_words():
    words = [in_words(rounds) for rounds in ([4], [1, 2, 3], [1, 2, 5], [2, 4])]
    assert words == ["round 4", "rounds 1 to 3", "rounds 1 to 2, 5", "rounds 2, 4"]


def test_notes_say_who_was_missing_who_lost_its_place_and_that_the_threshold_was_lifted(make_study):
    refused = {"b": "not_finite: the update has a NaN or an infinity"}
    rounds = [
        record(1, refused),
        record(2, refused),
        record(3, {**refused, "a": "lost: no sign of life"}, ["b"]),
        record(4, {"b": "suspended: it was refused 3 times in this study"}),
    ]
    roster = Roster(["a", "b", "c"], rounds)
    done = RunState(np.zeros(1, np.float32), tuple(rounds))
    study = make_study(privacy={"min_patients": 1})
    assert run_notes(study, done, roster) == [
        "a is missing in 1 of 4 rounds: lost in round 3",
        "b is missing in 4 of 4 rounds: not_finite in rounds 1 to 3; suspended in round 4",
        "b was suspended after round 3: its part was refused 3 times",
        f"{LIFTED}: results of so few may tell of single patients",
    ]
    assert len(run_notes(make_study(privacy={"min_patients": 11}), done, roster)) == 3
    content = build_results(study, done, roster, [], [])
    assert content["sites"] == [
        {"name": "a", "examples": 16, "rounds": 3, "suspended": None},
        {"name": "b", "examples": None, "rounds": 0, "suspended": 3},
        {"name": "c", "examples": 16, "rounds": 4, "suspended": None},
    ]
    assert content["privacy"]["a"]["min_patients"] == 1
    assert [one["contributed"] for one in content["rounds"]] == [2, 2, 1, 2]


LIFTED = "the threshold of patients was lifted from 11 to 1 (privacy.min_patients)"
STUDY = parse_study(
    {
        "study": {"name": "tiny"},
        "data": {"modality": "radiograph", "image_size": 16},
        "encoder": {"name": "vit", "size": "tiny", "patch_size": 8},
        "method": {"name": "mae"},
        "federation": {"sites": 2},
        "tasks": {"classification": {"label": "label"}},
    }
)
ASKED = list(combinations(STUDY.evaluation, {"federated", "local", "centralised"}))
NUMBER = st.floats(0, 1).map(lambda value: round(value, 3))


@st.composite
def admitted_tables(draw):
    """Whatever a site may send and have believed: any rows, any intervals, any of the comparisons, in any order."""
    site = draw(st.sampled_from(["site-0", "site-1"]))
    keys = draw(
        st.lists(
            st.tuples(st.sampled_from(ASKED), st.sampled_from(sorted(ClassificationTask.metrics))),
            unique=True,
        )
    )
    rows = {}
    for (protocol, share, arm), metric in keys:
        value, low, high = draw(NUMBER), draw(NUMBER), draw(NUMBER)
        low, high = min(low, high, value + 0.09), max(low, high, value - 0.09)
        patients, note = draw(st.integers(11, 10_000_000)), draw(st.sampled_from(get_args(RowNote)))
        rows[protocol, share, arm, metric] = Row(
            site, "classification", protocol, share, arm, metric, value, low, high, patients, note
        )
    compared = []
    for (protocol, share, arm, metric), row in rows.items():
        ours = rows.get((protocol, share, "federated", metric))
        if arm != "federated" and ours is not None and draw(st.booleans()):
            difference = ours.value - row.value
            low, high = sorted([draw(st.floats(-1, 1)), difference])
            compared.append(
                Comparison(site, "classification", protocol, share, arm, metric, difference, low, high)
            )
    table = Evaluation(tuple(rows.values()), tuple(compared))
    check_table(table, STUDY, site=site, sent={"federated", "centralised"})
    return table


TABLES = st.lists(
    admitted_tables(), max_size=2, unique_by=lambda table: table.rows[:1] and table.rows[0].site
)


def results_with(tables):
    rounds = [record(1, {"site-1": "lost: no sign of life"}, names=("site-0", "site-1"))]
    roster = Roster(["site-0", "site-1"], rounds)
    done = RunState(np.zeros(1, np.float32), tuple(rounds))
    return build_results(STUDY, done, roster, tables, run_notes(STUDY, done, roster))


@given(TABLES)
@settings(max_examples=60, deadline=None)
def test_no_table_that_the_server_admits_breaks_the_verdict(tables):
    content = results_with(tables)
    assert content["verdicts"][0]["headline"]
    print_table(content)


def test_each_note_below_the_table_has_a_mark_of_its_own():
    assert _marks({"too_few", "one_class"}, "utf-8") == {"one_class": "*", "too_few": "†"}
    for encoding in ("utf-8", "ascii"):
        assert len(set(_marks(NOTE_WORDS, encoding).values())) == len(NOTE_WORDS)


@given(TABLES)
@settings(max_examples=6, deadline=None)
@example([])
def test_no_table_that_the_server_admits_breaks_the_report(tmp_path_factory, tables):
    folder = tmp_path_factory.mktemp("run")
    (folder / "results.json").write_text(json.dumps(results_with(tables), allow_nan=False))
    (folder / "encoder").mkdir()
    (folder / "encoder" / "manifest.json").write_text('{"encoder_sha256": "0"}')
    machine = {"hilum": "0", "packages": {"torch": "0"}, "device": "cpu", "cores": 1}
    (folder / "environment.json").write_text(json.dumps(machine))
    (folder / "study.resolved.toml").write_text(study_to_toml(STUDY))
    assert "Round 1: 1 of 2 sites contributed (site-1: lost)." in write_report(folder).read_text()


def test_a_protocol_without_the_charted_metric_has_a_table_and_no_chart(tmp_path_factory):
    row = Row("site-0", "classification", "knn", 1.0, "raw", "balanced_accuracy", 0.5, 0.4, 0.6, 40)
    test_no_table_that_the_server_admits_breaks_the_report.hypothesis.inner_test(
        tmp_path_factory, [Evaluation((row,), ())]
    )


def write_run(folder, tables, seed, **changes):
    study = STUDY.model_copy(update={"study": STUDY.study.model_copy(update={"seed": seed}), **changes})
    (folder / "encoder").mkdir(parents=True)
    content = {**results_with(tables), "seed": seed}
    (folder / "results.json").write_text(json.dumps(content, allow_nan=False))
    (folder / "encoder" / "manifest.json").write_text('{"encoder_sha256": "0"}')
    machine = {"hilum": "0", "packages": {"torch": "0"}, "device": "cpu", "cores": 1}
    (folder / "environment.json").write_text(json.dumps(machine))
    (folder / "study.resolved.toml").write_text(study_to_toml(study))
    return folder


def table_of(difference):
    """One site at which the federated encoder is so much better than pixels, on a tenth of the labels."""
    site = ("site-0", "classification", "linear", 0.1)
    rows = (
        Row(*site, "federated", "auroc", 0.8, 0.79, 0.81, 400),
        Row(*site, "raw", "auroc", 0.8 - difference, 0.5, 0.9, 400),
    )
    one = Comparison(*site, "raw", "auroc", difference, difference - 0.01, difference + 0.01)
    return Evaluation(rows, (one,))


def test_runs_of_several_seeds_are_judged_together(tmp_path):
    first, *others = [
        write_run(tmp_path / str(seed), [table_of(value)], seed)
        for seed, value in enumerate((0.2, -0.15, 0.02))
    ]
    [alone], [together] = judge_runs(first), judge_runs(first, others)
    assert (alone.runs, together.runs) == (1, 3)
    assert "beats regression on raw pixels" in alone.headline
    assert "No difference was found" in together.headline
    assert together.headline in write_report(first, others).read_text()


def test_runs_that_are_not_of_one_study_or_of_one_seed_are_not_judged_together(tmp_path):
    one = write_run(tmp_path / "one", [], 1)
    same = write_run(tmp_path / "same", [], 1)
    federation = STUDY.federation.model_copy(update={"rounds": 77})
    other = write_run(tmp_path / "other", [], 2, federation=federation)
    with pytest.raises(RunError, match=r"have one seed \(1, 1\)"):
        write_report(one, [same])
    with pytest.raises(RunError, match=r"different studies: \[federation\] differ"):
        write_report(one, [other])
    with pytest.raises(RunError, match="holds no finished run"):
        write_report(one, [tmp_path])
    assert not (one / "report.html").exists()


def test_notes_tell_a_collapse_or_a_drift_with_its_rounds_and_what_to_try(make_study):
    rounds = [record(1), record(2), record(3)]
    for one, health in zip(rounds, (HEALTHY, DRIFTING, DRIFTING), strict=True):
        one.sites["b"].update(health)
    notes = run_notes(
        make_study(), RunState(np.zeros(1, np.float32), tuple(rounds)), Roster(["a", "b", "c"], rounds)
    )
    [told] = [note for note in notes if "drift" in note]
    assert told.startswith(
        "drift at b in rounds 2 to 3: what the encoder's last norm receives has grown 24.7 times"
    )


def test_the_report_shows_the_health_of_every_site_and_nothing_where_there_was_none():
    rounds = [
        {"round": n, "sites": {"a": {"loss": 1.0, **HEALTHY}, "b": {"loss": 1.0, **DRIFTING}}} for n in (1, 2)
    ]
    chart = health_chart(rounds)
    assert all(words in chart for words in ("effective rank", "residual norm", "gradient norm"))
    assert health_chart([{"round": 1, "sites": {"a": {"loss": 1.0}}}]) is None


def test_a_report_of_results_in_another_form_is_refused_in_one_line(tmp_path):
    write_run(tmp_path / "run", [table_of(0.1)], 1)
    path = tmp_path / "run" / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(
        RunError, match="have the form 2, and this is a Hilum of form 4; build the report with"
    ):
        write_report(tmp_path / "run")


def test_a_run_whose_study_has_a_key_that_is_no_longer_known_has_its_report(tmp_path):
    write_run(tmp_path / "run", [table_of(0.1)], 1)
    path = tmp_path / "run" / "study.resolved.toml"
    text = path.read_text()
    assert "[training]" in text
    path.write_text(text.replace("[training]", "[training]\nlearning_rate = 0.001"))
    assert write_report(tmp_path / "run").exists()
    judge_runs(tmp_path / "run")
