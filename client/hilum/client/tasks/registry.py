"""The one list of tasks."""

from collections.abc import Callable

from hilum.client.data.site_data import SiteData
from hilum.client.tasks.base import Task
from hilum.client.tasks.classification import Classification
from hilum.client.tasks.segmentation import Segmentation
from hilum.common.config import StudyConfig

TASKS: dict[str, Callable[[SiteData, StudyConfig], Task]] = {
    "classification": Classification.of,
    "segmentation": Segmentation.of,
}
"""By their key under `[tasks]`."""


def open_task(data: SiteData, study: StudyConfig) -> Task:
    """Open the study's task at a site.

    Raises:
        DataError: If the site's labels do not serve it.
    """
    assert study.tasks.chosen is not None, "the study names one"
    return TASKS[study.tasks.chosen.kind](data, study)
