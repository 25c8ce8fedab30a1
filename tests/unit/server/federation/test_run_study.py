"""A whole study on the in-process grid, with sites that say what they like about the encoder."""

import json
import logging
import threading
from contextlib import nullcontext

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from health import HEALTHY
from hilum.common import records
from hilum.common.results_table import Comparison, Evaluation, Row
from hilum.common.training_health import HEALTH
from hilum.common.weights import Manifest, sha256_of
from hilum.server.federation.run_spec import Polling, RunSpec
from hilum.server.federation.run_study import run_study
from hilum.server.federation.store import RunStore
from hilum.simulations.grid import InProcessGrid
from hilum.simulations.report import write_report

MANIFEST = Manifest((("encoder.a", (100,)), ("encoder.b", (4, 5))))


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    """120 values travel, and the encoder's files are a stub: what is tested here is who is believed."""

    def write_encoder(folder, study, manifest, weights, made):
        facts = {"encoder_sha256": sha256_of(manifest.unflatten(weights)), "sites": made.sites}
        (folder / "manifest.json").write_text(json.dumps(facts))
        return facts["encoder_sha256"]

    monkeypatch.setattr("hilum.server.federation.rounds.build_method", lambda study: None)
    monkeypatch.setattr("hilum.server.federation.rounds.get_frozen", lambda method: {})
    monkeypatch.setattr("hilum.server.federation.rounds.federated_manifest", lambda method: MANIFEST)
    monkeypatch.setattr(
        "hilum.server.federation.rounds.get_federated", lambda method: np.zeros(120, np.float32)
    )
    monkeypatch.setattr("hilum.server.federation.run_study.write_encoder", write_encoder)


def rows(site, value=0.8):
    return tuple(
        Row(site, "classification", "linear", 1.0, arm, "auroc", number, number - 0.1, number + 0.1, 40)
        for arm, number in (("federated", value), ("raw", 0.6))
    )


def table(site, value=0.8):
    compared = Comparison(site, "classification", "linear", 1.0, "raw", "auroc", value - 0.6, 0.1, 0.3)
    return Evaluation(rows(site, value), (compared,)).to_json()


def text(site, content):
    return RecordDict({"facts": ConfigRecord({"site": site, "evaluation": content})})


LIES = {
    "site-0": (lambda: records.pack_evaluation_reply(records.EvaluateReply("site-0", table("site-0"))), None),
    "site-1": (lambda: text("site-1", "[" * 200_000), "wrong_format"),
    "site-2": (
        lambda: text("site-2", json.dumps(table("site-2")).replace("0.8", "1e999", 1)),
        "wrong_format",
    ),
    "site-3": (lambda: text("site-3", json.dumps(table("site-3", 7.0))), "out_of_range"),
    "site-4": (lambda: text("site-4", json.dumps(table("site-0"))), "wrong_site"),
    "site-5": (lambda: text("site-0", json.dumps(table("site-0"))), "wrong_site"),
    "site-6": (lambda: records.pack_refusal(records.Refusal("site-6", "no_labels")), "no_labels"),
    "site-7": (
        lambda: RecordDict({"facts": ConfigRecord({"site": "site-7", "refused": "\x1b[2J" * 10**6})}),
        "wrong_format",
    ),
    "site-8": (lambda: RecordDict({}), "wrong_format"),
    "site-9": (lambda: text("site-0", json.dumps(table("site-9"))), "wrong_site"),
}


