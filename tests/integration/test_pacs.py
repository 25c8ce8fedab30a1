"""A real PACS, Orthanc with its DICOMweb plug-in, gives by pull and by C-STORE the catalogue that the folder gives."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom
import pytest

from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.network.receive import image_classes
from hilum.client.intake.sources.inbox import is_uid
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.processes import free_port
from hilum.common.progress import NullProgress

ORTHANC = shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin")
PLUGIN = next(
    (
        path
        for folder in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")
        for path in sorted(Path(folder).glob("libOrthancDicomWeb.so*"))
    ),
    None,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        ORTHANC is None or PLUGIN is None, reason="needs Debian's packages orthanc and orthanc-dicomweb"
    ),
]


@dataclass
class Pacs:
    """A running Orthanc.

    Attributes:
        sent: Of each object, the file that it was filled with.
        refused: How many files it would not take, by its HTTP status.
    """

    url: str
    receiver_port: int
    sent: dict[str, Path]
    refused: Counter

    @property
    def dicomweb(self):
        return f"{self.url}/dicom-web"

    def rest(self, path, body=None):
        request = urllib.request.Request(f"{self.url}{path}", data=body)
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)


@pytest.fixture(scope="module")
def pacs(shared_data, tmp_path_factory):
    """Orthanc, filled over REST with every file of ../shared/data/dicom that it takes."""
    folder = tmp_path_factory.mktemp("orthanc")
    port, receiver_port = free_port(), free_port()
    config = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": port,
        "DicomPort": free_port(),
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "OverwriteInstances": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "DicomModalities": {"hilum": ["HILUM", "127.0.0.1", receiver_port]},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log)
    made = Pacs(f"http://127.0.0.1:{port}", receiver_port, {}, Counter())
    try:
        wait_until(lambda: answers(made), process)
        for path in sorted(path for path in (shared_data / "data" / "dicom").rglob("*") if path.is_file()):
            fill(made, path)
        yield made
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until(condition, process):
    while not condition():
        time.sleep(0.1)
        assert process.poll() is None


def answers(made):
    try:
        return made.rest("/system")["Name"] == "test"
    except OSError:
        return False


def fill(made, path):
    try:
        answer = made.rest("/instances", path.read_bytes())
    except urllib.error.HTTPError as error:
        made.refused[error.code] += 1
        return
    if answer["Status"] == "Success":
        made.sent[made.rest(f"/instances/{answer['ID']}/simplified-tags")["SOPInstanceUID"]] = path
    else:
        made.refused[answer["Status"]] += 1


def copied(pacs, folder, wanted=lambda uid, path: True):
    """An archive of the files that the PACS took."""
    folder.mkdir()
    for number, (uid, path) in enumerate(pacs.sent.items()):
        if wanted(uid, path):
            shutil.copy(path, folder / f"{number}.dcm")
    return folder


def contents(site):
    catalogue = Catalogue(site.catalogue)
    try:
        return catalogue.counts(), sorted((item.content_sha256, item.affine) for item in catalogue.items())
    finally:
        catalogue.close()


def indexed(archive, state):
    site = Workspace(state)
    index_archive(archive, site, NullProgress())
    return contents(site)


def missing(pacs, site):
    """The files whose objects are not in the site's inbox."""
    names, stored = site.pseudonyms(), {path.stem for path in site.inbox.rglob("*.dcm")}
    return {path for uid, path in pacs.sent.items() if names.of("sop", uid) not in stored}


def sop_class(path):
    return str(pydicom.dcmread(path, stop_before_pixels=True, force=True).get("SOPClassUID"))


def without_uid(pacs):
    """One of pydicom's own test files has hashes where its UIDs were: no object by PS3.5 section 9.1."""
    return {path for uid, path in pacs.sent.items() if not is_uid(uid)}


def test_the_pacs_takes_all_but_copies_and_broken_files(pacs):
    assert len(pacs.sent) > 400
    assert [path.name for path in without_uid(pacs)] == ["bad_sequence.dcm"]
    # 400 and 404 are not DICOM files, directories, and files without the UIDs of patient, study and series.
    assert set(pacs.refused) == {"AlreadyStored", 400, 404}


