"""Find who is at several sites of a simulation, and keep whoever is tested anywhere out of all training.

A deployed federation can't see this: pseudonyms are keyed at each site, and no image or fingerprint leaves. In a simulation
all data are one researcher's, so they are compared before anything is trained.

**The rule.** Two images at two sites belong to one person if they show the same (`hilum.client.data.twins`), or if the archives
or the label tables give them the same patient. Such people are joined over all sites. Of a person whom any site tests, no
site trains on any image: the images leave pre-training and fine-tuning, and no test patient is ever dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hilum.client.data.kept_split import Side, sides_of
from hilum.client.data.site_data import SiteData
from hilum.client.data.twins import fingerprints, twins_between
from hilum.common.config import StudyConfig

Place = tuple[int, int]
"""A site's number, and the number of a patient there."""


@dataclass(frozen=True)
class Overlap:
    """What is at more than one site.

    Attributes:
        images: Images that show the same as one at another site.
        patients: People with images at more than one site, counted once.
        by_name: Whether patients' names could be compared; images always are.
        of: The people, as places at two sites or more.
    """

    images: int
    patients: int
    by_name: bool
    of: tuple[frozenset[Place], ...]


def find_overlap(sites: Sequence[SiteData]) -> Overlap:
    """Compare the images and the patients of all sites."""
    origins = [data.origin for data in sites]
    assert all(origins), "sites of their own"
    known = [origin for origin in origins if origin is not None]
    keys = {origin.workspace.pseudonyms().key for origin in known}
    contents = [item.content_sha256 for origin in known for item in origin.prepared.items]
    prints = np.concatenate([fingerprints(origin.workspace, origin.prepared) for origin in known])
    places = [(number, int(group)) for number, data in enumerate(sites) for group in data.split.group]
    joined = _Joined()
    images: set[int] = set()
    for one, other in twins_between((contents, prints), (contents, prints)).tolist():
        if places[one][0] != places[other][0]:
            images |= {one, other}
            joined.join(places[one], places[other])
    if len(keys) == 1:
        first: dict[str, Place] = {}
        for number, (data, origin) in enumerate(zip(sites, known, strict=True)):
            for group, people in zip(data.split.group.tolist(), origin.people, strict=True):
                for person in people:
                    joined.join(first.setdefault(person, (number, group)), (number, group))
    several = tuple(group for group in joined.groups() if len({site for site, _ in group}) > 1)
    return Overlap(len(images), len(several), len(keys) == 1, several)


def set_apart(sites: Sequence[SiteData], study: StudyConfig, overlap: Overlap) -> list[SiteData]:
    """Take the training rows of everyone who is tested somewhere out of every site.

    Raises:
        DataError: If a site has too few images left.
    """
    leaving: dict[int, list[int]] = {}
    sides = [np.array([side.value for side in sides_of(data.split)]) for data in sites]
    for person in overlap.of:
        rows = {place: np.flatnonzero(sites[place[0]].split.group == place[1]) for place in person}
        if any((sides[place[0]][here] == Side.TESTED).any() for place, here in rows.items()):
            for place, here in rows.items():
                leaving.setdefault(place[0], []).extend(here[sides[place[0]][here] == Side.TRAINED].tolist())
    return [
        data.without(np.array(sorted(leaving[number]), np.int64), study) if leaving.get(number) else data
        for number, data in enumerate(sites)
    ]


def separation(sites: Sequence[SiteData], overlap: Overlap) -> dict[str, Any]:
    """Return what `results.json` says of who was tested and who was trained on, counted from the sites' own splits."""
    shared = {place: person for person in overlap.of for place in person}
    of_person: dict[frozenset[Place], set[Side]] = {}
    for number, data in enumerate(sites):
        for group, side in zip(data.split.group.tolist(), sides_of(data.split), strict=True):
            person = shared.get((number, group), frozenset({(number, group)}))
            of_person.setdefault(person, set()).add(side)
    both = sum({Side.TESTED, Side.TRAINED} <= found for found in of_person.values())
    trained = {_content(data, row) for data in sites for row in data.split.pretrain.tolist()}
    images = sum(_content(data, row) in trained for data in sites for row in data.split.test.tolist())
    return {
        "tested": {data.name: data.test_patients for data in sites},
        "tested_and_trained": {"patients": both, "images": images},
        "at_several_sites": {
            "patients": overlap.patients,
            "images": overlap.images,
            "patients_compared": overlap.by_name,
        },
        "left_out": {
            data.name: {
                "patients": len(np.unique(data.split.group[data.split.left_out])),
                "images": len(data.split.left_out),
            }
            for data in sites
            if len(data.split.left_out)
        },
        "joined": {
            data.name: data.origin.joined for data in sites if data.origin is not None and data.origin.joined
        },
        "changed": {data.name: list(data.notes) for data in sites if data.notes},
    }


def overlap_lines(overlap: Overlap, sites: Sequence[SiteData]) -> list[str]:
    """Return what is at several sites, and who leaves training for it, as lines of text."""
    lines = []
    if overlap.patients:
        lines.append(
            f"at more than one site: {overlap.patients} patients, and {overlap.images} images that show the same; whoever is "
            "tested at one site is trained on at none. If patients of two sites are only numbered alike, begin their "
            "numbers with the site's name"
        )
    if not overlap.by_name:
        lines.append(
            "patients of different sites were not compared by name, their images were: the sites were indexed with keys of "
            "their own; with a new --home both are compared"
        )
    lines += [
        f"{data.name}: {len(data.split.left_out)} images of {len(np.unique(data.split.group[data.split.left_out]))} patients "
        "are left out of training"
        for data in sites
        if len(data.split.left_out)
    ]
    return lines


def _content(data: SiteData, row: int) -> str:
    assert data.origin is not None, "a site's own"
    return data.origin.prepared.items[row].content_sha256


class _Joined:
    """Which places are one person (union-find)."""

    def __init__(self) -> None:
        self._up: dict[Place, Place] = {}

    def of(self, place: Place) -> Place:
        while self._up.setdefault(place, place) != place:
            self._up[place] = self._up[self._up[place]]
            place = self._up[place]
        return place

    def join(self, one: Place, other: Place) -> None:
        self._up[self.of(one)] = self.of(other)

    def groups(self) -> list[frozenset[Place]]:
        found: dict[Place, set[Place]] = {}
        for place in list(self._up):
            found.setdefault(self.of(place), set()).add(place)
        return sorted(map(frozenset, found.values()), key=min)
