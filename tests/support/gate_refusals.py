"""How the gate refused a call, and what it logged."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gate_site import SITES, refusal

CALLS = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "pull-object",
    "push-object",
    "confirm-message-received",
)
OTHER = SITES[1]


def refused(call: Callable[..., Any], *arguments: Any) -> tuple[int, str]:
    """How a call is refused."""
    with pytest.raises(httpx.HTTPStatusError) as error:
        call(*arguments)
    return refusal(error.value)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("hilum.server.gate")]


def eventually(what: Callable[[], bool], patience_s: float = 5.0) -> bool:
    until = time.monotonic() + patience_s
    while not what() and time.monotonic() < until:
        time.sleep(0.02)
    return what()
