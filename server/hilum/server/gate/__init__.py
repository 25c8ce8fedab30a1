"""What the outside reaches: Flower's fleet calls alone, behind mutual TLS, each bounded before it is read."""

from hilum.server.gate.app import Admission, Gate
from hilum.server.gate.bounds import GateBounds
from hilum.server.gate.grid import GateGrid
from hilum.server.gate.objects import MALFORMED, TOO_LARGE
from hilum.server.gate.server import GateServer, GateThread, make_server

__all__ = [
    "MALFORMED",
    "TOO_LARGE",
    "Admission",
    "Gate",
    "GateBounds",
    "GateGrid",
    "GateServer",
    "GateThread",
    "make_server",
]
