"""How many patients of a site have each finding of a multi-label task, and which are left out of the evaluation. For the site's owner alone."""

import numpy as np

from hilum.client.data.kept_split import Side, sides_of
from hilum.client.data.site_data import SiteData
from hilum.client.evaluation.class_table import ClassLine, ClassTable, Count
from hilum.client.state.findings import findings_of
from hilum.client.tasks.multilabel import tested_patients
from hilum.client.tasks.small_samples import MIN_CLASS_PATIENTS
from hilum.common.config.tasks import MultilabelTask


def finding_table(data: SiteData, task: MultilabelTask) -> ClassTable:
    """Count the findings of a site as its split has them; an image counts in the line of each of its findings."""
    data = data.of_task(task.kind)
    shown = [None if one is None else findings_of(one, task.nothing) for one in data.labels]
    names = sorted({name for one in shown for name in one or ()})
    sides = np.array([side.value for side in sides_of(data.split)])
    group = data.split.group

    def line(name: str | None, here: list[bool]) -> ClassLine:
        rows = np.array(here, bool)
        train, test, left_out = (
            Count(len(np.unique(group[rows & (sides == side)])), int((rows & (sides == side)).sum()))
            for side in (Side.TRAINED, Side.TESTED, Side.LEFT_OUT)
        )
        return ClassLine(name, train, test, left_out, 0)

    lines = [line(name, [name in (one or ()) for one in shown]) for name in names]
    lines.append(line(task.nothing, [one is not None and not one for one in shown]))
    lines.append(line(None, [one is None for one in shown]))
    truth = np.array([[name in (shown[row] or ()) for name in names] for row in data.split.test], np.int64)
    counts = tested_patients(truth.reshape(-1, len(names)), group[data.split.test])
    few = [
        f"`{name}` ({with_it} with, {without} without)"
        for name, (without, with_it) in zip(names, counts, strict=True)
        if min(without, with_it) < MIN_CLASS_PATIENTS
    ]
    warnings = list(data.notes)
    if few and len(few) < len(names):
        warnings.append(
            f"left out of the evaluation, for fewer than {MIN_CLASS_PATIENTS} test patients with or without: {', '.join(few)}"
        )
    elif few:
        warnings.append(
            f"no finding has {MIN_CLASS_PATIENTS} test patients with it and without it, so numbers say little: {', '.join(few)}"
        )
    elif not names:
        warnings.append("no image has a finding, so nothing can be evaluated")
    return ClassTable(data.name, tuple(lines), tuple(warnings))
