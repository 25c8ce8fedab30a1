"""The researcher's commands: `hilum simulate`, `hilum phantom`, `hilum report`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home


class BackendName(StrEnum):
    """The engines of `hilum simulate`."""

    PROCESS = "process"
    RAY = "ray"


def register(root: typer.Typer) -> None:
    """Add this portion's commands to `hilum`."""
    root.command("simulate")(simulate_command)
    root.command("phantom")(phantom_command)
    root.command("report")(report_command)


def simulate_command(
    study: Annotated[Path, typer.Argument(help="The study file.", readable=False)],
    archives: Annotated[
        Path,
        typer.Option(
            "--archives",
            help="One folder a site, with dicom/ and labels.csv in it, or with pictures or NIfTI files.",
            readable=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The run directory: new or empty.", readable=False)],
    backend: Annotated[BackendName, typer.Option("--backend", help="Threads in this process, or Ray.")] = (
        BackendName.PROCESS
    ),
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            metavar="FAMILY",
            help="Take pictures and NIfTI files beside DICOM too, as the family of the study's modality: radiograph, ct, mr, ... "
            "Where there is no DICOM they are taken anyhow.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            help="HOST:PORT of a Ray cluster that runs already; default: RAY_ADDRESS, else a Ray of its own.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole federated study on this machine: index, pre-train, fine-tune at each site, report."""
    from hilum.client.intake.instance import read_family
    from hilum.common.config import load_study
    from hilum.common.errors import ConfigError
    from hilum.common.interrupt import going_on
    from hilum.common.machine import name_place

    config = load_study(study)
    engine: Literal["ray", "process"] = "ray" if backend is BackendName.RAY else "process"
    if ray_address is not None and engine != "ray":
        raise ConfigError("simulate", ["--ray-address goes with --backend ray"])

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    family = read_family(images)
    where, state = name_place("the run folder (--out)", out), hilum_home(home)
    with going_on("what is done is kept: the same command with --resume goes on"):
        from hilum.simulations.run import simulate
        from hilum.simulations.table import print_table

        results = simulate(
            config,
            archives,
            where,
            state,
            backend=engine,
            ray_address=ray_address,
            resume=resume,
            images=family,
            tell=tell,
        )
    if as_json:
        print_json(results)
        return
    print_table(results)
    print(f"report: {out / 'report.html'}")


def phantom_command(
    folder: Annotated[
        Path, typer.Argument(help="Where to write the archives: new or empty.", readable=False)
    ],
    sites: Annotated[int, typer.Option("--sites", min=1, max=1000, help="How many hospitals.")] = 3,
    patients: Annotated[int, typer.Option("--patients", min=4, max=100_000, help="Per hospital.")] = 60,
    size: Annotated[
        int, typer.Option("--size", min=64, max=4096, help="Edge of the radiographs in pixels.")
    ] = 192,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed writes the same files.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Write synthetic chest radiographs of several hospitals, as DICOM, with labels, boxes and masks."""
    from hilum.simulations.phantoms import write_phantoms

    counts = write_phantoms(folder, sites=sites, patients=patients, size=size, seed=seed)
    if as_json:
        print_json(counts)
        return
    for name, facts in counts.items():
        print(
            f"{name}: {facts['files']} DICOM files of {facts['patients']} patients, {facts['positive']} with nodules"
        )


def report_command(
    folder: Annotated[Path, typer.Argument(help="A finished run directory.", readable=False)],
    others: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="A run of the same study with another seed, judged together; repeatable.",
            readable=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build report.html again from a run directory."""
    from dataclasses import asdict

    from hilum.simulations.report import judge_runs, write_report

    path = write_report(folder, others or ())
    verdicts = judge_runs(folder, others or ())
    if as_json:
        print_json({"report": str(path), "verdicts": [asdict(verdict) for verdict in verdicts]})
        return
    for verdict in verdicts:
        print(f"{verdict.task}: {verdict.headline}" if len(verdicts) > 1 else verdict.headline)
    print(f"report: {path}")