def test_a_pull_gives_the_catalogue_of_the_folder(pacs, run_hilum, tmp_path):
    done = run_hilum("site", "pull", pacs.dicomweb, "--json", timeout_s=550)
    report = json.loads(done.stdout)["pull"]
    site = Workspace(tmp_path / "hilum-home" / "site")
    assert report["failed"] == {"bad_uid": 1}
    assert report["fetched"] == len(pacs.sent) - 1
    assert missing(pacs, site) == without_uid(pacs)
    folder = copied(pacs, tmp_path / "folder", lambda uid, _path: is_uid(uid))
    assert contents(site) == indexed(folder, tmp_path / "other")
    names = site.pseudonyms()
    inbox = {path.stem: path for path in site.inbox.rglob("*.dcm")}
    for uid, path in pacs.sent.items():
        if is_uid(uid):
            assert inbox[names.of("sop", uid)].read_bytes() == path.read_bytes(), path.name


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, on test files that are wrong on purpose
def test_what_the_pacs_sends_gives_the_catalogue_of_the_folder(pacs, tmp_path):
    home = tmp_path / "hilum-home"
    command = [str(Path(sys.executable).parent / "hilum"), "site", "receive", "--allow", "ORTHANC@127.0.0.1"]
    with subprocess.Popen(
        [*command, "--port", str(pacs.receiver_port), "--json", "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert "listening" in process.stderr.readline()
        job = {"Resources": pacs.rest("/instances"), "Permissive": True, "Synchronous": True}
        pacs.rest("/modalities/hilum/store", json.dumps(job).encode())
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    site = Workspace(home / "site")
    refused = {path for path in pacs.sent.values() if sop_class(path) not in set(image_classes())}
    refused |= without_uid(pacs)
    not_sent = missing(pacs, site) - refused
    # Orthanc gives up on this file before it sends anything: "Cannot transcode", it finds no context for it.
    assert {path.name for path in not_sent} <= {"explicit_VR-UN.dcm"}
    assert refused <= missing(pacs, site)
    report = json.loads(out)
    assert report["stored"] == len(pacs.sent) - len(refused | not_sent)
    assert report["refused"] == {"bad_object": 1}
    folder = copied(pacs, tmp_path / "folder", lambda _uid, path: path not in refused | not_sent)
    index_archive(None, site, NullProgress())
    assert contents(site) == indexed(folder, tmp_path / "other")


class Counting(BaseHTTPRequestHandler):
    """Hands requests on to the PACS, slowly, and counts the objects that went through whole."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        request = urllib.request.Request(
            f"{server.pacs.url}{self.path}", headers={"Accept": self.headers["Accept"]}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            body, kind = response.read(), response.headers["Content-Type"]
        uid = re.search(r"/instances/([0-9.]+)$", self.path)
        if uid:
            time.sleep(0.02)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if uid:
            server.sent[uid.group(1)] += 1


def test_a_pull_that_was_killed_fetches_nothing_twice(pacs, run_hilum, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    server.pacs, server.sent, server.daemon_threads = pacs, Counter(), True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    site = Workspace(tmp_path / "hilum-home" / "site")
    environment = {**os.environ, "HILUM_HOME": str(tmp_path / "hilum-home")}
    try:
        for part in (1, 2, 3):
            command = [str(Path(sys.executable).parent / "hilum"), "site", "pull", url]
            with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
                wait_until(lambda: len(list(site.inbox.rglob("*.dcm"))) >= 60 * part, process)  # noqa: B023
                process.kill()
            stored = {path.stem for path in site.inbox.rglob("*.dcm")}
            before = Counter(server.sent)
        report = json.loads(run_hilum("site", "pull", url, "--json", timeout_s=550).stdout)["pull"]
    finally:
        server.shutdown()
        server.server_close()
    names = site.pseudonyms()
    kept = {uid for uid in pacs.sent if names.of("sop", uid) in stored}
    assert report["had"] == len(kept) == len(stored)
    assert report["had"] + report["fetched"] == len(pacs.sent) - 1
    assert {uid: server.sent[uid] for uid in kept} == {uid: before[uid] for uid in kept}
    # Only what was on its way when the process was killed came a second time: four connections, three kills.
    assert sum(server.sent.values()) - (len(pacs.sent) - 1) <= 3 * 4
