"""A Ray of this process's own, or a cluster that runs already: joined, looked over, and left.

A cluster that does not answer is told within seconds: Ray itself tries for minutes, and then ends the whole process. So the
first try is made by a process of its own.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from hilum.common import __version__
from hilum.common.cores import usable_cores
from hilum.common.errors import ConfigError, RunError
from hilum.common.files import private_folder
from hilum.common.interrupt import raise_on_signals
from hilum.common.lockdown import OUTBOUND_OFF
from hilum.common.machine import machine_problem

_CONNECT_S = 5.0
_JOIN_S = 30.0
_LOOK_S = 60.0
_PAGE = "docs/how-to/ray-cluster.md says how a cluster is set up"
_QUIET = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
_TRY = """
import json, sys
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
    found = {"address": ray.get_runtime_context().gcs_address}
except BaseException as error:
    found = {"kind": type(error).__name__, "words": str(error)}
print("\\n" + json.dumps(found), flush=True)
import os
os._exit(0)
"""


@dataclass(frozen=True)
class Node:
    """One machine of a cluster.

    Attributes:
        name: Its address, for people.
        cpus: CPU cores that Ray may give.
        gpus: GPUs that Ray may give.
    """

    node_id: str
    name: str
    cpus: float
    gpus: float


def cluster_address(given: str | None) -> str | None:
    """Return the cluster to join: the given address, else RAY_ADDRESS; None to start a Ray of this process's own.

    Raises:
        ConfigError: If it is not HOST:PORT or `auto`.
    """
    address = given if given is not None else os.environ.get("RAY_ADDRESS") or None
    if address in {None, "local"}:
        return None
    if address == "auto":
        return address
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        source = "--ray-address" if given is not None else "RAY_ADDRESS"
        raise ConfigError(
            source,
            [
                f"expected HOST:PORT of the head node, as `ray start --head` prints it, or auto, not {address!r}"
            ],
        )
    return address


def check_answers(given: str | None) -> None:
    """See that a cluster, if one is to be joined, is there at all.

    Raises:
        ConfigError: If its address is none.
        RunError: If nothing answers there.
    """
    address = cluster_address(given)
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError as error:
        raise RunError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); start one with `ray start --head --port {port}`, "
            f"or mend the address: {_PAGE}"
        ) from None


@contextmanager
def ray_nodes(address: str | None, *, threads: int) -> Iterator[tuple[Node, ...]]:
    """Join a cluster, or start a Ray on this machine, for the time of the block.

    Args:
        address: Of the cluster; None starts one here.
        threads: CPU cores that one site takes.

    Yields:
        The nodes that can hold a site.

    Raises:
        RunError: If the cluster does not answer, has other versions, or no node is large enough.
    """
    import ray

    with contextlib.ExitStack() as leaving:
        settings: dict[str, Any] = dict(_QUIET)
        if address is None:
            # Sockets have short names only, and the system's temporary folder may be deep.
            folder = leaving.enter_context(
                tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True)
            )
            settings |= {"_temp_dir": folder, "num_cpus": max(usable_cores(), threads), "address": "local"}
        else:
            settings |= {"address": _reachable(address), "runtime_env": {"env_vars": _environment()}}
            del settings["include_dashboard"]
        leaving.callback(ray.shutdown)
        try:
            ray.init(**settings)
        except Exception as error:
            problem = machine_problem(error)
            why = str(problem) if problem else f"{type(error).__name__}; {_PAGE}"
            raise RunError(f"Ray can't be started or joined: {why}") from error
        raise_on_signals()  # Ray takes SIGTERM for itself
        yield _large_enough(threads)


def _environment() -> dict[str, str]:
    """For the workers of a cluster, which do not inherit it from this process."""
    paths = os.environ.get("PYTHONPATH")
    return {**OUTBOUND_OFF, **({"PYTHONPATH": paths} if paths else {})}


def _reachable(address: str) -> str:
    """See that a cluster answers, in a process of its own.

    Returns:
        Its address as HOST:PORT.

    Raises:
        RunError: If it does not, and why.
    """
    check_answers(address)
    try:
        tried = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", _TRY, address],
            env={**os.environ, **OUTBOUND_OFF},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_JOIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunError(
            f"what listens at {address} is not the head of a Ray cluster, or does not answer; `ray status --address "
            f"{address}` must work on this machine: {_PAGE}"
        ) from None
    last = tried.stdout.strip().splitlines()[-1:]
    found = json.loads(last[0]) if last and last[0].startswith("{") else {"kind": "", "words": ""}
    if "address" in found:
        return str(found["address"])
    raise RunError(_why_not(address, found["words"] or tried.stderr))


def _why_not(address: str, words: str) -> str:
    if "mismatch" in words.lower():
        lines = [" ".join(line.split()) for line in words.splitlines()]
        versions = [line for line in lines if line.startswith(("Ray:", "Python:"))]
        middle = len(versions) // 2
        there, here = ", ".join(versions[:middle]), ", ".join(versions[middle:])
        return (
            f"the Ray cluster at {address} has other versions (there {there}; here {here}); install the same Ray and Python on "
            "all nodes"
        )
    if "node info" in words.lower() or "raylet" in words.lower():
        return (
            f"this machine is not a node of the Ray cluster at {address}; run `ray start --address {address}` here first: "
            f"{_PAGE}"
        )
    if address == "auto":
        return f"no Ray cluster runs on this machine; start one with `ray start --head`, or give HOST:PORT: {_PAGE}"
    return f"what listens at {address} is not the head of a Ray cluster that can be joined: {_PAGE}"


def _large_enough(threads: int) -> tuple[Node, ...]:
    """Return the nodes that can hold a site.

    Raises:
        RunError: If none can.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    nodes = [
        Node(
            one["NodeID"],
            str(one.get("NodeManagerAddress", "a node")),
            float(one["Resources"].get("CPU", 0)),
            float(one["Resources"].get("GPU", 0)),
        )
        for one in alive
    ]
    large = tuple(sorted((n for n in nodes if n.cpus >= threads), key=lambda node: (node.name, node.node_id)))
    if not large:
        most = max((node.cpus for node in nodes), default=0)
        raise RunError(
            f"a site takes {threads} CPU cores (training.threads), and no node of the Ray cluster has more than {most:g}; start "
            f"`ray` with --num-cpus {threads} or more on a node that has them"
        )
    return large


