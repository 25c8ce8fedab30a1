"""The calls that an admin makes to a SuperLink, over its Control API."""

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, RegisterNodeRequest, StartRunRequest, StopRunRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from hilum.common import __version__
from hilum.common.config import StudyConfig
from hilum.common.errors import ConfigError, FederationError


@dataclass(frozen=True)
class ServerLink:
    """How to reach a SuperLink: its address and the root certificate that vouches for it."""

    address: str
    root_certificate: Path


@dataclass(frozen=True)
class RunStatus:
    """Where a submitted run stands: `pending`, `running`, `finished`; and how it finished."""

    status: str
    outcome: str
    details: str


def answers(link: ServerLink) -> bool:
    """Whether a server is up there and takes calls."""
    try:
        with _control(link) as client:
            client.ListRuns(ListRunsRequest())
    except FederationError:
        return False
    return True


def register_site(link: ServerLink, public_key: Path) -> None:
    """Let the holder of a key connect.

    Raises:
        ConfigError: If the file holds no OpenSSH public key.
    """
    try:
        key = load_ssh_public_key(public_key.read_bytes())
    except ValueError:
        raise ConfigError(public_key.name, ["is no OpenSSH public key (`ecdsa-sha2-nistp384 ...`)"]) from None
    with _control(link) as client:
        client.RegisterNode(
            RegisterNodeRequest(public_key=key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        )


def submit(link: ServerLink, study: StudyConfig, run: str, *, resume: bool) -> int:
    """Start a study on the sites that are connected. The bundle holds no Python: sites run what they installed.

    Returns:
        Flower's id of the run.

    Raises:
        FederationError: If the server can't be reached or refuses.
    """
    pyproject = {
        "project": {
            "name": _bundle_name(study),
            "version": "1.0.0",
            "description": "A Hilum study",
            "license": "Apache-2.0",
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "hilum",
                    "fab-include": ["README.md"],
                    "components": {"serverapp": "hilum.server.app:app", "clientapp": "hilum.client.app:app"},
                    "config": {
                        "study": json.dumps(study.model_dump(mode="json")),
                        "run": run,
                        "resume": resume,
                    },
                }
            }
        },
    }
    readme = f"A Hilum {__version__} study: a config, no code.\n"
    files: dict[str, Path | bytes] = {
        "pyproject.toml": tomli_w.dumps(pyproject).encode(),
        "README.md": readme.encode(),
    }
    bundle, _ = build_fab_from_files(files)
    fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
    with _control(link) as client:
        answer = client.StartRun(StartRunRequest(fab=fab_to_proto(fab), federation="", app_spec=""))
    if not answer.HasField("run_id"):
        raise FederationError("the server did not accept the study; see its log")
    return int(answer.run_id)


def run_status(link: ServerLink, flower_run: int) -> RunStatus:
    """Where a run stands.

    Raises:
        FederationError: If the server can't be reached or does not know the run.
    """
    with _control(link) as client:
        runs = client.ListRuns(ListRunsRequest(run_id=flower_run)).run_dict
    if flower_run not in runs:
        raise FederationError(
            "the server does not know this run; was it restarted? Submit again with --resume"
        )
    status = runs[flower_run].status
    return RunStatus(status.status, status.sub_status, status.details)


def wait_for(link: ServerLink, flower_run: int, *, poll_s: float = 1.0) -> RunStatus:
    """Wait until a run has finished."""
    while (status := run_status(link, flower_run)).status != "finished":
        time.sleep(poll_s)
    return status


def stop_run(link: ServerLink, flower_run: int) -> bool:
    """Ask the server to stop a run; its checkpoints stay."""
    with _control(link) as client:
        return bool(client.StopRun(StopRunRequest(run_id=flower_run)).success)


class _control:  # noqa: N801 - used as a function
    """A client of the SuperLink's Control API, closed at the end of the block; its errors become ours."""

    def __init__(self, link: ServerLink) -> None:
        try:
            root = link.root_certificate.read_bytes()
        except OSError:
            raise ConfigError(
                "root certificate", ["can't be read; give the `root.crt` of the server"]
            ) from None
        versions = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
        self._client = ControlHttpClient.from_server_address(
            link.address, False, root, interceptors=[versions]
        )
        self._address = link.address

    def __enter__(self) -> ControlHttpClient:
        return self._client

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._client.close()
        if isinstance(error, Exception) and not isinstance(error, FederationError):
            raise FederationError(
                f"the server at {self._address} did not answer as expected ({type(error).__name__}); "
                "check the address, the root certificate and that `hilum admin serve` runs"
            ) from None


def _bundle_name(study: StudyConfig) -> str:
    """Flower wants a letter, then letters, digits or hyphens, 32 at most."""
    return ("hilum-" + re.sub(r"[^A-Za-z0-9]+", "-", study.study.name).strip("-"))[:32].rstrip("-")
