"""The site engineer's commands: `hilum site ...`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilum.client.commands.browse import browse
from hilum.client.commands.describe import describe
from hilum.client.commands.enroll import enroll, join
from hilum.client.commands.export import export
from hilum.client.commands.finetune import evaluate_model_folder, finetune, tell_labels
from hilum.client.commands.inbox import empty_inbox
from hilum.client.commands.index import annotate, index
from hilum.client.commands.network import pull, receive
from hilum.client.commands.plan import plan
from hilum.client.commands.predict import predict, send
from hilum.client.commands.quarantine import quarantine
from hilum.client.commands.setup import check, new
from hilum.client.commands.skipped import skipped
from hilum.client.commands.status import status
from hilum.common.cli import AsJson, print_json, tell_start
from hilum.common.interrupt import going_on
from hilum.common.progress import progress_bar

if TYPE_CHECKING:
    from hilum.client.pretraining.site import Alone
    from hilum.common.config import StudyConfig
    from hilum.common.start import Start

app = typer.Typer(no_args_is_help=True, help="For the site engineer: index, train and take part.")


@app.callback()
def for_the_owner_alone() -> None:
    """Whatever these commands and the processes that they start write, their user alone may read."""
    os.umask(0o077)


Study = Annotated[Path, typer.Argument(help="The study file.", readable=False)]
SiteFile = Annotated[Path, typer.Argument(help="The site file.", readable=False)]


def register(root: typer.Typer) -> None:
    """Add this portion's commands to `hilum`."""
    first = (new, check, index, skipped, pull, receive, empty_inbox, annotate, quarantine, browse, describe)
    for command in (*first, enroll, join, export):
        app.command()(command)
    root.add_typer(app, name="site")
    root.command()(plan)


_HOW_TO_GET = {
    "local": "`hilum site pretrain` trains this site's own encoder, and `--encoder` measures that one too",
    "centralised": "only a simulation has the images of all sites in one place",
}
"""What to do for the numbers of an arm that one encoder alone does not give."""


app.command()(status)
app.command()(finetune)
app.command()(predict)
app.command()(send)


