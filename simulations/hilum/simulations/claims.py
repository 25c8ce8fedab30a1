"""What a report says of who was tested and who was trained on, each sentence counted from `results.json`.

A sentence that the run does not bear out is replaced by the one that says what is so; where nothing was counted, as in a
deployed federation, that is said.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Claim:
    """One sentence.

    Attributes:
        words: The sentence.
        good: Whether it speaks for the results; the others belong where they are read first.
    """

    words: str
    good: bool


def claims_of(results: dict[str, Any]) -> list[Claim]:
    """Return the sentences that a run's results bear out."""
    found = results.get("separation")
    if found is None:
        return [
            Claim(
                "Each site sets its test patients aside by itself. Whether a patient or an image is at two sites is not known: "
                "no name, pseudonym or fingerprint leaves a site.",
                good=False,
            )
        ]
    return [*_tested(found), *_several(found), *_left_out(found), *_within(found)]


def _tested(found: dict[str, Any]) -> list[Claim]:
    patients, images = found["tested_and_trained"]["patients"], found["tested_and_trained"]["images"]
    tested = sum(found["tested"].values())
    if not tested:
        return [Claim("Nobody was set aside for testing.", good=False)]
    if patients or images:
        return [
            Claim(
                f"{patients} of {tested} test patients were also trained on, and {images} of their test images show the same "
                "as a training image: the numbers are too good.",
                good=False,
            )
        ]
    if found["changed"]:
        return [
            Claim("Test patients were set aside when the run began, before any pre-training.", good=True)
        ] + [
            Claim(f"{site}: {words}.", good=False)
            for site, notes in found["changed"].items()
            for words in notes
        ]
    return [Claim("Test patients were set aside before any pre-training.", good=True)]


def _several(found: dict[str, Any]) -> list[Claim]:
    several = found["at_several_sites"]
    compared = (
        "" if several["patients_compared"] else " Patients of different sites could not be compared by name."
    )
    if several["patients"]:
        return [
            Claim(
                f"{several['patients']} patients are at more than one site, and {several['images']} images show the same as one "
                f"at another site.{compared}",
                good=False,
            )
        ]
    if compared:
        return [Claim(f"No image shows the same as one at another site.{compared}", good=False)]
    return [
        Claim("No patient is at two sites, and no image shows the same as one at another site.", good=True)
    ]


def _left_out(found: dict[str, Any]) -> list[Claim]:
    return [
        Claim(
            f"{site}: {count['images']} images of {count['patients']} patients were left out of training, for the patients are "
            "tested elsewhere, or for the images came after the run began.",
            good=False,
        )
        for site, count in found["left_out"].items()
    ]


def _within(found: dict[str, Any]) -> list[Claim]:
    return [
        Claim(
            f"{site}: {pairs} pairs of images show the same under two patients, who were taken for one.",
            good=False,
        )
        for site, pairs in found["joined"].items()
    ]
