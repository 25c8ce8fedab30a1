"""What whoever reaches the server's port can do: strangers with `root.crt`, an approved site, a revoked one."""

import ssl
import time
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.proto.fab_pb2 import Fab, GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest

from gate_certificates import Federation as ForeignFederation
from gate_site import connection, everything_from, head
from hilum.common.wire_ids import node_id_of, run_id_of

CODE = b"import os; open('/tmp/hilum-attacked', 'w').write('x')"
HEADERS = {"content-type": "application/protobuf"}
FLEET = "/v1/fleet/"


def context_of(root: Path, papers: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=root)
    if papers is not None:
        context.load_cert_chain(papers / "site.crt", papers / "site.key")
    return context


def post(context: ssl.SSLContext, port: int, path: str, body: bytes = b"", **headers: str) -> str:
    """What an own connection gets to a POST: the status and the first words, or that none came about."""
    try:
        with httpx.Client(verify=context, timeout=20) as client:
            answer = client.post(
                f"https://127.0.0.1:{port}{path}", content=body, headers={**HEADERS, **headers}
            )
    except httpx.TransportError as error:
        return f"no connection: {type(error).__name__}"
    return f"{answer.status_code} {answer.text[:40]}"


def calls_that_command() -> dict[str, tuple[str, Any]]:
    """Flower's calls that must not exist: by what they would do, path and body."""
    run, node = run_id_of("honest"), Node(node_id=node_id_of("mallory"))
    return {
        "start a run with code": (
            "/v1/control/start-run",
            StartRunRequest(fab=Fab(hash_str="0" * 64, content=CODE)),
        ),
        "start a run with another app": (
            "/v1/control/start-run",
            StartRunRequest(app_spec="@flwrlabs/other"),
        ),
        "list the runs": ("/v1/control/list-runs", ListRunsRequest()),
        "stop the run": ("/v1/control/stop-run", StopRunRequest(run_id=run)),
        "register a node": ("/v1/control/register-node", RegisterNodeRequest(public_key=b"x")),
        "list the nodes": ("/v1/control/list-nodes", ListNodesRequest()),
        "unregister a node": ("/v1/control/unregister-node", ListNodesRequest()),
        "register a node by itself": (FLEET + "register-node", RegisterNodeFleetRequest(public_key=b"x")),
        "unregister by itself": (FLEET + "unregister-node", DeactivateNodeRequest(node_id=node.node_id)),
        "claim the server app's task": ("/v1/runtime/acquire-task", AcquireTaskRequest()),
        "take the task's input": ("/v1/runtime/pull-task-input", AcquireTaskRequest()),
        "get the run": (FLEET + "get-run", GetRunRequest(node=node, run_id=run)),
        "get the bundle": (FLEET + "get-fab", GetFabRequest(node=node, hash_str="0" * 64, run_id=run)),
        "read the documentation page": ("/docs", ListRunsRequest()),
        "climb out of the path": (FLEET + "../control/list-runs", ListRunsRequest()),
    }


def as_another_site(papers: Path) -> dict[str, tuple[str, Any]]:
    """Fleet calls with mallory's certificate in the name of site-0, or for what is not mallory's."""
    key = x509.load_pem_x509_certificate((papers.parent / "site-0" / "site.crt").read_bytes()).public_key()
    theirs = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    mine, other, run = node_id_of("mallory"), node_id_of("site-0"), run_id_of("honest")
    node, site = Node(node_id=mine), Node(node_id=other)
    forged = Message(
        metadata=Metadata(run_id=run, src_node_id=other, dst_node_id=1, reply_to_message_id="0" * 64)
    )
    own = Message(
        metadata=Metadata(run_id=run, src_node_id=mine, dst_node_id=1, reply_to_message_id="0" * 64)
    )
    tree = ObjectTree(object_id="0" * 64)
    return {
        "activate with site-0's public key": (
            FLEET + "activate-node",
            ActivateNodeRequest(public_key=theirs),
        ),
        "pull site-0's messages": (FLEET + "pull-messages", PullMessagesRequest(node=site)),
        "sign site-0 off": (FLEET + "deactivate-node", DeactivateNodeRequest(node_id=other)),
        "heartbeat as site-0": (FLEET + "send-node-heartbeat", SendNodeHeartbeatRequest(node=site)),
        "answer as site-0": (
            FLEET + "push-messages",
            PushMessagesRequest(node=node, messages_list=[forged], message_object_trees=[tree]),
        ),
        "answer a message of site-0's": (
            FLEET + "push-messages",
            PushMessagesRequest(node=node, messages_list=[own], message_object_trees=[tree]),
        ),
        "pull an object of the run": (
            FLEET + "pull-object",
            PullObjectRequest(node=node, run_id=run, object_id="0" * 64),
        ),
        "push an object into the run": (
            FLEET + "push-object",
            PushObjectRequest(node=node, run_id=run, object_id="0" * 64, object_content=b"x"),
        ),
        "confirm a message of the run": (
            FLEET + "confirm-message-received",
            ConfirmMessageReceivedRequest(node=node, run_id=run, message_object_id="0" * 64),
        ),
    }


def attack(
    table: Any, port: int, root: Path, mallory: Path, revoked: Path, out: Path, *, quick: bool
) -> None:
    """All of it, once; quickly, each stranger tries one call of each kind."""
    foreign = ForeignFederation(out / "foreign")
    strangers = {
        "stranger without a certificate": context_of(root),
        "stranger with a certificate of its own": ssl.create_default_context(cafile=root),
        "a fourth site that nobody approved, named site-0": ssl.create_default_context(cafile=root),
    }
    for who, name in zip(list(strangers)[1:], ("stranger", "site-0"), strict=True):
        identity = foreign.site(name)
        strangers[who].load_cert_chain(identity.cert, identity.key)
    commands = calls_that_command()
    pulls = (FLEET + "pull-messages", PullMessagesRequest(node=Node(node_id=node_id_of("site-0"))))
    tried = dict(list(commands.items())[:: 5 if quick else 1])
    for who, context in strangers.items():
        for what, (path, body) in {**tried, "pull site-0's messages": pulls}.items():
            found = post(context, port, path, body.SerializeToString())
            table.note(who, what, found, found.startswith("no connection"))
    own = context_of(root, mallory)
    for what, (path, body) in commands.items():
        found = post(own, port, path, body.SerializeToString())
        table.note("an approved site", what, found, found.startswith("404"))
    for what, (path, body) in as_another_site(mallory).items():
        found = post(own, port, path, body.SerializeToString())
        table.note("an approved site", what, found, found[:3] in ("403", "409", "410", "404"))
    found = post(context_of(root, revoked), port, *_body(pulls))
    table.note("a revoked site", "pull messages", found, found.startswith("401"))
    found = post(own, port, FLEET + "pull-messages", b"x" * 2_000_000)
    table.note("an approved site", "a body of 2 MB where a few bytes belong", found, found.startswith("413"))
    table.note("an approved site", "headers that never end", *_slow_headers(own, port))


def _body(call: tuple[str, Any]) -> tuple[str, bytes]:
    return call[0], call[1].SerializeToString()


def _slow_headers(context: ssl.SSLContext, port: int) -> tuple[str, bool]:
    began = time.monotonic()
    with connection(context, port) as tls:
        tls.sendall(head(FLEET + "pull-messages").rstrip() + b"\r\n")  # and never the empty line
        got = everything_from(tls)
    seconds = time.monotonic() - began
    return f"closed after {seconds:.0f} s, {len(got)} bytes", seconds < 15
