"""`hilum site receive` against senders that lie, trickle or send too much, a full disk, and a kill."""

import contextlib
import resource
import socket
import struct
import subprocess
import sys
import time
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

import peaks
from receiver import CR, CT, association, send


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
