"""A site without the file holds what it is told to start from against the hash that the admin signed."""

import numpy as np
import pytest

from asked_site import ask, first_weights, refused, training
from hilum.client.evaluation import site as evaluation
from hilum.client.pretraining.site import Alone
from hilum.common import records
from hilum.common.config.load import with_init_file
from hilum.common.weights import flat_sha256
from signed import sign


@pytest.fixture
def warm(make_study):
    study = make_study(
        privacy={"min_patients": 11},
        encoder={"init": {"file": "/home/admin/vit.safetensors", "sha256": "5" * 64}},
        evaluation={"protocols": ["linear"], "arms": ["federated", "local"]},
    )
    assert with_init_file(study, "vit.safetensors") != study
    return study


@pytest.fixture
def start(warm):
    """Weights unlike those that the seed gives."""
    return (first_weights(warm) + np.float32(0.01)).astype(np.float32)


def test_the_first_round_starts_from_the_signed_weights_and_no_others(site, warm, start):
    signed_for = {"start": flat_sha256(start)}
    assert refused(site, training(warm, 1, first_weights(warm), **signed_for), records.TRAIN) == "start"
    one_bit = start.copy()
    one_bit[7] = np.nextafter(one_bit[7], np.float32(9))
    assert refused(site, training(warm, 1, one_bit, **signed_for), records.TRAIN) == "start"
    content = ask(site, training(warm, 1, start, **signed_for), records.TRAIN)
    assert records.unpack_refusal(content) is None
    # Later rounds start from what the sites made together.
    content = ask(site, training(warm, 2, one_bit, **signed_for), records.TRAIN)
    assert records.unpack_refusal(content) is None


def test_a_site_trains_alone_from_the_same_weights(site, warm, start, monkeypatch):
    seen = []

    def pretrain_alone(data, study, folder, *, start, **more):
        seen.append(start)
        return Alone(start, round=1, last=start)

    monkeypatch.setattr(evaluation, "pretrain_alone", pretrain_alone)

    def request(**weights):
        return records.pack_request(sign(warm, start=flat_sha256(start)), weights=weights)

    assert refused(site, request(federated=start), records.EVALUATE) == "wrong_format"
    assert refused(site, request(federated=start, start=first_weights(warm)), records.EVALUATE) == "start"
    content = ask(site, request(federated=start, start=start), records.EVALUATE)
    assert records.unpack_refusal(content) is None
    [given] = seen
    assert np.array_equal(given, start)
    arms = {row["arm"] for row in records.unpack_evaluation_reply(content).evaluation["rows"]}
    assert arms == {"federated", "local"}


def test_a_study_without_a_file_sends_no_start(site, study):
    request = records.pack_request(
        sign(study), weights={"federated": first_weights(study), "start": first_weights(study)}
    )
    assert refused(site, request, records.EVALUATE) == "wrong_format"
