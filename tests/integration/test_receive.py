"""`hilum site receive` against a real sender, well-behaved and not."""

import contextlib
import json
import re
import resource
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

import peaks
from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.network.association import AllowList, Peer
from hilum.client.intake.network.receive import image_classes
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError
from hilum.common.progress import NullProgress
from hilum.server.admin.authority import init_federation

CT, CR, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.88.11"
VERIFICATION = "1.2.840.10008.1.1"


class Running:
    """The receiver in a process of its own."""

    def __init__(self, home, *words):
        command = [str(Path(sys.executable).parent / "hilum"), "site", "receive", "--port", "0", "--json"]
        self.site = home / "site"
        self.process = subprocess.Popen(
            [*command, "--bind", "127.0.0.1", "--home", str(home), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.first = self.process.stderr.readline()
        found = re.search(r"port (\d+)", self.first)
        assert found, self.first + self.process.stderr.read()
        self.port = int(found.group(1))

    def associate(self, title="SENDER", *, classes=(CT, CR, VERIFICATION), called="HILUM", **options):
        ae = AE(ae_title=title)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
        contexts = [build_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]) for uid in classes]
        return ae.associate("127.0.0.1", self.port, contexts=contexts, ae_title=called, **options)

    def stored(self):
        return sorted((self.site / "inbox").rglob("*.dcm"))

    def incoming(self):
        return [path for path in (self.site / "incoming").rglob("*") if path.is_file()]

    def stop(self, number=signal.SIGTERM):
        """End it, and give its report and all that it said."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        assert "Traceback" not in err
        return (json.loads(out) if out else None), self.first + err

    def wait_for(self, text):
        """Read on until a line has a text."""
        for line in self.process.stderr:
            self.first += line
            if text in line:
                return
        raise AssertionError(self.first)


@pytest.fixture
def receiver(tmp_path):
    started = []

    def start(*words, allow="SENDER@127.0.0.1"):
        started.append(Running(tmp_path / "hilum-home", "--allow", allow, *words))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.fixture
def series(write_series, tmp_path):
    volume = np.random.default_rng(1).integers(-900, 900, (8, 16, 16)).astype(np.int16)
    write_series(tmp_path / "archive", volume)
    return sorted((tmp_path / "archive").iterdir())


@contextlib.contextmanager
def association(*arguments, **options):
    made = arguments[0].associate(*arguments[1:], **options)
    assert made.is_established
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def send(running, paths, **options):
    with association(running, **options) as made:
        return [made.send_c_store(pydicom.dcmread(path)).get("Status") for path in paths]


def test_what_is_sent_gives_the_catalogue_of_the_folder(receiver, series, tmp_path):
    running = receiver("--index-every", 5)
    with association(running) as made:
        assert made.send_c_echo().Status == 0x0000
    assert send(running, series) == [0x0000] * 8
    assert len(running.stored()) == 8
    assert send(running, series[:2]) == [0x0000] * 2
    running.wait_for("indexed: 8 instances, 1 volumes, 0 set aside")
    report, said = running.stop()
    assert report == {"stored": 8, "repeated": 2, "refused": {}}
    assert running.process.returncode == 0
    assert running.incoming() == []
    found = index_archive(None, Workspace(running.site), NullProgress())
    expected = index_archive(tmp_path / "archive", Workspace(tmp_path / "other"), NullProgress())
    assert (found.counts, found.decoded) == (expected.counts, 0)
    for path in series:
        d = pydicom.dcmread(path)
        for uid in (d.SOPInstanceUID, d.SeriesInstanceUID, d.StudyInstanceUID, "ZZPHI", "SENDER"):
            assert uid not in said
            assert not any(uid in str(stored) for stored in running.stored())


def test_nobody_else_gets_an_association(receiver):
    running = receiver()
    for title, called in (
        ("STRANGER", "HILUM"),
        ("SENDER", "OTHER"),
        ("SENDERX", "HILUM"),
        ("sender", "HILUM"),
    ):
        made = running.associate(title, called=called)
        assert made.is_rejected
    assert send(running, []) == []
    report, said = running.stop()
    assert report["refused"] == {"called_by_another_name": 1, "unknown_sender": 3}
    assert "STRANGER" not in said


def test_an_address_that_is_not_listed_is_closed_before_a_byte_is_read(receiver):
    running = receiver(allow="SENDER@10.9.8.0/24")
    made = running.associate()
    assert not made.is_established
    assert running.stop()[0]["refused"] == {"unknown_address": 1}


def test_title_and_address_must_stand_in_one_entry():
    allowed = AllowList(
        (Peer.parse("ONE@10.0.0.1"), Peer.parse("TWO@10.0.0.0/24"), Peer.parse("V6@fd00::/8"))
    )
    assert allowed.both("ONE", "10.0.0.1")
    assert allowed.both("TWO", "::ffff:10.0.0.1")
    assert allowed.both("V6", "fd00::1%eth0")
    assert not allowed.both("ONE", "10.0.0.2")
    assert not allowed.both("", "10.0.0.1")
    assert not allowed.address("10.0.1.1")


@pytest.mark.parametrize(
    "text",
    ["", "ONE", "@10.0.0.1", "ONE@", "ONE@host", "A" * 17 + "@10.0.0.1", "A\\B@10.0.0.1", "A @10.0.0.1"],
)
def test_a_malformed_entry_is_refused(text):
    with pytest.raises(DataError, match="AE@ADDRESS"):
        Peer.parse(text)


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_a_uid_that_leads_out_of_the_folder_names_no_file(receiver, series, tmp_path):
    running = receiver()
    d = pydicom.dcmread(series[0])
    d.SOPInstanceUID = "../../../../ZZPHI"
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID
    with association(running) as made:
        assert made.send_c_store(d).Status == 0xC000
    assert running.stored() == []
    assert list(tmp_path.rglob("*ZZPHI*")) == []
    report, said = running.stop()
    assert report == {"stored": 0, "repeated": 0, "refused": {"bad_object": 1}}
    assert "ZZPHI" not in said


def test_data_of_another_instance_than_announced_is_refused(receiver, series):
    running = receiver()
    d = pydicom.dcmread(series[0])
    with association(running) as made:
        d.SOPInstanceUID = "1.2.3"
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, "1.2.4"
        request.DataSet = BytesIO(encode(d, False, True))
        context = next(cx for cx in made.accepted_contexts if cx.abstract_syntax == CT)
        made._reactor_checkpoint.clear()
        made.dimse.send_msg(request, context.context_id)
        _, response = made.dimse.get_msg(block=True)
        made._reactor_checkpoint.set()
        assert response.Status == 0xC000
    assert running.stored() == []


def test_an_object_over_the_limit_ends_the_association_while_it_comes(receiver, series, dicom, tmp_path):
    running = receiver("--max-object", 0.002)
    dicom(tmp_path / "large.dcm", np.zeros((4096, 4096), np.uint16), sop_class=CR)
    with association(running) as made:
        status = made.send_c_store(pydicom.dcmread(tmp_path / "large.dcm"))
        assert "Status" not in status
        made.join(30)  # the sender's own thread ends with the association
        assert not made.is_established
    assert send(running, series[:1]) == [0x0000]
    held = sum(path.stat().st_size for path in running.incoming())
    assert held < 8 << 20
    assert running.stop()[0]["refused"]["too_large"] >= 1
    assert running.incoming() == []


def test_a_full_disk_is_told_to_the_sender(receiver, series):
    running = receiver("--keep-free", 10**7)
    assert send(running, series[:1]) == [0xA700]
    assert running.stored() == []
    assert running.stop()[0] == {"stored": 0, "repeated": 0, "refused": {"disk_full": 1}}


def test_reports_are_not_taken(receiver):
    running = receiver()
    made = running.associate(classes=(SR, VERIFICATION))
    assert [cx.abstract_syntax for cx in made.accepted_contexts] == [VERIFICATION]
    made.release()
    assert SR not in image_classes()
    assert {CT, CR, "1.2.840.10008.5.1.4.1.1.6"} <= set(image_classes())


def test_a_receiver_that_is_killed_leaves_no_half_file(receiver, dicom, tmp_path, series):
    dicom(tmp_path / "large.dcm", np.zeros((4096, 4096), np.uint16), sop_class=CR)
    running = receiver()
    assert send(running, series[:2]) == [0x0000] * 2
    with association(running) as made:
        sender = subprocess.Popen(
            [sys.executable, "-c", SLOW_SENDER, str(running.port), str(tmp_path / "large.dcm")]
        )
        while not any(path.stat().st_size > 100_000 for path in running.incoming()):
            time.sleep(0.01)
            assert sender.poll() is None
        running.process.kill()
        running.process.wait()
        sender.wait()
        made.abort()
    assert len(running.stored()) == 2
    assert {path.read_bytes()[128:132] for path in running.stored()} == {b"DICM"}
    assert len(running.incoming()) == 1
    again = receiver()
    assert again.incoming() == []
    assert send(again, series) == [0x0000] * 8
    assert again.stop()[0]["repeated"] == 2


SLOW_SENDER = """
import sys, time, pydicom
from pynetdicom import AE, evt
ae = AE(ae_title="SENDER")
ae.add_requested_context("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.1")
slow = [(evt.EVT_PDU_SENT, lambda event: time.sleep(0.02))]
made = ae.associate("127.0.0.1", int(sys.argv[1]), ae_title="HILUM", max_pdu=16384, evt_handlers=slow)
made.send_c_store(pydicom.dcmread(sys.argv[2]))
"""


def test_a_forged_length_takes_no_memory_and_silence_blocks_nobody(receiver, series):
    running = receiver()
    silent = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(3)]
    with socket.create_connection(("127.0.0.1", running.port)) as forger:
        forger.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFF0) + bytes(100_000))
        forger.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert forger.recv(100) == b""
    assert send(running, series[:1]) == [0x0000]
    assert peaks.peak_bytes(running.process.pid) < 1 << 30
    for one in silent:
        one.close()
    running.stop()


def test_noise_ends_a_connection_and_not_the_receiver(receiver, series):
    rng = np.random.default_rng(0)
    running = receiver()
    for length in (1, 6, 50, 5000):
        address = ("127.0.0.1", running.port)
        with contextlib.suppress(OSError), socket.create_connection(address) as noise:
            noise.sendall(struct.pack(">BBL", 1 + length % 7, 0, length) + rng.bytes(length))
    assert send(running, series[:1]) == [0x0000]
    running.stop()


def write_sender_certificate(folder):
    """A certificate that a sender signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sender")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "sender.crt").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "sender.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_tls_asks_for_a_certificate_of_the_sender(receiver, series, tmp_path):
    keys = init_federation(tmp_path / "keys", ["127.0.0.1"], 1).path
    write_sender_certificate(tmp_path)
    running = receiver(
        "--tls-cert",
        keys / "server.crt",
        "--tls-key",
        keys / "server.key",
        "--tls-ca",
        tmp_path / "sender.crt",
    )
    assert not running.associate().is_established
    context = ssl.create_default_context(cafile=keys / "root.crt")
    stranger = running.associate(tls_args=(context, "127.0.0.1"))
    if stranger.is_established:
        assert "Status" not in stranger.send_c_echo()
    stalled = socket.create_connection(("127.0.0.1", running.port))
    context.load_cert_chain(tmp_path / "sender.crt", tmp_path / "sender.key")
    assert send(running, series, tls_args=(context, "127.0.0.1")) == [0x0000] * 8
    stalled.close()
    assert running.stop()[0]["stored"] == 8


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--allow", "x"], "AE@ADDRESS"),
        (["--allow", "A@1.2.3.4", "--tls-cert", "none", "--tls-key", "none"], "PEM form"),
        (["--allow", "A@1.2.3.4", "--ae-title", "TOO LONG AND SPACED"], "--ae-title"),
        (["--allow", "A@1.2.3.4", "--bind", "203.0.113.1"], "can't be used"),
    ],
)
def test_wrong_options_are_one_line(run_hilum, words, expected):
    done = run_hilum("site", "receive", *words)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_an_allowed_sender_there_is_no_receiver(run_hilum):
    done = run_hilum("site", "receive")
    assert done.returncode == 2
    assert "--allow" in done.stderr


def test_a_disk_that_fills_up_inside_an_object_ends_that_association_and_not_the_receiver(
    receiver, series, dicom, tmp_path
):
    dicom(tmp_path / "large.dcm", np.zeros((1024, 1024), np.uint16), sop_class=CR)
    running = receiver()
    assert send(running, series[:1]) == [0x0000]
    _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (300_000, hard))
    with association(running) as made:
        assert "Status" not in made.send_c_store(pydicom.dcmread(tmp_path / "large.dcm"))
    assert len(running.stored()) == 1
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert send(running, [tmp_path / "large.dcm"]) == [0x0000]
    report, _ = running.stop()
    assert report["stored"] == 2
    assert report["refused"] == {"broken": 1}
    assert running.incoming() == []
