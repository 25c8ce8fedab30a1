"""One synthetic frontal chest radiograph: body, lungs, spine, ribs, heart, nodules, noise.

Shapes: H rows, W columns. Coordinates are in [-1, 1], x to the right of the picture (the patient's left), y down.
Bright is dense. It is not a physical simulation: it has the large-scale anatomy that a view must keep and the small
bright findings that a task must see.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float64]
LUNG, HEART, NODULE = 1, 2, 3


@dataclass(frozen=True)
class Nodule:
    """A round finding: its centre and radius in pixels."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Chest:
    """A radiograph and what is in it.

    Attributes:
        image: (H, W) in [0, 1].
        mask: (H, W) uint8: 1 lung, 2 heart, 3 nodule, 0 anything else.
        nodules: What a reader should find.
    """

    image: Plane = field(repr=False)
    mask: npt.NDArray[np.uint8] = field(repr=False)
    nodules: tuple[Nodule, ...]


def draw_chest(size: int, nodules: int, rng: np.random.Generator) -> Chest:
    """Draw one patient.

    Args:
        size: H and W.
        nodules: How many findings.
        rng: Decides anatomy, position and noise.
    """
    x, y = _turned_grid(size, rng)
    body = _soft(1 - (x / rng.uniform(0.88, 0.98)) ** 4 - (y / 1.3) ** 6, 0.05)
    lungs = _lungs(x, y, rng)
    width = rng.uniform(0.85, 1.15)
    heart = _ellipse(
        x, y, rng.uniform(0.10, 0.16), rng.uniform(0.28, 0.38), 0.30 * width, 0.30, rng.uniform(-0.5, -0.2)
    )
    spine = np.exp(-((x / 0.10) ** 2)) * (0.75 + 0.25 * np.cos(y * rng.uniform(22, 26)))
    ribs = _ribs(x, y, rng)
    dense = (
        0.45 + 0.18 * spine + 0.10 * heart - 0.34 * lungs * (1 - heart) + 0.10 * ribs * (0.4 + 0.6 * lungs)
    )
    dense = dense + 0.05 * _texture(size, rng) * lungs
    found = _place_nodules(nodules, lungs * (1 - heart), rng)
    findings = np.zeros_like(dense)
    for one in found:
        findings = np.maximum(findings, _disc(size, one))
    dense = dense + rng.uniform(0.22, 0.32) * findings
    image = dense * body + rng.normal(0, rng.uniform(0.003, 0.008), dense.shape)
    mask = np.where(lungs > 0.5, LUNG, 0)
    mask = np.where(heart > 0.5, HEART, mask)
    mask = np.where(findings > 0.5, NODULE, mask).astype(np.uint8)
    return Chest(np.clip(image, 0, 1), mask, tuple(found))


def _turned_grid(size: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Coordinates of a patient who stands a little aside, turned and near or far."""
    line = np.linspace(-1, 1, size)
    x, y = np.meshgrid(line - rng.normal(0, 0.03), line - rng.normal(0, 0.04))
    angle, zoom = np.radians(rng.normal(0, 1.5)), rng.uniform(0.92, 1.08)
    return (x * np.cos(angle) - y * np.sin(angle)) / zoom, (x * np.sin(angle) + y * np.cos(angle)) / zoom


def _soft(inside: Plane, edge: float) -> Plane:
    """1 where `inside` is above 0, with a soft edge."""
    soft: Plane = 1 / (1 + np.exp(-np.clip(inside / edge, -60, 60)))
    return soft


def _ellipse(x: Plane, y: Plane, cx: float, cy: float, rx: float, ry: float, tilt: float) -> Plane:
    u = (x - cx) * np.cos(tilt) + (y - cy) * np.sin(tilt)
    v = (y - cy) * np.cos(tilt) - (x - cx) * np.sin(tilt)
    return _soft(1 - (u / rx) ** 2 - (v / ry) ** 2, 0.12)


def _lungs(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Two lungs, cut off by the domes of the diaphragm, the right one (left in the picture) higher."""
    depth = rng.uniform(-0.06, 0.10)  # how deeply the patient breathed in
    lungs = np.zeros_like(x)
    for side, dome in ((-1, 0.50), (1, 0.56)):
        cx = side * rng.uniform(0.40, 0.46)
        lung = _ellipse(
            x, y, cx, -0.08, rng.uniform(0.30, 0.35), rng.uniform(0.66, 0.76), side * rng.uniform(0.02, 0.10)
        )
        diaphragm = dome + depth + 0.45 * (x - cx) ** 2
        lungs = np.maximum(lungs, lung * _soft(diaphragm - y, 0.03))
    return lungs


def _ribs(x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Arcs that fall to the sides, and the clavicles."""
    pitch, phase = rng.uniform(0.165, 0.19), rng.uniform(0, 1)
    arc = (y + 0.55 * x**2) / pitch + phase
    ribs = np.exp(-(((arc - np.round(arc)) / 0.16) ** 2)) * (np.abs(x) < 0.86) * (y < 0.72)
    clavicles = (
        np.exp(-(((y + 0.66 - 0.22 * np.abs(x)) / 0.025) ** 2)) * (np.abs(x) > 0.08) * (np.abs(x) < 0.8)
    )
    bones: Plane = np.maximum(ribs, 1.3 * clavicles)
    return bones


def _texture(size: int, rng: np.random.Generator) -> Plane:
    """Vessel-like structure: noise with most of its power at large scales."""
    spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    rough = np.fft.irfft2(spectrum / np.maximum(frequency, 2 / size) ** 1.2, s=(size, size))
    texture: Plane = (rough - rough.mean()) / rough.std()
    return texture


def _place_nodules(count: int, free: Plane, rng: np.random.Generator) -> list[Nodule]:
    """Centres in free lung, apart from each other."""
    size = len(free)
    rows, columns = np.nonzero(free > 0.9)
    placed: list[Nodule] = []
    for index in rng.permutation(len(rows)):
        if len(placed) == count:
            break
        radius = size * rng.uniform(0.055, 0.09)
        x, y = float(columns[index]), float(rows[index])
        if all(np.hypot(x - other.x, y - other.y) > radius + other.radius for other in placed):
            placed.append(Nodule(x, y, radius))
    return placed


def _disc(size: int, nodule: Nodule) -> Plane:
    line = np.arange(size)
    distance = np.hypot(line[None, :] - nodule.x, line[:, None] - nodule.y)
    return _soft(nodule.radius - distance, 0.12 * nodule.radius)
