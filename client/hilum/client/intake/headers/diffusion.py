"""The b-value and direction of a diffusion image where only the vendor's private elements tell them.

They are asked for only where a series holds images at one place that nothing else tells apart: most files are never read
for them. Private elements are found by their creator (PS3.5 section 7.8.1), and a file that has no such block has none.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum.client.intake.instance import Instance
from hilum.client.intake.transfer_syntaxes import DEFLATED

if TYPE_CHECKING:  # pydicom takes a third of a second to import, and most series need none of this
    from pydicom.dataset import Dataset

_GE_FLAG = 1_000_000_000  # added to the b-value by later software
_AXES = 3


@dataclass(frozen=True)
class Diffusion:
    """What one image was weighted with.

    Attributes:
        b_value: In s/mm2, or None.
        gradient: Three direction cosines as the vendor writes them, good to tell images apart and for nothing else; or
            None.
    """

    b_value: float | None = None
    gradient: tuple[float, ...] | None = None


def may_tell(instance: Instance) -> bool:
    """Tell whether private elements could say more of an image than its header does."""
    frames = instance.frames
    return (
        instance.family == "mr"
        and instance.pixels.frames == 1
        and all(f.contrast.b_value is None for f in frames)
    )


def told_apart(instance: Instance, found: Diffusion) -> Instance:
    """Return the image with what was found."""
    frames = tuple(
        replace(frame, contrast=replace(frame.contrast, b_value=found.b_value, gradient=found.gradient))
        for frame in instance.frames
    )
    return replace(instance, frames=frames)


def read_diffusion(path: Path, syntax: str) -> Diffusion:
    """Read a file for its private diffusion elements; not safe against a hostile file by itself.

    Raises:
        Skip: If its header is broken.
    """
    from hilum.client.intake.headers.pydicom_tags import whole_dataset
    from hilum.client.intake.silence import silent_readers

    dataset = whole_dataset(path, deflated=syntax == DEFLATED)
    with silent_readers():
        for vendor in (_siemens, _ge, _philips):
            found = vendor(dataset)
            if found.b_value is not None:
                return found
    return Diffusion()


def _siemens(dataset: "Dataset") -> Diffusion:
    """(0019,xx0C) IS and (0019,xx0E) FD."""
    b_value = _numbers(dataset, 0x0019, "SIEMENS MR HEADER", 0x0C)
    gradient = _numbers(dataset, 0x0019, "SIEMENS MR HEADER", 0x0E)
    return _diffusion(b_value, gradient)


def _ge(dataset: "Dataset") -> Diffusion:
    """(0043,xx39) IS, its first value, and (0019,xxBB) to (0019,xxBD) DS."""
    b_value = _numbers(dataset, 0x0043, "GEMS_PARM_01", 0x39)
    axes = [_numbers(dataset, 0x0019, "GEMS_ACQU_01", 0xBB + axis) for axis in range(_AXES)]
    gradient = [number for axis in axes for number in axis[:1]]
    return _diffusion([number % _GE_FLAG for number in b_value[:1]], gradient)


def _philips(dataset: "Dataset") -> Diffusion:
    """(2001,xx03) FL, and (2005,xxB0) to (2005,xxB2) FL."""
    b_value = _numbers(dataset, 0x2001, "Philips Imaging DD 001", 0x03)
    creator = "Philips MR Imaging DD 001"
    axes = [_numbers(dataset, 0x2005, creator, 0xB0 + axis) for axis in range(_AXES)]
    return _diffusion(b_value, [number for axis in axes for number in axis[:1]])


def _diffusion(b_value: list[float], gradient: list[float]) -> Diffusion:
    if not b_value or b_value[0] < 0:
        return Diffusion()
    return Diffusion(b_value[0], tuple(gradient) if len(gradient) == _AXES else None)


def _numbers(dataset: "Dataset", group: int, creator: str, offset: int) -> list[float]:
    """Return the values of a private element; nothing where it is absent, or one of them is not a finite number.

    pydicom knows these elements, so their values are numbers even where a writer did not know their VR (UN).
    """
    from hilum.client.intake.headers.pydicom_tags import plain

    try:
        value: Any = plain(dataset.private_block(group, creator)[offset].value)
        numbers = [float(one) for one in (value if isinstance(value, tuple) else (value,))]
    except Exception:
        # pydicom raises what its parsers happen to raise on broken input; a broken element tells nothing.
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
