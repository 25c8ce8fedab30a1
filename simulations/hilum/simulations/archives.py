"""A folder of archives, one a site: `site-0/dicom`, `site-0/labels.csv`, and so on; or folders of pictures."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from hilum.client.data.site_data import SiteData, check_site, open_site
from hilum.client.data.volume_packing import check_room
from hilum.client.intake.annotations.annotate import annotate, found_files
from hilum.client.intake.formats.naming import LabelMap, read_label_map
from hilum.client.intake.formats.not_dicom import is_folder_file
from hilum.client.intake.indexing.index import IndexReport, index_archive
from hilum.client.intake.instance import Family
from hilum.client.intake.sources.scan import scan
from hilum.client.state.workspace import Workspace
from hilum.common.config import SiteConfig, StudyConfig
from hilum.common.config.base import NAME_PATTERN
from hilum.common.config.site import SiteDataSection, SiteSection, SiteStateSection
from hilum.common.errors import DataError, RequestRefused
from hilum.common.progress import Onward, Progress, progress_bar
from hilum.simulations.overlap import Overlap, find_overlap, set_apart


def find_sites(archives: Path, home: Path) -> list[SiteConfig]:
    """Return one site for each folder that holds a `dicom` folder, or else pictures or NIfTI files, in the order of their names.

    Args:
        archives: The folder of archives; it is only read.
        home: Catalogues and caches go to a place under it that is this folder's own, so a second simulation on the
            same archives reads no pixel again.

    Raises:
        DataError: If there is no such folder, or no site in it, or if it is itself a site's.
    """
    if not archives.is_dir():
        raise DataError(
            "the archives folder does not exist; `hilum phantom DIR` makes one, or check --archives"
        )
    below = [folder for folder in archives.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    folders = [folder for folder in below if (folder / "dicom").is_dir()]
    if not folders and (archives / "dicom").is_dir():
        raise DataError(
            "the archives folder is the folder of one site: it holds `dicom/` itself; give the folder above, which holds one "
            "folder a site"
        )
    folders = sorted(folders or filter(_holds_pictures, below), key=_natural)
    if not folders:
        raise DataError(
            "the archives folder holds no site; each site is a folder with `dicom/` and `labels.csv` in it, or with pictures "
            "or NIfTI files"
        )
    for folder in folders:
        if not re.fullmatch(NAME_PATTERN, folder.name):
            raise DataError(
                "a site's folder names the site: letters, digits, '.', '_' and '-', at most 64, no space; rename it"
            )
    own = hashlib.sha256(os.fsencode(archives.absolute())).hexdigest()[:16]
    return [
        SiteConfig(
            site=SiteSection(name=folder.name),
            data=SiteDataSection(
                dicom=folder / "dicom" if (folder / "dicom").is_dir() else folder,
                labels=folder / "labels.csv" if (folder / "labels.csv").exists() else None,
            ),
            state=SiteStateSection(folder=home / "simulations" / own / folder.name),
            policy=None,  # all the data are one researcher's
        )
        for folder in folders
    ]


def _holds_pictures(folder: Path) -> bool:
    return any(file.set_aside is None and is_folder_file(file.path) for file in scan(folder))


def index_sites(
    sites: list[SiteConfig], progress: Progress, images: Sequence[Family | None] | None = None
) -> dict[str, IndexReport]:
    """Bring every site's catalogue up to date.

    Args:
        sites: The sites.
        progress: Told once a file.
        images: For each site, what its pictures and NIfTI files are taken as; None takes none.

    Raises:
        DataError: If a site's archive can't be read, is empty, or holds no usable image; the message names the site.
    """
    _share_key(sites)
    reports = {}
    done = 0
    for site, family in zip(sites, images or [None] * len(sites), strict=True):
        try:
            report = index_archive(
                site.data.dicom,
                Workspace(site.state.folder),
                Onward(progress, done),
                images=family,
                forget_images=True,
            )
        except DataError as error:
            raise type(error)(f"{site.site.name}: {error}") from None
        if report.counts.instances == 0:
            reasons = ", ".join(f"{count} {reason}" for reason, count in report.counts.skipped.items())
            raise DataError(
                f"{site.site.name}: none of {report.counts.files} files is a usable image ({reasons})"
            )
        reports[site.site.name] = report
        done += report.counts.files
    return reports


def annotate_sites(sites: list[SiteConfig], tell: Callable[[str], None]) -> None:
    """Tie to each site's images the masks in the folder `masks` beside its `dicom`, by the names in `names.toml` there.

    Args:
        sites: Indexed; a site without such a folder keeps the masks that it has.
        tell: Told what was taken of each.

    Raises:
        DataError: If none of a site's files is a mask of its images; the message names the site.
        ConfigError: If the names can't be read.
    """
    for site in sites:
        folder, names = site.data.dicom.parent / "masks", site.data.dicom.parent / "names.toml"
        if site.data.dicom.name != "dicom" or not folder.is_dir():
            continue
        labels = read_label_map(names) if names.exists() else LabelMap()
        with progress_bar(f"annotating {site.site.name}", len(found_files(folder))) as progress:
            report = annotate(folder, Workspace(site.state.folder), labels, progress)
        refused = ", ".join(f"{count} {reason}" for reason, count in report.skipped.items())
        if report.masks == 0:
            raise DataError(
                f"{site.site.name}: none of {report.files} files in masks/ is a mask of its images ({refused})"
            )
        aside = f"; not taken: {refused}" if refused else ""
        tell(f"{site.site.name}: {report.masks} masks on {report.images} images{aside}")


def _share_key(sites: list[SiteConfig]) -> None:
    """Give the sites of one simulation one key, so that a patient has one pseudonym at all of them.

    A site that has a key keeps it: its catalogue is written under it.
    """
    key = Workspace(sites[0].state.folder).pseudonyms().key
    for site in sites[1:]:
        Workspace(site.state.folder).pseudonyms(first=key)


def open_sites(
    sites: list[SiteConfig], study: StudyConfig, run: str | None = None
) -> tuple[list[SiteData], Overlap]:
    """Open every site for a study, so that what is wrong is known before anything is trained.

    Args:
        sites: The sites.
        study: The study.
        run: Go on with the splits that this run keeps; without one, split anew, and keep whoever is tested anywhere out of
            all training.

    Raises:
        DataError: If the study does not fit the archives.
    """
    if len(sites) != study.federation.sites:
        raise DataError(
            f"the archives hold {len(sites)} sites, the study asks for {study.federation.sites}; "
            f"set federation.sites = {len(sites)}"
        )
    holdings = [check_site(site, study) for site in sites]
    # The sites of a simulation share a disk.
    needed = sum(one.lacking_bytes for one in holdings)
    images = sum(one.images for one in holdings)
    check_room(f"the {images} images of all sites", needed, Workspace(sites[0].state.folder), study.data)
    data = [open_site(site, study, run, anew=run is None) for site in sites]
    overlap = find_overlap(data)
    if run is None:
        data = set_apart(data, study, overlap)
    return data, overlap


def check_patients(data: SiteData, study: StudyConfig) -> None:
    """Refuse now what the site would refuse in an hour.

    Raises:
        DataError: If fewer patients than the study's threshold are trained on, or tested for every task.
    """
    threshold = study.privacy.min_patients
    advice = "add patients, or lower privacy.min_patients: all the data of a simulation are yours"
    try:
        data.examples(threshold)
    except RequestRefused as refused:
        raise DataError(f"{refused.detail}; {advice}") from None
    tested = [data.of_task(task.kind).test_patients for task in study.tasks.given]
    if tested and max(tested) < threshold:
        raise DataError(
            f"{data.name}: {max(tested)} patients would be tested, privacy.min_patients is {threshold}; {advice}"
        )


def _natural(folder: Path) -> tuple[list[tuple[int, str]], str]:
    """`site-2` before `site-10`."""
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", folder.name)]
    return parts, folder.name
