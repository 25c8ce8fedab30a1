"""`hilum site start` as people run it: what it checks first, what it starts, and what is left when it is stopped."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from federation_papers import Papers, server_context
from fleet_server import FleetServer
from hilum.client.state.catalogue import Catalogue, Item
from hilum.common.supervise import FINAL

HILUM = str(Path(sys.executable).parent / "hilum")


class Site:
    """A site file, its papers and an indexed state folder."""

    def __init__(self, folder: Path, papers: Papers, server: str, name="site-a") -> None:
        self.folder, self.state = folder, folder / "home" / "site"
        self.environment: dict[str, str] = {}
        cert, key = papers.site("site-a")
        self.state.mkdir(parents=True, exist_ok=True)
        self.file = folder / "site.toml"
        self.file.write_text(
            f'[site]\nname = "{name}"\n[data]\ndicom = "archive"\n[state]\nfolder = "home/site"\n'
            f'[link]\nserver = "{server}"\nroot_certificate = "{papers.root_path}"\ncertificate = "{cert}"\n'
            f'key = "{key}"\nstudy_key = "ed25519:{"A" * 43}="\n'
        )

    def index(self) -> "Site":
        """As if one image were indexed."""
        catalogue = Catalogue(self.state / "catalogue.sqlite")
        text = dict.fromkeys(
            ("item_key", "content_sha256", "sop_key", "series_key", "study_key", "patient_key"), "a"
        )
        item = Item(
            kind="image",
            family="radiograph",
            units="relative",
            shape=(8, 8),
            spacing_mm=(),
            affine=(),
            **text,
        )
        catalogue.record([], [item])
        catalogue.close()
        return self

    def start(self) -> subprocess.Popen:
        self.log = self.folder / "log"
        environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
        environment["HILUM_HOME"] = str(self.folder / "home")
        environment.update(self.environment)
        with self.log.open("a") as log:
            return subprocess.Popen(
                [HILUM, "site", "start", "site.toml"],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
            )

    def processes(self) -> dict[int, str]:
        """All processes of this site, by what they are."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = os.fsdecode((entry / "cmdline").read_bytes()).split("\0")
                here = (entry / "cwd").readlink() == self.folder
            except OSError:
                continue
            if here:
                module = words[words.index("-m") + 1] if "-m" in words else "supervisor"
                found[int(entry.name)] = module.rsplit(".", 1)[-1]
        return found


@pytest.fixture
def papers(tmp_path):
    return Papers(tmp_path / "federation")


@pytest.fixture
def server(papers):
    with FleetServer(papers) as made:
        yield made


@pytest.fixture
def site(tmp_path, papers, server):
    made = Site(tmp_path, papers, f"localhost:{server.port}")
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def ended(site, patience_s=30) -> tuple[int, str]:
    code = site.start().wait(patience_s)
    return code, site.log.read_text()


def wait_until(condition, patience_s=30.0):
    until = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until, "gave up waiting"
        time.sleep(0.05)


# What it checks first.


def test_nothing_is_indexed(site):
    code, said = ended(site)
    assert code == 3
    assert f"nothing is indexed in {site.state}" in said
    assert f"hilum site index {site.folder}/archive --home {site.folder}/home" in said


def test_a_catalogue_without_images_is_nothing_indexed(site):
    Catalogue(site.state / "catalogue.sqlite").close()
    code, said = ended(site)
    assert code == 3
    assert "nothing is indexed" in said


def test_a_state_folder_that_no_index_writes_to(site):
    site.file.write_text(site.file.read_text().replace("home/site", "state"))
    code, said = ended(site)
    assert code == 3
    assert "writes to HOME/site" in said


def test_a_proxy_variable_that_names_no_proxy(tmp_path, papers):
    site = Site(tmp_path, papers, "federation.example:9443").index()
    site.environment["HTTPS_PROXY"] = "ftp://proxy"
    code, said = ended(site)
    assert code == 2
    assert "HTTPS_PROXY: expected http://HOST:PORT" in said
    assert said.count("\n") == 1


def test_a_label_table_that_is_not_there(site):
    site.index()
    site.file.write_text(site.file.read_text().replace("[data]", '[data]\nlabels = "nowhere.csv"'))
    code, said = ended(site)
    assert code == 3
    assert "the label table that `data.labels` names does not exist" in said
    assert "nowhere.csv" not in said


