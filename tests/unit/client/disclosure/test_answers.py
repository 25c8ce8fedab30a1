"""Evaluations in the ledger of answers: the same question gets the same answer, each other one is counted."""

import pytest

from hilum.client.disclosure.answers import AnswerLedger, Facts
from hilum.common.errors import PolicyRefused


@pytest.fixture
def ledger(tmp_path):
    made = AnswerLedger(tmp_path / "answers.sqlite")
    yield made
    made.close()


def people(first, last, labels="x"):
    return {f"p{number}": Facts("images", labels) for number in range(first, last)}


def evaluate(ledger, question, patients, content, budget=3):
    return ledger.evaluate(
        {"asked": question}, patients, lambda: {"auroc": content}, threshold=11, budget=budget
    )


def never():
    raise AssertionError("it was measured again")


def test_the_same_question_gets_the_earlier_answer_at_no_cost(ledger):
    first = evaluate(ledger, "a", people(0, 40), 0.5)
    assert (first.new, first.left) == (True, 2)
    again = ledger.evaluate({"asked": "a"}, people(0, 40), never, threshold=11, budget=3)
    assert (again.content, again.new, again.left) == ({"auroc": 0.5}, False, 2)


def test_another_question_about_the_same_patients_is_answered_and_counted(ledger):
    for place, question in enumerate("abc"):
        assert evaluate(ledger, question, people(0, 40), place).left == 2 - place
    with pytest.raises(PolicyRefused) as refused:
        evaluate(ledger, "d", people(0, 40), never)
    assert refused.value.code == "policy_evaluations"
    assert evaluate(ledger, "a", people(0, 40), never).content == {"auroc": 0}, "the old ones are still given"


def test_a_patient_who_is_added_changes_no_answer(ledger):
    evaluate(ledger, "a", people(0, 40), 0.5)
    assert not evaluate(ledger, "a", people(0, 41), never).new
    assert not evaluate(ledger, "a", people(10, 40), never).new
    assert not evaluate(ledger, "a", {**people(0, 40), **people(0, 10, labels="y")}, never).new
    assert evaluate(ledger, "a", {**people(0, 40), **people(0, 11, labels="y")}, 0.6).new


def test_a_measurement_that_failed_is_counted_and_may_be_repeated_at_no_further_cost(ledger):
    def fails():
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            ledger.evaluate({"asked": "a"}, people(0, 40), fails, threshold=11, budget=1)
    with pytest.raises(PolicyRefused, match="max_evaluations"):
        evaluate(ledger, "b", people(0, 40), never, budget=1)
    assert evaluate(ledger, "a", people(0, 40), 0.5, budget=1).new
    assert not evaluate(ledger, "a", people(0, 40), never, budget=1).new


def test_descriptions_and_evaluations_have_budgets_of_their_own_and_do_not_answer_each_other(ledger):
    described = ledger.ask({"asked": "a"}, people(0, 40), lambda: {"n": 1}, threshold=11, budget=1)
    assert described.left == 0
    assert evaluate(ledger, "a", people(0, 40), 0.5, budget=1).content == {"auroc": 0.5}
    again = ledger.ask({"asked": "a"}, people(0, 40), never, threshold=11, budget=1)
    assert again.content == {"n": 1}
    with pytest.raises(PolicyRefused, match="max_evaluations"):
        evaluate(ledger, "b", people(0, 40), never, budget=1)
