"""A whole federation on one machine: the same two apps as a deployment, on one of two engines."""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, RecordDict

from hilum.client.app import make_app as make_client_app
from hilum.client.data.kept_split import KeptSplits
from hilum.client.data.site_data import SiteData, open_site, pooled
from hilum.client.disclosure.run_ledger import RunLedger
from hilum.client.evaluation.label_tables import label_lines, labels_json
from hilum.client.evaluation.selection import scorer
from hilum.client.intake.instance import Family
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.site import pretrain_alone
from hilum.client.state.workspace import Workspace
from hilum.common.config import SiteConfig, StudyConfig, study_to_toml
from hilum.common.cores import usable_cores
from hilum.common.errors import RunError
from hilum.common.files import read_json
from hilum.common.lockdown import close_outbound
from hilum.common.progress import progress_bar
from hilum.common.signing import (
    MAX_DAYS,
    SignedStudy,
    StudyOrder,
    public_key_of,
    public_text,
    sign_study,
    verify_study,
)
from hilum.common.start import Start, start_from_file
from hilum.common.weights import FlatWeights
from hilum.server.app import make_app as make_server_app
from hilum.server.federation.run_spec import Polling, RunSpec
from hilum.server.federation.store import RunStore, check_output
from hilum.simulations.archives import annotate_sites, check_patients, find_sites, index_sites, open_sites
from hilum.simulations.grid import InProcessGrid
from hilum.simulations.overlap import Overlap, overlap_lines, separation
from hilum.simulations.preview import write_previews
from hilum.simulations.research_folders import look_at, with_class_folders
from hilum.simulations.resume import (
    RUN_NAME_FILE,
    check_kept_parts,
    check_same_sites,
    has_begun,
    kept_run_name,
)
from hilum.simulations.threshold import with_kept_threshold, with_threshold

Backend = Literal["process", "ray"]
_PACES = {"process": Polling(poll_s=0.01, gather_s=60.0), "ray": Polling(poll_s=0.05, gather_s=300.0)}


