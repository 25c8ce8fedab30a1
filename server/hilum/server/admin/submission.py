"""What comes before the queue: for which sites a study is, and its signature."""

import json
import time
from pathlib import Path

from hilum.common.config import load_study
from hilum.common.errors import ConfigError
from hilum.common.security.keys import read_paper, read_study_key
from hilum.common.signing import SignedStudy, sign_study
from hilum.server.admin.authority import FederationFolder
from hilum.server.admin.plane import signed_from_table
from hilum.server.admin.runs import check_run_name


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


def sign_study_file(
    study: Path, run: str | None, names: list[str], days: float, key: Path
) -> tuple[SignedStudy, str]:
    """Return a study file under a signature, and the run's name.

    Args:
        study: The file.
        run: The run's name; None: the study's.
        names: Of the sites that take part.
        days: For how long the signature holds.
        key: The file of the key to sign with.

    Raises:
        ConfigError: If the study, the key, the sites or the days are wrong.
        RunError: If the name is none.
    """
    config, secret = load_study(study), read_study_key(key)
    name = check_run_name(run or config.study.name)
    return sign_study(config, run=name, sites=names, days=days, now=time.time(), key=secret), name


def read_signed(path: Path) -> SignedStudy:
    """Return what `hilum admin sign` wrote; the signature is checked by the server.

    Raises:
        ConfigError: If it is not that.
    """
    advice = "expected the file that `hilum admin sign` wrote"
    content = read_paper(path, advice)
    try:
        return signed_from_table(json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(path.name, [f"is not a signed study; {advice}"]) from None
