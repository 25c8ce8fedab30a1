"""A C-STORE receiver (PS3.4 annex B): listed senders put images into the inbox, which is indexed as it fills.

Success is told only after the object is on the disk for good, so a sender may forget what this site has acknowledged.
"""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import Verification, register_uid  # type: ignore[attr-defined]  # made at run time

from hilum.client.intake.network.association import MAX_PDU_BYTES, BoundedServer, Guard
from hilum.client.intake.network.receive_options import Listening, tls_context
from hilum.client.intake.sources.inbox import Inbox, MismatchError, NoRoomError, OversizedError
from hilum.client.intake.transfer_syntaxes import SUPPORTED_SYNTAXES
from hilum.common.errors import DataError

# PS3.7 section 9.1.1.1.9 and PS3.4 table B.2-1.
_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000

# Retired, and still in every old archive (PS3.6 annex A).
_RETIRED = {
    "1.2.840.10008.5.1.4.1.1.3": "UltrasoundMultiFrameImageStorageRetired",
    "1.2.840.10008.5.1.4.1.1.5": "NuclearMedicineImageStorageRetired",
    "1.2.840.10008.5.1.4.1.1.6": "UltrasoundImageStorageRetired",
}

_MAX_ASSOCIATIONS = 10
_SILENCE_S = 60.0
_QUIET_S = 3.0
_ABANDONED_S = 600.0


@dataclass(frozen=True)
class ReceiveReport:
    """What one call did.

    Attributes:
        stored: Objects that were acknowledged and were not here before.
        repeated: Objects that were acknowledged and were here before, byte for byte.
        refused: Connections, associations and objects that were not taken, by code.
    """

    stored: int
    repeated: int
    refused: dict[str, int]


def image_classes() -> list[str]:
    """Return the SOP classes that are taken: every image; reports, structure sets and the like are for others to keep."""
    uids = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    return [uid for uid in uids if "Image" in UID(uid).keyword] + list(_RETIRED)


class Receiver:
    """One running receiver.

    Args:
        where: Where and as whom to listen.
        inbox: Where the objects go; entered by the caller.
    """

    def __init__(self, where: Listening, inbox: Inbox) -> None:
        self.where, self.inbox = where, inbox
        self.guard = Guard(where.allowed, inbox.max_bytes)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.last_store_s = time.monotonic()
        self._ae = self._make_ae()

    @contextmanager
    def running(self) -> Iterator[BoundedServer]:
        """Listen; on leaving, associations are aborted and the port is free again.

        Raises:
            DataError: If the port or the certificates can't be used.
        """
        server = self._make_server()
        with _chunks_in(self.inbox.incoming), _counted_crashes(self.counts):
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                self.guard.counts.update(server.refused)
                for association in server.active_associations:
                    association.abort()
                thread.join()

    def report(self) -> ReceiveReport:
        """Return the counts so far."""
        counts = Counter(self.counts)
        stored, repeated = counts.pop("stored", 0), counts.pop("repeated", 0)
        return ReceiveReport(stored, repeated, dict(sorted((counts + self.guard.counts).items())))

    def remove_abandoned(self) -> None:
        """Remove what associations that broke off have left in `incoming`."""
        for path in self.inbox.incoming.iterdir():
            with suppress(FileNotFoundError):  # it was taken over since it was listed
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def _make_ae(self) -> AE:
        ae = AE(ae_title=self.where.ae_title)
        ae.require_called_aet = True
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.maximum_associations = _MAX_ASSOCIATIONS
        ae.network_timeout = ae.dimse_timeout = _SILENCE_S
        for uid, keyword in _RETIRED.items():
            register_uid(uid, keyword, StorageServiceClass)
        for uid in image_classes():
            ae.add_supported_context(uid, list(SUPPORTED_SYNTAXES))
        ae.add_supported_context(Verification)
        return ae

    def _make_server(self) -> BoundedServer:
        where = self.where
        handlers: list[evt.EventHandlerType] = [(evt.EVT_C_STORE, self._on_store), *self.guard.handlers]
        try:
            server = self._ae.make_server(
                (where.bind, where.port),
                ae_title=where.ae_title,
                ssl_context=tls_context(where),
                evt_handlers=handlers,
                server_class=BoundedServer,
                allowed=where.allowed,
            )
        except OSError as error:
            raise DataError(
                f"port {where.port} at {where.bind} can't be used ({error.strerror}); choose another with --port or --bind"
            ) from None
        assert isinstance(server, BoundedServer)
        self._ae._servers.append(server)  # `shutdown` takes it off this list
        return server

    def _on_store(self, event: Event) -> int:
        """Take one object over. The status that is returned is what the sender is told."""
        path = event.dataset_path
        size_bytes = path.stat().st_size
        try:
            uid = cast("C_STORE", event.request).AffectedSOPInstanceUID
            fresh = self.inbox.adopt(str(uid or ""), path)
        except NoRoomError:
            return self._count("disk_full", _OUT_OF_RESOURCES)
        except OversizedError:
            return self._count("too_large", _OUT_OF_RESOURCES)
        except MismatchError:
            return self._count("bad_object", _CANNOT_UNDERSTAND)
        except OSError:  # it is not known to be on the disk for good
            return self._count("disk_error", _OUT_OF_RESOURCES)
        finally:
            self.guard.release(event.assoc, size_bytes)
        self.last_store_s = time.monotonic()
        return self._count("stored" if fresh else "repeated", _SUCCESS)

    def _count(self, code: str, status: int) -> int:
        with self._lock:
            self.counts[code] += 1
        return status


def serve(
    receiver: Receiver,
    stop: threading.Event,
    index_every_s: float,
    index: Callable[[], bool],
    ready: Callable[[int], None],
) -> None:
    """Receive until stopped, and index what came whenever senders are quiet, or at the latest after a while.

    Args:
        receiver: To run.
        stop: Ends it.
        index_every_s: Longest time between an object and the index that takes it in.
        index: Indexes the inbox; False if it could not now, and is to be called again.
        ready: Told the port once connections are taken.
    """
    with receiver.running() as server:
        ready(server.server_address[1])
        indexed, indexed_s = -1, time.monotonic()  # an earlier call may have left some unindexed
        while not stop.wait(1.0):
            receiver.remove_abandoned()
            stored = receiver.report().stored
            now_s = time.monotonic()
            quiet = now_s - receiver.last_store_s > _QUIET_S
            if stored > indexed and (quiet or now_s - indexed_s > index_every_s):
                if index():
                    indexed = stored
                indexed_s = time.monotonic()


@contextmanager
def _chunks_in(folder: Path) -> Iterator[None]:
    """Have pynetdicom write what it receives into a folder, not into memory nor into /tmp."""
    before = (_config.STORE_RECV_CHUNKED_DATASET, _config.LOG_HANDLER_LEVEL, tempfile.tempdir)
    _config.STORE_RECV_CHUNKED_DATASET, tempfile.tempdir = True, str(folder)
    _config.LOG_HANDLER_LEVEL = "none"
    try:
        yield
    finally:
        _config.STORE_RECV_CHUNKED_DATASET, _config.LOG_HANDLER_LEVEL, tempfile.tempdir = before


@contextmanager
def _counted_crashes(counts: "Counter[str]") -> Iterator[None]:
    """Count a connection's thread that dies of what a peer sent; Python would print values from it."""

    def count(_details: object) -> None:
        counts["broken"] += 1

    before = threading.excepthook
    threading.excepthook = count
    try:
        yield
    finally:
        threading.excepthook = before
