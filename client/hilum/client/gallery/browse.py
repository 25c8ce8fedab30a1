"""A gallery of what was indexed, as static pages for the site alone: they hold patients' pixels.

The pages name no file and no identifier, and load nothing from anywhere.

A page, here as in a console: its values are frozen ones from plain functions (`status` here, `hilum.server.admin.runs` and `sites` for
the admin), its template lies in `templates/` of its package, and `hilum.common.pages` puts them together. A console that serves pages
is yet to be made, as a package `hilum.client.console` or `hilum.server.console`: `hilum.client.commands.browse` shows how a command
begins, `hilum.server.admin.plane` how the server answers.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hilum.client.gallery.thumbnails import Thumbnail, thumbnails
from hilum.client.intake.instance import STACKED_FAMILIES
from hilum.client.intake.reasons import Reason
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue, Item
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError, RunError
from hilum.common.files import private_folder, write_text
from hilum.common.output_folder import check_output_folder
from hilum.common.pages import pages_of

if TYPE_CHECKING:
    from hilum.client.intake.quarantine.store import Quarantine

ITEMS_A_PAGE = 200
_EDGE_PX = 176
_HELD_EDGE_PX = 420  # large enough to read what is burned in
_TIMES = " \N{MULTIPLICATION SIGN} "
_MARK = ".hilum-gallery"  # so that only a gallery is ever replaced


@dataclass(frozen=True)
class Card:
    """One item of the gallery.

    Attributes:
        key: Of a held image, to release or drop it by; empty elsewhere.
        facts: Shape and spacing in words.
    """

    key: str
    facts: str
    pictures: list[Thumbnail] = field(repr=False)


@dataclass(frozen=True)
class Gallery:
    """What the pages show.

    Attributes:
        shown: How many items the pages hold, of `total`.
        families: Family, images and volumes, patients.
        reasons: Reason in words, files.
    """

    title: str
    held: bool
    shown: int
    total: int
    families: list[tuple[str, str, int]]
    reasons: list[tuple[str, int]]


def write_gallery(workspace: Workspace, folder: Path, limit: int | None = None) -> Path:
    """Write the gallery of an indexed site.

    Args:
        workspace: The site's.
        folder: Where to write: new, empty, or an earlier gallery, which is replaced.
        limit: Items of each family at most.

    Returns:
        The first page.

    Raises:
        DataError: If nothing is indexed.
        RunError: If the folder holds something else, or can't be written.
    """
    if not workspace.catalogue.exists():
        raise DataError(workspace.not_indexed)
    catalogue = Catalogue(workspace.catalogue)
    try:
        items, skipped = catalogue.items(), catalogue.counts().skipped
    finally:
        catalogue.close()
    cache = ArrayCache(workspace.cache)
    chosen = _first_of_each_family(items, limit)
    gallery = Gallery(
        "Indexed images",
        held=False,
        shown=len(chosen),
        total=len(items),
        families=_families(items),
        reasons=_reasons(skipped),
    )

    def card(item: Item) -> Card:
        return Card("", _facts(item), thumbnails(cache.get(item.content_sha256), item, _EDGE_PX))

    return _write(gallery, chosen, card, folder)


def write_held_gallery(held: "Quarantine", folder: Path) -> Path:
    """Write the gallery of what is in quarantine, with the keys to release or drop it by; gives the first page."""
    images = held.list_held()
    by_key = {one.item.item_key: one for one in images}
    gallery = Gallery(
        "Images held in quarantine",
        held=True,
        shown=len(images),
        total=len(images),
        families=_families([one.item for one in images]),
        reasons=_reasons(Counter(one.reason.value for one in images)),
    )

    def card(item: Item) -> Card:
        array = held.array(by_key[item.item_key])
        return Card(item.item_key, _facts(item), thumbnails(array, item, _HELD_EDGE_PX))

    return _write(gallery, [one.item for one in images], card, folder)


def remove_gallery(folder: Path) -> None:
    """Remove a gallery if there is one."""
    if (folder / _MARK).exists():
        shutil.rmtree(folder)


def _first_of_each_family(items: Sequence[Item], limit: int | None) -> list[Item]:
    of_family: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        of_family[item.family].append(item)
    return [item for _, members in sorted(of_family.items()) for item in members[:limit]]


def _families(items: Sequence[Item]) -> list[tuple[str, str, int]]:
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    patients: dict[str, set[str]] = defaultdict(set)
    for item in items:
        kinds[item.family][item.kind] += 1
        patients[item.family].add(item.patient_key)
    return [
        (
            family,
            ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in sorted(counts.items())),
            len(patients[family]),
        )
        for family, counts in sorted(kinds.items())
    ]


def _reasons(skipped: dict[str, int]) -> list[tuple[str, int]]:
    return [
        (Reason(reason).meaning, count)
        for reason, count in sorted(skipped.items(), key=lambda one: (-one[1], one[0]))
    ]


def _facts(item: Item) -> str:
    shape = _TIMES.join(map(str, item.shape))
    spacing = _TIMES.join(f"{mm:.3g}" for mm in item.spacing_mm)
    return f"{shape} px, {spacing} mm" if spacing else f"{shape} px, spacing unknown"


def _write(gallery: Gallery, items: list[Item], card: Callable[[Item], Card], folder: Path) -> Path:
    """Write all pages aside and move them into place; nobody but the owner may look in."""
    if not (folder / _MARK).exists():
        check_output_folder(folder)
    pages = [items[start : start + ITEMS_A_PAGE] for start in range(0, len(items), ITEMS_A_PAGE)] or [[]]
    templates = pages_of("hilum.client.gallery")
    templates.filters["family_words"] = _family_words
    template = templates.get_template("gallery.html.j2")
    names = [_page_name(number) for number in range(len(pages))]
    places: dict[str, str] = {}
    for name, members in zip(names, pages, strict=True):
        for item in members:
            places.setdefault(item.family, f"{name}#{item.family}")
    try:
        remove_gallery(folder)
        private_folder(folder)
        (folder / _MARK).touch(mode=0o600)
    except OSError as error:
        raise RunError(f"the output folder can't be written ({error.strerror}); name another") from None
    for number, members in enumerate(pages):
        text = template.render(
            gallery=gallery,
            groups=_groups(members, card),
            names=names,
            number=number,
            first=number == 0,
            places=places,
        )
        path = folder / names[number]
        path.touch(mode=0o600)
        write_text(path, text)
        path.chmod(0o600)
    return folder / names[0]


def _groups(members: list[Item], card: Callable[[Item], Card]) -> list[tuple[str, list[Card]]]:
    groups: dict[str, list[Card]] = {}
    for item in members:
        groups.setdefault(item.family, []).append(card(item))
    return list(groups.items())


def _page_name(number: int) -> str:
    return "index.html" if number == 0 else f"page-{number + 1}.html"


def _family_words(family: str) -> str:
    return family.upper() if family in STACKED_FAMILIES else family.capitalize()
