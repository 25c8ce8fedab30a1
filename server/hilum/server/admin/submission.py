"""What comes before the queue: for which sites a study is, and its signature."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.common.config import load_study
from hilum.common.errors import ConfigError
from hilum.common.security.keys import read_paper, read_study_key
from hilum.common.signing import SignedStudy, sign_study
from hilum.server.admin.authority import FederationFolder
from hilum.server.admin.plane import signed_from_table
from hilum.server.admin.runs import check_run_name
from hilum.server.federation.start_file import start_file

if TYPE_CHECKING:
    from hilum.common.start import Start


def approved_sites(folder: FederationFolder, study: Path) -> list[str]:
    """Return the names of all sites that are approved, if they are as many as the study has.

    Raises:
        ConfigError: If they are not.
    """
    registry = folder.sites()
    try:
        names = [site.name for site in registry.sites() if site.status == "approved"]
    finally:
        registry.close()
    wanted = load_study(study).federation.sites
    if len(names) != wanted:
        advice = "name those that take part with --sites"
        if len(names) < wanted:
            lower = f", or set federation.sites to {len(names)}" if names else ""
            advice = f"approve more sites with `hilum admin approve`{lower}"
        problem = f"federation.sites = {wanted}, and {len(names)} sites are approved ({', '.join(names) or 'none'}); {advice}"
        raise ConfigError(study.name, [problem])
    return names


def check_sites(folder: FederationFolder, names: list[str]) -> list[str]:
    """Return names of sites that are all approved.

    Raises:
        ConfigError: With the first one that is not.
    """
    registry = folder.sites()
    try:
        registry.check_approved(names)
    finally:
        registry.close()
    return names


def own_study_key(folder: FederationFolder) -> Path:
    """Return the federation's study key, where it is kept here.

    Raises:
        ConfigError: If it is not: then it lies where the admin signs.
    """
    path = folder.file("study.key")
    if not path.exists():
        problem = (
            "is not in the federation's folder; name it with --key, or sign where it is kept with `hilum admin sign` and "
            "submit the file that this writes"
        )
        raise ConfigError(path.name, [problem])
    return path


def sign_study_file(study: Path, run: str | None, names: list[str], days: float, key: Path) -> "Signed":
    """Put a study file under a signature; a file of weights that it starts from is read, and what came out of it signed too.

    Args:
        study: The file.
        run: The run's name; None: the study's.
        names: Of the sites that take part.
        days: For how long the signature holds.
        key: The file of the key to sign with.

    Raises:
        ConfigError: If the study, the key, the sites, the days or the file of weights are wrong.
        DamagedError: If the file of weights is damaged.
        RunError: If the name is none.
    """
    config, secret = load_study(study), read_study_key(key)
    name = check_run_name(run or config.study.name)
    start = None
    if config.encoder.init is not None:  # torch takes seconds, and most studies need none to be signed
        from hilum.common.start import start_from_file

        start = start_from_file(config)
    signed = sign_study(
        config,
        run=name,
        sites=names,
        days=days,
        now=time.time(),
        key=secret,
        start=None if start is None else start.sha256,
    )
    return Signed(signed, name, start)


@dataclass(frozen=True)
class Signed:
    """A signed study on its way to the server.

    Attributes:
        study: What was signed.
        run: The run's name.
        start: The weights that it starts from, where a file is behind them.
    """

    study: SignedStudy
    run: str
    start: "Start | None" = field(repr=False)


def start_beside(signed: Path) -> Path:
    """Return where `hilum admin sign` puts the weights that a study starts from."""
    return signed.with_suffix(".start.safetensors")


@contextmanager
def start_in_place(folder: FederationFolder, signed: Signed) -> Iterator[None]:
    """Give the server the weights that a study starts from, before it hears of the study; they go if it refuses it."""
    if signed.start is None:
        yield
        return
    from hilum.common.start import write_start

    path = start_file(folder.runs, signed.run, signed.start.sha256)
    there = path.exists()
    if not there:
        write_start(path, signed.start)
    try:
        yield
    except BaseException:
        if not there:
            path.unlink(missing_ok=True)
        raise


def read_signed(path: Path) -> Signed:
    """Return what `hilum admin sign` wrote; the signature is checked by the server.

    Raises:
        ConfigError: If it is not that.
        RunError: If the weights that it starts from are not beside it.
        DamagedError: If they are not those that were signed.
    """
    advice = "expected the file that `hilum admin sign` wrote"
    content = read_paper(path, advice)
    try:
        signed = signed_from_table(json.loads(content))
        document = json.loads(signed.document)
        run, sha256 = str(document["run"]), document.get("start")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(path.name, [f"is not a signed study; {advice}"]) from None
    if sha256 is None:
        return Signed(signed, run, None)
    from hilum.common.start import read_start

    beside = start_beside(path)
    if not beside.exists():
        problem = f"needs {beside.name} beside it, which `hilum admin sign` wrote too; bring both"
        raise ConfigError(path.name, [problem])
    return Signed(signed, check_run_name(run), read_start(beside, str(sha256)))
