"""A Ray cluster that runs already: the same encoder, its nodes used, and a clear end where there is none."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hilum.common.errors import ConfigError
from hilum.common.processes import free_port
from hilum.simulations.ray_cluster import Node, check_answers, cluster_address

ray_engine = pytest.importorskip("hilum.simulations.ray_engine", reason="needs the simulation extra")
pytest.importorskip("ray", reason="needs the simulation extra")
HILUM = [sys.executable, "-c", "from hilum.common.cli import main; main()"]


@pytest.fixture
def cluster():
    """Two nodes on loopback, one core each; gives the head's address."""
    ray = Path(sys.executable).parent / "ray"
    port, nodes = free_port(), []
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    common = ["--num-cpus", "1", "--node-ip-address", "127.0.0.1", "--disable-usage-stats", "--block"]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        head = ["--head", "--port", str(port), "--include-dashboard=false", "--temp-dir", folder]
        head += [
            "--ray-client-server-port",
            str(free_port()),
            "--min-worker-port",
            "0",
            "--max-worker-port",
            "0",
        ]
        second = ["--address", f"127.0.0.1:{port}", "--min-worker-port", "0", "--max-worker-port", "0"]
        try:
            for words in (head, second):
                nodes.append(
                    subprocess.Popen(
                        [str(ray), "start", *words, *common],
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        env=environment,
                    )
                )
                wait_for(port)
            yield f"127.0.0.1:{port}"
        finally:
            for node in reversed(nodes):
                node.send_signal(signal.SIGTERM)
                node.wait(60)


def wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError


def simulate(study, archives, out, home, *words):
    command = ["simulate", study, "--archives", archives, "--out", out, "--home", home, "--json", *words]
    return subprocess.run(
        [*HILUM, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )


def wait_for_nodes(address: str, count: int) -> None:
    """The second node needs a moment to register."""
    code = (
        "import ray, sys, time\n"
        f"ray.init(address={address!r}, log_to_driver=False, logging_level='error')\n"
        f"sys.exit(next((0 for _ in range(300) if len(ray.nodes()) >= {count} or time.sleep(0.2)), 1))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_two_nodes_give_the_same_encoder_and_both_work(cluster, archives, study_file, tmp_path):
    wait_for_nodes(cluster, 2)
    study = study_file()
    alone = simulate(study, archives, tmp_path / "process", tmp_path / "home")
    assert alone.returncode == 0, alone.stderr
    joined = simulate(
        study, archives, tmp_path / "ray", tmp_path / "home", "--backend", "ray", "--ray-address", cluster
    )
    assert joined.returncode == 0, joined.stderr
    sha256 = [
        json.loads((tmp_path / name / "encoder" / "manifest.json").read_text())["encoder_sha256"]
        for name in ("process", "ray")
    ]
    assert sha256[0] == sha256[1]
    assert json.loads(joined.stdout)["simulation"]["ray_nodes"] == 2
    large = study_file("large.toml", training={"threads": 4})
    refused = simulate(
        large, archives, tmp_path / "l", tmp_path / "home", "--backend", "ray", "--ray-address", cluster
    )
    assert refused.returncode == 4
    assert "a site takes 4 CPU cores (training.threads)" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_no_cluster_at_an_address_is_told_before_anything_is_indexed(archives, study_file, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    done = simulate(
        study_file(),
        archives,
        tmp_path / "run",
        tmp_path / "home",
        "--backend",
        "ray",
        "--ray-address",
        address,
    )
    assert done.returncode == 4
    assert f"no Ray cluster answers at {address}" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "home").exists()
    done = simulate(study_file(), archives, tmp_path / "run", tmp_path / "home", "--ray-address", address)
    assert "--ray-address goes with --backend ray" in done.stderr


@pytest.mark.parametrize(
    "text", ["ray://127.0.0.1:1", "127.0.0.1", ":6379", "host:port", "host:0", "host:70000"]
)
def test_what_is_no_address_is_refused(text, monkeypatch):
    with pytest.raises(ConfigError, match=r"--ray-address: expected HOST:PORT"):
        cluster_address(text)
    monkeypatch.setenv("RAY_ADDRESS", text)
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS: expected HOST:PORT"):
        check_answers(None)


def test_the_environment_names_a_cluster_unless_it_says_local(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_address(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster_address(None) == "10.0.0.1:6379"
    assert cluster_address("[::1]:6379") == "[::1]:6379"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            (
                "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\nThis process on node was "
                "started with:\n    Ray: 2.55.1\n    Python: 3.11.7\n"
            ),
            "there Ray: 2.9.0, Python: 3.10.1; here Ray: 2.55.1, Python: 3.11.7",
        ),
        ("No node info found matching attributes", "this machine is not a node of the Ray cluster"),
        ("anything", "is not the head of a Ray cluster"),
    ],
)
def test_why_a_cluster_can_not_be_joined_is_one_sentence(words, told):
    from hilum.simulations.ray_cluster import _why_not

    assert told in _why_not("h:1", words)


def test_sites_are_dealt_to_nodes_by_their_cores_and_share_gpus():
    small, large = Node("s", "10.0.0.1", 1, 0), Node("l", "10.0.0.2", 3, 0)
    dealt = [place for place, _ in ray_engine.deal_sites(4, (small, large), 1)]
    assert dealt == ["s", "l", "l", "l"]
    assert [place for place, _ in ray_engine.deal_sites(2, (small, large), 1)] == ["s", "l"]
    gpus = Node("g", "10.0.0.3", 8, 2)
    assert ray_engine.deal_sites(4, (small, gpus), 1) == [("g", 0.5)] * 4
