"""A whole federation on one machine: the same two apps as a deployment, on one of two engines."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, RecordDict

from hilum.client.app import make_app as make_client_app
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.site import pretrain_alone
from hilum.client.run_ledger import RunLedger
from hilum.client.site_data import SiteData, pooled
from hilum.client.workspace import Workspace
from hilum.common.config import SiteConfig, StudyConfig, study_to_toml
from hilum.common.progress import progress_bar
from hilum.common.quiet import close_outbound
from hilum.common.signing import (
    MAX_DAYS,
    SignedStudy,
    StudyOrder,
    public_key_of,
    public_text,
    sign_study,
    verify_study,
)
from hilum.common.weights import FlatWeights
from hilum.server.app import make_app as make_server_app
from hilum.server.federation.assignment import Assignment, Pace
from hilum.server.federation.store import RunStore, check_output
from hilum.simulations.archives import find_sites, index_sites, open_sites
from hilum.simulations.grid import InProcessGrid
from hilum.simulations.preview import write_previews
from hilum.simulations.resume import (
    RUN_NAME_FILE,
    check_kept_parts,
    check_same_sites,
    has_begun,
    kept_run_name,
)

Backend = Literal["process", "ray"]
_PACES = {"process": Pace(poll_s=0.01, gather_s=60.0), "ray": Pace(poll_s=0.05, gather_s=300.0)}


def simulate(
    study: StudyConfig,
    archives: Path,
    out: Path,
    home: Path,
    *,
    backend: Backend = "process",
    ray_address: str | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Index, federate, evaluate, and write the run directory.

    Args:
        study: The study.
        archives: One folder a site; see `find_sites`.
        out: The run directory: new, empty, or with `resume` this study's own.
        home: Where catalogues and caches are kept.
        backend: `process` for threads in this process, `ray` for Ray tasks.
        ray_address: Of a Ray cluster that runs already; None looks at RAY_ADDRESS, and then starts a Ray here.
        resume: Go on with a run that was stopped; one that was stopped before it wrote anything begins.

    Returns:
        What `results.json` holds.

    Raises:
        HilumError: If anything about the input is wrong; nothing is written to `out` then.
    """
    close_outbound()
    started = time.monotonic()
    check_output(out, study, resume=resume)
    if backend == "ray":
        _need_ray(ray_address)
    sites = find_sites(archives, home)
    files = sum(sum(1 for _ in site.data.dicom.rglob("*")) for site in sites)
    with progress_bar("indexing", files) as progress:
        index_sites(sites, progress)
    resume = resume and has_begun(out)
    if resume:
        check_same_sites(out, sites)
    data = open_sites(sites, study)
    make_fabric(
        "auto", study.training.precision, study.training.threads
    )  # threads are set before any worker starts
    key = Ed25519PrivateKey.generate()  # the simulation is its own admin
    signed, order = _sign(study, out, sites, key)
    if resume:
        check_kept_parts(out, study, sites, order.run)
    with RunStore.open(out, order, resume=resume) as store:
        store.write(RUN_NAME_FILE, {"run": order.run})
        central = Workspace(home / "simulations" / "centralised").run(store.run_id)
        if not resume:
            _forget(store.run_id, central, sites)
        try:
            assignment = Assignment(
                signed,
                order,
                store,
                _PACES[backend],
                more_arms=_central_arm(study, data, central),
                stage=progress_bar,
            )
            study_key = public_text(key.public_key())
            where: dict[str, Any] = {"backend": backend}
            if backend == "process":
                _run_in_process(assignment, sites, study_key)
            else:
                where["ray_nodes"] = _run_on_ray(assignment, sites, study_key, home, ray_address)
        finally:
            if (out / "results.json").exists():
                _forget(store.run_id, central, sites)
        write_previews(study, store, data)
        return _finish(store, where, time.monotonic() - started)


def _sign(
    study: StudyConfig, out: Path, sites: list[SiteConfig], key: Ed25519PrivateKey
) -> tuple[SignedStudy, StudyOrder]:
    """Sign as an admin would, so that a simulated site checks all that a deployed one does.

    The run's name comes from the study and the place where it began: a resumed simulation goes on with the same, and
    another place's local state is never taken up.
    """
    run = kept_run_name(out) or _run_name(study, out)
    names, now = [site.site.name for site in sites], time.time()
    signed = sign_study(study, run=run, sites=names, days=MAX_DAYS, now=now, key=key)
    return signed, verify_study(signed, key.public_key(), now=now, site=None)


def _run_name(study: StudyConfig, out: Path) -> str:
    digest = hashlib.sha256(f"{out.absolute()}\0{study_to_toml(study)}".encode()).hexdigest()
    return f"{study.study.name[:51]}-{digest[:12]}"


def _forget(run: str, central: Path, sites: list[SiteConfig]) -> None:
    """Drop what the sites keep of a run, their ledger's entry too: the same place may be simulated into again."""
    shutil.rmtree(central, ignore_errors=True)
    for site in sites:
        workspace = Workspace(site.state.folder)
        shutil.rmtree(workspace.run(run), ignore_errors=True)
        with closing(RunLedger(workspace.runs)) as ledger:
            ledger.forget(run)


def _central_arm(
    study: StudyConfig, data: list[SiteData], folder: Path
) -> Callable[[], Mapping[str, FlatWeights]]:
    """Pre-training on all sites' images in one place, which only a simulation can do."""

    def train() -> Mapping[str, FlatWeights]:
        if "centralised" not in study.evaluation.arms or study.tasks.classification is None:
            return {}
        with progress_bar("centralised pre-training", study.federation.rounds) as progress:
            return {"centralised": pretrain_alone(pooled(data), study, folder, progress=progress)}

    return train


def _run_in_process(assignment: Assignment, sites: list[SiteConfig], study_key: str) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, min(len(sites), cores // assignment.study.training.threads))
    client_app = make_client_app(
        lambda context: sites[_partition(context)], lambda _site: public_key_of(study_key)
    )
    server_app = make_server_app(lambda _context: assignment)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    with InProcessGrid(client_app, nodes=len(sites), workers=workers) as grid:
        server_app(grid=grid, context=context)


def _run_on_ray(
    assignment: Assignment, sites: list[SiteConfig], study_key: str, home: Path, address: str | None
) -> int:
    from hilum.simulations.ray_engine import run_on_ray

    client_app = make_client_app(
        lambda context: sites[_partition(context)], lambda _site: public_key_of(study_key)
    )
    server_app = make_server_app(lambda _context: assignment)
    return run_on_ray(
        server_app,
        client_app,
        archives=[site.data.dicom for site in sites],
        home=home,
        threads=assignment.study.training.threads,
        address=address,
    )


def _partition(context: Context) -> int:
    return int(context.node_config["partition-id"])


def _need_ray(address: str | None) -> None:
    """See that Ray is there, and a cluster's address right, before hours of indexing.

    Raises:
        HilumError: If they are not.
    """
    from importlib.util import find_spec

    from hilum.common.errors import RunError
    from hilum.simulations.ray_cluster import check_answers

    if find_spec("ray") is None:
        raise RunError("--backend ray needs Ray: pip install 'hilum[simulation]'")
    check_answers(address)


def _finish(store: RunStore, where: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Add what only the simulation knows to `results.json`, and write the report."""
    from hilum.common.files import read_json
    from hilum.simulations.report import write_report

    results: dict[str, Any] = read_json(store.folder / "results.json")
    results["simulation"] = {**where, "wall_seconds": round(seconds, 1)}
    store.write("results.json", results)
    write_report(store.folder)
    return results
