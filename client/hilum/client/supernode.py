"""Keeps this site's SuperNode running: one outbound TLS connection with the site's own key.

The SuperNode is Flower's process; the data stays with the client app that it starts for each message. If it dies it is
started again. A SuperNode that was killed leaves its session open at the server, which then refuses the next one for
up to a minute; so the old session is closed first, with the same key.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from hilum.common.config import SiteConfig
from hilum.common.config.site import LinkSection
from hilum.common.errors import ConfigError, FederationError
from hilum.common.files import private_folder, read_json, write_json
from hilum.common.processes import die_with_parent, free_port, program, stop_group
from hilum.common.quiet import OUTBOUND_OFF

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_STEADY_S = 120.0  # a SuperNode that ran this long starts again without delay
_READY = "SuperNode ID: "
_log = logging.getLogger(__name__)


def keep_running(site: SiteConfig, site_file: Path) -> None:
    """Run the SuperNode until this process is asked to end.

    Raises:
        ConfigError: If the site file names no link, or its key or certificate is missing.
    """
    link = _checked_link(site, site_file)
    state = site.state.folder / "supernode"
    stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    wait_s = _FIRST_WAIT_S
    while not stopping:
        began = time.monotonic()
        _close_old_session(link, state)
        code = _run_once(link, site_file, state)
        if code is None:
            return
        if time.monotonic() - began > _STEADY_S:
            wait_s = _FIRST_WAIT_S
        pause_s = wait_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        print(
            f"the SuperNode ended with code {code}; starting it again in {pause_s:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        try:
            time.sleep(pause_s)
        except KeyboardInterrupt:
            return
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _checked_link(site: SiteConfig, site_file: Path) -> LinkSection:
    if site.link is None:
        raise ConfigError(
            site_file.name, ["the table `link` is missing; it names superlink, root_certificate, node_key"]
        )
    for name in ("root_certificate", "node_key"):
        if not getattr(site.link, name).is_file():
            raise ConfigError(
                site_file.name, [f"`link.{name}` names no file; ask the federation's admin for it"]
            )
    return site.link


def _run_once(link: LinkSection, site_file: Path, state: Path) -> int | None:
    """Run one SuperNode to its end; give its exit code, or None if this process was asked to end."""
    private_folder(state)
    environment = {
        **os.environ,
        **OUTBOUND_OFF,
        "FLWR_HOME": str(state / "flower"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    command = [
        program("flower-supernode"),
        *("--superlink", link.superlink),
        *("--root-certificates", str(link.root_certificate)),
        *("--auth-supernode-private-key", str(link.node_key)),
        *("--host", "127.0.0.1", "--port", str(free_port())),  # for its own child processes alone
        *("--node-config", f'site="{_quoted(site_file)}"'),
    ]
    child = subprocess.Popen(  # noqa: S603 - our own command line
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
    )
    # The process is waited for, not its output: its own children hold the pipe open, and watch whether it is reaped.
    threading.Thread(target=_pass_on, args=(child, state), daemon=True).start()
    try:
        return child.wait()
    except KeyboardInterrupt:
        return None
    finally:
        stop_group(child)


def _pass_on(child: "subprocess.Popen[str]", state: Path) -> None:
    """Show what the SuperNode prints, and remember its session."""
    assert child.stdout is not None
    for line in child.stdout:
        sys.stderr.write(line)
        sys.stderr.flush()
        if _READY in line:
            _remember_session(state, line)


def _remember_session(state: Path, line: str) -> None:
    digits = "".join(c for c in line.split(_READY, 1)[1] if c.isdigit())
    write_json(state / "session.json", {"node_id": int(digits)})


def _close_old_session(link: LinkSection, state: Path) -> None:
    """Tell the server that the session before this one is over. Without it, only time would."""
    if not (state / "session.json").exists():
        return
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supercore.protobuf.client import ProtobufClientInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    node_id = int(read_json(state / "session.json")["node_id"])
    key = load_ssh_private_key(link.node_key.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FederationError(
            "the node key is no elliptic-curve key; ask the federation's admin for a new one"
        )
    interceptors: list[ProtobufClientInterceptor] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(key, key.public_key()),
    ]
    try:
        with FleetHttpClient.from_server_address(
            link.superlink, False, link.root_certificate.read_bytes(), interceptors=interceptors
        ) as client:
            client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
    except Exception as error:
        # The server may be away, or the session long closed: the SuperNode itself then says what is wrong.
        _log.info("the earlier session was not closed: %s", type(error).__name__)


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