def check_nodes(nodes: Sequence[Node], folders: Sequence[Path], home: Path) -> None:
    """See that every node has the same Hilum, and sees the same folders.

    Args:
        nodes: Of the cluster.
        folders: The sites' archives.
        home: The state folder; a file is written there for a moment.

    Raises:
        RunError: If one does not; it names the node.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    private_folder(home)
    mark = home / f".shared-{secrets.token_hex(8)}"
    mark.touch(mode=0o600)
    try:
        look = ray.remote(num_cpus=0, max_retries=0)(look_around)
        asked = {
            node.name: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            ).remote([str(folder) for folder in folders], str(mark))
            for node in nodes
        }
        for name, answer in asked.items():
            _check_node(name, answer)
    finally:
        mark.unlink(missing_ok=True)


def look_around(folders: list[str], mark: str) -> dict[str, Any]:
    """Say what a node has; runs on the node."""
    return {
        "versions": _versions(),
        "home": Path(mark).exists(),
        "missing": sum(not Path(folder).is_dir() for folder in folders),
    }


def _versions() -> dict[str, str]:
    found = {"Hilum": __version__, "Python": python_version()}
    for package in ("torch", "flwr"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _check_node(name: str, answer: Any) -> None:
    import ray

    try:
        found = ray.get(answer, timeout=_LOOK_S)
    except ray.exceptions.GetTimeoutError:
        raise RunError(
            f"node {name} of the Ray cluster did not answer within {_LOOK_S:g} s: {_PAGE}"
        ) from None
    except ray.exceptions.RayError as error:
        raise RunError(
            f"node {name} of the Ray cluster can't run Hilum ({type(error).__name__}); install the same Hilum there, in the "
            f"environment that `ray start` runs in: {_PAGE}"
        ) from None
    other = [
        f"{package} {found['versions'].get(package)} there, {here} here"
        for package, here in _versions().items()
        if found["versions"].get(package) != here
    ]
    if other:
        raise RunError(
            f"node {name} of the Ray cluster has other versions ({', '.join(other)}); install the same"
        )
    if found["missing"] or not found["home"]:
        which = "the state folder (--home)" if not found["home"] else "the archives"
        raise RunError(
            f"node {name} of the Ray cluster does not see {which}; all nodes need --archives and --home on a shared disk, under "
            f"the same paths: {_PAGE}"
        )
