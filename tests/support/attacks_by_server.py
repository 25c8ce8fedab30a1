"""What a hostile server can do to a site: one with the server's own key, whose studies the admin never signed."""

import http.server
import json
import ssl
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import ConfigRecord, RecordDict
from flwr.app import Message as FlowerMessage

from deployment import Process, free_port, wait_until
from hilum.common import records
from hilum.common.config import StudyConfig, load_study
from hilum.common.methods import build_method
from hilum.common.methods.parts import get_federated
from hilum.common.signing import SignedStudy, sign_study
from hilum.common.wire_ids import node_id_of
from hilum.server.gate import Gate, GateGrid, GateThread, make_server

SITE = "site-2"
_CONTEXT = b"hilum study 1\0"
_BUNDLE = b"PK\x03\x04 a bundle with code"


class AdmitAll:
    """The hostile server believes whoever comes."""

    def name_of(self, certificate_der: bytes) -> str | None:
        return SITE


class Orders:
    """Makes signed studies, right ones and forged ones.

    Args:
        study: An honest study.
        key: The admin's, as far as an attack needs it: to have signed something once.
    """

    def __init__(self, study: StudyConfig, key: Ed25519PrivateKey) -> None:
        self.study, self.key, self.now = study, key, time.time()
        self.sites = ["site-0", "site-1", SITE]

    def right(self, run: str = "hostile", **changes: Any) -> SignedStudy:
        facts: dict[str, Any] = {"sites": self.sites, "days": 1, "now": self.now, "key": self.key, **changes}
        return sign_study(self.study, run=run, **facts)

    def forged(self, key: Ed25519PrivateKey | None = None, **changes: Any) -> SignedStudy:
        """A document by hand: what the admin's own command would never sign."""
        document = json.loads(self.right().document)
        for path, value in changes.items():
            *sections, last = path.split("__")
            table = document
            for section in sections:
                table = table[section]
            table[last] = value
        content = json.dumps(document, sort_keys=True).encode()
        return SignedStudy(content, (key or self.key).sign(_CONTEXT + content))

    def tampered(self) -> SignedStudy:
        signed = self.right()
        return SignedStudy(signed.document.replace(b'"run":"hostile"', b'"run":"hostilf"'), signed.signature)


def requests(orders: Orders, base: np.ndarray) -> dict[str, tuple[str, str, RecordDict]]:
    """By what is tried: the kind of message, the code that the site must refuse it with, the message."""
    stranger = Ed25519PrivateKey.generate()

    def train(signed: SignedStudy, number: int = 1, weights: np.ndarray = base) -> RecordDict:
        return records.pack_training_request(signed, number, weights)

    unsigned = SignedStudy(orders.right().document, bytes(64))
    bundle = records.pack_request(orders.right())
    bundle["fab"] = ConfigRecord({"content": _BUNDLE, "hash": "0" * 64})
    found: dict[str, tuple[str, str, RecordDict]] = {
        "a bundle beside the request": (records.HELLO, "wrong_format", bundle),
        "a study that nobody signed": (records.TRAIN, "unsigned", train(unsigned)),
        "a study that a stranger signed": (records.TRAIN, "unsigned", train(orders.forged(stranger))),
        "a signed study, changed": (records.TRAIN, "unsigned", train(orders.tampered())),
        "a study that has expired": (
            records.TRAIN, "expired", train(orders.right(now=orders.now - 3 * 86400, days=1)),
        ),
        "a study signed 20 minutes ahead": (
            records.TRAIN, "not_yet_valid", train(orders.right(now=orders.now + 1200)),
        ),
        "a study for other sites": (
            records.TRAIN, "not_invited", train(orders.right(sites=["site-0", "site-1", "site-9"])),
        ),
        "another version": (records.TRAIN, "version", train(orders.forged(hilum="9.9.9"))),
        "a path as run name": (
            records.TRAIN, "wrong_format", train(orders.forged(run="../../../../hilum-escaped")),
        ),
        "an absolute path as run name": (records.TRAIN, "wrong_format", train(orders.forged(run="/tmp/hilum-escaped"))),
        "round -1": (records.TRAIN, "round", train(orders.right(), -1)),
        "a round beyond the study": (records.TRAIN, "round", train(orders.right(), 10**6)),
        "projection_width = 2**26": (
            records.TRAIN,
            "config",
            train(orders.forged(study__method={"name": "simclr", "projection_width": 2**26})),
        ),
        "a label column outside of the policy": (
            records.HELLO,
            "policy_labels",
            records.pack_request(orders.forged(study__tasks={"classification": {"label": "diagnosis"}})),
        ),
        "test_share = 0.99": (
            records.HELLO,
            "policy_test_share",
            records.pack_request(orders.forged(study__evaluation__test_share=0.99)),
        ),
        "a threshold of one patient": (
            records.HELLO,
            "policy_min_patients",
            records.pack_request(orders.forged(study__privacy__min_patients=1)),
        ),
        "weights of another model": (records.TRAIN, "wrong_format", train(orders.right(), 1, base[:-1])),
        "weights with a NaN": (
            records.TRAIN, "wrong_format", train(orders.right(), 1, np.full_like(base, np.nan)),
        ),
    }  # fmt: skip
    return found