def simulate(
    study: StudyConfig,
    archives: Path,
    out: Path,
    home: Path,
    *,
    backend: Backend = "process",
    ray_address: str | None = None,
    resume: bool = False,
    images: Family | None = None,
    tell: Callable[[str], None] = lambda _line: None,
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
        images: What made the pictures and NIfTI files; see `look_at`.
        tell: Told what was made of each site that has any, and that the threshold of patients was lifted.

    Returns:
        What `results.json` holds.

    Raises:
        HilumError: If anything about the input is wrong; nothing is written to `out` then.
    """
    close_outbound()  # a notebook comes here without the command line
    started = time.monotonic()
    if resume:
        study = with_kept_threshold(study, out)
    check_output(out, study, resume=resume)
    if backend == "ray":
        _need_ray(ray_address)
    start = start_from_file(study)  # before hours of indexing: the file may be wrong
    for line in start.report.lines() if start else ():
        tell(line)
    sites = _indexed(study, archives, home, images, tell)
    resume = resume and has_begun(out)
    opened = _opened(study, start, out, sites, resume=resume, tell=tell)
    # Threads are set before any worker starts.
    make_fabric("auto", study.training.precision, study.training.threads)
    with RunStore.open(out, opened.order, resume=resume) as store:
        store.write(RUN_NAME_FILE, {"run": opened.order.run})
        central = Workspace(home / "simulations" / "centralised").run(store.run_id)
        if not resume:
            _forget(store.run_id, central, sites)
        if not opened.going_on:
            for site, one in zip(sites, opened.data, strict=True):
                KeptSplits(Workspace(site.state.folder)).keep(store.run_id, one.kept(opened.study))
        try:
            where = _federate(opened, store, central, sites, home, backend, ray_address)
        finally:
            if (out / "results.json").exists():
                _forget(store.run_id, central, sites)
        return _finish(opened, store, sites, where, started)


def _federate(
    opened: "_Opened",
    store: RunStore,
    central: Path,
    sites: list[SiteConfig],
    home: Path,
    backend: Backend,
    ray_address: str | None,
) -> dict[str, Any]:
    """Run the study as a server and its sites would; return where that was."""
    spec = RunSpec(
        opened.signed,
        opened.order,
        store,
        _PACES[backend],
        opened.start,
        more_arms=_central_arm(opened.study, opened.data, central, opened.start),
        stage=progress_bar,
    )
    study_key = public_text(opened.key.public_key())
    if backend == "process":
        _run_in_process(spec, sites, study_key)
        return {"backend": backend}
    return {"backend": backend, "ray_nodes": _run_on_ray(spec, sites, study_key, home, ray_address)}


def _keeps_splits(out: Path, run: str, sites: list[SiteConfig]) -> bool:
    """Tell whether every site keeps the split that a run began with.

    Raises:
        RunError: If the run has trained, and a site does not know whom it set aside.
    """
    kept = [KeptSplits(Workspace(site.state.folder)).of_run(run) is not None for site in sites]
    if not all(kept) and any((out / "checkpoints").glob("*")):
        lacking = ", ".join(site.site.name for site, known in zip(sites, kept, strict=True) if not known)
        raise RunError(
            f"it is not known here whom this run set aside for testing at {lacking}: --home or --archives is another than "
            "when it began, or a site was added; give the same ones, or start the study in a new output folder"
        )
    return all(kept)


def _tell(study: StudyConfig, overlap: Overlap, data: list[SiteData]) -> None:
    """Say on stderr, before anything is trained, what was read and who stands where."""
    lines = label_lines(study, data) + overlap_lines(overlap, data)
    sys.stderr.writelines(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class _Opened:
    """A study over sites that are open.

    Attributes:
        study: As it is run.
        start: What the first round starts from, where a file is behind it.
        going_on: The sites keep the splits that the run began with.
    """

    study: StudyConfig
    start: Start | None = field(repr=False)
    signed: SignedStudy
    order: StudyOrder
    key: Ed25519PrivateKey = field(repr=False)
    data: list[SiteData]
    overlap: Overlap
    going_on: bool


def _indexed(
    study: StudyConfig, archives: Path, home: Path, images: Family | None, tell: Callable[[str], None]
) -> list[SiteConfig]:
    sites = find_sites(archives, home)
    holdings = [look_at(site, study, images) for site in sites]
    sites = with_class_folders(sites, holdings, study, tell)
    with progress_bar("indexing", sum(one.files for one in holdings)) as progress:
        index_sites(sites, progress, [one.images for one in holdings])
    if study.tasks.segmentation is not None:
        annotate_sites(sites, tell)
    return sites


def _opened(
    study: StudyConfig,
    start: Start | None,
    out: Path,
    sites: list[SiteConfig],
    *,
    resume: bool,
    tell: Callable[[str], None],
) -> _Opened:
    """Open the sites, sign the study, and say who stands where; nothing is written to `out`."""
    key = Ed25519PrivateKey.generate()  # the simulation is its own admin
    if resume:
        check_same_sites(out, sites)
        signed, order = _sign(study, start, out, sites, key)
        going_on = _keeps_splits(out, order.run, sites)
        data, overlap = open_sites(sites, study, order.run if going_on else None)
        for one in data:
            check_patients(one, study)
        check_kept_parts(out, study, sites, order.run)
    else:
        going_on = False
        data, overlap = open_sites(sites, study)
        study = with_threshold(study, data, tell)
        signed, order = _sign(study, start, out, sites, key)
    _tell(study, overlap, data)
    return _Opened(study, start, signed, order, key, data, overlap, going_on)


def _sign(
    study: StudyConfig, start: Start | None, out: Path, sites: list[SiteConfig], key: Ed25519PrivateKey
) -> tuple[SignedStudy, StudyOrder]:
    """Sign as an admin would, so that a simulated site checks all that a deployed one does.

    The run's name comes from the study and the place where it began: a resumed simulation goes on with the same, and
    another place's local state is never taken up.
    """
    run = kept_run_name(out) or _run_name(study, out)
    names, now = [site.site.name for site in sites], time.time()
    signed = sign_study(
        study, run=run, sites=names, days=MAX_DAYS, now=now, key=key, start=start.sha256 if start else None
    )
    return signed, verify_study(signed, key.public_key(), now=now, site=None)


def _run_name(study: StudyConfig, out: Path) -> str:
    place = os.fsencode(out.absolute())  # a path may be no UTF-8
    digest = hashlib.sha256(place + b"\0" + study_to_toml(study).encode()).hexdigest()
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
    study: StudyConfig, data: list[SiteData], folder: Path, start: Start | None
) -> Callable[[], Mapping[str, FlatWeights]]:
    """Pre-training on all sites' images in one place, which only a simulation can do."""

    def train() -> Mapping[str, FlatWeights]:
        if "centralised" not in study.evaluation.arms or not study.tasks.given:
            return {}
        with progress_bar("centralised pre-training", study.federation.rounds) as progress:
            everywhere = pooled(data)
            alone = pretrain_alone(
                everywhere,
                study,
                folder,
                start=start.weights if start else None,
                score=scorer(everywhere, study),
                progress=progress,
            )
            return {"centralised": alone.weights}

    return train


def _run_in_process(spec: RunSpec, sites: list[SiteConfig], study_key: str) -> None:
    workers = max(1, min(len(sites), usable_cores() // spec.study.training.threads))
    client_app = make_client_app(
        lambda context: sites[_partition(context)], lambda _site: public_key_of(study_key)
    )
    server_app = make_server_app(lambda _context: spec)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    with InProcessGrid(client_app, nodes=len(sites), workers=workers) as grid:
        server_app(grid=grid, context=context)


def _run_on_ray(
    spec: RunSpec, sites: list[SiteConfig], study_key: str, home: Path, address: str | None
) -> int:
    from hilum.simulations.ray_engine import run_on_ray

    client_app = make_client_app(
        lambda context: sites[_partition(context)], lambda _site: public_key_of(study_key)
    )
    server_app = make_server_app(lambda _context: spec)
    return run_on_ray(
        server_app,
        client_app,
        archives=[site.data.dicom for site in sites],
        home=home,
        threads=spec.study.training.threads,
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

    from hilum.simulations.ray_cluster import check_answers

    if find_spec("ray") is None:
        raise RunError("--backend ray needs Ray: pip install 'hilum[simulation]'")
    check_answers(address)


def _finish(
    opened: _Opened, store: RunStore, sites: list[SiteConfig], where: dict[str, Any], started: float
) -> dict[str, Any]:
    """Add what only the simulation knows to `results.json`, write the report, and let sites know their encoder."""
    from hilum.simulations.report import write_report

    write_previews(opened.study, store, opened.data)
    used = [open_site(site, opened.study, store.run_id) for site in sites]
    results: dict[str, Any] = read_json(store.folder / "results.json")
    results["simulation"] = {**where, "wall_seconds": round(time.monotonic() - started, 1)}
    results["labels"] = labels_json(opened.study, used)
    results["separation"] = separation(used, opened.overlap)
    store.write("results.json", results)
    write_report(store.folder)
    made = read_json(store.folder / "encoder" / "manifest.json")["encoder_sha256"]
    for site in sites:
        KeptSplits(Workspace(site.state.folder)).name_encoder(store.run_id, made)
    return results