@app.command()
def pretrain(
    study: Study,
    site: SiteFile,
    out: Annotated[
        Path, typer.Option("--out", help="Where to write the encoder; new or empty.", readable=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Pre-train alone, with the study's whole schedule. A killed call goes on where it was."""
    from hilum.client.data.kept_split import KeptSplits, study_digest
    from hilum.client.data.site_data import open_site
    from hilum.client.evaluation.label_tables import labels_json
    from hilum.client.evaluation.selection import scorer
    from hilum.client.pretraining.compiling import keep_compiled_in
    from hilum.client.pretraining.group import group_of
    from hilum.client.pretraining.site import pretrain_alone
    from hilum.client.state.workspace import Workspace
    from hilum.common.config import load_site, load_study
    from hilum.common.errors import DataError, RequestRefused
    from hilum.common.output_folder import check_output_folder
    from hilum.common.start import start_from_file

    what, where = load_study(study), load_site(site)
    check_output_folder(out)
    if begin := start_from_file(what):
        tell_start(begin.report)
    workspace = Workspace(where.state.folder)
    run, splits = f"{what.study.name[:45]}-alone-{study_digest(what)[:12]}", KeptSplits(workspace)
    begun = splits.of_run(run)
    first = begun is None or bool(begun.encoder)  # an earlier call has ended
    data = open_site(where, what, anew=True) if first else open_site(where, what, run)
    try:
        data.examples(what.privacy.min_patients)
    except RequestRefused as few:
        raise DataError(
            f"{few.detail}; index more, or lower privacy.min_patients in this study: nothing of it leaves"
        ) from None
    if first:
        splits.keep(run, data.kept(what))
    tell_labels(what, data)
    folder = workspace.run(run)
    keep_compiled_in(workspace.compiled)
    again = going_on("the rounds that are done are kept: the same command goes on")
    with again, _as_run_errors(), progress_bar("pre-training", what.federation.rounds) as progress:
        device = where.compute.device
        alone = pretrain_alone(
            data,
            what,
            folder,
            start=begin.weights if begin else None,
            device=device,
            devices=where.compute.devices,
            group=group_of(where),
            score=scorer(data, what, device=device),
            progress=progress,
            stops=True,
        )
    sha256 = _leave(out, what, alone, begin)
    splits.name_encoder(run, sha256)
    if as_json:
        read = labels_json(what, [data])
        examples = len(data.split.pretrain)
        print_json({"encoder_sha256": sha256, "round": alone.round, "examples": examples, "labels": read})
    else:
        print(f"encoder after round {alone.round} written to {out} (SHA-256 {sha256})")
        if what.training.select != "none":
            print(f"the last one is in {out / 'last'}")


@contextmanager
def _as_run_errors() -> Iterator[None]:
    """End as a run does where this machine can't do what its own engineer asks for: no study was refused."""
    from hilum.common.errors import RequestRefused, RunError

    try:
        yield
    except RequestRefused as refused:
        raise RunError(refused.detail) from None


def _leave(out: Path, study: "StudyConfig", alone: "Alone", begin: "Start | None") -> str:
    """Write what pre-training alone gave: the encoder, the last one where another was picked, and what became of a start."""
    from hilum.common.export import Provenance, write_encoder
    from hilum.common.methods import build_method
    from hilum.common.methods.parts import federated_manifest
    from hilum.common.start import write_report

    manifest = federated_manifest(build_method(study))
    made = Provenance(alone.round, sites=1, start=begin.report if begin else None)
    if study.training.select != "none":
        last = replace(made, rounds=study.federation.rounds)
        write_encoder(out / "last", study, manifest, alone.last, last)
    if begin:
        write_report(out, begin)
    return write_encoder(out, study, manifest, alone.weights, made)


@app.command()
def evaluate(
    study: Annotated[
        Path, typer.Argument(help="The study file; or the folder of a fine-tuned model.", readable=False)
    ],
    site: SiteFile,
    encoder: Annotated[
        Path | None,
        typer.Option("--encoder", help="The `encoder` folder of a run; with a study file.", readable=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure an encoder on this site's labels, beside the baselines (its rows are named `federated`), or a model."""
    if study.is_dir():
        if encoder is not None:
            raise typer.BadParameter("a fine-tuned model is measured without --encoder; leave it out")
        evaluate_model_folder(study, site, as_json=as_json)
        return
    if encoder is None:
        raise typer.BadParameter(
            "a study file is measured with --encoder FOLDER; a fine-tuned model is named by its folder alone"
        )
    from hilum.client.data.site_data import open_site
    from hilum.client.evaluation.label_tables import labels_json
    from hilum.client.evaluation.protocol import combinations_count, evaluate_site
    from hilum.client.pretraining.device import make_fabric
    from hilum.common.config import load_site, load_study
    from hilum.common.export import read_encoder
    from hilum.common.results_table import arms_left_out

    what, where = load_study(study), load_site(site)
    given = read_encoder(encoder, what)
    encoders = {"federated": given.weights}
    data = open_site(where, what, encoder=given.sha256)
    tell_labels(what, data)
    fabric = make_fabric(where.compute.device, what.evaluation.precision, what.training.threads)
    with progress_bar("evaluating", combinations_count(what, encoders)) as progress:
        found = evaluate_site(data, what, encoders, fabric, progress).to_json()
    notes = [
        f"the arm {arm} was left out: {_HOW_TO_GET[arm]}" for arm in arms_left_out(what.evaluation, encoders)
    ]
    if as_json:
        print_json({**found, "labels": labels_json(what, [data]), "notes": notes})
        return
    for row in found["rows"]:
        interval = f"{row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
        print(
            f"{row['task']:15} {row['protocol']:9} {row['label_fraction']:5.0%} {row['arm']:11} {row['metric']:18} {interval}"
        )
    for note in notes:
        print(note)


@app.command()
def start(site: SiteFile) -> None:
    """Take part in the federation until stopped: one outbound TLS connection, restarted whenever it ends."""
    from hilum.client.link.start import start_link
    from hilum.common.log_setup import log_plainly

    log_plainly()
    code = start_link(site)
    if code:
        raise typer.Exit(code)
