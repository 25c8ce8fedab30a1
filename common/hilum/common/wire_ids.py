"""The numbers by which Flower's messages name the server, a site and a run: made from their names, so both sides know them."""

import hashlib

SERVER_NODE_ID = 1


def node_id_of(site: str) -> int:
    """Return the Flower node id of a site; it never changes, whatever key or certificate the site has."""
    return _number("site", site)


def run_id_of(run: str) -> int:
    """Return the Flower run id of a run."""
    return _number("run", run)


def _number(kind: str, name: str) -> int:
    """Return 63 bits of a hash, odd and so never 0; Flower keeps ids as 64-bit integers."""
    return int.from_bytes(hashlib.sha256(f"hilum {kind} {name}".encode()).digest()[:8]) >> 1 | 1
