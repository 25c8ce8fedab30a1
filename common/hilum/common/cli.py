"""The one entry point, `hilum`: it gathers the commands of the portions that are installed.

Reports go to stdout, progress and errors to stderr. An error is one line that says what to do; its exit code tells
the kind (see `hilum.common.errors`). `HILUM_DEBUG=1` shows the traceback.
"""

import io
import json
import os
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.common import __version__
from hilum.common.errors import HilumError, RunError
from hilum.common.home import lend_libraries_a_home
from hilum.common.interrupt import Interrupted, end, raise_on_signals
from hilum.common.lockdown import close_outbound
from hilum.common.log_setup import configure_logging
from hilum.common.machine import machine_problem

if TYPE_CHECKING:
    from hilum.common.encoders.warm_start import Found, WarmStartReport

INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="State folder; default: HILUM_HOME, else ~/.hilum. A site's part of it is HOME/site.",
        readable=False,
    ),
]

study_app = typer.Typer(no_args_is_help=True, help="Write and check study files.")


def print_json(value: Any) -> None:
    """Print one report on stdout."""
    print(json.dumps(value, indent=2))


def tell_start(report: "WarmStartReport") -> None:
    """Show on stderr what was taken from the file that a study starts from."""
    for line in report.lines():
        print(line, file=sys.stderr, flush=True)


@study_app.command("new")
def study_new(
    file: Annotated[Path, typer.Argument(help="Where to write the study.", readable=False)] = Path(
        "study.toml"
    ),
) -> None:
    """Write a commented study that runs as it is."""
    from hilum.common.config.template import STUDY_TEMPLATE
    from hilum.common.files import write_text

    if file.exists():
        raise RunError(f"{file.name} exists already; name a new file, or remove it first")
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in file.stem).lstrip("._-") or "study"
    write_text(file, STUDY_TEMPLATE.format(name=name[:64]))
    print(f"{file} is written; check it with `hilum study check {file}`")
    print(
        f"run it with `hilum simulate {file} --archives ARCHIVES --out RUN`; `hilum phantom ARCHIVES` makes some"
    )
    print(f"or, in a federation, with `hilum admin submit {file}`")


