"""Kernels made for one encoder: its blocks compiled by torch's Inductor, once that takes less time than it saves.

Compiled code computes the same with another order of roundings, so a processor, for which the same bits are promised everywhere, is
left as it is. What was compiled is kept in the site's state folder, and read from there by the next process.
"""

import hashlib
import itertools
import json
import logging
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hilum.common.config import StudyConfig
from hilum.common.encoders.blocks import compile_blocks

_log = logging.getLogger(__name__)
_FIRST, _MEASURED = 5, 12  # steps: the first ones take memory and choose kernels
_SAVES = 0.2  # of a step's time, at least: 0.28 of a ViT-B's MAE, 0.57 of a ResNet-50's SimCLR on an H100
_SECONDS = 90.0  # compiling a ViT-B took 25 to 60
_SECONDS_AGAIN = 15.0  # with its code on disk
_PROVEN = 3  # steps: batches of both sizes, most likely
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_done_here: set[str] = set()
"""What this process has compiled already; its code serves later rounds."""


def keep_compiled_in(folder: Path) -> None:
    """Let this process keep compiled code in a folder of the site, unless its environment names another."""
    os.environ.setdefault(_CACHE, str(folder))


class LateCompiler:
    """Watches the first steps of a round, and compiles where what is left of the study is long enough.

    With `training.deterministic` it does not look at the clock, and compiles at once.

    Args:
        module: What is trained.
        study: The study.
        device: What it is trained on.
        steps: What is left of the study from this round's first step on; of the round, if the process ends with it.
    """

    def __init__(self, module: nn.Module, study: StudyConfig, device: torch.device, steps: int) -> None:
        self.module, self.device, self.steps = module, device, steps
        self._is_over = not study.training.compile or device.type != "cuda"
        self._began: list[float] = []
        self._compiled_at: int | None = None
        if self._is_over:
            return
        self.key = _key(study, torch.cuda.get_device_name(device))
        if study.training.deterministic or self.key in _done_here:
            self._compile()

    def step_begins(self, index: int) -> None:
        """Note when a step begins, the first of them with index 0; compile, if it is time."""
        if self._compiled_at is not None and index >= self._compiled_at + _PROVEN:
            self._remember()
        if self._is_over:
            return
        self._began.append(time.monotonic())
        if len(self._began) <= _FIRST + _MEASURED:
            return
        self._is_over = True
        marker = _marker(self.key)
        if pays(self._began[_FIRST:], self.steps - index, is_known=marker is not None and marker.exists()):
            self._compile(index)

    def _compile(self, index: int = 0) -> None:
        self._is_over = True
        if (problem := why_not(self.device)) is not None:
            _log.warning("training goes on without compiled kernels, more slowly (%s)", problem)
            return
        self._compiled_at = index
        count = compile_blocks(self.module)
        _log.info("compiling the network's %d blocks; training.compile = false would not", count)

    def _remember(self) -> None:
        """Note that the code is there, now that steps were taken with it."""
        self._compiled_at = None
        _done_here.add(self.key)
        if (marker := _marker(self.key)) is not None:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()


def why_not(device: torch.device) -> str | None:
    """Return why nothing can be compiled on this machine, for want of a C compiler mostly; None, if a small try succeeds."""

    def grow(x: Tensor) -> Tensor:
        return x.sin() + 1

    try:
        torch.compile(grow)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler's installation lacks
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def pays(began: Sequence[float], steps: int, *, is_known: bool) -> bool:
    """Tell whether compiling saves more time than it takes.

    Args:
        began: When each of some steps began, in seconds.
        steps: How many are to come.
        is_known: Whether the code is on disk already.
    """
    a_step = statistics.median(after - before for before, after in itertools.pairwise(began))
    return _SAVES * a_step * steps > (_SECONDS_AGAIN if is_known else _SECONDS)


def _key(study: StudyConfig, device: str) -> str:
    table = study.model_dump(mode="json")
    facts = [torch.__version__, device, *(table[name] for name in ("data", "encoder", "method", "training"))]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _marker(key: str) -> Path | None:
    """Return the file that says that this was compiled here before; None, where nothing is kept."""
    folder = os.environ.get(_CACHE)
    return Path(folder) / f"hilum-{key}" if folder else None
