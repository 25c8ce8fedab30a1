"""The site file that is written, its reference, and the look at what it names."""

import re
import socket
import ssl

import pytest
from pydantic import BaseModel

from federation_papers import Papers, link_of, server_context
from fleet_server import FleetServer, http
from hilum.client.site_check import check_site
from hilum.common.config import SiteConfig, load_site
from hilum.common.config.named import options_of
from hilum.common.config.site_template import site_template
from hilum.common.errors import ConfigError
from places import ROOT

REFERENCE = ROOT / "docs" / "reference" / "site.md"


def keys(model: type[BaseModel], above: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        sections = options_of(field.annotation)
        found += keys(sections[0], f"{name}.") if sections else [above + name]
    return found


def written(tmp_path, **changes):
    facts = {
        "name": "a",
        "dicom": tmp_path / "dicom",
        "labels": None,
        "state": tmp_path / "h" / "site",
        **changes,
    }
    (tmp_path / "site.toml").write_text(site_template(**facts))
    return tmp_path / "site.toml"


def findings(path):
    return {one.what: one for one in check_site(load_site(path), path)}


def test_the_reference_has_every_key_and_no_other():
    named = re.findall(r"^\| `([a-z_.]+)` \|", REFERENCE.read_text(), flags=re.MULTILINE)
    assert sorted(named) == sorted(keys(SiteConfig))


def test_the_reference_and_the_template_have_the_model_s_defaults(tmp_path):
    made = load_site(written(tmp_path))
    assert made.policy is not None
    table = dict(
        re.findall(
            r"^\| `policy\.([a-z_]+)` \|.*\| `?([^|`]+)`? \|$", REFERENCE.read_text(), flags=re.MULTILINE
        )
    )
    for name, value in type(made.policy)().model_dump().items():
        told = table[name].strip()
        assert told == (
            "all" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)
        )
    assert made.policy == type(made.policy)()


