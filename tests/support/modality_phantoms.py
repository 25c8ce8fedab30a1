"""One drawn image of each modality, as the cache holds it: enough like the real thing to see what a view does to it.

Shapes: H W space, all of `EDGE`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

Array = NDArray[Any]
EDGE = 192
_Y, _X = np.mgrid[:EDGE, :EDGE] / (EDGE - 1)


def phantom(modality: str, seed: int = 0) -> Array:
    """Draw one: grey (H, W) as displayed, in Hounsfield units or on any scale; colour (H, W, 3) uint8."""
    return _DRAWN[modality](np.random.default_rng(seed))


def _smooth(rng: np.random.Generator, sigma: float) -> Array:
    """Return noise of deviation 1 with grains of a size."""
    grains = gaussian_filter(rng.standard_normal((EDGE, EDGE)), sigma)
    return grains / grains.std()


def _ellipse(x: float, y: float, width: float, height: float) -> Array:
    return ((_X - x) / width) ** 2 + ((_Y - y) / height) ** 2 < 1


def _displayed(values: Array) -> Array:
    return np.rint(values.clip(0, 1) * 65_535).astype(np.uint16)


def _coloured(values: Array) -> Array:
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)


def _branches(rng: np.random.Generator, start: tuple[float, float], heading: float, width: float) -> Array:
    """Return a tree of vessels, 0 to 1."""
    sheet = Image.new("L", (EDGE, EDGE))
    draw = ImageDraw.Draw(sheet)

    def grow(place: tuple[float, float], heading: float, width: float) -> None:
        while width > 1:
            heading += rng.normal(0, 0.15)
            end = (place[0] + 9 * np.cos(heading), place[1] + 9 * np.sin(heading))
            draw.line([place, end], fill=255, width=round(width))
            if rng.random() < 0.25:
                grow(end, heading + rng.choice([-0.7, 0.7]), width * 0.7)
            place, width = end, width * 0.93

    grow((start[0] * EDGE, start[1] * EDGE), heading, width)
    return gaussian_filter(np.asarray(sheet, float) / 255, 0.7)


def _radiograph(rng: np.random.Generator) -> Array:
    chest = 0.55 + 0.05 * _smooth(rng, 12)
    for x in (0.3, 0.7):
        chest -= 0.35 * gaussian_filter(_ellipse(x, 0.48, 0.16, 0.33).astype(float), 4)
    chest += 0.25 * gaussian_filter(
        _ellipse(0.57, 0.62, 0.14, 0.16).astype(float), 4
    )  # the heart, to the image's right
    chest += 0.06 * np.sin(40 * (_Y + 0.8 * (_X - 0.5) ** 2)) * (np.abs(_X - 0.5) > 0.06)
    chest += 0.15 * (np.abs(_X - 0.5) < 0.04)
    return _displayed(chest + 0.01 * rng.standard_normal(chest.shape))


def _mammogram(rng: np.random.Generator) -> Array:
    breast = _ellipse(0.0, 0.5, 0.62, 0.42)
    tissue = 0.35 + 0.12 * _smooth(rng, 8) + 0.06 * _smooth(rng, 2)
    for _ in range(8):
        x, y = rng.uniform(0.15, 0.25), rng.uniform(0.45, 0.55)
        tissue += 0.5 * _ellipse(x, y, 0.006, 0.006)
    image = gaussian_filter(breast.astype(float), 2) * tissue.clip(0.1, 1)
    image[10:22, 160:180] = 0.9  # the marker that tells the side
    return _displayed(image)


def _ct(rng: np.random.Generator) -> Array:
    values = np.full((EDGE, EDGE), -1000.0)
    values[_ellipse(0.5, 0.5, 0.46, 0.34)] = -90  # fat
    values[_ellipse(0.5, 0.5, 0.42, 0.30)] = 50
    for x in (0.3, 0.7):
        values[_ellipse(x, 0.45, 0.14, 0.19)] = -850
    values[_ellipse(0.58, 0.5, 0.12, 0.13)] = 60
    values[_ellipse(0.5, 0.73, 0.05, 0.05)] = 500
    return np.rint(gaussian_filter(values, 0.8) + 20 * rng.standard_normal(values.shape)).astype(np.int16)


def _mr(rng: np.random.Generator) -> Array:
    head = 300.0 * _ellipse(0.5, 0.5, 0.38, 0.45) - 250 * _ellipse(0.5, 0.5, 0.35, 0.42)
    head += (400 + 60 * _smooth(rng, 3)) * _ellipse(0.5, 0.5, 0.33, 0.40)
    head += 150 * _ellipse(0.5, 0.5, 0.25, 0.31)
    for x in (0.44, 0.56):
        head -= 450 * _ellipse(x, 0.45, 0.04, 0.13)
    return np.abs(gaussian_filter(head, 1) + 15 * rng.standard_normal(head.shape)).astype(np.float32)


def _pet(rng: np.random.Generator) -> Array:
    uptake = 800.0 * _ellipse(0.5, 0.5, 0.30, 0.44) + 2500 * _ellipse(0.42, 0.55, 0.13, 0.09)
    uptake += 9000 * _ellipse(0.6, 0.35, 0.03, 0.03) + 5000 * _ellipse(0.5, 0.82, 0.05, 0.04)
    return gaussian_filter(rng.poisson(uptake / 20).astype(np.float32) * 20, 3)


def _ultrasound(rng: np.random.Generator) -> Array:
    x, y = _X - 0.5, _Y + 0.12
    depth, angle = np.hypot(x, y), np.arctan2(x, y)
    tissue = 0.45 + 0.12 * _smooth(rng, 10) - 0.25 * (depth - 0.5)
    tissue += 0.3 * np.exp(-(((depth - 0.42) / 0.008) ** 2))
    cyst = _ellipse(0.56, 0.5, 0.1, 0.08)
    tissue = np.where(cyst, 0.05, tissue)
    tissue += 0.2 * ((np.abs(angle - 0.1) < 0.12) & (depth > 0.72))  # enhancement below it
    shadow = (np.abs(angle + 0.3) < 0.07) & (depth > 0.35)
    tissue *= np.where(shadow, 0.25, 1)
    fan = (np.abs(angle) < 0.62) & (depth > 0.16) & (depth < 1.08)
    speckle = gaussian_filter(rng.rayleigh(0.8, tissue.shape), 0.7)
    return _displayed(fan * tissue * speckle)


def _angiogram(rng: np.random.Generator) -> Array:
    image = 0.68 + 0.05 * _smooth(rng, 20)
    image -= 0.45 * np.maximum(_branches(rng, (0.35, 0.05), 1.3, 8), _branches(rng, (0.35, 0.05), 0.6, 7))
    return _displayed(image + 0.03 * rng.standard_normal(image.shape))


def _photograph(rng: np.random.Generator) -> Array:
    skin = np.array([0.85, 0.66, 0.55]) + 0.02 * _smooth(rng, 3)[..., None] - 0.1 * _Y[..., None]
    lesion = gaussian_filter(
        (0.03 + 0.006 * _smooth(rng, 9) > (_X - 0.45) ** 2 + (_Y - 0.5) ** 2).astype(float), 2
    )
    brown = np.array([0.38, 0.2, 0.14]) + 0.05 * _smooth(rng, 4)[..., None]
    return _coloured(skin + lesion[..., None] * (brown - skin))


def _fundus(rng: np.random.Generator) -> Array:
    field = gaussian_filter(_ellipse(0.5, 0.5, 0.48, 0.48).astype(float), 1)
    retina = np.array([0.75, 0.33, 0.12]) + 0.02 * _smooth(rng, 10)[..., None]
    disc = gaussian_filter(_ellipse(0.3, 0.48, 0.07, 0.08).astype(float), 2)[..., None]
    macula = gaussian_filter(_ellipse(0.6, 0.52, 0.07, 0.07).astype(float), 6)[..., None]
    vessels = np.max([_branches(rng, (0.3, 0.48), heading, 5) for heading in (-0.9, 0.9, -2.2, 2.2)], axis=0)
    image = (
        retina + disc * np.array([0.22, 0.45, 0.35]) - 0.25 * macula - vessels[..., None] * [0.3, 0.2, 0.05]
    )
    return _coloured(image * field[..., None])


def _pathology(rng: np.random.Generator) -> Array:
    pink = np.array([0.93, 0.72, 0.83]) + 0.06 * _smooth(rng, 4)[..., None] * [0.3, 1, 0.5]
    image = np.where((_smooth(rng, 14) > 1.0)[..., None], 0.96, pink)
    nuclei = np.zeros((EDGE, EDGE))
    for _ in range(90):
        x, y = rng.random(2)
        nuclei = np.maximum(nuclei, _ellipse(x, y, *rng.uniform(0.012, 0.03, 2)))
    purple = np.array([0.42, 0.28, 0.62]) + 0.05 * _smooth(rng, 1)[..., None]
    return _coloured(image + gaussian_filter(nuclei, 0.6)[..., None] * (purple - image))


_DRAWN: dict[str, Callable[[np.random.Generator], Array]] = {
    "radiograph": _radiograph,
    "mammogram": _mammogram,
    "ct": _ct,
    "mr": _mr,
    "pet": _pet,
    "ultrasound": _ultrasound,
    "angiogram": _angiogram,
    "photograph": _photograph,
    "fundus": _fundus,
    "pathology": _pathology,
}
