"""Which round's encoder a run gives: the one with the least loss, or the best one on the sites' validation patients."""

import pytest

from federated_sites import changed, honest
from hilum.common import records
from hilum.common.errors import DamagedError, FederationError
from hilum.server.federation.best import best_of, is_better, loss_scores
from hilum.server.federation.results import run_notes

ROUNDS = {"rounds": 4, "quorum": 2}


def saying(*values):
    """A site that scores the encoder after each round so."""
    return lambda name, request: records.ScoreReply(
        name, request.round_number, values[request.round_number - 1]
    )


def losing(*values):
    """A site that trains with such losses."""
    return lambda name, request: changed(loss=values[request.round_number - 1])(name, request)


@pytest.fixture
def scored(make_study):
    return make_study(federation=ROUNDS, training={"select": "knn"})


def test_without_a_choice_the_last_round_is_taken(make_study, federate):
    done, seen = federate(make_study(federation=ROUNDS))
    assert done.best is None
    assert done.chosen is done.weights
    assert all(record.score is None and record.scores == {} for record in seen)


def test_the_round_with_the_best_mean_of_scores_is_chosen_and_the_last_one_kept(scored, make_study, federate):
    score = {"site-0": saying(0.1, 0.9, 0.2, 0.3), "site-1": saying(0.5, 0.5, 0.5, 0.8)}
    done, seen = federate(scored, score=score)
    assert [record.score for record in seen] == pytest.approx([1.1 / 3, 1.9 / 3, 1.2 / 3, 1.6 / 3])
    assert seen[1].scores == {"site-0": 0.9, "site-1": 0.5, "site-2": 0.5}
    assert done.best.round == 2
    two, _ = federate(make_study(federation={**ROUNDS, "rounds": 2}), folder="two rounds")
    assert done.chosen.tobytes() == two.weights.tobytes()
    assert done.weights.tobytes() != done.chosen.tobytes()


def test_the_round_with_the_least_mean_loss_is_chosen(make_study, federate):
    study = make_study(federation=ROUNDS, training={"select": "loss"})
    done, seen = federate(study, {"site-1": losing(4.0, 2.0, 1.0, 3.0), "site-0": losing(1.0, 1.0, 2.5, 1.0)})
    expected = [-(first + second + 1) / 3 for first, second in ((1, 4), (1, 2), (2.5, 1), (1, 3))]
    assert [record.score for record in seen] == pytest.approx(expected)
    assert done.best.round == 2
    assert seen[0].scores == {"site-0": -1.0, "site-1": -4.0, "site-2": -1.0}


def test_a_killed_run_goes_on_with_the_best_that_it_had(scored, federate, tmp_path):
    score = {name: saying(0.2, 0.9, 0.3, 0.4) for name in ("site-0", "site-1", "site-2")}
    whole, _ = federate(scored, score=score, folder="whole")

    def killed_in(number):
        def answer(name, request):
            if request.round_number == number:
                return records.Refusal(name, "failed")
            return honest(name, request)

        return dict.fromkeys(score, answer)

    for number in (3, 4):
        with pytest.raises(FederationError, match=f"round {number} has 0 of the 2 updates"):
            federate(scored, killed_in(number), score=score, resume=number > 3)
    resumed, seen = federate(scored, score=score, resume=True)
    assert resumed.best.round == 2
    assert resumed.chosen.tobytes() == whole.chosen.tobytes()
    assert [record.score for record in seen] == pytest.approx([0.2, 0.9, 0.3, 0.4])
    for path in (tmp_path / "run" / "checkpoints").glob("best-*"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(DamagedError, match="weights of the best round, 2, are damaged"):
        federate(scored, score=score, resume=True)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (saying(*[float("nan")] * 4), "not_finite"),
        (saying(*[7.0] * 4), "out_of_range"),
        (lambda name, request: records.ScoreReply("site-0", request.round_number, 0.9), "wrong_site"),
        (lambda name, request: records.ScoreReply(name, request.round_number + 1, 0.9), "stale"),
        (lambda name, request: records.Refusal(name, "too_few_patients"), "too_few_patients"),
        (lambda name, request: records.pack_hello(records.Hello(name, 20)), "wrong_format"),
    ],
)
def test_a_score_that_does_not_count_never_wins_and_too_few_end_the_round(
    scored, federate, caplog, answer, why
):
    done, seen = federate(scored, score={"site-1": answer}, folder="one of three")
    assert "site-1 gave no score that counts in rounds 1 to 4; the server's log says why" in run_notes(
        scored, done, federate.federation.roster
    )
    assert f"no score of site-1: {why}" in caplog.text
    assert set(seen[0].scores) == {"site-0", "site-2"}
    assert done.best.score == 0.5
    with pytest.raises(FederationError, match="round 1 has 1 of the 2 scores") as ended:
        federate(scored, score={"site-1": answer, "site-2": answer})
    assert f"site-1: {why}" in str(ended.value)
    assert "--resume" in str(ended.value)


def test_of_two_rounds_with_one_score_the_earlier_is_better_and_nan_is_never():
    assert not is_better({"a": float("nan")}, None)
    assert not is_better({}, None)
    assert is_better({"a": 0.5}, None)
    assert not is_better({"a": 0.5}, {"a": 0.5})
    assert not is_better({"a": float("inf")}, {"a": 0.5})
    assert is_better({"a": 0.6}, {"a": 0.5})
    assert best_of([{}, {"a": float("nan")}, {"a": 0.5}, {"a": 0.5}, {"a": 0.4}]) == 2
    assert best_of([{}, {}]) is None


def test_who_is_missing_in_a_round_does_not_decide():
    """Site b scores high everywhere: without it the second round has the lower mean, and is the better one."""
    first, second = {"a": 0.5, "b": 0.9}, {"a": 0.6}
    assert is_better(second, first)
    assert not is_better(first, second)
    assert best_of([first, second]) == 1
    assert not is_better({"b": 0.99}, {"a": 0.1}), "nothing that both were measured by"


def test_a_round_that_lacks_a_loss_is_an_error():
    with pytest.raises(FederationError, match="lacks the loss"):
        loss_scores({"a": {"examples": 3}})
    with pytest.raises(FederationError, match="lacks the loss"):
        loss_scores({})
