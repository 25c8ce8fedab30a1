"""The admin's and the site's papers through the real command line, on a fresh state folder each."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hilum.client.link.identity import read_identity
from hilum.common.config import load_site
from hilum.common.errors import ConfigError
from hilum.common.security.certificates import make_server_certificate, pem_of
from hilum.common.security.keys import new_key, read_site_key
from hilum.server.admin.authority import FederationFolder, init_federation, make_trial
from hilum.server.admin.client import AdminClient
from hilum.server.serve import default_host

HILUM = str(Path(sys.executable).parent / "hilum")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, patience_s=60.0):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.05)


def fails(done, *expected):
    """One line that starts with `error: ` and holds what was expected."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode not in (0, 70), done.stderr
    assert "Traceback" not in done.stderr
    assert len(errors) == 1, done.stderr
    assert done.stdout == ""
    for text in expected:
        assert text in errors[0]


def works(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def modes(folder):
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


@pytest.fixture
def home(tmp_path):
    return tmp_path / "hilum-home"


# Papers.


def test_the_way_of_the_papers_as_the_pages_tell_it(run_hilum, tmp_path, home):
    made = json.loads(
        works(run_hilum("admin", "init", "--host", "federation.example", "--host", "10.0.0.7", "--json"))
    )
    assert made["server"] == "federation.example:9443"
    assert set(modes(home).values()) == {0o600, 0o700}
    fails(run_hilum("admin", "init"), "there is one already")

    papers = tmp_path / "papers"
    enrolled = json.loads(
        works(run_hilum("site", "enroll", "--name", "st-elsewhere", "--out", papers, "--json"))
    )
    assert stat.S_IMODE((papers / "site.key").stat().st_mode) == 0o600
    approved = json.loads(works(run_hilum("admin", "approve", papers / "site.csr", "--json")))
    assert approved["fingerprint"] == enrolled["fingerprint"]
    assert approved["days"] == 90

    (tmp_path / "site.toml").write_text('# ours\n[site]\nname = "st-elsewhere"\n')
    words = ("site", "join", "st-elsewhere.link.toml", "--out", papers, "--site", "site.toml", "--json")
    joined = json.loads(works(run_hilum(*words)))
    assert joined["fingerprints"] == approved["fingerprints"] == made["fingerprints"]
    table = tomllib.loads((tmp_path / "site.toml").read_text())["link"]
    assert table["server"] == "federation.example:9443"
    assert table["key"] == "papers/site.key"
    assert (tmp_path / "site.toml").read_text().startswith("# ours\n")

    (listed,) = json.loads(works(run_hilum("admin", "sites", "--json")))
    assert (listed["name"], listed["status"], listed["seen_s_ago"]) == ("st-elsewhere", "approved", None)
    assert "not yet seen" in works(run_hilum("admin", "sites"))
    works(run_hilum("admin", "revoke", "st-elsewhere"))
    assert "revoked" in works(run_hilum("admin", "sites"))
    fails(run_hilum("admin", "approve", papers / "site.csr"), "with a key that was revoked")


def test_a_federation_at_an_ipv6_address(run_hilum, tmp_path, home):
    federation = init_federation(home, ["::1"], 9443)
    assert federation.address().server == "[::1]:9443"
    works(run_hilum("site", "enroll", "--name", "one"))
    works(run_hilum("admin", "approve", "site.csr"))
    (tmp_path / "site.toml").write_text('[site]\nname = "one"\n[data]\ndicom = "x"\n[state]\nfolder = "s"\n')
    works(run_hilum("site", "join", "one.link.toml", "--site", "site.toml"))
    identity = read_identity(load_site(tmp_path / "site.toml").link, "one")
    assert (identity.host, identity.port, identity.where) == ("::1", 9443, "[::1]:9443")


def test_each_wrong_paper_has_its_own_sentence(run_hilum, tmp_path, home):
    init_federation(home, ["127.0.0.1"], 9443)
    works(run_hilum("site", "enroll", "--name", "one", "--out", "one"))
    works(run_hilum("admin", "approve", "one/site.csr"))
    fails(run_hilum("admin", "approve", "one/site.csr", "--name", "two"), "asks with the key of one")
    fails(run_hilum("admin", "approve", "one/site.csr", "--name", "a/b"), "the name 'a/b' is not one")
    fails(run_hilum("admin", "approve", "one/site.key"), "is a private key, which must not leave its site")
    fails(run_hilum("admin", "approve", "one.link.toml"), "is a certificate, not a request")
    fails(run_hilum("admin", "approve", "nowhere.csr"), "there is no such file")
    works(run_hilum("site", "enroll", "--name", "one", "--out", "other"))
    fails(run_hilum("admin", "approve", "other/site.csr"), "has another key", "--replace")
    fails(
        run_hilum("site", "join", "one.link.toml", "--out", "other"),
        "is for another key",
        "for the site one; if that is this one",
    )
    fails(run_hilum("site", "join", "one/site.csr", "--out", "one"), "holds no table [link]")
    fails(run_hilum("site", "enroll", "--name", "no spaces please"), "is not one")
    fails(run_hilum("site", "enroll", "--name", "königin"), r"the name 'k\xf6nigin' is not one")
    fails(run_hilum("admin", "revoke", "onne"), "did you mean one?")
    fails(
        run_hilum("admin", "init", "--home", "new", "--host", "https://x"),
        "neither a host name nor an address",
    )
    fails(run_hilum("admin", "sites", "--home", "new"), "hilum admin init")
    assert not (tmp_path / "new").exists()
    ed25519 = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "site.key").write_bytes(ed25519)
    (tmp_path / "old" / "site.key").chmod(0o600)
    fails(
        run_hilum("site", "enroll", "--name", "old", "--out", "old"),
        "holds an Ed25519 key; expected an elliptic-curve key on P-384",
    )


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="needs Linux")
def test_a_folder_that_can_not_be_written_is_told_and_nobody_is_approved(run_hilum, tmp_path, home):
    init_federation(home, ["127.0.0.1"], 9443)
    works(run_hilum("site", "enroll", "--name", "one", "--out", "one"))
    fails(run_hilum("site", "enroll", "--name", "one", "--out", "/proc/none"), "can't be written")
    fails(run_hilum("admin", "init", "--home", "/proc/none"), "can't be written")
    fails(run_hilum("admin", "approve", "one/site.csr", "--out", "/proc/none/x"), "can't be written")
    assert json.loads(works(run_hilum("admin", "sites", "--json"))) == []


