"""`hilum admin`: the papers of a federation and its sites."""

import json
import os
import signal
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from admin_commands import modes, works
from hilum.client.link.identity import read_identity
from hilum.common.config import load_site
from hilum.common.errors import ConfigError
from hilum.server.admin.authority import init_federation
from one_line import fails

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
