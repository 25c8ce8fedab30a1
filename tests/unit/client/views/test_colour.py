"""Changes of colour, against the standard library, Pillow and numpy."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from hilum.client.views import colour


def pictures(count=3, edge=6):
    return torch.rand(count, 3, edge, edge, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("turn", [-0.4, 0.0, 0.1, 0.5])
def test_a_turn_of_the_hue_is_that_of_the_standard_library(turn):
    images = pictures()
    found = colour.shift_hue(images, torch.full((3,), turn)).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    for pixel, made in zip(pixels, found, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        assert made == pytest.approx(colorsys.hsv_to_rgb((h + turn) % 1.0, s, v), abs=1e-5)


def test_grey_has_no_hue_to_turn():
    grey = torch.full((1, 3, 2, 2), 0.3)
    assert torch.equal(colour.shift_hue(grey, torch.tensor([0.3])), grey)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_saturation_is_pillows(factor):
    levels = np.random.default_rng(2).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    images = torch.from_numpy(levels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    made = colour.adjust_saturation(images, torch.tensor([factor]))[0].permute(1, 2, 0).numpy() * 255
    wanted = np.asarray(ImageEnhance.Color(Image.fromarray(levels)).enhance(factor), np.float32)
    assert np.abs(made - wanted).max() < 2  # Pillow rounds the grey and the result


def test_each_image_has_its_own_numbers():
    images = pictures(2)
    made = colour.adjust_saturation(images, torch.tensor([1.0, 0.0]))
    assert torch.allclose(made[0], images[0], atol=1e-6)
    assert torch.allclose(made[1, 0], made[1, 2])


def test_stains_are_unmixed_changed_and_mixed_as_the_linear_algebra_says():
    images = pictures() * 0.9 + 0.05
    rng = np.random.default_rng(3)
    factor, offset = rng.uniform(0.8, 1.2, (3, 3)), rng.uniform(-0.02, 0.02, (3, 3))
    made = colour.adjust_stain(
        images, torch.from_numpy(factor).float(), torch.from_numpy(offset).float()
    ).numpy()
    vectors = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    vectors /= np.sqrt((vectors**2).sum(1, keepdims=True))
    for index, image in enumerate(images.double().numpy()):
        for pixel, found in zip(image.reshape(3, -1).T, made[index].reshape(3, -1).T, strict=True):
            stains = np.linalg.solve(vectors.T, -np.log10(pixel))
            mixed = vectors.T @ (stains * factor[index] + offset[index])
            assert found == pytest.approx(np.clip(10**-mixed, 0, 1), abs=2e-5)


def test_twice_the_hematoxylin_squares_the_light_that_comes_through():
    vector = torch.tensor([0.65, 0.70, 0.29]) / float(np.linalg.norm([0.65, 0.70, 0.29]))
    pure = (10 ** -(0.4 * vector)).view(1, 3, 1, 1)
    twice = colour.adjust_stain(pure, torch.tensor([[2.0, 1.0, 1.0]]), torch.zeros(1, 3))
    assert torch.allclose(twice, pure**2, atol=1e-4)


def test_a_white_slide_stays_white_and_black_stays_finite():
    ends = torch.stack([torch.ones(3, 2, 2), torch.zeros(3, 2, 2)])
    made = colour.adjust_stain(ends, torch.full((2, 3), 1.2), torch.zeros(2, 3))
    assert torch.allclose(made[0], ends[0], atol=1e-5)
    assert made[1].max() < 0.01
