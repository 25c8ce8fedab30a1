"""Each sentence of the report on who was tested is there when it is true, and not when it is not."""

import copy

import pytest

from hilum.simulations.claims import claims_of

CLEAN = {
    "tested": {"a": 5, "b": 7},
    "tested_and_trained": {"patients": 0, "images": 0},
    "at_several_sites": {"patients": 0, "images": 0, "patients_compared": True},
    "left_out": {},
    "joined": {},
    "changed": {},
}
SET_ASIDE = "Test patients were set aside before any pre-training."
APART = "No patient is at two sites, and no image shows the same as one at another site."


def words(**changes):
    return [claim.words for claim in claims_of({"separation": {**copy.deepcopy(CLEAN), **changes}})]


def test_a_clean_run_says_so():
    assert words() == [SET_ASIDE, APART]
    assert all(claim.good for claim in claims_of({"separation": CLEAN}))


@pytest.mark.parametrize(
    ("changes", "gone", "said"),
    [
        (
            {"tested_and_trained": {"patients": 2, "images": 0}},
            SET_ASIDE,
            "2 of 12 test patients were also trained on",
        ),
        ({"tested_and_trained": {"patients": 0, "images": 3}}, SET_ASIDE, "3 of their test images"),
        ({"tested": {"a": 0}}, SET_ASIDE, "Nobody was set aside for testing."),
        ({"changed": {"b": ["3 images went"]}}, SET_ASIDE, "b: 3 images went."),
        (
            {"at_several_sites": {"patients": 1, "images": 2, "patients_compared": True}},
            APART,
            "1 patients are at more than one site, and 2 images",
        ),
        (
            {"at_several_sites": {"patients": 0, "images": 0, "patients_compared": False}},
            APART,
            "could not be compared by name",
        ),
        (
            {"left_out": {"a": {"patients": 1, "images": 4}}},
            "",
            "a: 4 images of 1 patients were left out of training",
        ),
        ({"joined": {"b": 6}}, "", "b: 6 pairs of images show the same under two patients"),
    ],
)
def test_a_sentence_that_is_not_true_is_replaced_by_what_is(changes, gone, said):
    found = words(**changes)
    assert gone not in found
    assert said in " ".join(found)
    doubts = [claim.words for claim in claims_of({"separation": {**CLEAN, **changes}}) if not claim.good]
    assert any(said in doubt for doubt in doubts), "it stands where it is read first"


def test_a_deployed_run_does_not_say_what_nobody_can_know():
    [claim] = claims_of({})
    assert not claim.good
    assert "Whether a patient or an image is at two sites is not known" in claim.words