def test_keys_for_a_trial_are_private_and_complete(run_hilum, tmp_path):
    works(run_hilum("admin", "dev-keys", "trial", "--sites", 2, "--port", 9777))
    assert set(modes(tmp_path / "trial").values()) == {0o600, 0o700}
    for index in range(2):
        papers = tmp_path / "trial" / f"site-{index}"
        link = tomllib.loads((papers / "link.toml").read_text())["link"]
        assert link["server"] == "127.0.0.1:9777"
        assert all((papers / link[name]).is_file() for name in ("root_certificate", "certificate", "key"))
    assert str(tmp_path) not in (tmp_path / "trial" / "site-0" / "site-0.link.toml").read_text()
    fails(run_hilum("admin", "dev-keys", "trial"), "is not empty")


def test_init_makes_a_federation_whole_or_not_at_all(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from hilum.server.admin import authority
authority.write_paper = lambda *_words: os.kill(os.getpid(), signal.SIGKILL)
authority.init_federation(Path({str(tmp_path)!r}) / "home", ["127.0.0.1"], 9443)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "home" / "federation").exists()
    init_federation(tmp_path / "home", ["127.0.0.1"], 9443)


def test_a_renewed_certificate_keeps_key_and_names_and_takes_more(tmp_path, run_hilum, home):
    folder = init_federation(home, ["127.0.0.1"], 9443)
    before = (folder.path / "server.key").read_bytes(), (folder.path / "server.crt").read_bytes()
    works(run_hilum("admin", "renew"))
    folder.check_server(["127.0.0.1"])
    with pytest.raises(ConfigError, match=r"not for federation\.example"):
        folder.check_server(["federation.example"])
    works(run_hilum("admin", "renew", "--host", "federation.example", "--port", 443))
    folder.check_server(["federation.example"])
    assert folder.address().server == "federation.example:443"
    assert (folder.path / "server.key").read_bytes() == before[0]
    assert (folder.path / "server.crt").read_bytes() != before[1]


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
