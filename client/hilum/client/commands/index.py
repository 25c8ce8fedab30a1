"""`hilum site index` and `hilum site annotate`: what lies in folders."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hilum.client.commands.counts import show_counts, show_skipped
from hilum.client.intake.instance import IMAGES_HELP
from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home
from hilum.common.progress import progress_bar

_EVERY_S = 60.0


def index(
    folder: Annotated[
        Path, typer.Argument(help="The folder of DICOM files; it is only read.", readable=False)
    ],
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, and index again whenever it has changed.")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option("--every", help="Seconds between two looks of --watch; default: 60.", min=1),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option("--images", metavar="FAMILY", help=IMAGES_HELP),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Index an archive. A second call reads only what has changed."""
    from hilum.client.commands.counts import nothing_usable
    from hilum.client.intake.indexing.index import IndexReport, index_found
    from hilum.client.intake.instance import read_family
    from hilum.client.intake.sources.sources import find
    from hilum.client.state.workspace import Workspace
    from hilum.common.errors import ConfigError, DataError

    def tell(report: IndexReport) -> None:
        counts = {**asdict(report.counts), "decoded": report.decoded, "removed": report.removed}
        show_counts(counts, as_json=as_json)
        sys.stdout.flush()

    if every is not None and not watch:
        raise ConfigError("index", ["--every goes with --watch"])
    family = read_family(images)
    workspace = Workspace(hilum_home(home) / "site")
    if watch:
        from hilum.client.intake.indexing.watch import watch as watch_folder
        from hilum.client.intake.network.shutdown import stop_signals

        def warn(text: str) -> None:
            print(f"waiting: {text}", file=sys.stderr, flush=True)

        with stop_signals() as stop:
            watch_folder(folder, workspace, every or _EVERY_S, stop, progress_bar, tell, warn, images=family)
        return
    found = find(folder, workspace)
    with progress_bar("indexing", found.count) as progress:
        report = index_found(found, workspace, progress, images=family)
    tell(report)
    if report.counts.instances == 0:
        raise DataError(nothing_usable(report.counts))


def annotate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A folder of annotations, or one file; it is only read.", readable=False
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="A TOML file of the names that the site wants.", readable=False),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Tie masks and boxes to the indexed images: DICOM SEG and RTSTRUCT, NIfTI, CSV, COCO."""
    from hilum.client.intake.annotations.annotate import annotate as tie
    from hilum.client.intake.annotations.annotate import found_files
    from hilum.client.intake.formats.naming import LabelMap, read_label_map
    from hilum.client.state.workspace import Workspace
    from hilum.common.errors import DataError

    names = read_label_map(labels) if labels is not None else LabelMap()
    with progress_bar("annotating", len(found_files(source))) as progress:
        report = asdict(tie(source, Workspace(hilum_home(home) / "site"), names, progress))
    if as_json:
        print_json(report)
    else:
        for name in ("files", "annotations", "masks", "boxes", "images"):
            print(f"{report[name]:8} {name}")
        show_skipped(report["skipped"])
    if report["annotations"] == 0:
        raise DataError(f"none of {report['files']} files gave an annotation; the reasons are listed above")