def test_a_path_of_any_letters_is_read_back(tmp_path):
    odd = tmp_path / 'a "b" \\ ü'
    assert load_site(written(tmp_path, dicom=odd, labels=odd / "l.csv")).data.dicom == odd


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [
        ("methods", "sinclr", "simclr"),
        ("methods", "ma", "mae"),
        ("encoders", "resnet50", "resnet"),
        ("sizes", "bas", "base"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_the_nearest(tmp_path, key, value, near):
    path = written(tmp_path)
    path.write_text(path.read_text() + f'{key} = ["{value}"]\n')
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        load_site(path)


def test_a_method_that_resembles_none_is_refused_with_all(tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text() + 'methods = ["moco"]\n')
    with pytest.raises(ConfigError, match="'mae' or 'simclr'"):
        load_site(path)


def test_a_table_that_is_missing_advises_the_site_file(tmp_path):
    (tmp_path / "site.toml").write_text('[site]\nname = "a"\n[data]\ndicom = "x"\n')
    with pytest.raises(ConfigError, match=r"`state` is missing; `hilum site new FILE`"):
        load_site(tmp_path / "site.toml")


def test_what_is_wrong_is_told_thing_by_thing(tmp_path):
    (tmp_path / "labels.csv").write_text("file,patient,finding_label\nx,p,1\n")
    found = findings(written(tmp_path, labels=tmp_path / "labels.csv"))
    assert not found["archive"].fine
    assert "is not a folder" in found["archive"].words
    assert "nothing is indexed in" in found["state"].words
    assert "policy.labels of the site file names; the nearest is `finding_label`" in found["labels"].words
    assert "hilum site join" in found["link"].words
    (tmp_path / "h").write_text("")
    assert "is a file" in findings(tmp_path / "site.toml")["state"].words
    (tmp_path / "dicom").mkdir()
    assert "is empty" in findings(tmp_path / "site.toml")["archive"].words
    assert found["disk"].fine
    assert found["device"].fine


@pytest.mark.parametrize(
    "content",
    [
        b"file;patient;Label \r\nx;p;1\r\n",
        "file|patient|label\nx|p|1\n".encode("utf-16"),
        b"\xef\xbb\xbffile\tPatient\tLABEL\nx\tp\t1\n",
    ],
)
def test_a_table_that_a_training_reads_is_fine(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    assert findings(written(tmp_path, labels=tmp_path / "labels.csv"))["labels"].fine


def test_a_table_that_a_training_refuses_is_told(tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\nx,1\n")
    assert (
        "no column `patient`" in findings(written(tmp_path, labels=tmp_path / "labels.csv"))["labels"].words
    )


def test_a_site_that_is_ready_is_fine_and_a_server_that_is_silent_is_told(run_hilum, archives, tmp_path):
    site = archives / "site-0"
    words = ("--name", "site-0", "--dicom", site / "dicom", "--labels", site / "labels.csv")
    assert run_hilum("site", "new", "s.toml", *words).returncode == 0
    assert "exists already" in run_hilum("site", "new", "s.toml", *words).stderr
    assert run_hilum("site", "index", site / "dicom").returncode == 0
    lines = checked(run_hilum)
    assert all(lines[what].startswith("fine") for what in ("archive", "state", "labels", "device", "disk"))
    assert lines["link"].startswith("MEND")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        assert run_hilum("admin", "dev-keys", "keys", "--sites", 1, "--port", port).returncode == 0
        paper = (tmp_path / "keys" / "site-0" / "link.toml").read_text()
        (tmp_path / "keys" / "site-0" / "s.toml").write_text((tmp_path / "s.toml").read_text() + paper)
        lines = checked(run_hilum, "keys/site-0/s.toml")
        assert lines["link"].startswith("fine")
        assert "connection refused" in lines["server"]
    made = tmp_path / "keys" / "server" / "federation"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made / "root.crt")
    context.load_cert_chain(made / "server.crt", made / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    with FleetServer(None, "site-0", tls=context, port=port) as server:
        done = run_hilum("site", "check", "keys/site-0/s.toml")
        assert done.returncode == 0, done.stdout
        assert server.calls == ["send-node-heartbeat"]


def with_link(tmp_path, papers, port):
    """A site file whose table `link` names a server on this machine."""
    link = link_of(papers, f"localhost:{port}")
    path = written(tmp_path, name="site-a")
    lines = "".join(f'{key} = "{value}"\n' for key, value in link.model_dump().items())
    path.write_text(f"{path.read_text()}\n[link]\n{lines}")
    return path


def test_the_server_is_asked_with_the_site_s_papers_and_its_refusal_is_told(tmp_path):
    papers = Papers(tmp_path / "federation")
    with FleetServer(papers) as server:
        path = with_link(tmp_path, papers, server.port)
        told = findings(path)["server"]
        assert told.fine, told.words
        assert told.words == f"localhost:{server.port} answers and admits site-a"
        assert server.calls == ["send-node-heartbeat"]  # a site that runs is neither signed on again nor off
        server.script["send-node-heartbeat"] = lambda *_: http(401, b"unknown_certificate", "text/plain")
        told = findings(path)["server"]
    assert not told.fine
    assert "does not admit this site's certificate (401)" in told.words


def test_another_program_on_the_server_s_port_is_told(tmp_path):
    papers = Papers(tmp_path / "federation")
    with FleetServer(papers) as server:
        server.script["send-node-heartbeat"] = lambda *_: http(404)
        told = findings(with_link(tmp_path, papers, server.port))["server"]
    assert not told.fine
    assert "is not a Hilum server" in told.words
    with FleetServer(papers, tls=server_context(Papers(tmp_path / "other"))) as server:
        told = findings(with_link(tmp_path, papers, server.port))["server"]
    assert not told.fine
    assert "not of this federation" in told.words


def test_a_server_with_another_time_is_told(tmp_path):
    papers = Papers(tmp_path / "federation")
    with FleetServer(papers, clock_s=-3600) as server:
        told = findings(with_link(tmp_path, papers, server.port))["server"]
    assert not told.fine
    assert "60 minutes ahead of" in told.words


def test_the_index_command_names_the_state_folder_that_was_given(run_hilum):
    assert "`hilum site index dicom`;" in run_hilum("site", "new", "a.toml").stdout
    assert "`hilum site index dicom --home h`;" in run_hilum("site", "new", "b.toml", "--home", "h").stdout


def checked(run_hilum, path="s.toml"):
    done = run_hilum("site", "check", path)
    assert done.returncode == 3, done.stderr
    return {line.split()[1]: line for line in done.stdout.splitlines()}
