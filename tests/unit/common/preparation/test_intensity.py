"""Where values begin and end."""

import numpy as np
import pytest

from hilum.common.config.data import DataSection
from hilum.common.preparation.intensity import shows_from, unit_range, value_range

MR = DataSection(modality="mr", dims=3).facts
Z_SCORED = DataSection(modality="mr", dims=3, intensity="zscore").facts


def brain(scale=1.0):
    """Half air with a little noise, half tissue of mean 500 and deviation 50."""
    rng = np.random.default_rng(0)
    air, tissue = rng.uniform(0, 5, (10, 20, 20)), rng.normal(500, 50, (10, 20, 20))
    return (np.concatenate([air, tissue]) * scale).astype(np.float32)


def test_z_scores_are_of_what_is_not_background():
    low, high = value_range(brain(), Z_SCORED)
    assert (low + high) / 2 == pytest.approx(500, abs=3)
    assert (high - low) / 8 == pytest.approx(50, abs=3)
    unit = unit_range(brain(), Z_SCORED)
    assert unit[10:].mean() == pytest.approx(0.5, abs=0.01)
    assert unit[10:].std() == pytest.approx(1 / 8, abs=0.01)
    assert unit[:10].max() == 0


@pytest.mark.parametrize("facts", [MR, Z_SCORED], ids=["percentiles", "z scores"])
def test_the_scale_of_an_mr_does_not_matter(facts):
    np.testing.assert_allclose(unit_range(brain(), facts), unit_range(brain(37.0), facts), atol=1e-4)


def test_percentiles_are_those_of_numpy():
    assert value_range(brain(), MR) == pytest.approx(tuple(np.percentile(brain(), (0.5, 99.5))))


def test_background_lies_below_a_tenth_of_an_mr_and_at_minus_900_of_a_ct():
    bound = shows_from(brain(), MR)
    assert brain()[:10].max() < bound < brain()[10:].min()
    assert shows_from(brain(), DataSection(modality="ct", dims=3, window_hu=[0, 80]).facts) == -900.0


def test_an_array_of_one_value_has_no_deviation_to_divide_by():
    assert value_range(np.full((4, 4), 3.0), Z_SCORED) == (3.0, 3.0)
