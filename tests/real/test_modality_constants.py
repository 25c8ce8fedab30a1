"""The constants that inputs are standardised by are those of the real images at hand, where it says that they were measured."""

import pytest

from hilum.common.config.modalities import MODALITIES
from modality_constants import SOURCES, measure

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("modality", SOURCES)
def test_mean_and_deviation_are_those_of_the_images(modality, shared_data, tmp_path):
    facts = MODALITIES[modality]
    mean, deviation, counts = measure(shared_data / "data", modality, tmp_path)
    assert all(counts)
    assert mean == pytest.approx(facts.mean, abs=0.006)
    assert deviation == pytest.approx(facts.deviation, abs=0.006)


def test_whatever_was_measured_says_so():
    assert {name for name, facts in MODALITIES.items() if facts.origin.startswith("measured")} == set(SOURCES)
