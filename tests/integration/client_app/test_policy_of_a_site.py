"""What a site's policy allows."""

from asked_site import ask, first_weights, refused, training, with_policy
from hilum.client.state.workspace import Workspace
from hilum.common import records
from signed import sign


def test_a_study_beyond_the_policy_is_refused_in_every_kind_of_message(site, study):
    strict = with_policy(site, methods=("simclr",))
    assert refused(strict, records.pack_request(sign(study))) == "policy_methods"
    assert refused(strict, training(study), records.TRAIN) == "policy_methods"
    evaluation = records.pack_request(sign(study), weights={"federated": first_weights(study)})
    assert refused(strict, evaluation, records.EVALUATE) == "policy_methods"


def test_a_label_column_outside_the_policy_is_not_even_looked_for(site, make_study, caplog):
    for column in ("label", "name"):
        study = make_study(privacy={"min_patients": 11}, tasks={"classification": {"label": column}})
        strict = with_policy(site, labels=("finding",))
        assert refused(strict, records.pack_request(sign(study))) == "policy_labels"


def test_nearly_all_patients_can_not_be_set_aside_for_testing(site, make_study):
    study = make_study(privacy={"min_patients": 11}, evaluation={"test_share": 0.99})
    assert refused(site, records.pack_request(sign(study))) == "policy_test_share"


def test_fewer_patients_than_the_threshold_are_not_trained_on_or_counted(site, make_study):
    study = make_study(privacy={"min_patients": 29})
    assert refused(site, records.pack_request(sign(study))) == "too_few_patients"
    assert refused(site, training(study), records.TRAIN) == "too_few_patients"
    assert not Workspace(site.state.folder).run("run").exists(), "nothing was trained"


def test_fewer_test_patients_than_the_threshold_are_not_measured(site, make_study):
    study = make_study(privacy={"min_patients": 13})
    assert records.unpack_hello(ask(site, records.pack_request(sign(study)))).examples
    request = records.pack_request(sign(study), weights={"federated": first_weights(study)})
    assert refused(site, request, records.EVALUATE) == "too_few_patients"
    assert not Workspace(site.state.folder).run("run").exists(), "nothing was trained"


def test_a_threshold_below_the_policys_is_refused_and_a_simulation_has_none(site, make_study):
    study = make_study(privacy={"min_patients": 10})
    assert refused(site, records.pack_request(sign(study))) == "policy_min_patients"
    simulated = site.model_copy(update={"policy": None})
    exact = records.unpack_hello(ask(simulated, records.pack_request(sign(make_study()))))
    assert exact.examples % 11, "an exact number, in this archive no multiple"
