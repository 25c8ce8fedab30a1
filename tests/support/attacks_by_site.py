"""What an approved site can do to the studies that it takes part in, beside two honest ones."""

import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import ConfigRecord, Message, RecordDict

from attacks_by_strangers import context_of
from gate_site import Site
from health import HEALTHY
from hilum.common import records
from hilum.common.config import load_study, parse_study
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest
from hilum.common.weights import sha256_of

PEAK_MIB = 64
"""How much more memory the server may take for a study in which an update of 800 MB is sent."""

_BAND = 22
_LOOK_EVERY_S = 2.0
_LARGE_VALUES = 200_000_000  # an update of 800 MB

Answer = Callable[[records.Request], RecordDict]


@dataclass(frozen=True)
class Attack:
    """One study in which mallory answers a kind of message as it likes, and what the server must say of it."""

    what: str
    kind: str
    answer: Answer
    wanted: str


def _update(change: Callable[[np.ndarray], np.ndarray], examples: int = _BAND) -> Answer:
    def answer(request: records.Request) -> RecordDict:
        study = json.loads(request.signed.document)["study"]
        manifest = federated_manifest(build_method(parse_study(study)))
        reply = records.TrainReply(
            site="mallory",
            round_number=request.round_number,
            base_sha256=sha256_of(manifest.unflatten(request.base)),
            examples=examples,
            loss=1.0,
            seconds=1.0,
            health=HEALTHY,
            update=change(np.full_like(request.base, 1e-4)),
        )
        return records.pack_training_reply(reply)

    return answer


def _evaluation(text: str) -> Answer:
    return lambda _request: RecordDict({"facts": ConfigRecord({"site": "mallory", "evaluation": text})})


def _table(**changes: Any) -> str:
    row = {
        "site": "mallory",
        "task": "classification",
        "protocol": "linear",
        "label_fraction": 1.0,
        "arm": "federated",
        "metric": "auroc",
        "value": 0.5,
        "ci_low": 0.4,
        "ci_high": 0.6,
        "n_patients": 22,
    }
    return json.dumps({"rows": [{**row, **changes}], "comparisons": []})


def _refusal(words: str) -> Answer:
    return lambda _request: RecordDict({"facts": ConfigRecord({"site": "mallory", "refused": words})})


def _greeting(name: str) -> Answer:
    return lambda _request: records.pack_hello(records.Hello(name, _BAND))


def _score(value: float) -> Answer:
    def answer(request: records.Request) -> RecordDict:
        return records.pack_score_reply(records.ScoreReply("mallory", request.round_number, value))

    return answer


_LARGE, _USUAL = "an update of 800 MB", "an update of NaN"
_QUICK = ("a greeting in another's name", _LARGE, _USUAL, "a score of 7", "evaluation of 200,000 brackets")
ATTACKS = (
    Attack("a greeting in another's name", records.HELLO, _greeting("site-0"), "wrong_site"),
    Attack(_USUAL, records.TRAIN, _update(lambda u: u * np.float32("nan")), "not_finite"),
    Attack(
        _LARGE,
        records.TRAIN,
        _update(lambda _: np.random.default_rng(1).random(_LARGE_VALUES, np.float32)),
        "too_large",
    ),
    Attack(
        "an update of 800 MB that names one chunk again and again",
        records.TRAIN,
        _update(lambda _: np.zeros(_LARGE_VALUES, np.float32)),
        "too_large",
    ),
    Attack("an update of +8 everywhere", records.TRAIN, _update(lambda u: np.full_like(u, 8)), "too_large"),
    Attack("2**62 examples", records.TRAIN, _update(lambda u: u, 2**62), "examples"),
    Attack(
        "a refusal of 5 MB with control characters",
        records.TRAIN,
        _refusal("\x1b[2J\n" * 1_000_000),
        "too_large",
    ),
    Attack(
        "a refusal in words of its own", records.TRAIN, _refusal("\x1b[31mforged\nlog line"), "wrong_format"
    ),
    Attack("a score of 7", records.SCORE, _score(7.0), "mallory gave no score that counts"),
    Attack(
        "evaluation with 1e999",
        records.EVALUATE,
        _evaluation(_table().replace("0.5", "1e999")),
        "wrong_format",
    ),
    Attack("evaluation of 200,000 brackets", records.EVALUATE, _evaluation("[" * 200_000), "wrong_format"),
    Attack(
        "evaluation with AUROC 7",
        records.EVALUATE,
        _evaluation(_table(value=7.0, ci_high=7.5)),
        "wrong_format",
    ),
    Attack(
        "evaluation in another's name", records.EVALUATE, _evaluation(_table(site="site-0")), "wrong_site"
    ),
)


