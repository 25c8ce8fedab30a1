"""Who takes part: greetings, names and certificates, before the first round and in between."""

import logging
import time

import pytest

from federated_sites import NamedGrid, honest, make_client
from hilum.common import records
from hilum.common.errors import FederationError
from hilum.common.refusals import REFUSALS
from hilum.server.federation.roster import Site
from hilum.server.federation.run_spec import Polling


def test_a_second_one_of_a_name_is_refused_and_the_run_goes_on(make_study, federate, caplog):
    study = make_study(federation={"rounds": 1})
    _, [record] = federate(study, names=("site-0", "site-0", "site-1"))
    assert set(record.sites) == {"site-0", "site-1"}
    assert record.failures == {"site-2": "absent: it had not greeted when the round began"}
    assert federate.federation.roster.strangers == [
        "a site was refused at its greeting: wrong_site: a second site-0"
    ]
    assert "a site that the study does not know is refused at its greeting: wrong_site: a second site-0" in (
        caplog.messages
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("<script>", "wrong_format: the site's name is not a name"),
        ("site-7", "wrong_site: the study names no"),
    ],
)
def test_a_name_that_the_study_does_not_have_is_refused_and_not_repeated(
    make_study, federate, caplog, name, words
):
    hello = {name: lambda: records.Hello(name, 5)}
    federate(make_study(federation={"rounds": 1}), names=("site-0", name, "site-1"), hello=hello)
    [note] = federate.federation.roster.strangers
    assert words in note
    assert name not in caplog.text + note


def test_where_certificates_name_the_sites_a_greeting_can_not_say_otherwise(make_study, federate, caplog):
    lies = {"site-1": lambda: records.Hello("site-0", 30)}
    grid = NamedGrid(make_client(hello=lies))
    _, seen = federate(make_study(federation={"rounds": 9}), grid=grid)
    codes = [record.failures["site-1"].split(":")[0] for record in seen]
    # A round may be over before the greeting is answered.
    assert [code for code in codes if code != "absent"][:4] == [*["wrong_site"] * 3, "suspended"]
    assert all(record.contributed == 2 for record in seen)
    assert (
        "site-1 is refused at its greeting: "
        "wrong_site: the greeting has another name than the site's certificate" in caplog.messages
    )


@pytest.mark.parametrize("examples", [0, -1, 2**62])
def test_a_greeting_without_a_count_of_images_is_refused(make_study, federate, examples):
    hello = {"site-1": lambda: records.Hello("site-1", examples)}
    _, [record] = federate(make_study(federation={"rounds": 1}), hello=hello)
    assert record.failures["site-1"].startswith("no_examples: ")


def test_a_site_that_refuses_its_greeting_may_greet_again_at_the_next_round(make_study, federate):
    answers = [records.Refusal("site-1", "data"), records.Hello("site-1", 30)]
    hello = {"site-1": lambda: answers.pop(0)}
    _, seen = federate(make_study(federation={"rounds": 3}), hello=hello)
    assert seen[0].failures == {"site-1": f"data: {REFUSALS['data']}"}
    assert seen[1].failures == {"site-1": "absent: it had not greeted when the round began"} or (
        seen[1].contributed == 3
    )
    assert seen[2].contributed == 3


def test_refusals_that_leave_too_few_end_the_run_at_once_with_each_reason(make_study, federate):
    hello = {name: lambda name=name: records.Refusal(name, "policy_rounds") for name in ("site-0", "site-2")}
    started = time.monotonic()
    with pytest.raises(
        FederationError, match=r"1 of 3 sites .*site-0: policy_rounds: .*site-2: policy_"
    ) as e:
        federate(make_study(), hello=hello, pace=Polling(0.005, 30.0))
    assert REFUSALS["policy_rounds"] in str(e.value)
    assert time.monotonic() - started < 10


def test_missing_sites_are_waited_for_and_then_named(make_study, federate):
    sites = [f"site-{n}" for n in range(5)]
    study = make_study(federation={"sites": 5, "quorum": 4})
    with pytest.raises(FederationError, match=r"3 of 5 sites have greeted, 4 .*site-3: absent"):
        federate(study, sites=sites, pace=Polling(0.005, 1.0))


def test_a_run_begins_with_a_quorum_and_a_site_that_comes_later_joins_at_the_next_round(
    make_study, federate, caplog
):
    caplog.set_level(logging.INFO, "hilum")

    def comes(name, request):
        if request.round_number == 2:
            grid.gone.discard("site-2")
        if request.round_number >= 2:
            until = time.monotonic() + 10
            while "site-2 has greeted, with 20 images or more" not in caplog.messages:
                assert time.monotonic() < until
                time.sleep(0.01)
        return honest(name, request)

    grid = NamedGrid(make_client({"site-0": comes}))
    grid.gone.add("site-2")
    _, seen = federate(make_study(federation={"rounds": 3}), grid=grid, pace=Polling(0.005, 0.3))
    assert [record.contributed for record in seen] == [2, 2, 3]
    assert seen[0].failures == {"site-2": "absent: it had not greeted when the round began"}
    assert grid.limits[records.TRAIN] == 4 * federate.federation.manifest.size + 64 * 1024


def test_sites_are_listed_by_name(make_study, federate):
    federate(make_study(federation={"rounds": 1}), names=("site-2", "site-0", "site-1"))
    assert federate.federation.roster.present == (
        Site("site-0", 3, 10),
        Site("site-1", 4, 30),
        Site("site-2", 2, 20),
    )
