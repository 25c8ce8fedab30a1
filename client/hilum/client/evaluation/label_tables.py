"""Which labels of a study's tasks were read, task by task. For the site's owner alone."""

from collections.abc import Sequence
from typing import Any

from hilum.client.data.site_data import SiteData
from hilum.client.evaluation.class_table import ClassTable, class_table, table_lines, warnings_across
from hilum.client.evaluation.finding_table import finding_table
from hilum.client.evaluation.mask_table import mask_lines, mask_table
from hilum.client.evaluation.number_table import number_lines, number_table
from hilum.client.tasks.regression import MIN_PATIENTS
from hilum.client.tasks.small_samples import MIN_CLASS_PATIENTS
from hilum.common.config import StudyConfig
from hilum.common.config.tasks import MultilabelTask, TaskSection


def labels_json(study: StudyConfig, sites: Sequence[SiteData]) -> dict[str, dict[str, Any]]:
    """Return the table of each task as plain values, by the task's kind."""
    return {task.kind: _of_task(task, sites) for task in study.tasks.given}


def label_lines(study: StudyConfig, sites: Sequence[SiteData]) -> list[str]:
    """Return the table of each task as lines of text, under its name where there are several."""
    lines = []
    for task in study.tasks.given:
        if len(study.tasks.given) > 1:
            lines.append(f"{task.kind}:")
        if named := _named(task, sites):
            lines += table_lines(named, task.label)
        elif task.labels == "masks":
            lines += mask_lines([mask_table(data, task.kind) for data in sites])
        else:
            lines += number_lines([number_table(data, task.kind) for data in sites], task.label)
    return lines


def _named(task: TaskSection, sites: Sequence[SiteData]) -> list[ClassTable]:
    """Return a table of names for each site; none for a task whose labels have no names."""
    if isinstance(task, MultilabelTask):
        return [finding_table(data, task) for data in sites]
    return [class_table(data, task.kind) for data in sites] if task.labels == "classes" else []


def _of_task(task: TaskSection, sites: Sequence[SiteData]) -> dict[str, Any]:
    shared = {"column": task.label, "holds": task.labels}
    if named := _named(task, sites):
        return {
            **shared,
            "min_test_patients": MIN_CLASS_PATIENTS,
            "sites": [table.to_json() for table in named],
            "warnings": warnings_across(named) if len(named) > 1 else [],
        }
    if task.labels == "masks":
        masks = [mask_table(data, task.kind).to_json() for data in sites]
        return {**shared, "min_test_patients": MIN_CLASS_PATIENTS, "sites": masks, "warnings": []}
    numbers = [number_table(data, task.kind).to_json() for data in sites]
    return {**shared, "min_test_patients": MIN_PATIENTS, "sites": numbers, "warnings": []}
