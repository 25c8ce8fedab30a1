"""How much a site may send, hold open and take its time for."""

from dataclasses import dataclass

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

KIB, MIB = 2**10, 2**20


@dataclass(frozen=True)
class GateBounds:
    """The gate's bounds; the defaults are for hospitals on lines of 1 Mbit/s and more.

    Attributes:
        handshake_timeout_s: For TLS, from the first byte.
        header_timeout_s: For a request's headers, and for each further piece of a body or of an answer.
        min_rate_bytes_s: A body that comes slower than this is given up.
        idle_timeout_s: How long a connection may stay open without a request.
        connections: In all, those of strangers that have not shown a certificate yet included.
        connections_per_site: With one certificate; one more closes the one that was idle longest.
        transfers_per_site: Objects that one site sends or takes at a time; more of them wait.
        call_bytes: A request that carries no object.
        announce_bytes: A request that carries a tree of objects.
        object_bytes: A request that carries an object: Flower's chunk of an array, and what is around it.
        objects_per_message: Nodes in a reply's tree of objects.
        tree_depth: Flower's message is 5 deep: message, content, record, array, chunk.
        record_bytes: All of a reply but the chunks of its arrays; they grow some thirtyfold when they are read.
        poll_s: How long a call for messages is held while there is none.
        recheck_s: How often a call that is held asks whether its certificate is still admitted.
        alive_s: A site without a sign of life for longer is not there.
        redeliver_after_s: A message that was handed out, but whose objects were not asked for and whose receipt was not
            confirmed since, is handed out again.
    """

    handshake_timeout_s: float = 10.0
    header_timeout_s: float = 10.0
    min_rate_bytes_s: int = 16 * KIB
    idle_timeout_s: int = 75
    connections: int = 512
    connections_per_site: int = 8
    transfers_per_site: int = 4
    call_bytes: int = 16 * KIB
    announce_bytes: int = 256 * KIB
    object_bytes: int = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 16 * KIB
    objects_per_message: int = 2048
    tree_depth: int = 8
    record_bytes: int = MIB
    poll_s: float = 3.0
    recheck_s: float = 0.5
    alive_s: float = 15.0
    redeliver_after_s: float = 5.0

    def body_timeout_s(self, size_bytes: int) -> float:
        """Return how long a body of this size may take."""
        return self.header_timeout_s + size_bytes / self.min_rate_bytes_s
