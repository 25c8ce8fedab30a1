"""What a signed document may not hold."""

import json
import time
import tracemalloc

import pytest

from asked_site import ask, first_weights, refused, with_policy
from hilum.common import records
from signed import sign, sign_bytes, sign_table
from studies import study_table


@pytest.mark.parametrize(
    "run", ["../../../../escaped", "/tmp/escaped", "a/b", "", "..", ".hidden", "a\n", "a" * 65]
)
def test_a_path_is_no_name_of_a_run_even_under_the_admins_signature(site, study, run, tmp_path):
    before = sorted(site.state.folder.parent.rglob("*"))
    signed = sign_table(study.model_dump(mode="json"), run=run)
    content = records.pack_training_request(signed, 1, first_weights(study))
    assert refused(site, content, records.TRAIN) == "wrong_format"
    assert sorted(site.state.folder.parent.rglob("*")) == before


def nested(levels):
    study = json.dumps(study_table()).replace('"tiny"', "[" * levels + "]" * levels)
    return sign_table("STUDY").document.replace(b'"STUDY"', study.encode())


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"kind": "hilum-study"}',
        nested(100),
        nested(15_000),
        b"[" * 60_000,
    ],
    ids=["empty", "bare", "list", "null", "bytes", "short", "nested", "deeply nested", "open brackets"],
)
def test_a_signed_document_that_is_none_is_refused(site, document):
    assert refused(site, records.pack_request(sign_bytes(document))) in {"wrong_format", "config"}


def test_a_document_too_long_is_refused_before_its_signature_is_computed(site, study, monkeypatch):
    signed = sign_bytes(b" " * (64 * 1024 + 1))
    assert refused(site, records.pack_request(signed)) == "wrong_format"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("method", "projection_width", 2**26),
        ("training", "batch_size", 10**9),
        ("federation", "rounds", 2**70),
        ("evaluation", "bootstrap_draws", 10**12),
        ("evaluation", "arms", ["raw"] * 1_000),
        ("evaluation", "label_fractions", [0.5] * 1_000),
        ("data", "image_size", 2**20),
        ("training", "base_learning_rate", 1e999),
        ("study", "name", "x" * 10_000),
    ],
)
def test_a_number_beyond_its_bound_is_refused_though_it_is_signed(site, section, key, value):
    table = study_table(method={"name": "simclr"}, privacy={"min_patients": 11})
    table[section] = {**table[section], key: value}
    tracemalloc.start()
    try:
        assert refused(site, records.pack_request(sign_table(table))) in {"config", "wrong_format"}
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_decoder_of_any_width_is_refused_though_it_is_signed(site):
    table = study_table(privacy={"min_patients": 11}, method={"decoder_width": 2**26})
    assert refused(site, records.pack_request(sign_table(table))) == "config"


@pytest.mark.parametrize("policy", ["default", "generous", "none"])
def test_a_study_within_its_bounds_but_beyond_every_machine_is_refused_before_it_takes_any_memory(
    site, make_study, policy
):
    """2**30 patches of one voxel: the policy counts them, and in a simulation the machine's memory is the limit."""
    study = make_study(
        privacy={"min_patients": 11},
        data={"modality": "ct", "dims": 3, "image_size": 1024},
        encoder={"name": "vit", "size": "base", "patch_size": 1},
        method={"name": "mae", "decoder_width": 1024, "decoder_depth": 16},
        training={"batch_size": 4096},
    )
    asked = {
        "default": site,
        "generous": with_policy(
            site, max_patches=2**62, max_memory_gb=1e12, max_disk_gb=1e12, max_sent_mb=1e12
        ),
        "none": site.model_copy(update={"policy": None}),
    }[policy]
    content = records.pack_request(sign(study))
    ask(site, content)  # what is imported once is not counted
    tracemalloc.start()
    try:
        started = time.monotonic()
        code = refused(asked, content)
        seconds = time.monotonic() - started
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    assert code == ("policy_patches" if policy == "default" else "policy_memory")
    assert seconds < 10
