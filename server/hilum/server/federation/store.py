"""A run directory: what a killed server goes on from, and what a finished run leaves.

Every checkpoint is written whole and carries the hash of its weights. The last two are kept; one that is damaged is
passed over for the one before it, and said so. One process holds a run directory at a time, and its user alone reads it.
"""

import json
import logging
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from hilum.common import __version__
from hilum.common.config import StudyConfig, study_to_toml
from hilum.common.config.resume import MAY_DIFFER, differences, in_words
from hilum.common.errors import DamagedError, RunError
from hilum.common.files import (
    private_folder,
    read_json,
    read_safetensors_metadata,
    write_bytes,
    write_json,
    write_text,
)
from hilum.common.locks import take
from hilum.common.machine import machine_problem
from hilum.common.output_folder import check_output_folder
from hilum.common.signing import StudyOrder
from hilum.common.weights import FlatWeights, Manifest, sha256_of
from hilum.server.federation.aggregators.base import AggregatorState
from hilum.server.federation.best import Best, best_of

_GENERATIONS = 2
_STUDY = "study.resolved.toml"
_LOCK = ".lock"
_STATE = "aggregator/"  # before the names of what the aggregator remembers; no tensor of a model has a slash in its name
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundRecord:
    """One line of `rounds.jsonl`.

    Attributes:
        bytes_down: Sent to all sites.
        bytes_up: Received from all sites.
        expected: How many sites the study has.
        contributed: How many of them are in this round.
        sites: By name: `examples` (a band), `loss`, `seconds`, `attempts`, `norm` of what was added, and the numbers of
            `hilum.common.training_health`.
        failures: By name, `code: words`: why each other site is not in the round.
        suspended: The sites that lost their place in the study with this round.
        update_norm: Of what the round added to the weights.
        score: Of the weights after the round, where the study picks a round; more is better.
        scores: By name, how each site scored it.
    """

    round: int
    wall_seconds: float
    bytes_down: int
    bytes_up: int
    expected: int
    contributed: int
    sites: dict[str, dict[str, float]]
    failures: dict[str, str]
    suspended: list[str]
    update_norm: float
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunState:
    """Where a run stands: the weights after `len(rounds)` rounds, what the aggregator remembers of them, and the best so far."""

    weights: FlatWeights = field(repr=False)
    rounds: tuple[RoundRecord, ...]
    aggregator: AggregatorState = field(repr=False, default_factory=dict)
    best: Best | None = None

    @property
    def chosen(self) -> FlatWeights:
        """The weights that the study is after: the best ones, or the last."""
        return self.weights if self.best is None else self.best.weights