@study_app.command("check")
def study_check(
    file: Annotated[Path, typer.Argument(help="The study to check.", readable=False)], as_json: AsJson = False
) -> None:
    """Say what is wrong with a study, one line a problem, or that nothing is."""
    from hilum.common.config import load_study
    from hilum.common.errors import ConfigError

    try:
        study = load_study(file)
    except ConfigError as error:
        if as_json:
            print_json({"ok": False, "problems": error.problems})
        for problem in error.problems:
            print(f"{error.source}: {problem}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    if as_json:
        print_json({"ok": True, "study": study.model_dump(mode="json")})
    else:
        print(
            f"{file.name} is fine: {study.method.name} on {study.data.modality}, {study.federation.sites} sites"
        )


def methods(as_json: AsJson = False) -> None:
    """List the self-supervised methods and what each shares."""
    from dataclasses import asdict

    from hilum.common.encoders import encoders_for
    from hilum.common.methods import METHODS

    listed = [
        {
            "name": spec.name,
            "paradigm": spec.paradigm,
            "dims": spec.dims,
            "encoders": encoders_for(spec.config),
            **asdict(spec.parts),
            "dp": spec.dp,
            "dp_reason": spec.dp_reason,
            "views": asdict(spec.views),
            "paper": spec.paper,
        }
        for spec in METHODS.values()
    ]
    if as_json:
        print_json(listed)
        return
    for one in listed:
        dims = " and ".join(f"{d}D" for d in one["dims"])
        print(
            f"{one['name']}: {one['paradigm']}, {dims}, encoders {', '.join(one['encoders'])} ({one['paper']})"
        )
        shares, keeps = (", ".join(one[kind]).replace(".*", "") for kind in ("federated", "local"))
        print(f"  shares {shares}; keeps {keeps or 'nothing'}")
        print(f"  differential privacy: {'yes' if one['dp'] else 'no'}, {one['dp_reason']}")


encoders_app = typer.Typer(
    help="List the encoders and their sizes; `inspect` tells what a file of weights is."
)


@encoders_app.callback(invoke_without_command=True)
def encoders(context: typer.Context, as_json: AsJson = False) -> None:
    """List the encoders and their sizes; `inspect` tells what a file of weights is."""
    if context.invoked_subcommand is not None:
        return
    from hilum.common.encoders import ENCODERS

    if as_json:
        keys = ("name", "dims", "sizes", "normalisation", "paper")
        print_json([{key: getattr(spec, key) for key in keys} for spec in ENCODERS.values()])
        return
    for spec in ENCODERS.values():
        print(f"{spec.name}: {', '.join(spec.sizes)}; {spec.normalisation}; {spec.paper}")


@encoders_app.command("inspect")
def encoders_inspect(
    file: Annotated[Path, typer.Argument(help="A safetensors file.", readable=False)],
    study: Annotated[
        Path | None,
        typer.Option("--study", help="Tell what of it this study would take.", readable=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a file of weights is, its hash, which encoder it fits, and what a study would take of it."""
    from dataclasses import asdict

    from hilum.common.config import load_study
    from hilum.common.encoders.warm_start import inspect_file

    found, report = inspect_file(file), None
    if study is not None:
        from hilum.common.encoders.warm_start import warm_start
        from hilum.common.methods import build_method

        report = warm_start(build_method(load_study(study)).encoder, file, None)
    if as_json:
        print_json({**asdict(found), "study": None if report is None else report.to_json()})
        return
    for line in [*_file_lines(found), *(report.lines() if report else ())]:
        print(line)
    if found.kind:
        print(f'\n[encoder.init]\nfile = "{file}"\nsha256 = "{found.sha256}"')


def _file_lines(found: "Found") -> list[str]:
    """Return what a file is, and what of `[encoder]` to write for it."""
    known = f"names of {found.kind}" if found.kind else "names of no kind that is known"
    lines = [
        f"{found.file}: {found.tensors} tensors, {found.size_bytes / 1e6:.1f} MB, {known}",
        f"SHA-256 {found.sha256}",
    ]
    if found.facts:
        said = ", ".join(f"{word} {value}" for word, value in found.facts.items())
        lines.append(f"{found.family}: {said}")
    if found.fits:
        keys = ", ".join(
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
            for key, value in found.fits.items()
        )
        lines.append(f"by its numbers it fits [encoder] {keys}; --study says whether it does")
    elif found.kind:
        lines.append("no size of that encoder is like it")
    return lines


def _version(asked: bool) -> None:
    if asked:
        print(f"hilum {__version__}")
        raise typer.Exit


def build() -> typer.Typer:
    """Return the whole command line: common commands and those of the installed portions."""
    root = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Federated, multi-site self-supervised learning for medical imaging.",
    )

    @root.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
        ] = False,
    ) -> None:
        del version

    root.add_typer(study_app, name="study")
    root.command()(methods)
    root.add_typer(encoders_app, name="encoders")
    for entry in sorted(entry_points(group="hilum.commands"), key=lambda entry: entry.name):
        entry.load()(root)
    return root


def main() -> None:
    """Run the command line."""
    raise_on_signals()
    try:
        lend_libraries_a_home()
        close_outbound()
        _show_any_text()
        configure_logging()
        build()()
    except Interrupted as stop:
        end(stop)
    except HilumError as error:
        fail(error)
    except Exception as error:
        if os.environ.get("HILUM_DEBUG"):
            raise
        problem = machine_problem(error)
        if problem is not None:
            fail(RunError(str(problem)))
        # The text of a foreign exception may quote a path from an archive, so only its type is shown.
        print(f"error: internal error ({type(error).__name__}); HILUM_DEBUG=1 shows where", file=sys.stderr)
        sys.exit(INTERNAL_ERROR)


def _show_any_text() -> None:
    """Let stdout and stderr take any text: what their encoding lacks is shown as an escape.

    A file name may be no UTF-8 (PEP 383), and a terminal may know ASCII alone; neither is a reason to end a command.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def fail(error: HilumError) -> None:
    """Show an error as one line and end."""
    if os.environ.get("HILUM_DEBUG"):
        raise error
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(error.exit_code)
