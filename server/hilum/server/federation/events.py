"""TensorBoard events of a run: loss and health at each site, size of the update, bytes and seconds."""

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from hilum.common.files import private_folder
from hilum.common.training_health import HEALTH
from hilum.server.federation.store import RoundRecord


class RoundEvents:
    """Writes one point a round. A resumed run writes its earlier rounds again into a fresh file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        private_folder(self.folder)
        self._writer = EventFileWriter(str(self.folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, record: RoundRecord) -> None:
        """Write one round's numbers."""
        values = {f"loss/{name}": facts["loss"] for name, facts in record.sites.items()}
        values |= {
            f"{number}/{name}": facts[number]
            for name, facts in record.sites.items()
            for number in HEALTH
            if number in facts
        }
        values |= {
            "federation/update_norm": record.update_norm,
            "federation/wall_seconds": record.wall_seconds,
            "federation/bytes_up": float(record.bytes_up),
            "federation/sites": float(record.contributed),
            "federation/sites_expected": float(record.expected),
        }
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._writer.add_event(Event(step=record.round, summary=summary))
        self._writer.flush()
