"""The site engineer's commands: `hilum site ...`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home
from hilum.common.progress import progress_bar

app = typer.Typer(no_args_is_help=True, help="For the site engineer: index, train and take part.")

Study = Annotated[Path, typer.Argument(help="The study file.")]
SiteFile = Annotated[Path, typer.Argument(help="The site file.")]


def register(root: typer.Typer) -> None:
    """Add this portion's commands to `hilum`."""
    root.add_typer(app, name="site")


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="The folder of DICOM files; it is only read.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Index an archive. A second call reads only what has changed."""
    from hilum.client.intake.index import index_archive
    from hilum.client.intake.scan import scan
    from hilum.client.workspace import Workspace
    from hilum.common.errors import DataError

    total = sum(1 for _ in scan(folder))
    with progress_bar("indexing", total) as progress:
        report = index_archive(folder, Workspace(hilum_home(home) / "site"), progress)
    _show_counts(
        {**asdict(report.counts), "decoded": report.decoded, "removed": report.removed}, as_json=as_json
    )
    if report.counts.instances == 0:
        raise DataError(
            f"none of {report.counts.files} files is a usable image; the reasons are listed above"
        )


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what is indexed. This is for the site alone: nothing of it is sent."""
    from hilum.client.catalogue import Catalogue
    from hilum.client.workspace import Workspace
    from hilum.common.errors import DataError

    workspace = Workspace(hilum_home(home) / "site")
    if not workspace.catalogue.exists():
        raise DataError("nothing is indexed yet; run `hilum site index FOLDER` first")
    catalogue = Catalogue(workspace.catalogue)
    try:
        _show_counts(asdict(catalogue.counts()), as_json=as_json)
    finally:
        catalogue.close()


@app.command()
def pretrain(
    study: Study,
    site: SiteFile,
    out: Annotated[Path, typer.Option("--out", help="Where to write the encoder; new or empty.")],
    as_json: AsJson = False,
) -> None:
    """Pre-train alone, with the study's whole schedule. A killed call goes on where it was."""
    import hashlib

    from hilum.client.pretraining.site import pretrain_alone
    from hilum.client.site_data import open_site
    from hilum.client.workspace import Workspace
    from hilum.common.config import load_site, load_study, study_to_toml
    from hilum.common.errors import RunError
    from hilum.common.export import Made, write_encoder
    from hilum.common.methods import build_method
    from hilum.common.methods.parts import federated_manifest

    what, where = load_study(study), load_site(site)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError("the output folder is not empty; name a folder that is new or empty")
    data = open_site(where, what)
    digest = hashlib.sha256(study_to_toml(what).encode()).hexdigest()
    folder = Workspace(where.state.folder).run(f"{what.study.name}-alone-{digest[:12]}")
    with progress_bar("pre-training", what.federation.rounds) as progress:
        weights = pretrain_alone(data, what, folder, device=where.compute.device, progress=progress)
    manifest = federated_manifest(build_method(what))
    sha256 = write_encoder(out, what, manifest, weights, Made(rounds=what.federation.rounds, sites=1))
    if as_json:
        print_json({"encoder_sha256": sha256, "examples": len(data.split.pretrain)})
    else:
        print(f"encoder written to {out} (SHA-256 {sha256})")


@app.command()
def evaluate(
    study: Study,
    site: SiteFile,
    encoder: Annotated[Path, typer.Option("--encoder", help="The `encoder` folder of a run.")],
    as_json: AsJson = False,
) -> None:
    """Fine-tune and measure an encoder on this site's labels, beside the floors."""
    from hilum.client.evaluation.protocol import combinations_count, evaluate_site
    from hilum.client.pretraining.device import make_fabric
    from hilum.client.site_data import open_site
    from hilum.common.config import load_site, load_study
    from hilum.common.export import read_encoder

    what, where = load_study(study), load_site(site)
    encoders = {"federated": read_encoder(encoder, what).weights}
    data = open_site(where, what)
    fabric = make_fabric(where.compute.device, what.training.precision, what.training.threads)
    with progress_bar("evaluating", combinations_count(what, encoders)) as progress:
        found = evaluate_site(data, what, encoders, fabric, progress).to_json()
    if as_json:
        print_json(found)
        return
    for row in found["rows"]:
        interval = f"{row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
        print(
            f"{row['protocol']:9} {row['label_fraction']:5.0%} {row['arm']:11} {row['metric']:18} {interval}"
        )


@app.command()
def start(site: SiteFile) -> None:
    """Take part in the federation until stopped: one outbound TLS connection, restarted whenever it ends."""
    from hilum.client.supernode import keep_running
    from hilum.common.config import load_site

    keep_running(load_site(site), site.absolute())


@app.command()
def annotate(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder of annotations, or one file; it is only read.")
    ],
    labels: Annotated[
        Path | None, typer.Option("--labels", help="A TOML file of the names that the site wants.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Tie masks and boxes to the indexed images: DICOM SEG and RTSTRUCT, NIfTI, CSV, COCO."""
    from hilum.client.intake.annotations.annotate import annotate as tie
    from hilum.client.intake.annotations.annotate import found_files
    from hilum.client.intake.annotations.naming import LabelMap, read_label_map
    from hilum.client.workspace import Workspace
    from hilum.common.errors import DataError

    names = read_label_map(labels) if labels is not None else LabelMap()
    with progress_bar("annotating", len(found_files(source))) as progress:
        report = asdict(tie(source, Workspace(hilum_home(home) / "site"), names, progress))
    if as_json:
        print_json(report)
    else:
        for name in ("files", "annotations", "masks", "boxes", "images"):
            print(f"{report[name]:8} {name}")
        _show_skipped(report["skipped"])
    if report["annotations"] == 0:
        raise DataError(f"none of {report['files']} files gave an annotation; the reasons are listed above")


def _show_skipped(skipped: dict[str, int]) -> None:
    from hilum.client.intake.reasons import EXPLAINED, Reason

    for reason, count in skipped.items():
        print(f"{count:8} skipped: {EXPLAINED[Reason(reason)]} ({reason})")


def _show_counts(counts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(counts)
        return
    for name in ("files", "instances", "series", "volumes", "patients"):
        print(f"{counts[name]:8} {name}")
    _show_skipped(counts["skipped"])
    if "decoded" in counts:
        print(f"{counts['decoded']:8} files had their pixels read in this call")
