"""The threshold of patients in a simulation, where all the data are the study's author's.

A study that names no `privacy.min_patients` has the deployed default, and so the very weights of a deployed run; only where
a site has too few patients for it, the threshold is lifted, and the results say so.
"""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from hilum.client.data.site_data import SiteData
from hilum.common.config import StudyConfig
from hilum.common.errors import DataError
from hilum.simulations.archives import check_patients

_STUDY = "study.resolved.toml"
_LIFTED = 1


def with_threshold(study: StudyConfig, data: Sequence[SiteData], tell: Callable[[str], None]) -> StudyConfig:
    """Return the study that is run: its own, or with the threshold lifted where it names none and has too few patients.

    Args:
        study: The study.
        data: The sites, opened for it.
        tell: Told if the threshold was lifted.

    Raises:
        DataError: If a site has fewer patients than the threshold that the study names, or nobody to train on.
    """
    try:
        for one in data:
            check_patients(one, study)
    except DataError as too_few:
        if _stated(study):
            raise
        lifted = _with(study, _LIFTED)
        for one in data:
            check_patients(one, lifted)
        what = str(too_few).split(";", maxsplit=1)[0]
        tell(
            f"{what}; the study names no threshold, so it is {_LIFTED} here: all the data of a simulation are yours"
        )
        return lifted
    return study


def with_kept_threshold(study: StudyConfig, out: Path) -> StudyConfig:
    """Return a study that goes on with the threshold that its run began with, unless it names one."""
    try:
        kept = tomllib.loads((out / _STUDY).read_text())["privacy"]["min_patients"]
    except (OSError, ValueError, KeyError, TypeError):
        return study  # no run, or a damaged one: told where it is opened
    return study if _stated(study) or kept != _LIFTED else _with(study, _LIFTED)


def _stated(study: StudyConfig) -> bool:
    return "min_patients" in study.privacy.model_fields_set


def _with(study: StudyConfig, threshold: int) -> StudyConfig:
    privacy = study.privacy.model_copy(update={"min_patients": threshold})
    return study.model_copy(update={"privacy": privacy})
