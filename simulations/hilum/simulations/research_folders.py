"""Sites of a simulation that have no DICOM: pictures and NIfTI files, taken as what the study asks for.

The study names the modality, so nobody has to say it again. Where there is no label table, folders may stand for it.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import cast

from hilum.client.intake.formats.not_dicom import is_folder_file
from hilum.client.intake.headers.read_instance import walk
from hilum.client.intake.instance import Family
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.intake.sources.scan import scan
from hilum.common.config import SiteConfig, StudyConfig
from hilum.common.errors import ConfigError, DataError
from hilum.common.files import write_text

MAX_CLASSES = 20
"""More folders than these are patients or days, not classes."""
_PARTS_OF_A_SPLIT = frozenset(
    ("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval")
)
_CLASS_AND_FILE, _CLASS_PATIENT_AND_FILE = 2, 3  # parts of a relative name


@dataclass(frozen=True)
class Holding:
    """What the folder of one site holds.

    Attributes:
        files: All that is counted there.
        pictures: Names of the pictures and NIfTI files, relative to the folder.
        images: What these are taken as; None sets them aside.
    """

    files: int
    pictures: tuple[PurePosixPath, ...] = field(repr=False)
    images: Family | None


def look_at(site: SiteConfig, study: StudyConfig, images: Family | None) -> Holding:
    """Find out what a site's pictures and NIfTI files are to be taken as.

    They are what the study's modality says where nothing in the folder is DICOM: beside DICOM they may be masks,
    screenshots or copies, and are taken only if the caller says what they are.

    Args:
        site: The site.
        study: Has the modality.
        images: What the caller says that they are.

    Raises:
        DataError: If the folder can't be read.
        ConfigError: If the caller says something that the study would not train on.
    """
    family = cast("Family", study.data.facts.family)  # a test holds that it is one
    if images not in (None, family):
        raise ConfigError(
            "simulate",
            [
                f'--images is {images}, the study\'s data.modality is "{study.data.modality}"; give {family}, or leave it out'
            ],
        )
    try:
        found = list(scan(site.data.dicom))
    except DataError as error:
        raise DataError(f"{site.site.name}: {error}") from None
    opened = [file.path for file in found if file.set_aside is None and not file.path.name.startswith("._")]
    pictures = [path for path in opened if is_folder_file(path)]
    others = (path for path in opened if not is_folder_file(path))
    if images is None and pictures and not any(map(_is_dicom, others)):
        images = family
    names = tuple(PurePosixPath(path.relative_to(site.data.dicom).as_posix()) for path in pictures)
    return Holding(len(found), names, images)


def _is_dicom(path: Path) -> bool:
    """Tell whether a file begins as DICOM does, usable or not."""
    try:
        walk(path)
    except Skip as skip:
        return skip.reason not in (Reason.NOT_DICOM, Reason.UNREADABLE)
    return True


def with_class_folders(
    sites: Sequence[SiteConfig],
    holdings: Sequence[Holding],
    study: StudyConfig,
    tell: Callable[[str], None],
) -> list[SiteConfig]:
    """Give sites without a label table one that is made of their folders.

    The folder that a file lies in, directly in the site's folder, is its class for the study's first task that has classes; a
    folder below that, its patient. A
    file without such a folder has no label, and one without a patient's folder is a patient of its own.

    Args:
        sites: As they were found.
        holdings: What each holds.
        study: Names the label column.
        tell: Told what was made of each site.

    Raises:
        DataError: If the folders can't be classes.
    """
    task = next((one for one in study.tasks.given if one.labels == "classes"), None)
    wanted = [
        task is not None and holding.images is not None and site.data.labels is None
        for site, holding in zip(sites, holdings, strict=True)
    ]
    classes = {
        name.parts[0]
        for holding, want in zip(holdings, wanted, strict=True)
        for name in holding.pictures
        if want and len(name.parts) >= _CLASS_AND_FILE
    }
    made = []
    for site, holding, want in zip(sites, holdings, wanted, strict=True):
        if holding.images is not None:
            tell(
                f"{site.site.name}: {len(holding.pictures)} pictures and NIfTI files are taken as {holding.images}"
            )
        if not want or task is None:
            made.append(site)
            continue
        if len(classes) < 2:  # noqa: PLR2004 - one folder tells nothing apart
            tell(
                f"{site.site.name}: no labels.csv, and no sub-folders that could be classes: nothing has a label"
            )
            made.append(site)
            continue
        _check_classes(classes)
        if len(study.tasks.given) > 1:
            raise DataError(
                f"{site.site.name}: there is no labels.csv, and sub-folders can stand for the labels of one task alone; the study "
                f"has {len(study.tasks.given)}: write a labels.csv with the columns file, patient and one for each task"
            )
        table = site.state.folder / "class-folders.csv"
        unnamed = _write_table(table, holding.pictures, task.label)
        without = f"; {unnamed} have no label, for their names can't stand in a table" if unnamed else ""
        tell(f"{site.site.name}: no labels.csv, so each sub-folder is a class{without}")
        data = site.data.model_copy(update={"labels": table})
        made.append(site.model_copy(update={"data": data}))
    return made


def _check_classes(classes: set[str]) -> None:
    advice = "write a labels.csv with the columns file, patient and the label for each site"
    if any(name.casefold() in _PARTS_OF_A_SPLIT for name in classes):
        raise DataError(
            "there is no labels.csv, and the sub-folders are parts of a split (train, test, ...), no classes: move the "
            f"class folders up into the site's folder, or {advice}"
        )
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"there is no labels.csv, and {len(classes)} sub-folders are too many for classes, of which at most "
            f"{MAX_CLASSES} are taken from folders (are they patients?): {advice}"
        )


def _write_table(path: Path, names: Sequence[PurePosixPath], label: str) -> int:
    """Write the table; gives how many files with a class are left out, as a table can't name them."""
    text, unnamed = io.StringIO(newline=""), 0
    table = csv.writer(text)
    table.writerow(("file", "patient", label))
    for name in names:
        if len(name.parts) < _CLASS_AND_FILE:
            continue
        if not _fits_a_table(str(name)):
            unnamed += 1
            continue
        patient = name.parts[1] if len(name.parts) >= _CLASS_PATIENT_AND_FILE else ""
        table.writerow((str(name), patient, name.parts[0]))
    write_text(path, text.getvalue(), private=True)
    return unnamed


def _fits_a_table(name: str) -> bool:
    """Tell whether a table in UTF-8 can hold a name just as it is."""
    return name.isprintable() and name == name.strip() and "\\" not in name
