"""Splits by patient that depend on content and seed alone, so that every machine makes the same one."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hilum.client.state.catalogue import Item
from hilum.common.seeding import derive

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows of the prepared images.

    Attributes:
        pretrain: Every row of a patient who is not tested, labelled or not.
        train: The labelled ones among them.
        test: Labelled rows of test patients.
        group: The patient number of each row.
        left_out: Rows that are neither trained on nor tested, for a reason that whoever made the split knows.
    """

    pretrain: Rows = field(repr=False)
    train: Rows = field(repr=False)
    test: Rows = field(repr=False)
    group: Rows = field(repr=False)
    left_out: Rows = field(repr=False, default_factory=lambda: np.zeros(0, np.int64))


def patient_groups(
    items: Sequence[Item], patient_of: Mapping[str, str], twins: Iterable[Sequence[int]] = ()
) -> Rows:
    """Give each patient of the items a number.

    Two items are one patient's if the archive or the label table says so, or if they show the same, also through a third
    item. Numbers follow the order in which patients first appear.

    Args:
        items: The items.
        patient_of: What the label table says, by item.
        twins: Pairs of rows that show the same.
    """
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for item in items:
        stated = patient_of.get(item.item_key)
        if stated is not None:
            leader[find("label:" + stated)] = find("archive:" + item.patient_key)
    for one, other in twins:
        leader[find("archive:" + items[one].patient_key)] = find("archive:" + items[other].patient_key)
    numbers: dict[str, int] = {}
    roots = [find("archive:" + item.patient_key) for item in items]
    return np.array([numbers.setdefault(root, len(numbers)) for root in roots], np.int64)


def split_patients(
    items: Sequence[Item],
    label_of: Mapping[str, str],
    patient_of: Mapping[str, str],
    *,
    test_share: float,
    seed: int,
    twins: Iterable[Sequence[int]] = (),
) -> Split:
    """Set aside a share of the labelled patients for testing, the same share of each class.

    A patient's class is the largest label among the patient's images. A class of one patient is only trained on. Within a
    class, patients stand in an order that their own images and the seed decide, and the first are tested: a patient who
    comes or goes moves at most one other of the class to the other side.
    """
    group = patient_groups(items, patient_of, twins)
    labels = [label_of.get(item.item_key) for item in items]
    class_of: dict[int, str] = {}
    name_of: dict[int, str] = {}
    for number, item, label in zip(group.tolist(), items, labels, strict=True):
        name_of[number] = min(name_of.get(number, item.content_sha256), item.content_sha256)
        if label is not None:
            class_of[number] = max(class_of.get(number, label), label)
    tested: set[int] = set()
    for wanted in sorted(set(class_of.values())):
        members = [number for number, label in class_of.items() if label == wanted]
        members.sort(key=lambda number: _shuffled(seed, name_of[number]))
        count = min(max(1, round(test_share * len(members))), len(members) - 1)
        tested.update(members[:count])
    is_test = np.array([number in tested for number in group.tolist()], bool)
    labelled = np.array([label is not None for label in labels], bool)
    return Split(
        pretrain=np.flatnonzero(~is_test),
        train=np.flatnonzero(~is_test & labelled),
        test=np.flatnonzero(is_test & labelled),
        group=group,
    )


def labelled_share(split: Split, classes: Sequence[str | None], share: float, *, seed: int) -> Rows:
    """Return the training rows of a share of the patients, the same share of each class, at least one patient of each.

    Smaller shares are subsets of larger ones.
    """
    by_class: dict[str, dict[int, list[int]]] = {}
    for row in split.train.tolist():
        label = classes[row]
        assert label is not None, "training rows are labelled"
        by_class.setdefault(label, {}).setdefault(int(split.group[row]), []).append(row)
    chosen: list[int] = []
    for label in sorted(by_class):
        patients = sorted(
            by_class[label], key=lambda number: derive(seed, "share", label, min(by_class[label][number]))
        )
        for number in patients[: max(1, round(share * len(patients)))]:
            chosen += by_class[label][number]
    return np.array(sorted(chosen), np.int64)


def _shuffled(seed: int, name: str) -> str:
    return hashlib.sha256(f"{derive(seed, 'test patients')}|{name}".encode()).hexdigest()
