"""A site's loop in a thread, and a trainer that outlives it."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from hilum.client.link.loop import Loop
from hilum.client.link.trainer import Trainer
from hilum.common.supervise import Stamp
from places import SUPPORT

TRAINER = SUPPORT / "stand_in_trainer.py"
LARGE = 22 * 2**20


def request(do="echo", size_bytes=0) -> RecordDict:
    parts = {"facts": ConfigRecord({"do": do})}
    if size_bytes:
        values = np.random.default_rng(1).integers(0, 255, size_bytes, dtype=np.uint8).tobytes()
        parts["arrays"] = ArrayRecord({"weights": Array("float32", (size_bytes // 4,), "hilum.flat", values)})
    return RecordDict(parts)


class StopStamp(Stamp):
    """Ends the loop from its own thread, as a signal ends it in its process."""

    def __init__(self, path):
        super().__init__(path)
        self.stopping, self.touches = False, []

    def touch(self):
        super().touch()
        self.touches.append(time.monotonic())
        if self.stopping:
            raise SystemExit


class Running:
    """A loop in a thread."""

    def __init__(self, folder: Path, trainer: "WarmTrainer", read_papers, **kinds) -> None:
        self.stamp, self.trainer = StopStamp(folder / "stamp"), trainer
        self.acknowledged = folder / "acknowledged.json"
        self.loop = Loop(read_papers, trainer, self.stamp, self.acknowledged, **kinds)
        self.ended: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.loop.run()
        except BaseException as ended:
            self.ended = ended

    def stop(self):
        self.stamp.stopping = True
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.ended

    def taken(self) -> list[str]:
        return [do for _, do in self.trainer.taken()]


class WarmTrainer(Trainer):
    """A trainer that outlives the loops of several tests, unless it was killed: starting one takes a second."""

    def __init__(self, folder: Path) -> None:
        super().__init__([sys.executable, str(TRAINER), str(folder)])
        self.folder = folder

    def stop(self) -> None:
        if self._process is None or self._process.child.poll() is not None:
            super().stop()

    def taken(self) -> list[tuple[int, str]]:
        """Process and word of each message that was worked on in this test."""
        path = self.folder / "taken"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), do) for pid, do in (line.split(" ", 1) for line in lines)]


def wait_for_line(lines, words, patience_s=10):
    until = time.monotonic() + patience_s
    while not any(words in line for line in lines()):
        assert time.monotonic() < until, f"{words!r} is not among {lines()}"
        time.sleep(0.02)
