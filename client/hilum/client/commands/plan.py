"""`hilum plan`: what a study takes of this machine."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hilum.common.cli import AsJson, print_json


def plan(
    study: Annotated[Path, typer.Argument(help="The study file.", readable=False)],
    site: Annotated[
        Path | None,
        typer.Option(
            "--site", help="The site file: its images are counted, its device is taken.", readable=False
        ),
    ] = None,
    images: Annotated[
        int, typer.Option("--images", min=1, max=100_000_000, help="Training images, where there is no site.")
    ] = 10_000,
    as_json: AsJson = False,
) -> None:
    """Measure memory, speed, hours, bytes and disk of a study on this machine, by some seconds of training on noise."""
    from hilum.client.pretraining.planning import in_words, plan_study
    from hilum.common.config import load_site, load_study

    what = load_study(study)
    found = plan_study(what, None if site is None else load_site(site), images)
    if as_json:
        print_json(asdict(found))
    else:
        print("\n".join(in_words(found, what)))