class RunStore:
    """One run directory, held until `close`.

    Attributes:
        run_id: Names the run at the sites: the name that the admin signed.
        notes: What a reader of the results must know of the directory: a damaged checkpoint.
    """

    def __init__(self, folder: Path, run_id: str, lock: BinaryIO) -> None:
        self.folder, self.run_id = folder, run_id
        self.notes: list[str] = []
        self._lock = lock

    @classmethod
    def open(cls, folder: Path, order: StudyOrder, *, resume: bool) -> "RunStore":
        """Begin a run in an empty place, or go on with the same study's run, under whichever signature.

        Raises:
            RunError: If the folder holds another run, or none to resume; or a process holds it; or it can't be written.
        """
        check_output(folder, order.study, resume=resume)
        with _writing():
            private_folder(folder)
            lock = take(
                folder / _LOCK, "another process is working on this run; wait until it ends, or stop it"
            )
        try:
            check_output(folder, order.study, resume=resume)  # nobody changes it any more
            with _writing():
                write_text(folder / _STUDY, study_to_toml(order.study), private=True)
        except BaseException:
            lock.close()
            raise
        return cls(folder, order.run, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others take the directory."""
        self._lock.close()

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def save(self, progressed: RunState, manifest: Manifest) -> None:
        """Write a checkpoint, then `rounds.jsonl` to match it."""
        named = manifest.unflatten(progressed.weights)
        state = {f"{_STATE}{name}": array for name, array in progressed.aggregator.items()}
        facts = {
            "sha256": sha256_of(named),
            "state_sha256": sha256_of(state),
            "rounds": json.dumps([asdict(record) for record in progressed.rounds]),
        }
        path = self._checkpoints / f"round-{len(progressed.rounds):06d}.safetensors"
        tensors = {name: np.ascontiguousarray(array) for name, array in (named | state).items()}
        content = save_tensors(tensors, facts)
        with self.writing():
            if progressed.best is not None and progressed.best.round == len(progressed.rounds):
                self._keep_best(progressed.best, manifest)
            write_bytes(path, content, private=True)
            self._write_rounds(progressed)
        for kind in ("round", "best"):
            for old in sorted(self._checkpoints.glob(f"{kind}-*.safetensors"))[:-_GENERATIONS]:
                old.unlink()

    def _keep_best(self, best: Best, manifest: Manifest) -> None:
        named = {
            name: np.ascontiguousarray(array) for name, array in manifest.unflatten(best.weights).items()
        }
        facts = {"sha256": sha256_of(named)}
        write_bytes(
            self._checkpoints / f"best-{best.round:06d}.safetensors", save_tensors(named, facts), private=True
        )

    def load(self, manifest: Manifest) -> RunState | None:
        """Return the newest undamaged checkpoint; None if there is none.

        Raises:
            DamagedError: If there are checkpoints and all are damaged.
        """
        paths = sorted(self._checkpoints.glob("round-*.safetensors"), reverse=True)
        for path in paths:
            progressed = _read_checkpoint(path, manifest)
            if progressed is not None:
                with self.writing():
                    self._write_rounds(progressed)
                return replace(progressed, best=self._best_of(progressed.rounds, manifest))
            note = f"the checkpoint after round {_round_of(path)} was damaged and passed over"
            _log.warning("%s", note)
            self.notes.append(note)
        if paths:
            raise DamagedError(
                "every checkpoint of this run is damaged; start the study in a new output folder"
            )
        return None

    def _best_of(self, rounds: tuple[RoundRecord, ...], manifest: Manifest) -> Best | None:
        """Return the best of the rounds that a checkpoint holds; None where the study picks none.

        Raises:
            DamagedError: If its weights are.
        """
        place = best_of(record.scores for record in rounds)
        if place is None:
            return None
        best = rounds[place]
        path = self._checkpoints / f"best-{best.round:06d}.safetensors"
        try:
            content = path.read_bytes()
            tensors = load_tensors(content)
            if sha256_of(tensors) == read_safetensors_metadata(content)["sha256"]:
                return Best(best.round, best.scores, manifest.flatten(tensors))
        except Exception as error:  # whatever broke, the file is damaged
            _log.warning("%s can't be read: %s", path.name, type(error).__name__)
        raise DamagedError(
            f"the weights of the best round, {best.round}, are damaged or gone; start the study in a new output folder"
        )

    def _write_rounds(self, progressed: RunState) -> None:
        lines = [json.dumps(asdict(record)) for record in progressed.rounds]
        write_text(self.folder / "rounds.jsonl", "".join(line + "\n" for line in lines), private=True)

    def write(self, name: str, value: Any) -> None:
        """Write one JSON file of the run.

        Raises:
            RunError: If the folder can't be written.
        """
        with self.writing():
            write_json(self.folder / name, value, private=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say what is wrong where something can't be written to the folder.

        Raises:
            RunError: Then; what was there before is whole.
        """
        with _writing():
            yield


def check_output(folder: Path, study: StudyConfig, *, resume: bool) -> None:
    """See whether a run may begin, or go on, in a folder; nothing is written.

    With `resume`, a run that was stopped before it wrote anything begins.

    Raises:
        RunError: If it may not.
    """
    existing = folder / _STUDY
    if existing.exists():
        if not resume:
            raise RunError(
                "the output folder holds another run; choose a new one, or go on with it by --resume"
            )
        _check_same_study(existing, study)
        _check_same_version(folder)
    else:
        check_output_folder(folder, leftover=_is_left_over)


def _is_left_over(path: Path) -> bool:
    """Tell whether a file is what a process leaves that was killed before it wrote the first whole one."""
    return path.name == _LOCK or (path.name.startswith(".") and path.name.endswith(".partial"))


def _check_same_study(existing: Path, study: StudyConfig) -> None:
    """Refuse to go on with other settings than those that may differ (`hilum.common.config.resume`).

    Raises:
        RunError: It names the settings, and both values.
    """
    try:
        before = tomllib.loads(existing.read_text())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise DamagedError(
            f"{_STUDY} in the output folder is damaged; begin the study in a new one"
        ) from None
    found = differences(before, tomllib.loads(study_to_toml(study)))
    if found:
        raise RunError(
            f"the output folder holds a run of another study: {in_words(found)}; --resume goes on with the same study only, "
            f"and these alone may change: {', '.join(MAY_DIFFER)}"
        )


def _check_same_version(folder: Path) -> None:
    """Refuse to go on with what another version of Hilum began: its numbers may be others.

    Raises:
        RunError: If it was another.
    """
    try:
        before = read_json(folder / "environment.json")["hilum"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # it was stopped before it wrote that
    if before != __version__:
        raise RunError(
            f"the run was begun by Hilum {before}, this is {__version__}; install that version again to go on with it, or "
            "begin the study in a new output folder"
        )


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        problem = machine_problem(error)
        if problem is None:
            raise
        raise RunError(
            f"the run folder can't be written ({problem.short}); mend that and go on with --resume"
        ) from error


def _read_checkpoint(path: Path, manifest: Manifest) -> RunState | None:
    content = path.read_bytes()
    try:
        tensors = load_tensors(content)
        state = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_STATE)}
        facts = read_safetensors_metadata(content)
        # A checkpoint of before there was any state has no hash of it.
        hashes = (facts["sha256"], facts.get("state_sha256", sha256_of({})))
        if (sha256_of(tensors), sha256_of(state)) != hashes:
            return None
        weights = manifest.flatten(tensors)
        rounds = tuple(RoundRecord(**record) for record in json.loads(facts["rounds"]))
    except Exception:  # safetensors, JSON or a missing key: whatever broke, the file is damaged
        return None
    remembered = {name.removeprefix(_STATE): array for name, array in state.items()}
    return RunState(weights, rounds, remembered) if len(rounds) == _round_of(path) else None


def _round_of(path: Path) -> int:
    match = re.fullmatch(r"round-(\d+)\.safetensors", path.name)
    return int(match.group(1)) if match else -1
