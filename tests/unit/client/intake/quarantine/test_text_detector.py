"""Drawn texts are found, whatever their ink, size and ground; plain structures are not taken for text."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from hilum.client.intake.quarantine.strokes import find_strokes
from hilum.client.intake.quarantine.text_detector import find_text, has_text


def ground(kind, rng, shape=(200, 300)):
    """What the text stands on: black, white, a ramp, or smooth tissue."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return {
        "black": lambda: np.zeros(shape),
        "white": lambda: np.full(shape, 255.0),
        "ramp": lambda: 40 + 0.5 * rows + 0.2 * columns,
        "tissue": lambda: 110 + 50 * ndimage.gaussian_filter(rng.normal(0, 3, shape), 4),
    }[kind]().clip(0, 255)


def draw(image, text, size, ink, place=(5, 5), degrees=0.0, outline=False):
    """Burn a text in; returns uint8."""
    font = ImageFont.load_default(size=size)
    mask = Image.new("L", image.shape[::-1], 0)
    ImageDraw.Draw(mask).text(place, text, font=font, fill=255)
    mask = mask.rotate(degrees, resample=Image.Resampling.BICUBIC)
    share = np.asarray(mask, float) / 255
    if outline:
        edge = ndimage.maximum_filter(share, 3)
        image = image * (1 - edge) + (255 - ink) * edge
    return (image * (1 - share) + ink * share).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["black", "white", "ramp", "tissue"])
@pytest.mark.parametrize("size", [10, 14, 20, 28, 40])
@pytest.mark.parametrize("text", ["DOE^JANE", "12.03.1961"])
def test_a_drawn_text_is_found_on_any_ground(kind, size, text):
    image = ground(kind, np.random.default_rng(size))
    assert has_text(draw(image, text, size, 0 if kind == "white" else 255))


@pytest.mark.parametrize(
    "change", [{"degrees": 4.0}, {"degrees": -4.0}, {"outline": True}, {"place": (60, 160)}]
)
def test_a_text_that_is_tilted_outlined_or_in_a_corner_is_found(change):
    image = ground("tissue", np.random.default_rng(1))
    assert has_text(draw(image, "ID 4711-22", 16, 255, **{"place": (80, 80), **change}))


def test_grey_ink_and_coloured_ink_of_equal_brightness_are_found():
    assert has_text(draw(ground("black", None), "ROSSI M", 14, 90))
    colour = np.full((120, 200, 3), 90, np.uint8)
    share = draw(np.zeros((120, 200)), "ROSSI M", 16, 255)[..., None] / 255
    coloured = (colour * (1 - share) + np.array([240, 15, 15]) * share).astype(np.uint8)
    assert has_text(coloured)


def test_a_text_along_the_columns_is_found():
    assert has_text(np.rot90(draw(ground("black", None), "HOSPITAL GENERAL", 18, 255)))


def test_a_text_in_sixteen_bits_and_in_floats_is_found_as_in_eight():
    image = draw(ground("tissue", np.random.default_rng(2)), "MRN 0091827", 16, 255)
    assert has_text(image.astype(np.uint16) * 16)
    assert has_text(image.astype(np.float32) - 1000)


def test_the_box_lies_on_the_text():
    image = draw(ground("ramp", None), "MUELLER", 20, 255, place=(100, 120))
    for box in find_text(image):
        assert 110 <= box.row < box.row_end <= 155
        assert 90 <= box.column < box.column_end <= 220


@pytest.mark.parametrize("kind", ["black", "white", "ramp", "tissue"])
def test_a_ground_without_text_gives_no_alarm(kind):
    assert find_text(ground(kind, np.random.default_rng(3))) == []


def test_discs_and_a_fan_give_no_alarm():
    rows, columns = np.mgrid[:240, :240]
    fan = (np.abs(columns - 120) < rows * 0.7) & (np.hypot(rows, columns - 120) < 220)
    disc = np.hypot(rows - 120, columns - 110) < 40
    image = ndimage.gaussian_filter(80.0 * fan + 90 * disc, 1.5).astype(np.uint8)
    assert find_text(image) == []


def test_images_too_small_for_a_glyph_are_looked_at_without_failing():
    assert find_text(np.zeros((3, 4), np.uint8)) == []
    assert find_text(np.arange(64, dtype=np.uint8).reshape(8, 8)) == []


def large(rng, noise):
    """A film of 4096 x 4096 in 16 bits."""
    image = np.empty((4096, 4096), np.uint16)
    across = np.cos(np.arange(4096) / 700)
    for row in range(4096):
        image[row] = 25_000 + 8_000 * np.sin(row / 500) * across + rng.normal(0, noise, 4096)
    return image


@pytest.mark.parametrize("noise", [300, 4000])
def test_a_small_text_in_a_large_image_is_found_in_memory_of_a_few_times_the_image(noise):
    image = large(np.random.default_rng(4), noise)
    part = image[3900:3940, 3000:3200]
    part[:] = np.maximum(part, draw(np.zeros(part.shape), "DOE^JANE 12.03.1961", 12, 255) * np.uint16(257))
    tracemalloc.start()
    try:
        boxes = find_text(image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert any(
        box.row < 3925 and box.row_end > 3900 and box.column < 3150 and box.column_end > 3000 for box in boxes
    )
    assert peak < 9 * image.nbytes


def test_a_large_image_of_noise_alone_takes_memory_of_a_few_times_the_image():
    image = np.random.default_rng(5).integers(0, 65536, (3000, 3000), dtype=np.uint16)
    tracemalloc.start()
    try:
        find_text(image)
        assert tracemalloc.get_traced_memory()[1] < 14 * image.nbytes
    finally:
        tracemalloc.stop()


def test_print_that_crosses_the_strips_of_a_search_is_found_whole(monkeypatch):
    image = draw(ground("tissue", np.random.default_rng(6)), "ROSSI MARIA", 28, 255, place=(40, 80))
    whole = find_text(image)
    monkeypatch.setattr("hilum.client.intake.quarantine.strokes._STRIP_PIXELS", 1)  # the least height
    assert find_text(image) == whole != []


def test_a_large_page_that_is_full_of_even_print_is_found():
    line = draw(np.zeros((20, 3000)), "MINIMUM " * 40, 20, 255, place=(0, -3)) > 127
    page = np.tile(line * np.uint8(255), (150, 1))
    assert page.mean() / 255 > 0.2  # more ink than is kept of other large images
    assert has_text(page)
    bright, *_ = find_strokes(page.astype(np.float32), 3, (20.0,))
    assert len(bright) > 1000
