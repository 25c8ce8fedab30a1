"""The one list of tasks."""

from collections.abc import Callable

from hilum.client.data.site_data import SiteData
from hilum.client.tasks.base import Task
from hilum.client.tasks.classification import Classification
from hilum.client.tasks.multilabel import Multilabel
from hilum.client.tasks.regression import Regression
from hilum.client.tasks.retrieval import Retrieval
from hilum.client.tasks.segmentation import Segmentation
from hilum.common.config import StudyConfig

TASKS: dict[str, Callable[[SiteData, StudyConfig], Task]] = {
    "classification": Classification.of,
    "regression": Regression.of,
    "segmentation": Segmentation.of,
    "multilabel": Multilabel.of,
    "retrieval": Retrieval.of,
}
"""By their key under `[tasks]`."""


def open_task(data: SiteData, study: StudyConfig, kind: str) -> Task:
    """Open one of the study's tasks at a site, over the rows that have a label for it.

    Args:
        data: The site's rows.
        study: The study.
        kind: The task's.

    Raises:
        DataError: If the site's labels do not serve it.
    """
    return TASKS[kind](data.of_task(kind), study)
