"""What one site brings to one study: packed images, labels, and the split by patient."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hilum.client.answers import Facts
from hilum.client.catalogue import Catalogue, Item
from hilum.client.disclosure.counts import banded_total
from hilum.client.evaluation.splits import Split, split_patients
from hilum.client.labels import Labels, read_labels
from hilum.client.prepared import Packed, prepare
from hilum.client.workspace import Workspace
from hilum.common.config import SiteConfig, StudyConfig
from hilum.common.errors import DataError, RequestRefused


@dataclass(frozen=True)
class SiteData:
    """The rows of a site for one study.

    Attributes:
        name: The site's.
        images: uint16 (N, C, *store).
        labels: The label of each row, None where there is none.
        split: Who is trained on and who is tested.
        content_sha256: Over the images that are trained on: a checkpoint of other images is not taken up.
        facts: What lies behind an answer, by pseudonym of the patient.
    """

    name: str
    images: Packed = field(repr=False)
    labels: tuple[str | None, ...] = field(repr=False)
    split: Split = field(repr=False)
    content_sha256: str = field(repr=False)
    facts: Mapping[str, Facts] = field(repr=False, default_factory=dict)

    def examples(self, threshold: int) -> int:
        """How many images the site trains on, as it may be told; see `banded_total`.

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
        """How many patients are tested."""
        return len(np.unique(self.split.group[self.split.test]))


def open_site(site: SiteConfig, study: StudyConfig) -> SiteData:
    """Open an indexed site for a study.

    Raises:
        DataError: If the site has no usable image for the study, or too few.
        LabelError: If its label table is wrong.
    """
    workspace = Workspace(site.state.folder)
    try:
        prepared = prepare(workspace, study.data)
        labels = _labels(site, study, workspace)
    except DataError as error:
        raise type(error)(f"{site.site.name}: {error}") from None
    split = split_patients(
        prepared.items,
        labels.label_of,
        labels.patient_of,
        test_share=study.evaluation.test_share,
        seed=study.study.seed,
    )
    needed = 2 if study.method.name == "simclr" else 1
    if len(split.pretrain) < needed:
        raise DataError(
            f"{site.site.name}: {len(split.pretrain)} images are left for training once test patients are set aside, "
            f"{needed} are needed; add images, or lower evaluation.test_share"
        )
    label_of = tuple(labels.label_of.get(item.item_key) for item in prepared.items)
    return SiteData(
        site.site.name,
        prepared.images,
        label_of,
        split,
        _digest(prepared.items[row].content_sha256 for row in split.pretrain),
        _facts(prepared.items, label_of, split),
    )


def pooled(sites: list[SiteData]) -> SiteData:
    """The training rows of several sites as one, for the centralised arm of a simulation; nobody is tested on it."""
    images = np.concatenate([data.images[data.split.pretrain] for data in sites])
    rows, none = np.arange(len(images), dtype=np.int64), np.zeros(0, np.int64)
    split = Split(pretrain=rows, train=none, test=none, group=rows)
    return SiteData(
        "pooled", images, (None,) * len(images), split, _digest(data.content_sha256 for data in sites)
    )


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


def _labels(site: SiteConfig, study: StudyConfig, workspace: Workspace) -> Labels:
    task = study.tasks.classification
    if task is None or site.data.labels is None:
        return Labels({}, {}, 0)
    catalogue = Catalogue(workspace.catalogue)
    try:
        return read_labels(site.data.labels, task.label, catalogue, workspace.pseudonyms())
    finally:
        catalogue.close()
