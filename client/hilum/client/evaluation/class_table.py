"""Which classes were read at a site, how many patients each has, and what about them may mislead. For the site's owner alone."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hilum.client.data.kept_split import Side, sides_of
from hilum.client.data.site_data import SiteData
from hilum.client.state.label_values import number_text, spellings
from hilum.client.state.labels import Labels
from hilum.client.tasks.small_samples import MIN_CLASS_PATIENTS

_NAMES_SHOWN = 8


@dataclass(frozen=True)
class Count:
    """Patients, and images of theirs."""

    patients: int
    images: int

    def words(self) -> str:
        """Both, such as `12 (15)`."""
        return f"{self.patients} ({self.images})" if self.images else "-"


@dataclass(frozen=True)
class ClassLine:
    """One class at one site.

    Attributes:
        name: The class; None for images without a label.
        train: Trained on. Images without a label are pre-trained on alone.
        test: Tested. Images without a label are set aside where their patient is tested.
        left_out: Neither, for the patient is tested at another site, or came after the run began.
        set_aside: Labels whose image the index set aside.
    """

    name: str | None
    train: Count
    test: Count
    left_out: Count
    set_aside: int


@dataclass(frozen=True)
class ClassTable:
    """The classes of one site, and warnings about them."""

    site: str
    lines: tuple[ClassLine, ...]
    warnings: tuple[str, ...]

    @property
    def classes(self) -> list[str]:
        """The classes that an image has."""
        return [
            line.name
            for line in self.lines
            if line.name is not None and line.train.images + line.test.images + line.left_out.images
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        plain = asdict(self)
        return {**plain, "lines": list(plain["lines"]), "warnings": list(plain["warnings"])}


def class_table(data: SiteData, kind: str) -> ClassTable:
    """Count the classes of a site's labels for one task as its split has them."""
    assert data.origin is not None, "a site's own"
    labels, data = data.origin.labels[kind], data.of_task(kind)
    sides = sides_of(data.split)
    rows: dict[tuple[str | None, Side], list[int]] = {}
    for row, (label, side) in enumerate(zip(data.labels, sides, strict=True)):
        rows.setdefault((label, side), []).append(row)

    def count(label: str | None, side: Side) -> Count:
        here = rows.get((label, side), [])
        return Count(len(np.unique(data.split.group[here])), len(here))

    names = sorted({label for label in data.labels if label is not None} | set(labels.set_aside))
    lines = tuple(
        ClassLine(
            name,
            count(name, Side.TRAINED),
            count(name, Side.TESTED),
            count(name, Side.LEFT_OUT),
            0 if name is None else labels.set_aside.get(name, 0),
        )
        for name in [*names, None]
    )
    return ClassTable(data.name, lines, tuple(_warnings(data, labels, lines)))


def _warnings(data: SiteData, labels: Labels, lines: Sequence[ClassLine]) -> list[str]:
    """Return what of one site's classes may mislead."""
    assert data.origin is not None, "a site's own"
    found = list(data.notes)
    missing = labels.read_as_missing
    if missing:
        shown = ", ".join(f"`{word}` ({count})" for word, count in list(missing.items())[:_NAMES_SHOWN])
        found.append(f"read as no label: {shown}")
    classes = [line for line in lines if line.name is not None and line.train.images + line.test.images]
    found += _too_few(classes) if classes else ["no image has a label, so nothing can be evaluated"]
    of_patient: dict[int, set[str]] = {}
    for number, label in zip(data.split.group.tolist(), data.labels, strict=True):
        if label is not None:
            of_patient.setdefault(number, set()).add(label)
    several = sum(len(classes_of) > 1 for classes_of in of_patient.values())
    if several:
        found.append(
            f"{several} patient(s) have images of several classes: each counts in all of them here, and stands on one side"
        )
    words = [str(line.name) for line in classes if number_text(str(line.name)) != line.name]
    if 0 < len(words) < len(classes):
        found.append(f"numbers and words are mixed; of the words ({_list(words)}), is each a class?")
    if data.origin.joined:
        found.append(
            f"{data.origin.joined} pair(s) of images show the same under two patients; these patients are one in the split"
        )
    return found


def _too_few(classes: Sequence[ClassLine]) -> list[str]:
    """Return which classes have too few patients to be told apart."""
    found = []
    tested = [line for line in classes if line.test.patients]
    if len(classes) == 1:
        return [f"there is one class, `{classes[0].name}`: two are needed to evaluate anything"]
    if len(tested) < 2:  # noqa: PLR2004 - two classes
        found.append(
            "fewer than two classes have test patients, so nothing can be evaluated; add labelled patients"
        )
    untested = [f"`{line.name}`" for line in classes if not line.test.patients]
    if untested:
        found.append(f"never tested, for want of patients: {_list(untested)}")
    few = [
        f"`{line.name}`: {line.test.patients}" for line in tested if line.test.patients < MIN_CLASS_PATIENTS
    ]
    if few:
        found.append(
            f"fewer than {MIN_CLASS_PATIENTS} test patients ({_list(few)}): numbers of so few say little"
        )
    return found


def warnings_across(tables: Sequence[ClassTable]) -> list[str]:
    """Return what differs between the classes of several sites."""
    where: dict[str, list[str]] = {}
    for table in tables:
        for name in table.classes:
            where.setdefault(name, []).append(table.site)
    found = []
    grouped = spellings(Counter(where))
    for group in grouped:
        said = "; ".join(f"`{name}` at {_list(where[name])}" for name in group[:_NAMES_SHOWN])
        found.append(
            f"one class may be spelled in several ways: {said}; each site trains and tests with its own names"
        )
    alike = {name for group in grouped for name in group}
    labelled = [table.site for table in tables if table.classes]
    for name, sites in sorted(where.items()):
        lacking = [site for site in labelled if site not in sites]
        if lacking and name not in alike:
            found.append(f"the class `{name}` is at {_list(sites)}, not at {_list(lacking)}")
    bare = [table.site for table in tables if not table.classes]
    if bare and labelled:
        found.append(f"no image has a label at {_list(bare)}")
    return found


def table_lines(tables: Sequence[ClassTable], column: str) -> list[str]:
    """Return the tables as lines of text: patients, and images in brackets; then the warnings."""
    head = ("site", f"class (`{column}`)", "train", "test", "left out", "set aside")
    cells: list[tuple[str, ...]] = [head]
    for table in tables:
        for index, line in enumerate(table.lines):
            counts = (line.train, line.test, line.left_out)
            name = "unlabelled" if line.name is None else line.name
            cells.append(
                (
                    table.site if index == 0 else "",
                    name,
                    *[count.words() for count in counts],
                    str(line.set_aside or "-"),
                )
            )
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    lines = ["patients, and images in brackets:"]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    lines += [f"{table.site}: {warning}" for table in tables for warning in table.warnings]
    return lines + (warnings_across(tables) if len(tables) > 1 else [])


def _list(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_NAMES_SHOWN])
    return f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown
