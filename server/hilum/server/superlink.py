"""The deployed server: one SuperLink process on one HTTPS port.

Flower's own state stays in memory; what must survive is in the run directories.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from hilum.common.errors import ConfigError, FederationError
from hilum.common.processes import die_with_parent, program, stop_group
from hilum.common.quiet import OUTBOUND_OFF
from hilum.server.control import ServerLink, answers, register_site


def serve(*, host: str, port: int, keys: Path, home: Path) -> None:
    """Run the SuperLink until this process is asked to end, and admit the sites whose public keys lie in `keys`.

    Args:
        host: The address to listen on.
        port: The one port.
        keys: Holds `root.crt`, `server.crt`, `server.key` and a `*.pub` for each site.
        home: Hilum's state folder; runs are written to `runs/` in it.

    Raises:
        ConfigError: If a certificate or key is missing.
        FederationError: If the SuperLink does not come up.
    """
    for name in ("root.crt", "server.crt", "server.key"):
        if not (keys / name).is_file():
            raise ConfigError(
                name, ["is missing in the key folder; `hilum admin dev-keys FOLDER` makes a set for tests"]
            )
    environment = {
        **os.environ,
        **OUTBOUND_OFF,
        "FLWR_HOME": str(home / "flower"),
        "HILUM_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    home.mkdir(parents=True, exist_ok=True)
    command = [
        program("flower-superlink"),
        *("--host", host, "--port", str(port)),
        *("--ssl-certfile", str(keys / "server.crt"), "--ssl-keyfile", str(keys / "server.key")),
        *("--ssl-ca-certfile", str(keys / "root.crt")),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
        *("--isolation", "subprocess"),
    ]

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    child = subprocess.Popen(  # noqa: S603 - our own command line
        command,
        env=environment,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - it calls nothing but prctl
    )
    try:
        link = ServerLink(f"127.0.0.1:{port}" if host == "0.0.0.0" else f"{host}:{port}", keys / "root.crt")  # noqa: S104 - compared, not bound
        _wait_until_up(child, link)
        for public in sorted(keys.glob("*.pub")):
            register_site(link, public)
            print(f"{public.stem} may connect", file=sys.stderr, flush=True)
        print(f"serving on {host}:{port}; runs are kept in {home / 'runs'}", file=sys.stderr, flush=True)
        code = child.wait()
        raise FederationError(f"the SuperLink ended with code {code}; see its lines above")
    except KeyboardInterrupt:
        return
    finally:
        stop_group(child)


def _wait_until_up(child: "subprocess.Popen[str]", link: ServerLink, patience_s: float = 60.0) -> None:
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        if child.poll() is not None:
            raise FederationError(f"the SuperLink ended with code {child.returncode}; is the port in use?")
        if answers(link):
            return
        time.sleep(0.3)
    raise FederationError(f"the SuperLink did not come up within {patience_s:g} s")
