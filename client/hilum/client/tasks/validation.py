"""Which labelled training patients a fine-tuning holds out, to choose when to stop and how sure to be. No test patient is among them.

Shapes: n training images, h of them held out.
"""

import numpy as np
import numpy.typing as npt

from hilum.client.data.splits import Rows
from hilum.common.seeding import derive

MIN_VALIDATION_PATIENTS = 5
"""Of each class: of fewer, one patient would decide."""


def validation_rows(
    train: Rows, classes: npt.NDArray[np.int64], group: npt.NDArray[np.int64], share: float, *, seed: int
) -> Rows:
    """Return the rows (h,) of a share of the patients, the same share of each class; none where a class has too few.

    Args:
        train: (n,) all that may be trained on.
        classes: (n,) their class numbers; a patient is of the largest among its images. All alike where there are none.
        group: (n,) their patient numbers.
        share: Of the patients; 0 holds nobody out.
        seed: The study's.
    """
    class_of: dict[int, int] = {}
    first_row: dict[int, int] = {}
    for row, number, patient in zip(train.tolist(), classes.tolist(), group.tolist(), strict=True):
        class_of[patient] = max(class_of.get(patient, number), number)
        first_row[patient] = min(first_row.get(patient, row), row)
    chosen: list[int] = []
    for wanted in sorted(set(class_of.values())):
        members = [patient for patient, number in class_of.items() if number == wanted]
        members.sort(key=lambda patient: derive(seed, "held out", first_row[patient]))
        count = round(share * len(members))
        if count < MIN_VALIDATION_PATIENTS:
            return train[:0]
        chosen += members[:count]
    return train[np.isin(group, chosen)]
