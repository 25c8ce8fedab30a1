"""A gate in a process of its own, so that a test can weigh it. Prints its port, then its memory whenever a line comes in.

Usage: python gate_server.py FOLDER REPLY_LIMIT_BYTES, where FOLDER holds a test federation's files.
"""

import sys
from pathlib import Path

from gate_site import SITES, weights_record
from hilum.common.wire_ids import node_id_of
from hilum.server.gate import Gate, GateThread, make_server
from peaks import forget_peak, peak_bytes, resident_bytes


class AdmitAll:
    """Whoever got past TLS is the one site."""

    def name_of(self, certificate_der: bytes) -> str | None:
        return SITES[0]


def main(folder: Path, limit_bytes: int) -> None:
    from flwr.app import Message

    gate = Gate(AdmitAll())
    server = make_server(
        gate,
        host="127.0.0.1",
        port=0,
        certificate=folder / "server.crt",
        key=folder / "server.key",
        roots=folder / "root.crt",
    )
    with GateThread(server) as thread, gate.grid("run-1", SITES) as grid:
        grid.reply_limit("train", limit_bytes)
        ids: list[str] = []
        print(thread.port, flush=True)
        for line in sys.stdin:
            if line.strip() == "ask":
                message = Message(weights_record(4), node_id_of(SITES[0]), "train", ttl=600)
                ids = list(grid.push_messages([message]))
                forget_peak()
            codes = [one.error.code if one.has_error() else 0 for one in grid.pull_messages(ids)]
            print(resident_bytes(), peak_bytes(), *codes, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
