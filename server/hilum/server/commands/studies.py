"""`hilum admin sign` and `submit`: a study under the admin's signature, into the server's queue."""

from pathlib import Path
from typing import Annotated

import typer

from hilum.common.cli import AsJson, Home, print_json, tell_start
from hilum.common.errors import ConfigError
from hilum.server.commands.options import federation_in

Study = Annotated[Path, typer.Argument(help="The study file.", readable=False)]
RunName = Annotated[str | None, typer.Option("--run", help="The run's name; default: the study's.")]
Days = Annotated[float, typer.Option("--days", help="For how long the signature holds.")]
StudyKey = Annotated[
    Path | None,
    typer.Option("--key", help="The key to sign with; default: the federation's study.key.", readable=False),
]
_SUBMIT_PATIENCE_S = 5.0  # for `serve & submit` in one line


def sign(
    study: Study,
    out: Annotated[Path, typer.Option("--out", help="The signed study to write.", readable=False)],
    site: Annotated[str, typer.Option("--sites", help="Names of the sites that take part: a,b,c.")],
    key: Annotated[Path, typer.Option("--key", help="The key to sign with.", readable=False)],
    run: RunName = None,
    days: Days = 30.0,
    as_json: AsJson = False,
) -> None:
    """Sign a study on another machine than the server's; `submit` takes the file."""
    from hilum.common.files import write_json
    from hilum.common.security.keys import cannot_write
    from hilum.server.admin.plane import signed_to_table
    from hilum.server.admin.submission import sign_study_file, start_beside

    signed = sign_study_file(study, run, _names(site), days, key)
    files = [out]
    try:
        if signed.start is not None:
            from hilum.common.start import write_start

            files.append(start_beside(out))
            write_start(files[-1], signed.start)
            tell_start(signed.start.report)
        write_json(out, signed_to_table(signed.study))
    except OSError as error:
        raise ConfigError(out.name, [cannot_write(error)]) from None
    if as_json:
        print_json({"run": signed.run, "file": str(out), "days": days})
    else:
        print(f"{out} is signed for {days:g} days: hilum admin submit {out}")
        for beside in files[1:]:
            print(f"{beside} goes with it: the weights that the study starts from")


def submit(
    study: Annotated[
        Path, typer.Argument(help="The study file, or what `sign` made of it (.json).", readable=False)
    ],
    site: Annotated[
        str | None,
        typer.Option("--sites", help="Names of the sites that take part: a,b,c; default: all."),
    ] = None,
    run: RunName = None,
    days: Days = 30.0,
    key: StudyKey = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that stopped or failed.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run has finished.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Sign a study and put it into the server's queue."""
    from hilum.server.admin.client import AdminClient
    from hilum.server.admin.submission import (
        approved_sites,
        check_sites,
        own_study_key,
        read_signed,
        sign_study_file,
        start_in_place,
    )

    folder = federation_in(home)
    client = AdminClient(folder.file("admin.sock"), patience_s=_SUBMIT_PATIENCE_S)
    if study.suffix == ".json":
        if site is not None or run is not None or key is not None:
            raise ConfigError(
                study.name, ["is signed already: --sites, --run and --key go with `hilum admin sign`"]
            )
        signed = read_signed(study)
    else:
        names = approved_sites(folder, study) if site is None else check_sites(folder, _names(site))
        signed = sign_study_file(study, run, names, days, key or own_study_key(folder))
        if signed.start is not None:
            tell_start(signed.start.report)
    with start_in_place(folder, signed):
        report = client.submit(signed.study, resume=resume)
    if not as_json:
        print(f"run {report['run']} is queued for {', '.join(report['sites'])}", flush=True)
    if wait:
        client.wait(report["run"])
        report["state"] = "finished"
    if as_json:
        print_json(report)
    elif wait:
        print(f"run {report['run']} has finished; `hilum admin fetch {report['run']} --out DIR` copies it")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