def attack(table: Any, federation: Any, study_file: Path) -> None:
    """Take the place of the server for one site."""
    study = load_study(study_file)
    key = load_pem_private_key((federation.home / "federation" / "study.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    orders, base = Orders(study, key), get_federated(build_method(study))
    home, site_file = federation.sites[2]
    before = _files(home)
    with _hostile_gate(federation) as (gate, port), _victim(federation, home, site_file, port, "gate") as log:
        with gate.grid("hostile", orders.sites) as grid:
            wait_until("the site", lambda: node_id_of(SITE) in grid.get_node_ids())
            for what, (kind, code, content) in requests(orders, base).items():
                table.attempt("a hostile server", what, lambda k=kind, c=content: _ask(grid, k, c), code)
            replayed = orders.right(run="hostile")
            first = _ask(grid, records.HELLO, records.pack_request(replayed))
            table.note("a hostile server", "a study that the admin did sign", first, first == "answered")
            other = orders.forged(study__study__seed=99)
            table.attempt(
                "a hostile server",
                "another study under the run's name",
                lambda: _ask(grid, records.HELLO, records.pack_request(other)),
                "run_taken",
            )
        refusals = log.read_text().count("refused (")
        table.note(
            "",
            "the site's own log names each refusal",
            f"{refusals} lines",
            refusals >= len(requests(orders, base)),
        )
    escaped = [path for path in ("/tmp/hilum-escaped", "/tmp/hilum-attacked") if Path(path).exists()]
    new = sorted({path.parts[0] for path in _files(home) - before})
    table.note(
        "",
        "what was written at the site",
        f"{escaped or 'nothing outside'}, {new}",
        not escaped and new in ([], ["site"]),
    )
    _redirect(table, federation, home, site_file)


def _ask(grid: GateGrid, kind: str, content: RecordDict) -> str:
    grid.reply_limit(kind, 64 * 2**20)
    message = FlowerMessage(content, node_id_of(SITE), kind, ttl=120)
    replies = list(grid.send_and_receive([message], timeout=120))
    if not replies:
        return "no answer"
    if replies[0].has_error():
        return f"error {replies[0].error.code}"
    refusal = records.unpack_refusal(replies[0].content)
    return "answered" if refusal is None else f"refused: {refusal.code}"


@contextmanager
def _hostile_gate(federation: Any) -> Iterator[tuple[Gate, int]]:
    papers = federation.home / "federation"
    gate = Gate(AdmitAll())
    server = make_server(
        gate,
        host="127.0.0.1",
        port=0,
        certificate=papers / "server.crt",
        key=papers / "server.key",
        roots=papers / "root.crt",
    )
    with GateThread(server) as thread:
        yield gate, thread.port


@contextmanager
def _victim(federation: Any, home: Path, site_file: Path, port: int, name: str) -> Iterator[Path]:
    """The site, led to another port under the server's own name."""
    led = site_file.with_name(f"led-{name}.toml")
    told = tomllib.loads(site_file.read_text())
    told["link"]["server"] = f"127.0.0.1:{port}"
    led.write_text(tomli_w.dumps(told))
    log = federation.out / f"victim-{name}.out"
    victim = Process("site", "start", led, home=home, log=log)
    try:
        yield log
    finally:
        victim.stop()


def _redirect(table: Any, federation: Any, home: Path, site_file: Path) -> None:
    """A server that answers each call by leading elsewhere: to a host inside of the hospital, to a control path."""
    papers, elsewhere = federation.home / "federation", free_port()
    seen: list[str] = []
    inside = _listen(elsewhere, None, lambda handler: seen.append(handler.path))
    hits: list[str] = []

    def lead_away(handler: http.server.BaseHTTPRequestHandler) -> None:
        hits.append(handler.path)
        handler.send_response(307)
        handler.send_header("Location", f"http://127.0.0.1:{elsewhere}/v1/control/start-run")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(papers / "server.crt", papers / "server.key")
    port = free_port()
    hostile = _listen(port, tls, lead_away)
    try:
        with _victim(federation, home, site_file, port, "redirect") as log:
            wait_until("the site to call", lambda: hits, 60)
            time.sleep(3)
            said = log.read_text().splitlines()[-1] if log.read_text() else ""
    finally:
        for one in (hostile, inside):
            one.shutdown()
            one.server_close()
    paths = sorted(set(hits))
    table.note(
        "a hostile server", "a redirect into the hospital", f"{len(seen)} calls arrived there", not seen
    )
    table.note(
        "",
        "calls that the site made at all",
        ", ".join(paths),
        all(p.startswith("/v1/fleet/") for p in paths),
    )
    table.note("", "the site says", said[-160:], "Hilum server" in said)


def _listen(
    port: int, tls: ssl.SSLContext | None, answer: Callable[[http.server.BaseHTTPRequestHandler], Any]
) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            answer(self)

        do_GET = do_POST  # noqa: N815 - the library's name

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _files(home: Path) -> set[Path]:
    return {path.relative_to(home) for path in home.rglob("*") if path.is_file()}