def make_client(tables, train=None):
    app = ClientApp()
    names = list(tables)

    @app.query()
    def hello(message, context):
        name = names[context.node_config["partition-id"]]
        return Message(records.pack_hello(records.Hello(name, 20)), reply_to=message)

    @app.train()
    def do_train(message, context):
        name = names[context.node_config["partition-id"]]
        request = records.unpack_request(message.content)
        sha256 = sha256_of(MANIFEST.unflatten(request.base))
        update = np.full(120, 1 / 1024, np.float32)
        loss = (train or {}).get(name, 1.0)
        reply = records.TrainReply(name, request.round_number, sha256, 20, loss, 1.0, HEALTHY, update)
        return Message(records.pack_training_reply(reply), reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        return Message(tables[names[context.node_config["partition-id"]]](), reply_to=message)

    return app


@pytest.fixture
def run(make_order, tmp_path):
    def conducted(study, tables, train=None, folder="run", **more):
        signed, order = make_order(study, sites=list(tables))
        with (
            RunStore.open(tmp_path / folder, order, resume=False) as store,
            InProcessGrid(make_client(tables, train), nodes=len(tables), workers=4) as grid,
        ):
            return run_study(grid, RunSpec(signed, order, store, Polling(0.005, 5.0), **more))

    return conducted


def test_lies_about_the_encoder_cost_their_site_its_place_in_the_results_and_nothing_else(
    make_study, run, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "hilum")
    study = make_study(federation={"sites": 10})
    results = run(study, {name: content for name, (content, _) in LIES.items()})
    honest = run(study, {name: (lambda: RecordDict({})) for name in LIES}, folder="other")
    assert results["evaluation"] == table("site-0")["rows"]
    assert results["comparisons"] == table("site-0")["comparisons"]
    for name, (_, reason) in LIES.items():
        notes = [note for note in results["notes"] if note.startswith(f"{name} was not evaluated: ")]
        assert [note.split(": ")[1] for note in notes] == ([] if reason is None else [reason]), name
        assert not reason or f"no results of {notes[0].replace(' was not evaluated', '')}" in caplog.messages
    assert all(len(note) < 200 and note.isprintable() for note in results["notes"])
    manifests = [json.loads((tmp_path / f / "encoder/manifest.json").read_text()) for f in ("run", "other")]
    assert manifests[0] == manifests[1]
    assert honest["evaluation"] == []
    page = write_report(tmp_path / "run").read_text()
    assert "Rounds 1 to 2: 10 of 10 sites contributed." in page
    assert "site-6 was not evaluated: no_labels: the site has no label table for this task" in page
    assert "run run: the sites measure the encoder" in caplog.messages
    assert [line for line in caplog.messages if line.endswith("has sent its results")] == [
        "site-0 has sent its results"
    ]
    assert caplog.messages[-1].startswith("run run is finished: 2 rounds, encoder ")


def test_who_still_measures_is_told_now_and_then(make_study, run, monkeypatch):
    monkeypatch.setattr("hilum.server.federation.run_study._TELL_AGAIN_S", 0.0)
    told, enough = [], threading.Event()

    class Listening:
        def advance(self, done, note=""):
            told.append((done, note.split(" after ")[0]))
            if told[-1] == (1, "site-1 still measuring"):
                enough.set()

    def late():
        assert enough.wait(60)
        return RecordDict({})

    tables = {"site-0": LIES["site-0"][0], "site-1": late}
    run(make_study(federation={"sites": 2}), tables, stage=lambda title, total: nullcontext(Listening()))
    assert told[-1] == (2, "site-1")
    assert (1, "site-0") in told
    assert told.index((1, "site-0")) < told.index((1, "site-1 still measuring"))


def test_an_arm_that_only_a_simulation_has_is_noted(make_study, run):
    study = make_study(federation={"sites": 2}, evaluation={"arms": ["federated", "centralised"]})
    results = run(study, {name: (lambda: RecordDict({})) for name in ("site-0", "site-1")})
    assert (
        "the arm centralised was not measured: only a simulation has all images in one place"
        in results["notes"]
    )


def test_results_and_events_say_how_many_sites_contributed(make_study, run, tmp_path):
    tables = dict.fromkeys(("site-0", "site-1", "site-2"), LIES["site-8"][0])
    study = make_study(federation={"rounds": 4}, privacy={"min_patients": 5})
    results = run(study, tables, train={"site-1": float("nan")})
    assert [(r["contributed"], r["expected"]) for r in results["rounds"]] == [(2, 3)] * 4
    assert results["privacy"]["site-1"]["min_patients"] == 5
    assert "site-1 was suspended after round 3: its part was refused 3 times" in results["notes"]
    assert any(
        note.startswith("the threshold of patients was lifted from 11 to 5") for note in results["notes"]
    )
    assert "site-1 was not evaluated: suspended: it was refused 3 times in this study" in results["notes"]
    assert json.loads((tmp_path / "run/encoder/manifest.json").read_text())["sites"] == 2
    [path] = (tmp_path / "run" / "tensorboard").iterdir()
    values = [
        (event.step, value.tag, value.tensor.float_val[0])
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    assert {tag.split("/")[0] for _, tag, _ in values} == {"loss", "federation", *HEALTH}
    assert (3, "effective_rank/site-2", HEALTHY["effective_rank"]) in values
    assert [value for value in values if value[1].startswith("federation/sites")] == [
        (step, tag, count)
        for step in range(1, 5)
        for tag, count in (("federation/sites", 2.0), ("federation/sites_expected", 3.0))
    ]


def test_a_run_directory_is_closed_to_others(make_study, run, tmp_path):
    run(make_study(), dict.fromkeys(("site-0", "site-1", "site-2"), LIES["site-8"][0]))
    folders = [path for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")] if path.is_dir()]
    assert {path.name for path in folders} >= {"run", "checkpoints", "tensorboard"}
    assert all(path.stat().st_mode & 0o77 == 0 for path in folders)
