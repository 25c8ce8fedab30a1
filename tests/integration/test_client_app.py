"""What a site does with a request: whom it obeys, what it refuses, and what it never says.

The attacks here have the server's place: they put anything into a message. `KEY` is the admin's, whom the site trusts.
"""

import json
import logging
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from hilum.client.app import make_app
from hilum.client.disclosure.run_ledger import RunLedger
from hilum.client.state.workspace import Workspace
from hilum.common import records
from hilum.common.config import SiteConfig, parse_study
from hilum.common.config.site import PolicySection
from hilum.common.footprint import footprint_of
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.common.progress import NullProgress
from hilum.server.federation.exchange import exchange
from hilum.simulations.archives import find_sites, index_sites
from hilum.simulations.grid import InProcessGrid
from hilum.simulations.phantoms import write_phantoms
from signed import KEY, STRANGER, sign, sign_bytes, sign_table
from studies import study_table

HOUR_S = 3600


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A hospital of forty patients, 28 of whom are trained on and 12 tested; its state is made once."""
    folder = tmp_path_factory.mktemp("hospital")
    write_phantoms(folder / "archives", sites=1, patients=40, size=64, seed=5)
    sites = find_sites(folder / "archives", folder / "home")
    index_sites(sites, NullProgress())
    return sites[0]


@pytest.fixture
def site(hospital):
    """The hospital as in a deployment, with a policy; its ledgers are new."""
    for name in ("runs.sqlite", "answers.sqlite"):
        for path in hospital.state.folder.glob(f"{name}*"):
            path.unlink()
    return with_policy(hospital)


@pytest.fixture
def study(make_study):
    return make_study(privacy={"min_patients": 11})


def with_policy(site: SiteConfig, **policy) -> SiteConfig:
    return site.model_copy(update={"policy": PolicySection(**policy)})


def ask(site, content, kind=records.HELLO):
    app = make_app(lambda context: site, lambda site: KEY.public_key())
    with InProcessGrid(app, nodes=1, workers=1) as grid:
        [node] = grid.get_node_ids()
        [answer] = exchange(grid, {node: lambda: content}, kind, deadline_s=120, poll_s=0.01)
    return answer.content


def refused(site, content, kind=records.HELLO):
    refusal = records.unpack_refusal(ask(site, content, kind))
    assert refusal is not None, "the site did as it was told"
    assert refusal.site == site.site.name
    return refusal.code


def first_weights(study):
    return get_federated(build_method(study))


def training(study, round_number=1, base=None, **signing):
    base = first_weights(study) if base is None else base
    return records.pack_training_request(sign(study, **signing), round_number, base)


# Whom a site obeys


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


# What a signed document may not hold


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
        ("training", "learning_rate", 1e999),
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


# What the server adds to what was signed


@pytest.mark.parametrize("number", [-1, 0, 3, 2**31, 2**70, -(2**70)])
def test_a_round_outside_of_the_study_is_refused(site, study, number):
    assert refused(site, training(study, number), records.TRAIN) == "round"
    assert not Workspace(site.state.folder).run("run").exists()


@pytest.mark.parametrize("number", [True, 1.0, "1", b"1", [1]])
def test_a_round_that_is_no_number_is_refused(site, study, number):
    assert refused(site, training(study, number), records.TRAIN) == "wrong_format"


@pytest.mark.parametrize("kind", [records.HELLO, records.EVALUATE])
def test_greetings_and_evaluations_belong_to_no_round(site, study, kind):
    assert refused(site, records.pack_request(sign(study), round_number=1), kind) == "round"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w[:-1],
        lambda w: np.concatenate([w, w]),
        lambda w: w[:0],
        lambda w: np.where(np.arange(w.size) == 3, np.nan, w).astype(np.float32),
        lambda w: np.where(np.arange(w.size) == 3, np.inf, w).astype(np.float32),
    ],
    ids=["short", "twice", "none", "nan", "infinity"],
)
def test_weights_of_another_size_or_not_finite_are_refused(site, study, spoil):
    weights = spoil(first_weights(study))
    assert refused(site, training(study, base=weights), records.TRAIN) == "wrong_format"
    evaluation = records.pack_request(sign(study), weights={"federated": weights})
    assert refused(site, evaluation, records.EVALUATE) == "wrong_format"


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (records.HELLO, ["weights"]),
        (records.TRAIN, []),
        (records.TRAIN, ["federated"]),
        (records.TRAIN, ["weights", "federated"]),
        (records.EVALUATE, ["weights"]),
        (records.EVALUATE, ["local"]),
        (records.EVALUATE, ["raw"]),
        (records.EVALUATE, ["centralised"]),
        (records.EVALUATE, ["../federated"]),
    ],
)
def test_a_server_sends_no_other_weights_than_its_part_of_the_study(site, study, kind, names):
    """`centralised` is an arm of other studies, not of this one."""
    weights = dict.fromkeys(names, first_weights(study))
    content = records.pack_request(sign(study), round_number=int(kind == records.TRAIN), weights=weights)
    assert refused(site, content, kind) == "wrong_format"


def test_a_million_arms_are_refused_at_once(site, study):
    content = records.pack_request(sign(study), weights={"federated": first_weights(study)})
    one = content["arrays"]["federated"]
    many = records.ArrayRecord({f"arm{number}": one for number in range(10**6)})
    content["arrays"] = many
    started = time.monotonic()
    assert refused(site, content, records.EVALUATE) == "wrong_format"
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("part", ["facts", "arrays", "document", "signature", "round"])
def test_a_request_with_a_part_missing_or_added_is_refused(site, study, part):
    content = records.pack_request(sign(study))
    if part in content:
        del content[part]
    else:
        del content["facts"][part]
    assert refused(site, content) == "wrong_format"
    content = records.pack_request(sign(study))
    content["facts"]["more"] = "x"
    assert refused(site, content) == "wrong_format"


# What a site's policy allows


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


# What is counted


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


# What a site never says


def test_a_site_without_a_label_table_says_so_by_a_code(site, study):
    bare = site.model_copy(update={"data": site.data.model_copy(update={"labels": None})})
    request = records.pack_request(sign(study), weights={"federated": first_weights(study)})
    assert refused(bare, request, records.EVALUATE) == "no_labels"


def test_a_wrong_label_table_leaves_as_a_code_and_the_cause_stays_in_the_log(site, study, tmp_path, caplog):
    table = tmp_path / "ZZFILE.csv"
    table.write_text("file,patient,label\nnowhere.dcm,ZZPATIENT,1\n")
    wrong = site.model_copy(update={"data": site.data.model_copy(update={"labels": table})})
    content = ask(wrong, records.pack_request(sign(study)))
    assert records.unpack_refusal(content) == records.Refusal("site-0", "data")
    assert "line 2" in caplog.text
    assert "ZZPATIENT" not in caplog.text


def test_classes_that_are_spelled_in_two_ways_are_refused_without_a_cell_of_the_table_in_the_log(
    site, study, tmp_path, caplog
):
    lines = site.data.labels.read_text().splitlines()
    cells = ("ZZlabel", "zzLABEL")
    table = tmp_path / "labels.csv"
    table.write_text(
        "\n".join(
            [lines[0], *(f"{line.rsplit(',', 1)[0]},{cells[n % 2]}" for n, line in enumerate(lines[1:]))]
        )
    )
    wrong = site.model_copy(update={"data": site.data.model_copy(update={"labels": table})})
    content = ask(wrong, records.pack_request(sign(study)))
    assert records.unpack_refusal(content) == records.Refusal("site-0", "data")
    assert "write each class in one way" in caplog.text
    assert "zzlabel" not in caplog.text.casefold()


def test_an_unexpected_failure_leaves_as_a_code_and_its_text_stays_nowhere(site, study, monkeypatch, caplog):
    import hilum.client.data.site_data

    def fails(*_words):
        raise KeyError("ZZPHI in the text of an exception")

    monkeypatch.setattr(hilum.client.data.site_data, "open_site", fails)
    with caplog.at_level(logging.DEBUG):
        content = ask(site, records.pack_request(sign(study)))
    assert records.unpack_refusal(content) == records.Refusal("site-0", "failed")
    assert "KeyError at test_client_app.py" in caplog.text
    assert "ZZPHI" not in caplog.text


def test_what_was_asked_is_quoted_in_one_bounded_line_of_the_log(site, study, caplog):
    table = study.model_dump(mode="json")
    signed = sign_table({**table, "extra\n\x1b[31m" + "x" * 20_000: 1})
    assert refused(site, records.pack_request(signed)) == "config"
    [line] = [record.getMessage() for record in caplog.records if "config" in record.getMessage()]
    assert len(line) < 600
    assert line.isprintable()


def test_a_wrong_site_file_leaves_as_a_code(study):
    def site_of(context):
        raise KeyError("no such file: /ZZPATH")

    with InProcessGrid(make_app(site_of), nodes=1, workers=1) as grid:
        [node] = grid.get_node_ids()
        content = records.pack_request(sign(study))
        [answer] = exchange(grid, {node: lambda: content}, records.HELLO, deadline_s=60, poll_s=0.01)
    assert records.unpack_refusal(answer.content) == records.Refusal("unknown", "failed")


# The commands that need no federation


def test_a_site_alone_pretrains_and_measures_from_the_command_line(site, run_hilum, study_file, tmp_path):
    path = study_file(evaluation={"protocols": ["linear"], "arms": ["federated", "local", "random", "raw"]})
    (tmp_path / "site.toml").write_text(
        f'[site]\nname = "site-0"\n[data]\ndicom = "{site.data.dicom}"\nlabels = "{site.data.labels}"\n'
        f'[state]\nfolder = "{site.state.folder}"\n[compute]\ndevice = "cpu"\n'
    )
    done = run_hilum("site", "pretrain", path, "site.toml", "--out", "mine", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] % 11, "the site itself is told the exact number"
    again = run_hilum("site", "pretrain", path, "site.toml", "--out", "mine")
    assert again.returncode == 4
    measured = run_hilum("site", "evaluate", path, "site.toml", "--encoder", "mine")
    assert measured.returncode == 0, measured.stderr
    for arm in ("federated", "random", "raw"):
        assert arm in measured.stdout
    assert "the arm local was left out: `hilum site pretrain`" in measured.stdout
    missing = run_hilum("site", "evaluate", path, "site.toml", "--encoder", "nowhere")
    assert missing.returncode == 4
    assert "no encoder in this folder" in missing.stderr


def test_the_clients_process_imports_no_torch_until_it_is_asked():
    code = "import sys, hilum.client.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
