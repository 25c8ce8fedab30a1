"""Who was trained on and who was set aside when a run began, kept at the site until the run is forgotten.

A split follows from the images and labels that a site has, and both change while a run goes on: an index brings images,
an engineer mends labels. Patients that a round has trained on must not be tested later, so a run keeps the split that it
began with. Images that come later take no part in it; labels are read as they are, but move nobody to the other side.

<state>/splits/<run>.npz
    contents    (N,) S64, SHA-256 of each image
    sides       (N,) uint8, a `Side`
    labels      (N,) S32, pseudonyms of the labels, empty for none
    study       (), digest of the study; see `study_digest`
    encoder     (), SHA-256 of the encoder that the run gave, empty until it is known here
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hilum.client.data.splits import Rows, Split
from hilum.client.state.workspace import Workspace
from hilum.common.config import StudyConfig
from hilum.common.config.resume import lasting
from hilum.common.errors import DamagedError
from hilum.common.files import write_bytes


class Side(IntEnum):
    """What a run does with an image; of two runs, the greater counts."""

    LEFT_OUT = 0
    TESTED = 1
    TRAINED = 2


@dataclass(frozen=True)
class Changes:
    """What is no longer as it was when a run began, in images."""

    came: int = 0
    went: int = 0
    relabelled: int = 0
    regrouped: int = 0

    def __bool__(self) -> bool:
        """Tell whether anything changed."""
        return any((self.came, self.went, self.relabelled, self.regrouped))

    def words(self) -> str:
        """Return one sentence with counts."""
        parts = [
            (self.relabelled, "changed {their} label"),
            (self.came, "came and {are} left out"),
            (self.went, "went"),
            (
                self.regrouped,
                "{are} of a test patient who is one with a training patient now, and {are} left out",
            ),
        ]
        said = ", ".join(
            f"{count} image{'' if count == 1 else 's'} "
            + text.format(their="its" if count == 1 else "their", are="is" if count == 1 else "are")
            for count, text in parts
            if count
        )
        return f"since this run began {said}; its split is kept: nobody changes sides"


@dataclass(frozen=True)
class KeptSplit:
    """The sides of a run's images, by the SHA-256 of their content."""

    study: str
    sides: Mapping[str, Side] = field(repr=False)
    labels: Mapping[str, str] = field(repr=False)
    encoder: str = ""

    def trained(self) -> set[str]:
        """Return the contents that were trained on."""
        return {content for content, side in self.sides.items() if side is Side.TRAINED}

    def extend(self, contents: Sequence[str], labelled: npt.NDArray[np.bool_], split: Split) -> Split:
        """Give each of today's images the side that it had, and those that came later the side of their patient.

        Args:
            contents: Of each row.
            labelled: Which rows have a label.
            split: Today's: it decides about patients of whom the run knew nothing.
        """
        sides = np.array([side.value for side in sides_of(split)], np.int64)
        known = np.array([self.sides.get(content, Side.LEFT_OUT) for content in contents], np.int64)
        for side in (Side.TESTED, Side.TRAINED):  # whoever was trained on at all is not tested
            sides[np.isin(split.group, split.group[known == side])] = side
        return split_of(sides, labelled, split.group)

    def apply(self, contents: Sequence[str], labels: Sequence[str], group: Rows) -> tuple[Split, Changes]:
        """Split today's images as the run began.

        Args:
            contents: Of each row.
            labels: Pseudonym of each row's label, empty for none.
            group: Patient number of each row, as of today.
        """
        sides = np.array([self.sides.get(content, Side.LEFT_OUT) for content in contents], np.int64)
        mixed = np.isin(group, group[sides == Side.TRAINED]) & (sides == Side.TESTED)
        sides[mixed] = Side.LEFT_OUT
        labelled = np.array([bool(label) for label in labels], bool)
        known = [content in self.sides for content in contents]
        today = dict(
            zip(contents, labels, strict=True)
        )  # of equal images the last label counts, as when they were kept
        changes = Changes(
            came=known.count(False),
            went=len(self.sides.keys() - set(contents)),
            relabelled=sum(
                here and self.labels[content] != today[content]
                for here, content in zip(known, contents, strict=True)
            ),
            regrouped=int(mixed.sum()),
        )
        return split_of(sides, labelled, group), changes


