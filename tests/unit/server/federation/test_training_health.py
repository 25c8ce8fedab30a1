"""What the server makes of the sites' health: refused beyond its bounds, kept, warned of, and a reason to stop."""

import logging

import pytest

from federated_sites import honest
from health import COLLAPSED, DRIFTING, HEALTHY
from hilum.common import records
from hilum.common.errors import FederationError
from hilum.common.training_health import HEALTH


def telling(health):
    """A site that trains honestly and tells other health."""
    return lambda name, request: records.TrainReply(**{**honest(name, request).__dict__, "health": health})


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        ({**HEALTHY, "effective_rank": float("nan")}, "not_finite: effective_rank is nan"),
        ({**HEALTHY, "gradient_norm": float("inf")}, "not_finite: gradient_norm is inf"),
        ({**HEALTHY, "skipped_share": 1.5}, "out_of_range: skipped_share is 1.5"),
        ({**HEALTHY, "effective_rank": 1e6}, "out_of_range: effective_rank is 1e+06"),
    ],
)
def test_health_beyond_its_bounds_costs_the_update(make_study, federate, health, reason):
    _, [record] = federate(make_study(federation={"rounds": 1}), {"site-1": telling(health)})
    assert record.failures["site-1"] == reason
    assert set(record.sites) == {"site-0", "site-2"}


def test_a_reply_that_lacks_a_number_is_no_reply(make_study, federate):
    short = {name: value for name, value in HEALTHY.items() if name != "residual_norm"}
    _, [record] = federate(make_study(federation={"rounds": 1}), {"site-1": telling(short)})
    assert record.failures["site-1"].startswith("wrong_format")


def test_every_round_keeps_what_each_site_told_and_warns(make_study, federate, caplog):
    with caplog.at_level(logging.WARNING):
        _, seen = federate(make_study(federation={"rounds": 2}), {"site-1": telling(DRIFTING)})
    assert all(facts.keys() >= HEALTH.keys() for record in seen for facts in record.sites.values())
    assert seen[0].sites["site-1"]["residual_norm"] == 74
    warned = [line for line in caplog.messages if "drift at site-1" in line]
    assert [line[:7] for line in warned] == ["round 1", "round 2"]
    assert "lower training.base_learning_rate" in warned[0]
    assert not any("site-0" in line for line in caplog.messages)


def test_a_study_may_end_where_most_sites_have_collapsed(make_study, federate):
    study = make_study(federation={"rounds": 2}, training={"stop_on_collapse": True})
    most = {"site-0": telling(COLLAPSED), "site-1": telling(COLLAPSED)}
    _, seen = federate(study, {"site-1": telling(COLLAPSED)}, folder="one of three")
    assert len(seen) == 2
    with pytest.raises(
        FederationError, match=r"collapsed in round 1 at site-0, site-1, and training\.stop_on"
    ):
        federate(study, most)
    with pytest.raises(FederationError, match="collapsed in round 1 at site-0, site-1"):
        federate(study, most, resume=True)
    _, seen = federate(make_study(federation={"rounds": 2}), most, folder="not asked to stop")
    assert len(seen) == 2