QUICK = tuple(one for one in ATTACKS if one.what in _QUICK)


class Mallory:
    """A site by hand: honest where it is not told otherwise."""

    def __init__(self, papers: Path, root: Path, port: int) -> None:
        key = load_pem_private_key((papers / "site.key").read_bytes(), None)
        context: ssl.SSLContext = context_of(root, papers)
        identity = SimpleNamespace(private_key=key)
        self.site = Site(SimpleNamespace(client_context=lambda _: context), identity, "mallory", port)  # type: ignore[arg-type]
        self.site.activate()

    def serve(self, kind: str, content: Answer, over: Callable[[], bool]) -> str:
        """Take part until the run is over, lying in one kind of message; give what the gate said to the lie."""
        honest = {
            records.HELLO: _greeting("mallory"),
            records.SCORE: _score(0.5),
            records.TRAIN: _update(lambda u: u),
            records.EVALUATE: _refusal("no_labels"),
        }
        said, looked = "was never asked", time.monotonic()
        while True:
            if time.monotonic() - looked > _LOOK_EVERY_S:
                if over():
                    return said
                looked = time.monotonic()
            taken = self.site.take()
            if taken is None:
                continue
            message = self.site.read(taken)
            found = message.metadata.message_type
            answer = content if found == kind else honest[found]
            reply = Message(answer(records.unpack_request(message.content)), reply_to=message)
            outcome = self._send(reply)
            if found == kind:
                said = outcome

    def _send(self, reply: Message) -> str:
        try:
            self.site.answer(reply)
        except httpx.HTTPStatusError as error:
            return f"the gate: {error.response.status_code} {error.response.text}"
        except httpx.TransportError as error:
            return f"the gate cut it off ({type(error).__name__})"
        return "announced"


def attack(table: Any, federation: Any, study_file: Path, papers: Path, *, quick: bool) -> None:
    """One study an attack; the two honest sites carry each to its end. Quickly, one attack of each kind of message."""
    short = federation.out / "short.toml"
    text = study_file.read_text()
    rounds = load_study(study_file).federation.rounds
    short.write_text(text.replace(f"rounds = {rounds}", "rounds = 1"))
    mallory = Mallory(papers, federation.root, federation.port)
    peaks_mib: dict[str, float] = {"the honest study": federation.peak_mib()}
    for number, one in enumerate(QUICK if quick else ATTACKS):
        run = f"evil-{number}"
        federation.forget_peak()
        federation.submit(short, run, ["site-0", "site-1", "mallory"])
        said = mallory.serve(
            one.kind,
            one.answer,
            lambda run=run: federation.state(run)[0] in ("finished", "failed", "stopped"),
        )
        peaks_mib[one.what] = federation.peak_mib()
        state, reason = federation.state(run)
        found = [line for line in _told(federation, run) if "mallory" in line]
        held = state == "finished" and any(one.wanted in line for line in found)
        table.note("a site", one.what, f"{said}; {state} {reason}: {'; '.join(found)[:160]}", held)
    large = peaks_mib[_LARGE]
    names = list(peaks_mib)
    usual = max(
        peaks_mib[name] for name in names[: names.index(_LARGE)]
    )  # peaks differ by tens of MiB between studies
    outcome = (
        f"peak {large:.0f} MiB; in the studies before it, with updates of the right size, up to {usual:.0f} MiB; "
        f"of all, in their order: {', '.join(f'{peak:.0f}' for peak in peaks_mib.values())}"
    )
    # Beside other tests the peaks of studies that are alike differ by nearly as much.
    bound = 2 * PEAK_MIB if quick else PEAK_MIB
    table.note("", "the server's memory in the study with 800 MB", outcome, large - usual < bound)
    log = federation.log.read_text()
    table.note(
        "", "control characters in the log", str("\x1b" in log), "\x1b" not in log and "forged" not in log
    )


def _told(federation: Any, run: str) -> list[str]:
    """What results and rounds say of refused sites."""
    folder = federation.home / "runs" / run
    results = json.loads((folder / "results.json").read_text()) if (folder / "results.json").exists() else {}
    failures = [
        f"{name}: {why}" for record in results.get("rounds", []) for name, why in record["failures"].items()
    ]
    return [*results.get("notes", []), *failures]