def split_of(sides: Rows, labelled: npt.NDArray[np.bool_], group: Rows) -> Split:
    """Make a split from the side of each row."""
    return Split(
        pretrain=np.flatnonzero(sides == Side.TRAINED),
        train=np.flatnonzero((sides == Side.TRAINED) & labelled),
        test=np.flatnonzero((sides == Side.TESTED) & labelled),
        group=group,
        left_out=np.flatnonzero(sides == Side.LEFT_OUT),
    )


def sides_of(split: Split) -> list[Side]:
    """Return the side of each row; an image of a test patient without a label counts as tested."""
    sides = np.full(len(split.group), Side.TESTED, np.int64)
    sides[split.pretrain] = Side.TRAINED
    sides[split.left_out] = Side.LEFT_OUT
    return [Side(side) for side in sides.tolist()]


def study_digest(study: StudyConfig) -> str:
    """Tell studies apart by what decides about training: not by deadlines, nor by the threshold of patients."""
    table = lasting(study.model_dump(mode="json", exclude={"privacy": {"min_patients"}}))
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


class KeptSplits:
    """The splits that one site keeps, one file a run."""

    def __init__(self, workspace: Workspace) -> None:
        self.folder = workspace.splits

    def of_run(self, run: str) -> KeptSplit | None:
        """Return the split of a run; None if it has none here."""
        return _read(self._path(run)) if self._path(run).exists() else None

    def of_study(self, study: StudyConfig) -> KeptSplit | None:
        """Return the split of the latest run of a study here; None if there was none."""
        digest = study_digest(study)
        return next((kept for kept in self._latest_first() if kept.study == digest), None)

    def of_encoder(self, encoder_sha256: str) -> KeptSplit | None:
        """Who was trained on and set aside for an encoder; None if no run here can have given it.

        A federation's encoder has no name at a site: then it may be of any run here whose encoder is not known, and whom
        one of them trained on counts as trained on.
        """
        every = self._latest_first()
        named = [kept for kept in every if kept.encoder == encoder_sha256]
        able = named[:1] or [kept for kept in every if not kept.encoder]
        if not able:
            return None
        sides = {
            content: max(kept.sides.get(content, Side.LEFT_OUT) for kept in able)
            for kept in able
            for content in kept.sides
        }
        return KeptSplit(able[0].study, sides, able[0].labels, encoder_sha256)

    def knows(self, encoder_sha256: str) -> bool:
        """Tell whether it is known for certain who was trained on and set aside for an encoder, or a model of one."""
        return any(kept.encoder == encoder_sha256 for kept in self._latest_first())

    def keep(self, run: str, kept: KeptSplit) -> None:
        """Keep a run's split. One of an earlier run of this name stays under the name of the encoder that it gave."""
        earlier = self.of_run(run)
        if earlier is not None and earlier.encoder not in ("", kept.encoder):
            self._path(run).replace(self._path(f"{run}.{earlier.encoder[:12]}"))
        buffer, contents = io.BytesIO(), list(kept.sides)
        np.savez_compressed(
            buffer,
            contents=np.array(contents, "S64"),
            sides=np.array([kept.sides[content] for content in contents], np.uint8),
            labels=np.array([kept.labels[content] for content in contents], "S32"),
            study=np.array(kept.study),
            encoder=np.array(kept.encoder),
        )
        write_bytes(self._path(run), buffer.getvalue(), private=True)

    def name_encoder(self, run: str, encoder_sha256: str) -> None:
        """Note which encoder a run gave."""
        kept = self.of_run(run)
        if kept is not None and kept.encoder != encoder_sha256:
            self.keep(run, replace(kept, encoder=encoder_sha256))

    def _path(self, run: str) -> Path:
        return self.folder / f"{run}.npz"

    def _latest_first(self) -> list[KeptSplit]:
        paths = sorted(self.folder.glob("*.npz"), key=lambda path: (-path.stat().st_mtime_ns, path.name))
        return [_read(path) for path in paths]


def _read(path: Path) -> KeptSplit:
    try:
        with np.load(path, allow_pickle=False) as stored:
            contents = [content.decode() for content in stored["contents"].tolist()]
            sides = dict(zip(contents, map(Side, stored["sides"].tolist()), strict=True))
            labels = dict(zip(contents, (label.decode() for label in stored["labels"].tolist()), strict=True))
            return KeptSplit(str(stored["study"]), sides, labels, str(stored["encoder"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise DamagedError(
            "the kept split of a run is damaged, so it is not known who was set aside; restore splits/ of the state folder "
            "from a backup, or begin the run again"
        ) from None
