"""`hilum site receive` against a real sender: what is taken, from whom, and over TLS."""

import socket
import ssl
from datetime import UTC, datetime, timedelta

import pydicom
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.network.association import AllowList, Peer
from hilum.client.intake.network.receive import image_classes
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError
from hilum.common.progress import NullProgress
from hilum.server.admin.authority import init_federation
from receiver import CR, CT, SR, VERIFICATION, association, send


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


def test_reports_are_not_taken(receiver):
    running = receiver()
    made = running.associate(classes=(SR, VERIFICATION))
    assert [cx.abstract_syntax for cx in made.accepted_contexts] == [VERIFICATION]
    made.release()
    assert SR not in image_classes()
    assert {CT, CR, "1.2.840.10008.5.1.4.1.1.6"} <= set(image_classes())


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
