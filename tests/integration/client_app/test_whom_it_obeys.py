"""A site obeys the admin whose key it has, and nobody else."""

import time

import pytest

from asked_site import HOUR_S, ask, refused
from hilum.client.app import make_app
from hilum.common import records
from hilum.server.federation.exchange import exchange
from hilum.simulations.grid import InProcessGrid
from signed import STRANGER, sign, sign_table


def test_a_signed_study_is_greeted_with_a_band_of_images(site, study):
    hello = records.unpack_hello(ask(site, records.pack_request(sign(study))))
    assert hello.site == "site-0"
    assert hello.examples > 0
    assert hello.examples % 11 == 0


@pytest.mark.parametrize("kind", [records.HELLO, records.TRAIN, records.EVALUATE])
def test_a_study_of_a_stranger_is_refused_in_every_kind_of_message(site, study, kind):
    signed = sign(study, key=STRANGER)
    content = records.pack_request(signed, round_number=int(kind == records.TRAIN))
    assert refused(site, content, kind) == "unsigned"


def test_nothing_of_a_study_without_its_signature_is_parsed(site, study, monkeypatch):
    import hilum.common.signing

    def parsed(*_words, **_more):
        raise AssertionError("parsed")

    monkeypatch.setattr(hilum.common.signing._Document, "model_validate_json", parsed)
    monkeypatch.setattr(hilum.common.signing, "parse_study", parsed)
    signed = sign(study)
    for forged in (
        type(signed)(signed.document, bytes(64)),
        type(signed)(signed.document + b" ", signed.signature),
        type(signed)(signed.document.replace(b'"run":"run"', b'"run":"again"'), signed.signature),
        type(signed)(signed.document.replace(b'"rounds":2', b'"rounds":9'), signed.signature),
        sign(study, key=STRANGER),
    ):
        assert forged != signed
        assert refused(site, records.pack_request(forged)) == "unsigned"


def test_a_site_without_a_link_pins_no_key_and_takes_no_study(site, study):
    with InProcessGrid(make_app(lambda context: site), nodes=1, workers=1) as grid:
        [node] = grid.get_node_ids()
        content = records.pack_request(sign(study))
        [answer] = exchange(grid, {node: lambda: content}, records.HELLO, deadline_s=60, poll_s=0.01)
    assert records.unpack_refusal(answer.content).code == "unsigned"


@pytest.mark.parametrize(
    ("signing", "code"),
    [
        ({"after_s": -2 * HOUR_S, "days": 1 / 24}, "expired"),
        ({"after_s": 20 * 60}, "not_yet_valid"),
        ({"sites": ["site-1", "site-2", "site-3"]}, "not_invited"),
    ],
)
def test_a_signature_holds_for_its_time_and_its_sites_alone(site, study, signing, code):
    signing = dict(signing)  # the time is that of the test, not of its collection
    now = time.time() + signing.pop("after_s", 0.0)
    assert refused(site, records.pack_request(sign(study, now=now, **signing))) == code


def test_clocks_may_differ_by_five_minutes(site, study):
    signed = sign(study, now=time.time() + 5 * 60)
    assert records.unpack_hello(ask(site, records.pack_request(signed))).examples


def test_another_version_is_refused(site, study):
    signed = sign_table(study.model_dump(mode="json"), hilum="0.0.1")
    assert refused(site, records.pack_request(signed)) == "version"
