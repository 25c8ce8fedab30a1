"""A receiver that asks for certificates, acknowledges nothing before the disk has it, and sweeps up what broke off."""

import os
import ssl
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context

from certificates import Authority
from hilum.client.intake.network.association import AllowList, Peer
from hilum.client.intake.network.receive import Receiver, ReceiveReport, serve
from hilum.client.intake.network.receive_options import Listening
from hilum.client.intake.sources import inbox as inbox_module
from hilum.client.intake.sources.inbox import Inbox
from hilum.client.state.workspace import Workspace

CT = "1.2.840.10008.5.1.4.1.1.2"
LONG_AGO_S = 3600


@pytest.fixture
def hospital(tmp_path):
    return Authority(tmp_path / "hospital")


@pytest.fixture
def receiving(tmp_path, hospital):
    """A receiver within this process; gives it and its port."""
    stop, threads = threading.Event(), []
    box = Inbox(Workspace(tmp_path / "state"), reserve_bytes=0)

    def start(allow="SENDER@127.0.0.1", index=lambda: True):
        server = hospital.sign("receiver")
        allowed = AllowList((Peer.parse(allow),))
        where = Listening(0, "127.0.0.1", "HILUM", allowed, (server.cert, server.key), hospital.path)
        receiver, ports, ready = Receiver(where, box), [], threading.Event()

        def listen(port):
            ports.append(port)
            ready.set()

        threads.append(threading.Thread(target=serve, args=(receiver, stop, 60.0, index, listen)))
        threads[-1].start()
        assert ready.wait(30)
        return receiver, ports[0]

    with box:
        yield start
        stop.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


def associate(port, authority, pair=None, *, title="SENDER", called="HILUM"):
    context = ssl.create_default_context(cafile=authority.path)
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    ae = AE(ae_title=title)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    contexts = [build_context(CT, [ExplicitVRLittleEndian])]
    return ae.associate("127.0.0.1", port, contexts, ae_title=called, tls_args=(context, "127.0.0.1"))


@pytest.fixture
def slices(write_series, tmp_path):
    write_series(tmp_path / "archive", np.zeros((3, 16, 16), np.int16))
    return [pydicom.dcmread(path) for path in sorted((tmp_path / "archive").iterdir())]


def stored(tmp_path):
    return list((tmp_path / "state" / "inbox").rglob("*.dcm"))


def test_success_is_told_after_the_object_and_its_name_are_on_the_disk(
    receiving, hospital, slices, tmp_path, monkeypatch
):
    """What is written is flushed before it is named, the name before the sender is told."""
    steps, fsync, sync_folder = [], os.fsync, inbox_module.sync_folder

    def flushed(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().suffix == ".dcm":
            steps.append(("content", len(stored(tmp_path))))
        fsync(handle)

    def named(folder):
        sync_folder(folder)
        steps.append(("name", len(stored(tmp_path))))

    _, port = receiving()
    made = associate(port, hospital, hospital.sign("sender"))
    assert made.is_established
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(inbox_module, "sync_folder", named)
    for number, one in enumerate(slices):
        steps.clear()
        assert made.send_c_store(one).Status == 0x0000
        told = [step for step in steps if step[0] == "content" or step[1] > number]
        assert told == [("content", number), ("name", number + 1)]
    made.release()


def test_an_object_that_the_disk_does_not_keep_is_not_acknowledged(receiving, hospital, slices, monkeypatch):
    receiver, port = receiving()
    made = associate(port, hospital, hospital.sign("sender"))

    def broken(_folder):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(inbox_module, "sync_folder", broken)
        assert made.send_c_store(slices[0]).Status == 0xA700
    assert receiver.report() == ReceiveReport(0, 0, {"disk_error": 1})
    assert made.send_c_store(slices[1]).Status == 0x0000
    made.release()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"title": "STRANGER"}, "unknown_sender"),
        ({"called": "OTHER"}, "called_by_another_name"),
    ],
)
def test_a_certificate_alone_lets_nobody_in(receiving, hospital, options, code):
    receiver, port = receiving()
    assert associate(port, hospital, hospital.sign("sender"), **options).is_rejected
    assert receiver.report().refused == {code: 1}


def test_an_address_that_is_not_listed_gets_no_handshake(receiving, hospital):
    _, port = receiving(allow="SENDER@10.9.8.7")
    assert not associate(port, hospital, hospital.sign("sender")).is_established


@pytest.mark.parametrize("wrong", ["none", "expired", "other_authority"])
def test_a_sender_without_a_certificate_that_is_believed_stores_nothing(
    receiving, hospital, slices, tmp_path, wrong
):
    _, port = receiving()
    pair = {
        "none": lambda: None,
        "expired": lambda: hospital.sign("sender", ends=timedelta(days=-1)),
        "other_authority": lambda: Authority(tmp_path / "elsewhere", "other").sign("sender"),
    }[wrong]()
    made = associate(port, hospital, pair)
    # In TLS 1.3 the sender's own handshake may be over before the refusal reaches it.
    assert not made.is_established or "Status" not in made.send_c_store(slices[0])
    assert stored(tmp_path) == []
    right = associate(port, hospital, hospital.sign("sender"))
    assert right.send_c_store(slices[0]).Status == 0x0000
    right.release()


def test_what_broke_off_long_ago_is_swept_up_and_nothing_else(receiving, hospital, slices):
    receiver, port = receiving()
    old, young = receiver.inbox.incoming / "old.dcm", receiver.inbox.incoming / "young.dcm"
    young.write_bytes(b"on its way")
    old.write_bytes(b"of an association that is gone")
    os.utime(old, (time.time() - LONG_AGO_S,) * 2)
    while old.exists():
        time.sleep(0.05)
    assert young.exists()
    made = associate(port, hospital, hospital.sign("sender"))
    assert made.send_c_store(slices[0]).Status == 0x0000
    made.release()


def test_the_sweep_lives_on_when_an_object_is_taken_over_meanwhile(tmp_path, monkeypatch):
    """Between being listed and being looked at, a file gets its name in the inbox."""
    allowed = AllowList((Peer.parse("SENDER@127.0.0.1"),))
    with Inbox(Workspace(tmp_path / "state")) as box:
        receiver = Receiver(Listening(0, "127.0.0.1", "HILUM", allowed), box)
        gone, old = box.incoming / "gone.dcm", box.incoming / "old.dcm"
        old.touch()
        os.utime(old, (time.time() - LONG_AGO_S,) * 2)
        monkeypatch.setattr(type(box.incoming), "iterdir", lambda _folder: iter([gone, old]))
        receiver.remove_abandoned()
        assert not old.exists()
