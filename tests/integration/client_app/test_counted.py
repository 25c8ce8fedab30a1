"""What a site counts over runs and restarts."""

import numpy as np
import pytest

from asked_site import ask, first_weights, refused, training, with_policy
from hilum.client.disclosure.run_ledger import RunLedger
from hilum.client.state.workspace import Workspace
from hilum.common import records
from hilum.common.config import parse_study
from hilum.common.footprint import footprint_of
from signed import sign
from studies import study_table


def test_one_name_of_a_run_is_one_study(site, study, make_study):
    ask(site, records.pack_request(sign(study)))
    other = make_study(privacy={"min_patients": 11}, study={"seed": 12})
    assert refused(site, records.pack_request(sign(other))) == "run_taken"
    assert records.unpack_hello(ask(site, records.pack_request(sign(study, days=2)))), "resumed, signed again"


def test_a_round_is_trained_from_few_different_weights_and_from_the_same_always(site, study):
    strict = with_policy(site, max_repeats=2)
    base = first_weights(study)
    first = records.unpack_training_reply(ask(strict, training(study, 1, base), records.TRAIN))
    ask(strict, training(study, 1, base + np.float32(0.01)), records.TRAIN)
    assert refused(strict, training(study, 1, base + np.float32(0.02)), records.TRAIN) == "repeated"
    again = records.unpack_training_reply(ask(strict, training(study, 1, base), records.TRAIN))
    assert again.update.tobytes() == first.update.tobytes()
    assert records.unpack_training_reply(ask(strict, training(study, 2, base), records.TRAIN))


def test_a_run_whose_evaluation_was_answered_is_not_trained_on(site, study):
    base = first_weights(study)
    ask(site, training(study, 1, base), records.TRAIN)
    request = records.pack_request(sign(study), weights={"federated": base})
    assert records.unpack_refusal(ask(site, request, records.EVALUATE)) is None
    assert refused(site, training(study, 2, base), records.TRAIN) == "run_over"
    assert refused(site, training(study, 1, base + 1), records.TRAIN) == "run_over"
    assert records.unpack_training_reply(ask(site, training(study, 1, base), records.TRAIN)), (
        "a server resumes"
    )


def test_without_a_task_a_run_ends_with_its_last_round(site):
    table = study_table(privacy={"min_patients": 11})
    del table["tasks"]
    study = parse_study(table)
    base = first_weights(study)
    ask(site, training(study, 2, base), records.TRAIN)
    assert refused(site, training(study, 1, base), records.TRAIN) == "run_over"
    assert records.unpack_training_reply(ask(site, training(study, 2, base), records.TRAIN))
    assert refused(site, records.pack_request(sign(study)), records.EVALUATE) == "wrong_format"


def test_the_same_evaluation_is_answered_alike_and_different_ones_are_counted(
    site, study, make_study, monkeypatch
):
    from hilum.client.evaluation import answered

    measured = []
    evaluate_arms = answered.evaluate_arms
    monkeypatch.setattr(
        answered, "evaluate_arms", lambda *words, **more: measured.append(1) or evaluate_arms(*words, **more)
    )
    strict = with_policy(site, max_evaluations=2)
    base = first_weights(study)

    def evaluation(study, weights=base, run="run"):
        request = records.pack_request(sign(study, run=run), weights={"federated": weights})
        return ask(strict, request, records.EVALUATE)

    def found(content):
        return records.unpack_evaluation_reply(content).evaluation

    first = found(evaluation(study))
    assert found(evaluation(study)) == first
    assert found(evaluation(study, run="another")) == first
    assert len(measured) == 1
    assert records.unpack_refusal(evaluation(study, base + np.float32(0.01))) is None
    assert len(measured) == 2
    for changes in ({"study": {"seed": 12}}, {"evaluation": {"test_share": 0.31}}):
        other = make_study(privacy={"min_patients": 11}, **changes)
        assert records.unpack_refusal(evaluation(other, run="third")).code == "policy_evaluations"
        with RunLedgerOf(strict) as ledger:
            ledger.forget("third")
    assert found(evaluation(study)) == first


class RunLedgerOf:
    def __init__(self, site):
        self.ledger = RunLedger(Workspace(site.state.folder).runs)

    def __enter__(self):
        return self.ledger

    def __exit__(self, *_words):
        self.ledger.close()


def test_bytes_are_counted_over_restarts(site, study):
    update = footprint_of(study).update_bytes / 1e6
    strict = with_policy(site, max_sent_mb=2.5 * update)
    for number in (1, 2):
        assert records.unpack_refusal(ask(strict, training(study, number), records.TRAIN)) is None
    assert refused(strict, training(study, 2), records.TRAIN) == "policy_bytes"
    with RunLedgerOf(strict) as ledger:
        _, sent = ledger.used("run")
    assert sent == pytest.approx(2 * update * 1e6, abs=1000)


def test_hours_are_counted_over_restarts_and_stop_a_round_on_the_way(site, study):
    with RunLedgerOf(site) as ledger:
        ledger.enter("run", "x")
    brief = with_policy(site, max_hours=1e-9)
    assert refused(brief, training(study, run="other"), records.TRAIN) == "policy_hours"
    with RunLedgerOf(site) as ledger:
        seconds, sent = ledger.used("other")
    assert seconds > 0
    assert sent == 0
    assert refused(brief, records.pack_request(sign(study, run="other"))) == "policy_hours"


def test_one_run_is_told_one_number_of_images(site, study, monkeypatch):
    import hilum.client.data.site_data

    first = records.unpack_hello(ask(site, records.pack_request(sign(study)))).examples
    monkeypatch.setattr(hilum.client.data.site_data.SiteData, "examples", lambda self, threshold: first + 11)
    assert records.unpack_hello(ask(site, records.pack_request(sign(study)))).examples == first
    reply = records.unpack_training_reply(ask(site, training(study), records.TRAIN))
    assert reply.examples == first
    other = records.unpack_hello(ask(site, records.pack_request(sign(study, run="other"))))
    assert other.examples == first + 11
