"""Thin Flower ServerApp: it finds out what to do and hands it to `run_study`."""

import threading
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from hilum.common.config import StudyConfig
from hilum.common.errors import RunError
from hilum.common.footprint import footprint_of, server_bytes
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import configure_logging
from hilum.common.memory import free_machine_bytes
from hilum.common.signing import SignedStudy, StudyOrder
from hilum.common.start import read_start
from hilum.common.wire_ids import SERVER_NODE_ID, run_id_of
from hilum.server.federation.aggregators.registry import AGGREGATORS
from hilum.server.federation.run_spec import Polling, RunSpec
from hilum.server.federation.run_study import run_study
from hilum.server.federation.start_file import start_file
from hilum.server.federation.store import RunStore

DEPLOYED_PACE = Polling(poll_s=0.1, gather_s=600.0)
_GB = 10**9
SpecOf = Callable[[Context], RunSpec]


def make_app(spec_of: SpecOf) -> ServerApp:
    """Return the server app; `spec_of` tells what a run is to do."""
    made = ServerApp()

    @made.main()
    def main(grid: Grid, context: Context) -> None:
        close_outbound()
        configure_logging()
        run_study(grid, spec_of(context))

    return made


def conduct_order(
    grid: Grid, order: StudyOrder, signed: SignedStudy, folder: Path, stop: threading.Event
) -> None:
    """Run a study that an admin signed: from its beginning, or from the last round that the run directory holds.

    Args:
        grid: Reaches the study's sites.
        order: What the signed study says.
        signed: The study as the sites get it.
        folder: The run directory.
        stop: Ends the run early, within a second or so, when it is set.

    Raises:
        HilumError: If the run can't go on; what it has done is kept.
    """
    _check_memory(order.study)
    resume = (folder / "study.resolved.toml").exists()
    if not resume:
        for left in folder.glob(".*.partial"):  # by a server that was killed while it wrote the first file
            left.unlink()
    kept = order.start_sha256 and start_file(folder.parent, order.run, order.start_sha256)
    start = read_start(kept, order.start_sha256) if kept and order.start_sha256 else None
    with RunStore.open(folder, order, resume=resume) as store:
        app = make_app(lambda _: RunSpec(signed, order, store, DEPLOYED_PACE, start, stop=stop))
        app(grid, Context(run_id_of(order.run), SERVER_NODE_ID, {}, RecordDict(), {}))
    if kept:
        kept.unlink(missing_ok=True)


def _check_memory(study: StudyConfig) -> None:
    """See that a study fits into this machine: one that does not would have the server killed again and again.

    Raises:
        RunError: If it does not.
    """
    spec = AGGREGATORS[study.federation.aggregator.name]
    held = spec.memory_bytes(footprint_of(study).travelling, study.federation.sites)
    needed, free = server_bytes(study, held), free_machine_bytes()
    if needed > free:
        raise RunError(
            f"the study's weights take about {needed / _GB:.3g} GB of this server, {free / _GB:.3g} GB are free; choose "
            "a smaller encoder, image or decoder, or a larger machine"
        )
