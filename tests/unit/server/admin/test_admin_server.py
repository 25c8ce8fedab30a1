"""`hilum admin`: what is submitted, and the server that works on it."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509

from admin_commands import HILUM, free_port, modes, until, works
from hilum.common.security.certificates import make_server_certificate, pem_of
from hilum.common.security.keys import new_key, read_site_key
from hilum.server.admin.authority import FederationFolder, make_trial
from hilum.server.admin.client import AdminClient
from hilum.server.serve import default_host
from one_line import fails

# Studies.


def test_what_is_wrong_with_a_submission_is_told_before_any_server_is_asked(
    run_hilum, tmp_path, home, study_file
):
    make_trial(tmp_path / "trial", 2, ["127.0.0.1"], 9443)
    at = ("--home", tmp_path / "trial" / "server")
    study, key = (
        study_file(federation={"sites": 2}),
        tmp_path / "trial" / "server" / "federation" / "study.key",
    )
    three = study_file("three.toml", federation={"sites": 3})
    fails(
        run_hilum("admin", "submit", three, *at),
        "federation.sites = 3, and 2 sites are approved (site-0, site-1); approve more sites with `hilum admin approve`, or set "
        "federation.sites to 2",
    )
    fails(run_hilum("admin", "submit", study, *at, "--sites", "site-0,site-7"), "did you mean")
    fails(run_hilum("admin", "submit", study, *at, "--sites", "site-0"), "federation.sites = 2")
    fails(run_hilum("admin", "submit", study, *at, "--run", "../x"), "a run's name")
    fails(run_hilum("admin", "submit", study, *at, "--days", 0), "more than 0 and at most 366 days")
    fails(run_hilum("admin", "submit", study, *at, "--key", "none"), "there is no such file")
    site_key = tmp_path / "trial" / "site-0" / "site.key"
    fails(run_hilum("admin", "submit", study, *at, "--key", site_key), "expected an Ed25519 key")
    (tmp_path / "no.json").write_text("[]")
    fails(run_hilum("admin", "submit", "no.json", *at), "is not a signed study")
    works(run_hilum("admin", "sign", study, "--sites", "site-0,site-1", "--key", key, "--out", "signed.json"))
    fails(run_hilum("admin", "submit", "signed.json", *at, "--run", "b"), "is signed already")
    key.rename(tmp_path / "study.key")
    fails(run_hilum("admin", "submit", study, *at), "not in the federation's folder", "hilum admin sign")
    fails(run_hilum("admin", "submit", "signed.json", *at), "no server runs", "hilum admin serve")
    fails(run_hilum("admin", "stop", "study", *at), "no server runs")
    fails(run_hilum("admin", "fetch", "none", "--out", "x", *at), "hilum admin runs")
    assert "no run yet" in works(run_hilum("admin", "runs", *at))


# The server.


class Serving:
    """`hilum admin serve` in a process of its own."""

    def __init__(self, home, *words, **environment):
        self.home, self.words, self.environment = home, words, environment
        self.log = home / "federation" / "server.log"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [HILUM, "admin", "serve", "--home", str(self.home), *map(str, self.words)],
            env={**os.environ, **self.environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_up(self, times=1):
        until(lambda: self.log.exists() and self.log.read_text().count(" serving on ") >= times)

    @property
    def client(self):
        return AdminClient(self.home / "federation" / "admin.sock")

    def server_pid(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.process.stderr.close()


@pytest.fixture
def trial(tmp_path):
    make_trial(tmp_path / "trial", 2, ["127.0.0.1"], free_port())
    return tmp_path / "trial"


@pytest.fixture
def serve(trial):
    started = []

    def run(*words, **environment):
        started.append(Serving(trial / "server", *words, **environment))
        return started[-1]

    yield run
    for one in started:
        if one.process.poll() is None:
            one.stop()


def test_a_server_tells_what_happens_and_keeps_everything_to_its_owner(run_hilum, serve, trial, study_file):
    served = serve()
    served.wait_until_up()
    assert set(modes(trial / "server").values()) <= {0o600, 0o700}
    at = ("--home", trial / "server")
    fails(run_hilum("admin", "serve", *at), "a server runs on this state folder already")
    study = study_file(federation={"sites": 2, "rounds": 2})
    works(run_hilum("admin", "submit", study, *at))
    works(run_hilum("admin", "submit", study, *at, "--run", "second"))
    fails(run_hilum("admin", "submit", study, *at), "a run tiny already")
    until(lambda: served.client.runs()[0]["state"] == "running")
    assert "queued" in works(run_hilum("admin", "runs", *at))
    began = time.monotonic()
    assert "is stopped" in works(run_hilum("admin", "stop", "tiny", *at))
    assert time.monotonic() - began < 12  # of which torch's first import may take most
    works(run_hilum("admin", "stop", "second", *at))
    works(run_hilum("admin", "revoke", "site-1", *at))
    works(run_hilum("site", "enroll", "--name", "late", "--out", "late"))
    works(run_hilum("admin", "approve", "late/site.csr", *at))
    works(run_hilum("admin", "renew", *at))
    until(lambda: "site late is approved" in served.log.read_text())
    log = served.log.read_text()
    for line in (
        "run tiny is queued for site-0, site-1",
        "run tiny starts: 0 of 2 rounds are done",
        "run tiny is to stop; it was running",
        "site site-1 is revoked",
        "the server's certificate was renewed",
    ):
        assert line in log
    served.stop()
    assert served.process.returncode == 0
    assert "ended" in served.log.read_text().splitlines()[-1]
    assert not (trial / "server" / "federation" / "admin.sock").exists()
    assert set(modes(trial / "server").values()) <= {0o600, 0o700}


def test_a_killed_server_comes_back_and_its_runs_go_on_by_themselves(run_hilum, serve, trial, study_file):
    served = serve()
    served.wait_until_up()
    at, study = ("--home", trial / "server"), study_file(federation={"sites": 2})
    for run in ("a", "b", "c"):
        works(run_hilum("admin", "submit", study, *at, "--run", run))
    served.client.stop("b")
    until(lambda: "run a starts" in served.log.read_text())
    os.kill(served.server_pid(), signal.SIGKILL)
    served.wait_until_up(times=2)
    until(lambda: served.log.read_text().count("run a starts") == 2)
    assert {run["run"]: run["state"] for run in served.client.runs()} == {
        "a": "running",
        "b": "stopped",
        "c": "queued",
    }
    for entry in (served.server_pid(), served.process.pid):
        os.kill(entry, signal.SIGKILL)
    served.process.wait()
    served.process.stderr.close()
    assert "running" in works(run_hilum("admin", "runs", *at))  # as it stands in the queue, without a server
    served.start()
    served.wait_until_up(times=3)
    until(lambda: served.log.read_text().count("run a starts") == 3)


def test_a_hung_server_is_started_again(serve, trial, monkeypatch):
    from hilum.common.supervise import Stamp

    served = serve()
    served.wait_until_up()
    stamp = Stamp(trial / "server" / "federation" / "server.stamp")
    until(lambda: stamp.age_s() is not None and stamp.age_s() < 2)
    os.kill(served.server_pid(), signal.SIGSTOP)
    until(
        lambda: stamp.age_s() > 4
    )  # nobody but the event loop stamps; the supervisor's patience is its own test's
    os.kill(served.server_pid(), signal.SIGCONT)
    until(lambda: stamp.age_s() < 2)


def test_a_submission_that_is_killed_is_there_whole_or_not_at_all(run_hilum, serve, trial, study_file):
    served = serve()
    served.wait_until_up()
    study = study_file(federation={"sites": 2})
    for number in range(4):
        words = ["admin", "submit", study, "--home", trial / "server", "--run", f"run-{number}"]
        process = subprocess.Popen(
            [HILUM, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(0.4 + 0.25 * number)
        process.kill()
        process.wait()
    names = [run["run"] for run in served.client.runs()]
    assert len(names) == len(set(names))
    assert set(names) <= {f"run-{number}" for number in range(4)}
    works(run_hilum("admin", "submit", study, "--home", trial / "server", "--run", "after"))


def test_no_proxy_variable_comes_between_the_server_and_its_admin(run_hilum, serve, trial, monkeypatch):
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    served = serve(**proxies)
    served.wait_until_up()
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    assert "not yet seen" in works(run_hilum("admin", "sites", "--home", trial / "server"))


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:db8::7", "::"),
        ("federation.example", "0.0.0.0"),
    ],
)
def test_a_server_listens_where_its_sites_look_for_it(told, address):
    assert default_host(told) == address


def test_what_keeps_a_server_from_starting_is_one_sentence(run_hilum, trial, tmp_path):
    home, at = trial / "server", ("--home", trial / "server")
    folder = FederationFolder(home)
    fails(run_hilum("admin", "serve", "--home", tmp_path / "none"), "hilum admin init")
    fails(run_hilum("admin", "serve", *at, "--host", "no-such-host.invalid"), "hilum admin renew --host")
    fails(run_hilum("admin", "serve", *at, "--host", "127.0.0.2"), "not for 127.0.0.2")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        fails(run_hilum("admin", "serve", *at, "--port", port), f"{port} is in use by another program")
    works(
        run_hilum("admin", "renew", *at, "--host", "127.0.0.1", "--host", "192.0.2.1", "--host", "x.invalid")
    )
    fails(
        run_hilum("admin", "serve", *at, "--host", "192.0.2.1"), "192.0.2.1 is not an address of this machine"
    )
    fails(run_hilum("admin", "serve", *at, "--host", "x.invalid"), "'x.invalid' is not known")
    root, root_key = folder.root(), read_site_key(home / "federation" / "root.key")
    server_key = read_site_key(home / "federation" / "server.key")
    certificate = home / "federation" / "server.crt"
    good = certificate.read_bytes()
    expired = make_server_certificate(server_key.public_key(), ["127.0.0.1"], root, root_key, days=-0)
    assert isinstance(expired, x509.Certificate)
    certificate.write_bytes(pem_of(expired))
    time.sleep(1.1)
    fails(run_hilum("admin", "serve", *at), "server.crt: expired on", "hilum admin renew")
    certificate.write_bytes(
        pem_of(make_server_certificate(new_key().public_key(), ["127.0.0.1"], root, root_key))
    )
    fails(run_hilum("admin", "serve", *at), "is for another key")
    certificate.write_bytes(b"nothing")
    fails(run_hilum("admin", "serve", *at), "server.crt: is not a certificate in PEM form")
    certificate.unlink()
    fails(run_hilum("admin", "serve", *at), "server.crt: there is no such file", "hilum admin renew")
    certificate.write_bytes(good)
    (home / "federation" / "server.key").chmod(0o644)
    fails(
        run_hilum("admin", "serve", *at), "server.key: other users of this machine may read this private key"
    )
