"""pynetdicom's server with bounds: who may connect, how large a message grows, how long a peer may keep silent.

pynetdicom reads a PDU as long as its header claims (4 GiB) into memory, keeps every message that is not a C-STORE in
memory, does the TLS handshake in the thread that accepts, and logs identifiers (its issue 1086 and others). Here the
address is checked before a byte is read, and a message that grows too large ends its association.
"""

import ipaddress
import re
import socket
import ssl
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from hilum.common.errors import DataError

if TYPE_CHECKING:
    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PDU_BYTES = 1 << 17  # what peers are told
_MAX_PDU_BYTES = 1 << 20  # what is read of one that does not listen; an association request may be long
_MAX_IN_MEMORY_BYTES = 1 << 16  # of a command, or of the data of a message that is not a C-STORE
_SILENCE_S = 60.0
_RECV_BYTES = 1 << 16
_REJECTED = (
    0x01,
    0x01,
    0x03,
)  # permanently, by the user, calling AE title not recognised (PS3.8 section 9.3.4)
_INVALID_PDU = "Evt19"  # of the state machine (PS3.8 section 9.2): the answer is A-ABORT


@dataclass(frozen=True)
class Peer:
    """Who may send: an AE title, and the addresses it may come from."""

    title: str
    network: "Network"

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """Read `AE@ADDRESS`; the address may be a network such as 10.1.0.0/16.

        Raises:
            DataError: If it is not that.
        """
        title, _, address = text.rpartition("@")
        if not re.fullmatch(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?", title):
            raise DataError("--allow takes AE@ADDRESS; the AE title has 1 to 16 plain characters")
        try:
            return cls(title, ipaddress.ip_network(address))
        except ValueError:
            raise DataError(
                "--allow takes AE@ADDRESS; the address is an IP address, or a network such as 10.1.0.0/16"
            ) from None


@dataclass(frozen=True)
class AllowList:
    """Title and address must stand in the same entry."""

    peers: tuple[Peer, ...]

    def address(self, address: str) -> bool:
        """Tell whether anyone may come from here."""
        return any(_normal(address) in peer.network for peer in self.peers)

    def both(self, title: str, address: str) -> bool:
        """Tell whether this title may come from here."""
        return any(title == peer.title and _normal(address) in peer.network for peer in self.peers)


def _normal(address: str) -> "Address":
    """Return an address; an IPv4 address that came in through an IPv6 socket as that IPv4 address."""
    found = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else found


class _BoundedSocket(AssociationSocket):
    def recv(self, nr_bytes: int) -> bytearray:
        """As pynetdicom's, but neither without end nor in pieces of 4 KiB."""
        if nr_bytes > _MAX_PDU_BYTES:
            raise OSError("a PDU claims to be larger than any that is taken")
        peer = cast("socket.socket", self.socket)
        received = bytearray()
        while len(received) < nr_bytes:
            piece = peer.recv(min(_RECV_BYTES, nr_bytes - len(received)))
            if not piece:
                break
            received += piece
        return received


class _Handler(RequestHandler):
    def _create_association(self) -> Association:
        association = super()._create_association()
        # pynetdicom has no place to name the class, and making a second socket would start its state machine twice.
        cast("AssociationSocket", association.dul.socket).__class__ = _BoundedSocket
        return association


class BoundedServer(ThreadedAssociationServer):
    """Takes connections from allowed addresses only.

    Attributes:
        refused: Connections and associations that were not let in, by code.
    """

    allowed: AllowList
    refused: "Counter[str]"

    def __init__(self, *arguments: Any, allowed: AllowList, **named: Any) -> None:
        self.allowed, self.refused = allowed, Counter()
        super().__init__(*arguments, **{**named, "request_handler": _Handler})

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept; the TLS handshake comes with the first read, in the connection's own thread."""
        connection, address = cast("socket.socket", self.socket).accept()
        connection.settimeout(_SILENCE_S)
        return connection, address

    def verify_request(self, _request: Any, client_address: Any) -> bool:
        """Tell whether to go on with a connection of which nothing was read yet."""
        if not self.allowed.address(client_address[0]):
            self.refused["unknown_address"] += 1
            return False
        if len(self.active_associations) >= 2 * self.ae.maximum_associations:
            self.refused["too_many"] += 1
            return False
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's threads."""
        context = self.ssl_context
        if isinstance(context, ssl.SSLContext):
            request = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        super().finish_request(request, client_address)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Count; the base class prints a traceback."""
        self.refused["broken"] += 1


class Guard:
    """Watches the associations of a server: who asks for one, and how much each holds at a time."""

    def __init__(self, allowed: AllowList, max_bytes: int) -> None:
        self.allowed, self.max_bytes = allowed, max_bytes
        self.counts: Counter[str] = Counter()
        self._held_bytes: WeakKeyDictionary[Association, int] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @property
    def handlers(self) -> list[evt.EventHandlerType]:
        """To bind to the server."""
        return [(evt.EVT_REQUESTED, self._on_request), (evt.EVT_PDU_RECV, self._on_pdu)]

    def release(self, association: Association, size_bytes: int) -> None:
        """Note that an object was taken over or thrown away."""
        with self._lock:
            held_bytes = self._held_bytes.get(association, 0)
            self._held_bytes[association] = max(0, held_bytes - size_bytes)

    def _on_request(self, event: Event) -> None:
        association = event.assoc
        request = association.requestor.primitive
        title = str(getattr(request, "calling_ae_title", "")).strip()
        sender = association.requestor.address_info
        if sender is None or not self.allowed.both(title, sender.address):
            self._reject(association, "unknown_sender")
        elif str(getattr(request, "called_ae_title", "")).strip() != association.acceptor.ae_title.strip():
            self.counts["called_by_another_name"] += 1  # pynetdicom itself rejects it

    def _reject(self, association: Association, code: str) -> None:
        self.counts[code] += 1
        association.acse.send_reject(*_REJECTED)
        association.kill()

    def _on_pdu(self, event: Event) -> None:
        if not isinstance(event.pdu, P_DATA_TF):
            return
        association = event.assoc
        with self._lock:
            held_bytes = self._held_bytes.get(association, 0) + event.pdu.pdu_length
            self._held_bytes[association] = held_bytes
        message = association.dimse.message
        in_memory_bytes = 0
        if message is not None:
            data = message.data_set.tell() if message.data_set is not None else 0
            in_memory_bytes = max(message.encoded_command_set.tell(), data)
        if held_bytes > self.max_bytes + _MAX_PDU_BYTES or in_memory_bytes > _MAX_IN_MEMORY_BYTES:
            self.counts["too_large"] += 1
            association.dul.event_queue.put(_INVALID_PDU)
