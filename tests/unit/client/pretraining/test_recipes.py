"""Recipes do not drift: a few steps of each method and one view of each modality are those that were written down.

After a change that is meant, `python tests/support/recipes.py > tests/golden/recipes.json`.
"""

import json

import pytest
import torch

from hilum.client.views import operations
from hilum.common.config.modalities import MODALITIES
from places import ROOT
from recipes import METHODS, losses_of, view_of

GOLDEN = json.loads((ROOT / "tests" / "golden" / "recipes.json").read_text())


@pytest.mark.parametrize("name", METHODS)
def test_the_losses_of_a_few_steps_are_those_written_down(name):
    assert losses_of(name) == pytest.approx(GOLDEN["losses"][name], abs=1e-5)


@pytest.mark.parametrize("name", MODALITIES)
def test_a_view_is_the_one_written_down(name):
    assert view_of(name) == pytest.approx(GOLDEN["views"][name], abs=1e-5)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
def test_a_blur_is_as_wide_as_it_says(sigma):
    """A point becomes a Gaussian: its variance is the square of the deviation that was asked for."""
    point = torch.zeros(1, 1, 33, 33)
    point[..., 16, 16] = 1
    line = operations.blur(point, torch.tensor([sigma]), radius=8)[0, 0].sum(0)
    place = torch.arange(33) - 16.0
    assert float((line * place**2).sum()) == pytest.approx(sigma**2, rel=0.02)
