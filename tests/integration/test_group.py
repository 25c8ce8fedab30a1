"""Processes that torchrun starts on several machines give the update that two processes of one machine give."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilum.client.pretraining import group
from hilum.client.pretraining.group import Group
from hilum.client.pretraining.site import site_round
from hilum.common.errors import RequestRefused
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from mapped_images import mapped_data

SITE = """
[site]
name = "site-0"
[state]
folder = "{state}"
[data]
dicom = "{state}"
[compute]
device = "cpu"
nodes = 2
"""


@pytest.fixture
def data(tmp_path):
    return mapped_data(tmp_path)


@pytest.fixture
def machines(tmp_path):
    """Two torchruns of one process each, as two machines would have them; their folder."""
    site = tmp_path / "site.toml"
    site.write_text(SITE.format(state=tmp_path / "state"))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--max-restarts", "50", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    command += ["--local-addr", "127.0.0.1", "-m", "hilum.client.pretraining.group_process", str(site)]
    with (tmp_path / "torchrun.log").open("w") as log:
        running = [
            subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) for _ in range(2)
        ]
        yield Group(tmp_path / "state" / "group", machines=2)
        for one in running:
            os.killpg(one.pid, signal.SIGKILL)
            one.wait()
        # What they had started, in sessions of its own, is gone with them.
        until = time.monotonic() + 30
        while left_over(site) and time.monotonic() < until:
            time.sleep(0.2)
        assert not left_over(site)


def left_over(site):
    """Return the processes whose command line names a site file."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            line = path.read_bytes()
            found += [line] if str(site).encode() in line else []
    return found


class StopAfter:
    def __init__(self):
        self.seen = []

    def advance(self, done, note=""):
        self.seen.append(done)
        raise KeyboardInterrupt


@pytest.fixture
def patient(monkeypatch):
    """Four processes that import torch beside a test suite take their time."""
    monkeypatch.setattr(group, "_PATIENCE_S", 300.0)


def test_two_machines_give_the_update_of_two_processes(make_study, data, machines, tmp_path, patient):
    study = make_study(training={"batch_size": 7, "accumulate": 2, "local_epochs": 2})
    base = get_federated(build_method(study))
    expected = site_round(data, study, base, 1, tmp_path / "here", device="cpu", devices=2)
    sent = site_round(data, study, base, 1, tmp_path / "there", device="cpu", group=machines)
    assert np.abs(sent.update).max() > 0
    assert sent.update.tobytes() == expected.update.tobytes(), "as many processes, the same sums"
    assert sent.outcome.steps == expected.outcome.steps
    again = site_round(data, study, base, 1, tmp_path / "again", device="cpu", group=machines)
    assert again.update.tobytes() == expected.update.tobytes(), "they wait for the next round"
    with pytest.raises(
        RequestRefused, match=r"compute\.nodes = 3, and the processes that wait are on 2: write that"
    ):
        site_round(data, study, base, 1, tmp_path / "more", device="cpu", group=replace(machines, machines=3))
    assert [path.name for path in machines.folder.iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_a_stopped_round_costs_the_processes_and_torchrun_starts_them_again(
    make_study, data, machines, tmp_path, patient
):
    study = make_study(training={"batch_size": 7, "local_epochs": 2})
    base = get_federated(build_method(study))
    expected = site_round(data, study, base, 1, tmp_path / "here", device="cpu", devices=2)
    long = make_study(training={"batch_size": 7, "local_epochs": 3000})
    stop = StopAfter()
    with pytest.raises(KeyboardInterrupt):
        site_round(data, long, base, 1, tmp_path / "stopped", device="cpu", group=machines, progress=stop)
    assert stop.seen
    until = time.monotonic() + 600
    while True:
        try:
            again = site_round(data, study, base, 1, tmp_path / "again", device="cpu", group=machines)
            break
        except RequestRefused:
            assert time.monotonic() < until
    assert again.update.tobytes() == expected.update.tobytes()


def test_where_no_group_waits_it_is_said_what_to_start(make_study, data, tmp_path, monkeypatch):
    monkeypatch.setattr(group, "_PATIENCE_S", 0.0)
    study = make_study()
    with pytest.raises(
        RequestRefused, match=r"start `torchrun \.\.\. -m hilum\.client\.pretraining\.group_process"
    ):
        site_round(
            data,
            study,
            get_federated(build_method(study)),
            1,
            tmp_path,
            device="cpu",
            group=Group(tmp_path / "group", machines=2),
        )