def test_a_site_file_of_another_name_than_the_certificate(tmp_path, papers, server):
    code, said = ended(Site(tmp_path, papers, f"localhost:{server.port}", name="site-b").index())
    assert code == 2
    assert "is for 'site-a', and the site file says `site.name = 'site-b'`" in said


def test_a_key_that_others_may_read(site):
    site.index()
    key = Path(re.search('key = "(.*key)"', site.file.read_text())[1])
    key.chmod(0o640)
    code, said = ended(site)
    assert code == 2
    assert "chmod 600" in said


# While it runs.


@pytest.fixture
def running(site, server):
    site.index()
    supervisor = site.start()
    wait_until(lambda: "trainer_process" in site.processes().values())
    wait_until(lambda: "connected to" in site.log.read_text())
    yield supervisor
    supervisor.kill()
    supervisor.wait()


def pid_of(site, kind) -> int:
    return next(pid for pid, name in site.processes().items() if name == kind)


def test_a_site_that_takes_part_is_one_supervisor_one_loop_and_one_trainer(site, running, server):
    assert sorted(site.processes().values()) == ["link", "supervisor", "trainer_process"]
    loop, trainer = pid_of(site, "link"), pid_of(site, "trainer_process")
    wait_until(lambda: "torch" in Path(f"/proc/{trainer}/maps").read_text())
    assert "torch" not in Path(f"/proc/{loop}/maps").read_text()
    assert "torch" not in Path(f"/proc/{running.pid}/maps").read_text()
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d connected to localhost:{server.port} as site-a\n",
        site.log.read_text(),
    )
    link = site.state / "link"
    assert {path.name: path.stat().st_mode & 0o077 for path in link.iterdir()} == dict.fromkeys(
        ["stamp", "lock", "acknowledged.json"], 0
    )
    assert link.stat().st_mode & 0o077 == 0


def test_a_second_start_says_that_there_is_one(site, running):
    log = site.log.read_text()
    code, said = ended(site)
    assert code == 4
    assert "takes part already" in said.removeprefix(log)


def test_a_stop_leaves_no_process_and_tells_the_server(site, running, server):
    began = time.monotonic()
    running.terminate()
    assert running.wait(10) == 0
    assert time.monotonic() - began < 10
    wait_until(lambda: not site.processes(), 2)
    assert server.calls[-1] == "deactivate-node"
    assert "Traceback" not in site.log.read_text()


def test_a_killed_supervisor_leaves_no_process_and_no_lock(site, running):
    running.kill()
    running.wait()
    wait_until(lambda: not site.processes(), 10)
    again = site.start()
    wait_until(lambda: site.log.read_text().count("connected to") == 2)
    again.terminate()
    assert again.wait(10) == 0


def test_a_killed_loop_is_started_again_and_takes_its_trainer_with_it(site, running):
    before = set(site.processes()) - {running.pid}
    os.kill(pid_of(site, "link"), signal.SIGKILL)
    wait_until(lambda: site.log.read_text().count("connected to") == 2)
    assert "the link was ended by SIGKILL; starting it again" in site.log.read_text()
    wait_until(lambda: not before & set(site.processes()), 5)


def test_a_link_that_can_not_work_ends_with_a_final_code_and_one_line(tmp_path, papers):
    other = Papers(tmp_path / "other", "other")
    with FleetServer(other, tls=server_context(other)) as foreign:
        site = Site(tmp_path, papers, f"localhost:{foreign.port}").index()
        code, said = ended(site)
    assert code == FINAL
    [cause, end] = said.splitlines()
    assert "not of this federation" in cause
    assert "ended for good" in end
    wait_until(lambda: not site.processes(), 5)


HUNG = """
import sys
from hilum.client.link import start
from hilum.common.supervise import Bounds, supervise
from pathlib import Path

def quick(*words, **names):
    return supervise(*words, **names, bounds=Bounds(max_age_s=4.0, look_s=0.2))

start.supervise = quick
sys.exit(start.start_link(Path("site.toml")))
"""


def test_a_loop_that_hangs_is_started_again(site, server):
    site.index()
    site.log = site.folder / "log"
    with site.log.open("w") as log:
        supervisor = subprocess.Popen([sys.executable, "-c", HUNG], stderr=log, cwd=site.folder)
    wait_until(lambda: "connected to" in site.log.read_text())
    os.kill(pid_of(site, "link"), signal.SIGSTOP)
    wait_until(lambda: site.log.read_text().count("connected to") == 2)
    assert "the link has not moved for 4 s: it hangs" in site.log.read_text()
    supervisor.terminate()
    assert supervisor.wait(10) == 0
