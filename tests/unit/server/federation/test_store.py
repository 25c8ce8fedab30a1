import errno
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace

import numpy as np
import pytest

from hilum.common.config import parse_study
from hilum.common.errors import DamagedError, RunError
from hilum.common.export import Provenance, read_encoder, write_encoder
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, get_federated
from hilum.common.weights import Manifest, sha256_of
from hilum.server.admin.runs import check_run_name
from hilum.server.federation.store import RoundRecord, RunState, RunStore

MANIFEST = Manifest((("a", (2, 2)), ("b", (3,))))


def progressed(rounds):
    record = [
        RoundRecord(
            round=n + 1,
            wall_seconds=1.0,
            bytes_down=7,
            bytes_up=7,
            expected=1,
            contributed=1,
            sites={"site-0": {"loss": 1.0, "examples": 3, "norm": 0.1 + 0.2}},
            failures={},
            suspended=[],
            update_norm=0.5,
        )
        for n in range(rounds)
    ]
    return RunState(np.arange(7, dtype=np.float32) + rounds, tuple(record))


@pytest.fixture
def store(make_study, make_order, tmp_path):
    with RunStore.open(tmp_path / "run", make_order(make_study())[1], resume=False) as made:
        for rounds in (1, 2, 3):
            made.save(progressed(rounds), MANIFEST)
        yield made


def test_a_checkpoint_comes_back_bit_for_bit_and_two_are_kept(store):
    loaded = store.load(MANIFEST)
    assert loaded.weights.tobytes() == progressed(3).weights.tobytes()
    assert loaded.rounds == progressed(3).rounds
    assert len(list((store.folder / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c[:-4] + b"\0\0\0\x41", lambda c: b"", lambda c: b"x" * len(c)]
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_it_is_told(store, damage, caplog):
    newest = store.folder / "checkpoints" / "round-000003.safetensors"
    newest.write_bytes(damage(newest.read_bytes()))
    assert len(store.load(MANIFEST).rounds) == 2
    assert len((store.folder / "rounds.jsonl").read_text().splitlines()) == 2
    assert caplog.messages == store.notes == ["the checkpoint after round 3 was damaged and passed over"]


def test_what_the_aggregator_remembers_comes_back_and_is_guarded_as_the_weights_are(store):
    momentum = np.arange(7, dtype=np.float32) / 3
    store.save(replace(progressed(4), aggregator={"momentum": momentum}), MANIFEST)
    loaded = store.load(MANIFEST)
    assert list(loaded.aggregator) == ["momentum"]
    assert loaded.aggregator["momentum"].tobytes() == momentum.tobytes()
    assert loaded.weights.tobytes() == progressed(4).weights.tobytes()
    newest = store.folder / "checkpoints" / "round-000004.safetensors"
    content = newest.read_bytes()
    assert content.count(momentum.tobytes()) == 1
    newest.write_bytes(content.replace(momentum.tobytes(), momentum[::-1].tobytes()))
    assert len(store.load(MANIFEST).rounds) == 3


def test_a_checkpoint_of_before_aggregators_remembered_anything_is_read(store):
    newest = store.folder / "checkpoints" / "round-000003.safetensors"
    content = newest.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    del header["__metadata__"]["state_sha256"]
    packed = json.dumps(header).encode()
    newest.write_bytes(len(packed).to_bytes(8, "little") + packed + content[8 + length :])
    loaded = store.load(MANIFEST)
    assert loaded == replace(progressed(3), weights=loaded.weights)
    assert loaded.weights.tobytes() == progressed(3).weights.tobytes()


def test_when_all_are_damaged_it_says_so(store):
    for path in (store.folder / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DamagedError, match="every checkpoint of this run is damaged"):
        store.load(MANIFEST)


def test_a_run_directory_is_used_once_or_resumed(make_study, make_order, tmp_path):
    order = make_order(make_study(), run="first")[1]
    with RunStore.open(tmp_path / "run", order, resume=False) as first:
        assert first.run_id == "first"
    with pytest.raises(RunError, match="holds another run"):
        RunStore.open(tmp_path / "run", order, resume=False)
    other = make_order(make_study(study={"seed": 12}))[1]
    with pytest.raises(RunError, match=r"a run of another study: study\.seed was 11, is 12"):
        RunStore.open(tmp_path / "run", other, resume=True)
    with RunStore.open(
        tmp_path / "new", order, resume=True
    ) as begun:  # it was stopped before it wrote anything
        assert begun.load(MANIFEST) is None
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(RunError, match="not empty"):
        RunStore.open(tmp_path / "full", order, resume=False)
    with pytest.raises(RunError, match="is a file"):
        RunStore.open(tmp_path / "full" / "x", order, resume=False)


def test_a_run_goes_on_under_a_new_signature_of_the_same_study(make_study, make_order, tmp_path):
    (first, order), (second, again) = make_order(make_study()), make_order(make_study())
    assert first.document != second.document
    with RunStore.open(tmp_path / "run", order, resume=False) as store:
        store.save(progressed(2), MANIFEST)
    with RunStore.open(tmp_path / "run", again, resume=True) as store:
        assert len(store.load(MANIFEST).rounds) == 2


def test_one_process_holds_a_run_at_a_time(store, make_study, make_order):
    order = make_order(make_study())[1]
    with pytest.raises(RunError, match="another process is working on this run"):
        RunStore.open(store.folder, order, resume=True)
    open_it = (
        "import sys, time; from pathlib import Path; from hilum.common.locks import take; "
        "take(Path(sys.argv[1]) / '.lock', 'taken')"
    )
    child = subprocess.run(
        [sys.executable, "-c", open_it, store.folder], capture_output=True, text=True, check=False
    )
    assert "RunError: taken" in child.stderr
    store.close()
    RunStore.open(store.folder, order, resume=True).close()


def test_a_run_is_its_users_alone_whatever_the_umask(make_study, make_order, tmp_path):
    (tmp_path / "run").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        with RunStore.open(tmp_path / "run", make_order(make_study())[1], resume=False) as store:
            store.save(progressed(1), MANIFEST)
            store.write("results.json", {})
    finally:
        os.umask(before)
    for path in [store.folder, *store.folder.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path.name


def test_a_full_disk_is_a_sentence_and_the_state_before_is_whole(store, monkeypatch):
    def full(*_words, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hilum.server.federation.store.write_bytes", full)
    with pytest.raises(RunError, match=r"can't be written \(.*is full\).*--resume"):
        store.save(progressed(4), MANIFEST)
    assert len(store.load(MANIFEST).rounds) == 3


def test_the_resolved_study_is_stored(store, make_study):
    assert parse_study(tomllib.loads((store.folder / "study.resolved.toml").read_text())) == make_study()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 65])
def test_a_runs_name_leads_nowhere_else(name):
    with pytest.raises(RunError, match="a run's name"):
        check_run_name(name)


@pytest.fixture
def exported(make_study, tmp_path):
    study = make_study()
    method = build_method(study)
    write_encoder(
        tmp_path / "encoder", study, federated_manifest(method), get_federated(method), Provenance(2, 3)
    )
    return study, tmp_path / "encoder"


def test_an_exported_encoder_is_read_back_and_its_hash_is_over_its_tensors(exported):
    study, folder = exported
    files = read_encoder(folder, study)
    facts = json.loads((folder / "manifest.json").read_text())
    assert files.sha256 == facts["encoder_sha256"] == sha256_of(files.weights)
    assert {tensor["name"] for tensor in facts["tensors"]} == set(build_method(study).encoder.state_dict())
    assert files.sha256 in (folder / "MODEL_CARD.md").read_text()


def test_an_encoder_that_was_changed_or_made_otherwise_is_refused(exported, make_study, tmp_path):
    study, folder = exported
    with pytest.raises(RunError, match=r"another \[data\]"):
        read_encoder(folder, make_study(data={"image_size": 24}))
    with pytest.raises(RunError, match="no encoder in this folder"):
        read_encoder(tmp_path, study)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DamagedError, match="does not have the SHA-256"):
        read_encoder(folder, study)
