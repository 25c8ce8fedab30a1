"""What the server says of its sites, its locks, and how it takes up a run that was cut off."""

import fcntl
import logging
import os
import stat
import threading
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hilum.common.errors import RunError
from hilum.common.locks import is_held, only_one
from hilum.common.signing import sign_study, verify_study
from hilum.server import app as server_app
from hilum.server.server_log import LOST_AFTER_S, SiteWatch, log_to
from hilum.server.sites import RegisteredSite


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="hilum.server.server_log")

    def new():
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return new


def test_a_site_that_connects_is_lost_comes_back_and_signs_off_is_told_once_each(lines):
    watch = SiteWatch()
    watch.look_at_signs({"a": 1.0, "b": LOST_AFTER_S + 1})
    assert lines() == ["site a connected"]
    watch.look_at_signs({"a": 2.0, "b": 3.0})
    assert lines() == ["site b connected"]
    for silence_s in (LOST_AFTER_S + 1, LOST_AFTER_S + 2):
        watch.look_at_signs({"a": silence_s, "b": 0.1})
    assert lines() == ["site a is lost: no sign of life for 15 s"]
    for _ in range(2):
        watch.look_at_signs({"a": 0.5, "b": 0.1})
    assert lines() == ["site a is back"]
    for _ in range(2):
        watch.look_at_signs({"a": 0.5})
    assert lines() == ["site b signed off"]
    watch.look_at_signs({"a": 0.5, "b": 0.5})
    assert lines() == ["site b is back"]


def test_what_the_admin_changes_in_the_registry_is_told_but_not_what_was_there_before(lines):
    def site(name, status="approved", key="k"):
        return RegisteredSite(name, status, key, 0.0, 0.0, None)

    watch = SiteWatch()
    watch.look_at_registry([site("a")])
    assert lines() == []
    watch.look_at_registry([site("a"), site("b")])
    watch.look_at_registry([site("a", "revoked"), site("b")])
    watch.look_at_registry([site("a", "revoked"), site("b", key="new")])
    assert lines() == [
        "site b is approved (key k)",
        "site a is revoked (key k)",
        "site b is approved (key new)",
    ]


def test_the_log_is_a_file_of_its_owner_with_times_and_without_foreign_chatter(tmp_path, capsys):
    root = logging.getLogger()
    handlers, level, hilum = root.handlers[:], root.level, logging.getLogger("hilum").level
    before = os.umask(0o077)
    try:
        log_to(tmp_path / "server.log")
        logging.getLogger("hilum.server").info("run a is queued")
        logging.getLogger("uvicorn.error").info("chatter")
    finally:
        os.umask(before)
        for handler in root.handlers[:]:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("hilum").setLevel(hilum)
    text = (tmp_path / "server.log").read_text()
    assert text.endswith("Z INFO run a is queued\n")
    assert "chatter" not in text
    assert stat.S_IMODE((tmp_path / "server.log").stat().st_mode) == 0o600


def test_a_lock_is_held_by_one_and_looking_at_it_keeps_nobody_out(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    with only_one(path, "taken"):
        assert is_held(path)
        with pytest.raises(RunError, match="taken"), only_one(path, "taken"):
            pass
    assert not is_held(path)
    handle = os.open(path, os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_SH)  # as `is_held` does, for longer
    threading.Timer(0.1, os.close, [handle]).start()
    with only_one(path, "taken"):
        assert is_held(path)


def test_an_error_inside_the_block_is_not_taken_for_a_lock(tmp_path):
    with pytest.raises(BlockingIOError), only_one(tmp_path / "lock", "taken"):
        raise BlockingIOError
    assert not is_held(tmp_path / "lock")


@pytest.fixture
def order(make_study):
    key = Ed25519PrivateKey.generate()
    sites = ["site-0", "site-1", "site-2"]
    signed = sign_study(make_study(), run="a", sites=sites, days=1, now=time.time(), key=key)
    return verify_study(signed, key.public_key(), now=time.time(), site=None), signed


def test_a_run_begins_goes_on_and_survives_a_kill_before_its_first_file(order, tmp_path, monkeypatch):
    seen = []

    def run_study(grid, work):
        seen.append((grid, work.store.run_id, work.stop, sorted(p.name for p in work.store.folder.iterdir())))
        work.store.write("environment.json", {})

    monkeypatch.setattr(server_app, "run_study", run_study)
    folder, stop = tmp_path / "runs" / "a", threading.Event()
    folder.mkdir(parents=True)
    (folder / ".study.resolved.toml.1.2.partial").write_text("half")
    server_app.conduct_order("grid", *order, folder, stop)
    server_app.conduct_order("grid", *order, folder, stop)
    assert [one[:3] for one in seen] == [("grid", "a", stop)] * 2
    assert seen[0][3] == [".lock", "study.resolved.toml"]
    assert "environment.json" in seen[1][3]


def test_a_study_that_this_machine_can_not_hold_is_refused_and_nothing_is_built(make_study, tmp_path):
    """Its positions alone are 10^9 tuples: the server would be killed for them, and started again for more."""
    key, sites = Ed25519PrivateKey.generate(), ["site-0", "site-1", "site-2"]
    study = make_study(
        data={"modality": "ct", "dims": 3, "image_size": 1024},
        encoder={"name": "vit", "size": "base", "patch_size": 1},
        method={"name": "mae"},
    )
    signed = sign_study(study, run="a", sites=sites, days=1, now=time.time(), key=key)
    order = verify_study(signed, key.public_key(), now=time.time(), site=None)
    with pytest.raises(RunError, match="GB of this server"):
        server_app.conduct_order("grid", order, signed, tmp_path / "a", threading.Event())
    assert not (tmp_path / "a").exists()
