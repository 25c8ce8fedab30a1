"""A site that is asked how good an encoder is on its validation patients."""

import numpy as np
import pytest

from asked_site import ask, first_weights, refused, training, with_policy
from hilum.common import records
from signed import sign


@pytest.fixture
def picking(make_study):
    return make_study(privacy={"min_patients": 11}, training={"select": "knn"})


def test_a_site_scores_the_weights_that_it_is_sent_and_gives_three_decimals(site, picking):
    reply = records.unpack_score_reply(ask(site, training(picking, 2), records.SCORE))
    assert (reply.site, reply.round_number) == (site.site.name, 2)
    assert 0 <= reply.score <= 1
    assert reply.score == round(reply.score, 3)
    again = records.unpack_score_reply(ask(site, training(picking, 2), records.SCORE))
    assert again == reply


@pytest.mark.parametrize("select", ["none", "loss"])
def test_a_study_that_does_not_pick_by_scores_gets_none(site, make_study, select):
    study = make_study(privacy={"min_patients": 11}, training={"select": select})
    assert refused(site, training(study), records.SCORE) == "wrong_format"


def test_scores_are_bounded_as_rounds_are(site, picking):
    base = first_weights(picking)
    strict = with_policy(site, max_repeats=2)
    assert refused(strict, training(picking, 3, base), records.SCORE) == "round"
    for more in (0, 1):
        assert records.unpack_score_reply(
            ask(strict, training(picking, 1, base + np.float32(more)), records.SCORE)
        )
    assert refused(strict, training(picking, 1, base + np.float32(2)), records.SCORE) == "repeated"
    assert records.unpack_training_reply(ask(strict, training(picking, 1, base), records.TRAIN)), (
        "rounds are counted beside scores"
    )
    assert (
        refused(with_policy(site, max_scores=1), training(picking, 1, base), records.SCORE) == "policy_scores"
    )
    ask(strict, records.pack_request(sign(picking), weights={"federated": base}), records.EVALUATE)
    assert refused(strict, training(picking, 2, base), records.SCORE) == "run_over"


def test_too_few_patients_give_no_score(site, make_study):
    """28 patients are trained on."""
    study = make_study(privacy={"min_patients": 29}, training={"select": "knn"})
    assert refused(site, training(study), records.SCORE) == "too_few_patients"


def test_a_score_needs_labels_and_weights_of_the_right_size(site, picking):
    bare = site.model_copy(update={"data": site.data.model_copy(update={"labels": None})})
    assert refused(bare, training(picking), records.SCORE) == "no_labels"
    assert refused(site, training(picking, 1, np.zeros(7, np.float32)), records.SCORE) == "wrong_format"
