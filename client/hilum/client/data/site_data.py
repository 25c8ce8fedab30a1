"""What one site brings to one study: packed images, labels, and the split by patient."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from hilum.client.data.kept_split import (
    KeptSplit,
    KeptSplits,
    Side,
    sides_of,
    split_of,
    study_digest,
)
from hilum.client.data.masks import mask_labels
from hilum.client.data.prepared import Holding, PreparedImages, Stored, holding_of, items_of, prepare
from hilum.client.data.splits import Rows, Split, patient_groups, split_patients
from hilum.client.data.twins import Pairs, twins_within
from hilum.client.data.volumes import Volumes, joined
from hilum.client.disclosure.answers import Facts
from hilum.client.disclosure.counts import banded_total
from hilum.client.state.catalogue import Catalogue, Item
from hilum.client.state.findings import check_is_findings
from hilum.client.state.label_values import check_is_classes, check_is_numbers
from hilum.client.state.labels import Labels, read_labels, read_patients
from hilum.client.state.workspace import Pseudonyms, Workspace
from hilum.common.config import SiteConfig, StudyConfig
from hilum.common.config.tasks import MAX_LABEL, MultilabelTask, SegmentationTask
from hilum.common.errors import DataError, LabelError, RequestRefused

_BETWEEN = "\x1f"  # between the labels of several tasks
_MAKER_UNKNOWN = (
    "whom this encoder was pre-trained on is not known at this site: if its test patients were among them, its numbers are "
    "too good"
)
_MAKER_KNOWN = "patients on whom this encoder may have been pre-trained here are not tested; those who were set aside then are"


@dataclass(frozen=True)
class Origin:
    """What a site's rows come from.

    Attributes:
        workspace: The site's.
        prepared: The packed images, and what each is.
        labels: The label column of each task, as it was read, by the task's kind.
        label_keys: Pseudonym of each row's labels, empty for a row without any.
        people: Of each row, the pseudonyms of its patient, as far as someone named the patient: in the archive, or in the
            label table.
        joined: Pairs of images that show the same under two of the archive's patients, who are one in the split.
    """

    workspace: Workspace
    prepared: PreparedImages
    labels: Mapping[str, Labels]
    label_keys: tuple[str, ...]
    people: tuple[frozenset[str], ...]
    joined: int


@dataclass(frozen=True)
class SiteData:
    """The rows of a site for one study.

    Attributes:
        name: The site's.
        images: uint16 (N, C, *store), or volumes.
        labels: The label of each row for the study's first task, None where there is none.
        split: Who is trained on and who is tested, by all tasks alike: its labelled rows have a label for one of them.
        content_sha256: Over the images that are trained on: a checkpoint of other images is not taken up.
        facts: What lies behind an answer, by pseudonym of the patient.
        origin: Where it all comes from; None for rows of several sites.
        notes: What a reader of the split must know: what changed since it was made.
        more_labels: The same as `labels` for each further task, by its kind.
    """

    name: str
    images: Stored = field(repr=False)
    labels: tuple[str | None, ...] = field(repr=False)
    split: Split = field(repr=False)
    content_sha256: str = field(repr=False)
    facts: Mapping[str, Facts] = field(repr=False, default_factory=dict)
    origin: "Origin | None" = field(repr=False, default=None)
    notes: tuple[str, ...] = ()
    more_labels: Mapping[str, tuple[str | None, ...]] = field(repr=False, default_factory=dict)

    def of_task(self, kind: str) -> "SiteData":
        """Return the same with the labels of one task, and of each side the rows that it has a label for."""
        labels = self.more_labels.get(kind, self.labels)
        labelled = _labelled([labels])
        train, test = (rows[labelled[rows]] for rows in (self.split.train, self.split.test))
        split = replace(self.split, train=train, test=test)
        return replace(self, labels=labels, split=split, more_labels={})

    def kept(self, study: StudyConfig) -> KeptSplit:
        """Return the split, as a run keeps it."""
        assert self.origin is not None, "a site's own"
        contents = [item.content_sha256 for item in self.origin.prepared.items]
        return KeptSplit(
            study_digest(study),
            dict(zip(contents, sides_of(self.split), strict=True)),
            dict(zip(contents, self.origin.label_keys, strict=True)),
        )

    def without(self, rows: Rows, study: StudyConfig) -> "SiteData":
        """Return the same with some training rows left out.

        Raises:
            DataError: If too few are left.
        """
        assert self.origin is not None, "a site's own"
        sides = np.array([side.value for side in sides_of(self.split)], np.int64)
        sides[rows] = Side.LEFT_OUT
        columns = [self.labels, *self.more_labels.values()]
        split = split_of(sides, _labelled(columns), self.split.group)
        return _site_data(self.name, self.origin, split, columns, self.notes, study)

    def examples(self, threshold: int) -> int:
        """Return how many images the site trains on, as it may be told; see `banded_total`.

        Raises:
            RequestRefused: `too_few_patients`, if fewer patients than the threshold are trained on.
        """
        of_patient = [int(count) for count in np.bincount(self.split.group[self.split.pretrain]) if count]
        banded = banded_total(of_patient, threshold)
        if banded is None:
            raise RequestRefused(
                "too_few_patients",
                f"{self.name}: {len(of_patient)} patients would be trained on, privacy.min_patients is {threshold}",
            )
        return banded

    @property
    def test_patients(self) -> int:
        """How many patients are tested; of one task, see `of_task`."""
        return len(np.unique(self.split.group[self.split.test]))


def open_site(
    site: SiteConfig,
    study: StudyConfig,
    run: str | None = None,
    *,
    anew: bool = False,
    encoder: str | None = None,
) -> SiteData:
    """Open an indexed site for a study.

    Args:
        site: The site.
        study: The study.
        run: Of this run: with the split that it began with, if it has begun here. Without a run, with that of the latest
            run of the study here, for its encoder knows whom it trained on.
        anew: Whatever runs there were, split by today's images and labels.
        encoder: SHA-256 of an encoder that is to be measured: whom it was trained on is not tested.

    Raises:
        DataError: If the site has no usable image for the study, or too few.
        LabelError: If its label table is wrong, or its classes are none.
    """
    workspace = Workspace(site.state.folder)
    check_site(site, study)
    try:
        prepared = prepare(workspace, study.data)
        labels = _labels(site, study, workspace)
        patient_of = _patient_of(labels)
        twins = twins_within(workspace, prepared)
        group = patient_groups(prepared.items, patient_of, twins)
        columns = [
            tuple(labels[task.kind].label_of.get(item.item_key) for item in prepared.items)
            for task in study.tasks.given
        ]
        for task, column in zip(study.tasks.given, columns, strict=True):
            if task.labels == "classes":
                check_is_classes(task.label, _patients_by_class(column, group))
            held = Counter(label for label in column if label is not None)
            if task.labels == "numbers":
                check_is_numbers(task.label, held, most=MAX_LABEL)
            if isinstance(task, MultilabelTask):
                check_is_findings(task.label, held, task.nothing)
    except LabelError as error:
        raise LabelError(f"{site.site.name}: {error.message}", error.cells) from None
    except DataError as error:
        raise type(error)(f"{site.site.name}: {error}") from None
    names = workspace.pseudonyms()
    origin = Origin(
        workspace,
        prepared,
        labels,
        _label_keys(columns, len(prepared.items), names),
        tuple(_people(item, patient_of.get(item.item_key)) for item in prepared.items),
        _joined(prepared.items, twins),
    )
    split, notes = _split(origin, study, group, twins, KeptSplits(workspace), run, anew=anew, encoder=encoder)
    data = _site_data(site.site.name, origin, split, columns, notes, study)
    if study.tasks.segmentation is not None:
        _check_tested(data.of_task(study.tasks.segmentation.kind))
    return data


def _check_tested(data: SiteData) -> None:
    """Refuse where masks are of one patient alone."""
    if not len(data.split.test):
        marked = len(np.unique(data.split.group[data.split.train]))
        raise DataError(
            f"{data.name}: no test patient has a mask: the images with masks are of {marked} patient(s), and two are needed; "
            "annotate images of more patients"
        )


def check_site(site: SiteConfig, study: StudyConfig) -> Holding:
    """Return what a site has for a study; what is wrong with its archive or label table is known before anything is packed.

    Raises:
        DataError: If the site has no usable image for the study.
        LabelError: If its label table is wrong.
    """
    workspace = Workspace(site.state.folder)
    try:
        holding = holding_of(workspace, study.data)
        _labels(site, study, workspace)
    except LabelError as error:
        raise LabelError(f"{site.site.name}: {error.message}", error.cells) from None
    except DataError as error:
        raise type(error)(f"{site.site.name}: {error}") from None
    return holding


def open_run(site: SiteConfig, study: StudyConfig, run: str) -> SiteData:
    """Open a site for a run that was asked for; what it is split into at first stays so until the run's end.

    Raises:
        DataError: As `open_site`.
    """
    data = open_site(site, study, run)
    kept = KeptSplits(Workspace(site.state.folder))
    if kept.of_run(run) is None:
        kept.keep(run, data.kept(study))
    return data


def _split(
    origin: "Origin",
    study: StudyConfig,
    group: Rows,
    twins: Pairs,
    kept: KeptSplits,
    run: str | None,
    *,
    anew: bool,
    encoder: str | None,
) -> tuple[Split, tuple[str, ...]]:
    """Return the split that holds here, and what its reader must know of it."""
    contents = [item.content_sha256 for item in origin.prepared.items]
    earlier = None if anew or encoder else kept.of_study(study) if run is None else kept.of_run(run)
    if earlier is not None:
        split, changes = earlier.apply(contents, origin.label_keys, group)
        return split, (changes.words(),) if changes else ()
    split = split_patients(
        origin.prepared.items,
        _strata(origin.labels, study),
        _patient_of(origin.labels),
        test_share=study.evaluation.test_share,
        seed=study.study.seed,
        twins=twins,
    )
    if encoder is None:
        return split, ()
    maker = kept.of_encoder(encoder)
    if maker is None:
        return split, (_MAKER_UNKNOWN,)
    labelled = np.array([bool(key) for key in origin.label_keys], bool)
    return maker.extend(contents, labelled, split), (_MAKER_KNOWN,)


def _site_data(
    name: str,
    origin: "Origin",
    split: Split,
    columns: Sequence[tuple[str | None, ...]],
    notes: tuple[str, ...],
    study: StudyConfig,
) -> SiteData:
    """Return a site's rows; `columns` are the labels of each task in the study's order."""
    items = origin.prepared.items
    needed = study.method.min_batch
    if len(split.pretrain) < needed:
        aside = (
            "test patients, and images that were left out, are set aside"
            if len(split.left_out)
            else "test patients are set aside"
        )
        raise DataError(
            f"{name}: {len(split.pretrain)} images are left for training once {aside}, {needed} are needed; add images, or "
            "lower evaluation.test_share"
        )
    return SiteData(
        name,
        origin.prepared.images,
        columns[0] if columns else (None,) * len(items),
        split,
        _digest(items[row].content_sha256 for row in split.pretrain),
        _facts(items, _joined_labels(columns, len(items)), split),
        origin,
        notes,
        dict(zip([task.kind for task in study.tasks.given[1:]], columns[1:], strict=True)),
    )


def _labelled(columns: Sequence[Sequence[str | None]]) -> npt.NDArray[np.bool_]:
    """Return which rows have a label for any of the tasks, one column each."""
    return np.array([any(label is not None for label in row) for row in zip(*columns, strict=True)], bool)


def _joined_labels(columns: Sequence[Sequence[str | None]], rows: int) -> list[str | None]:
    """Return all labels of each row as one text, None for a row without any; of one task, its labels as they are."""
    if not columns:
        return [None] * rows
    return [
        None if all(label is None for label in row) else _BETWEEN.join(label or "" for label in row)
        for row in zip(*columns, strict=True)
    ]


def _label_keys(columns: Sequence[Sequence[str | None]], rows: int, names: Pseudonyms) -> tuple[str, ...]:
    return tuple("" if label is None else names.of("label", label) for label in _joined_labels(columns, rows))


def _patient_of(labels: Mapping[str, Labels]) -> dict[str, str]:
    """Return the patients that the label table names, by item: the same in each of its columns."""
    return {item: person for column in labels.values() for item, person in column.patient_of.items()}


def _strata(labels: Mapping[str, Labels], study: StudyConfig) -> dict[str, str]:
    """Return the stratum of each labelled item: each side gets its share of every class of the first task that has classes.

    Items that this task has no label for, and those of a study of numbers alone, are one stratum.
    """
    strata = {item: "" for column in labels.values() for item in column.label_of}
    first = next((task for task in study.tasks.given if task.labels == "classes"), None)
    return strata if first is None else strata | labels[first.kind].label_of


def _patients_by_class(labels: Sequence[str | None], group: Rows) -> dict[str, int]:
    pairs = {
        (label, number) for label, number in zip(labels, group.tolist(), strict=True) if label is not None
    }
    return dict(Counter(label for label, _ in pairs))


def _people(item: Item, stated: str | None) -> frozenset[str]:
    """Return what an item's patient is called. A picture's own patient is named after the file, which is not a name of a person."""
    of_a_file = item.study_key == item.series_key  # of DICOM, they are pseudonyms of two kinds
    return frozenset(({stated} if stated else set()) | (set() if of_a_file else {item.patient_key}))


def _joined(items: Sequence[Item], twins: Pairs) -> int:
    """Return how many pairs of images show the same under two names of the archive's."""
    return sum(items[one].patient_key != items[other].patient_key for one, other in twins)


def pooled(sites: list[SiteData]) -> SiteData:
    """Return the training rows of several sites as one, for the centralised arm of a simulation; nobody is tested on it."""
    images = _joined_images([(data.images, data.split.pretrain) for data in sites])
    labels = tuple(data.labels[row] for data in sites for row in data.split.pretrain.tolist())
    starts = np.cumsum([0, *(int(data.split.group.max()) + 1 for data in sites)])
    group = np.concatenate(
        [data.split.group[data.split.pretrain] + start for data, start in zip(sites, starts, strict=False)]
    )
    labelled = np.flatnonzero([label is not None for label in labels])
    split = Split(pretrain=np.arange(len(images)), train=labelled, test=labelled[:0], group=group)
    return SiteData("pooled", images, labels, split, _digest(data.content_sha256 for data in sites))


def _joined_images(several: Sequence[tuple[Stored, Rows]]) -> Stored:
    """Put rows of several sites after one another; volumes stay where they lie."""
    volumes = [images.of_rows(rows) for images, rows in several if isinstance(images, Volumes)]
    if volumes:
        return joined(volumes)
    return np.concatenate([images[rows] for images, rows in several if isinstance(images, np.ndarray)])


def _digest(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _facts(items: Sequence[Item], labels: Sequence[str | None], split: Split) -> dict[str, Facts]:
    """Digests of each patient's images and labels; a patient of several pseudonyms goes by the first of them."""
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(split.group.tolist()):
        rows.setdefault(number, []).append(row)
    return {
        min(items[row].patient_key for row in own): Facts(
            _digest(sorted(items[row].content_sha256 for row in own)),
            _digest(sorted(f"{items[row].content_sha256}={labels[row]}" for row in own)),
        )
        for own in rows.values()
    }


def _labels(site: SiteConfig, study: StudyConfig, workspace: Workspace) -> dict[str, Labels]:
    """Return the label column of each of the study's tasks, by its kind."""
    found = {task.kind: Labels({}, {}, 0) for task in study.tasks.given}
    names = workspace.pseudonyms()
    with closing(Catalogue(workspace.catalogue)) as catalogue:
        for task in study.tasks.given:
            if isinstance(task, SegmentationTask):
                items = items_of(workspace, study.data)
                table = site.data.labels
                patient_of = {} if table is None else read_patients(table, catalogue, names)
                found[task.kind] = mask_labels(workspace, items, task.classes, patient_of)
            elif site.data.labels is not None:
                named_by = f"tasks.{task.kind}.label of the study"
                found[task.kind] = read_labels(
                    site.data.labels, task.label, catalogue, names, named_by=named_by
                )
    return found
