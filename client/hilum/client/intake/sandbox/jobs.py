"""What a decoding process may be asked, and what it answers: plain facts and arrays, never code or pickles.

A job crosses to the worker as JSON, and its answer comes back as JSON with the arrays' bytes beside it. A worker that a
hostile file took over can so give a wrong picture of that file, and nothing else.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from hilum.client.intake.formats.contents import LabelsRead, SegRead, StructuresRead
from hilum.client.intake.formats.folder_volume import ReadVolumes, VolumesRead, read_volumes, volumes_read
from hilum.client.intake.formats.ipc import Array, Facts, Write
from hilum.client.intake.headers.diffusion import Diffusion, read_diffusion
from hilum.client.intake.instance import Contrast, Instance
from hilum.client.intake.pixels.crop import Crop
from hilum.client.intake.pixels.images import Image, read_images, read_planes
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox.annotation_jobs import (
    ReadLabels,
    ReadObject,
    labels_read,
    object_read,
    read_labels,
    read_object,
)


@dataclass(frozen=True)
class DecodeImage:
    """One frame to look at, or those of a cine, whole; answered by `ImageDecoded`.

    Attributes:
        search: The part in which text is to be looked for, if in any.
    """

    path: Path = field(repr=False)
    instance: Instance
    indices: tuple[int, ...] = (0,)
    search: Crop | None = None


@dataclass(frozen=True)
class DecodePlanes:
    """Frames as planes of a volume, in the order of `indices`; answered by `PlanesDecoded`."""

    path: Path = field(repr=False)
    instance: Instance
    indices: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class ReadHeader:
    """A header that only pydicom can read; answered by `HeaderRead`."""

    path: Path = field(repr=False)


@dataclass(frozen=True)
class DecodePicture:
    """A picture of a research folder; answered by `ImageDecoded`."""

    path: Path = field(repr=False)
    colour: bool = False


@dataclass(frozen=True)
class ReadDiffusion:
    """The private diffusion elements of one image; answered by `Diffusion`."""

    path: Path = field(repr=False)
    syntax: str


Job: TypeAlias = (
    DecodePicture
    | DecodeImage
    | DecodePlanes
    | ReadHeader
    | ReadDiffusion
    | ReadVolumes
    | ReadLabels
    | ReadObject
)


@dataclass(frozen=True)
class ImageDecoded:
    """One frame, or those of a cine with an axis for time in front.

    Attributes:
        image: (H, W) uint16, 0 black to 65535 white, or (H, W, 3) uint8 in RGB; (T, H, W) or (T, H, W, 3).
        has_text: Whether there is text in the part that was to be searched; None where none was.
    """

    image: Image = field(repr=False)
    has_text: bool | None = None


@dataclass(frozen=True)
class PlanesDecoded:
    """Planes with units.

    Attributes:
        values: (N, H, W); int16 where all are whole numbers that fit, else float32.
        empty: (N, H, W), True where there is no data, or None where all is.
    """

    values: npt.NDArray[np.float32] | npt.NDArray[np.int16] = field(repr=False)
    empty: npt.NDArray[np.bool_] | None = field(repr=False)


@dataclass(frozen=True)
class HeaderRead:
    """What the header says."""

    instance: Instance


@dataclass(frozen=True)
class Refused:
    """The file is not taken, and why.

    Attributes:
        uids: SOP, series and study UID where the header gave them; see `Skip`.
    """

    reason: Reason
    uids: tuple[str, str, str] = field(default=("", "", ""), repr=False)


Result: TypeAlias = (
    ImageDecoded
    | PlanesDecoded
    | HeaderRead
    | Diffusion
    | VolumesRead
    | LabelsRead
    | SegRead
    | StructuresRead
    | Refused
)


@dataclass(frozen=True)
class Kind:
    """One kind of job: how a worker does it, and how its arrays become a result.

    Attributes:
        job: Its type.
        do: Runs in the worker, writing the answer's arrays one at a time and giving its facts.
        result: Runs in the parent, on the job, the arrays as they were written, those of one shape and dtype stacked,
            and the facts. It raises a ValueError where they are not an answer to the job.
        failed: The reason where the worker raises what nobody expected.
    """

    job: type[Job]
    do: Callable[[Any, Write], Facts]
    result: Callable[[Any, list[Array], Facts], Result]
    failed: Reason


def _image(job: DecodeImage, write: Write) -> Facts:
    frames = read_images(job.path, job.instance, job.indices)
    if job.search is None:
        for frame in frames:
            write(frame)
        return {"has_text": None}
    text_search = import_module("hilum.client.intake.quarantine.text_search")  # as for `_header`
    search = text_search.TextSearch(job.search, len(job.indices))
    for number, frame in enumerate(frames):
        write(frame)
        search.look(number, frame)
    return {"has_text": search.found()}


def _image_result(job: DecodeImage, runs: list[Array], facts: Facts) -> Result:
    (frames,) = runs
    pixels = job.instance.pixels
    if len(frames) != len(job.indices) or frames.shape[1:3] != (pixels.rows, pixels.columns):
        raise ValueError("not the frames that were asked for")
    image = frames if len(frames) > 1 else frames[0]
    _check_image(image[0] if len(frames) > 1 else image)
    has_text = facts["has_text"] if facts is not None else None
    if type(has_text) is not (NoneType if job.search is None else bool):
        raise ValueError("no answer to the search")
    return ImageDecoded(image, has_text)


def _picture(job: DecodePicture, write: Write) -> Facts:
    raster = import_module("hilum.client.intake.formats.raster")  # as for `_header`
    write(raster.read_raster(job.path, colour=job.colour))
    return None


def _picture_result(_job: DecodePicture, runs: list[Array], _facts: Facts) -> Result:
    ((image,),) = runs
    _check_image(image)
    return ImageDecoded(image)


def _check_image(image: Array) -> None:
    grey = image.ndim == 2 and image.dtype == np.uint16  # noqa: PLR2004 - (H, W)
    colour = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8  # noqa: PLR2004 - (H, W, 3)
    if not (grey or colour):
        raise ValueError("no image")


def _planes(job: DecodePlanes, write: Write) -> Facts:
    masks: list[Array | None] = []
    for plane in read_planes(job.path, job.instance, job.indices):
        write(plane.values)
        masks.append(None if plane.empty is None else np.packbits(plane.empty))
    if any(mask is not None for mask in masks):
        shape = (job.instance.pixels.rows, job.instance.pixels.columns)
        for mask in masks:
            write(np.zeros(shape, np.uint8) if mask is None else _unpacked(mask, shape))
    return None


def _unpacked(mask: Array, shape: tuple[int, int]) -> Array:
    return np.unpackbits(mask, count=shape[0] * shape[1]).reshape(shape)


def _planes_result(job: DecodePlanes, runs: list[Array], _facts: Facts) -> Result:
    masks = [run for run in runs if run.dtype == np.uint8]
    planes = [
        run for run in runs if run.dtype in (np.int16, np.float32)
    ]  # a plane of fractions ends a run of whole ones
    values = planes[0] if len(planes) == 1 else np.concatenate(planes, dtype=np.float32)
    if values.shape != (len(job.indices), job.instance.pixels.rows, job.instance.pixels.columns):
        raise ValueError("not the planes that were asked for")
    alike = len(masks) <= 1 and all(mask.shape == values.shape for mask in masks)
    if len(planes) + len(masks) != len(runs) or not alike:
        raise ValueError("no planes")
    return PlanesDecoded(values, masks[0] != 0 if masks else None)


def _header(job: ReadHeader, _write: Write) -> Facts:
    # Imported here, for it brings pydicom, which takes longer to import than most jobs take.
    read_instance = import_module("hilum.client.intake.headers.read_instance")
    return dataclasses.asdict(read_instance.read_with_pydicom(job.path))


def _header_result(_job: ReadHeader, _runs: list[Array], facts: Facts) -> Result:
    return HeaderRead(_INSTANCE.validate_python(facts))


def _diffusion(job: ReadDiffusion, _write: Write) -> Facts:
    return dataclasses.asdict(read_diffusion(job.path, job.syntax))


def _diffusion_result(_job: ReadDiffusion, _runs: list[Array], facts: Facts) -> Result:
    return _DIFFUSION.validate_python(facts)


_INSTANCE = TypeAdapter(Instance)
_DIFFUSION = TypeAdapter(Diffusion)

KINDS: Mapping[str, Kind] = {
    "image": Kind(DecodeImage, _image, _image_result, Reason.UNDECODABLE_PIXELS),
    "picture": Kind(DecodePicture, _picture, _picture_result, Reason.UNDECODABLE_PIXELS),
    "planes": Kind(DecodePlanes, _planes, _planes_result, Reason.UNDECODABLE_PIXELS),
    "volumes": Kind(ReadVolumes, read_volumes, volumes_read, Reason.DAMAGED_FILE),
    "labels": Kind(ReadLabels, read_labels, labels_read, Reason.MALFORMED_ANNOTATION),
    "object": Kind(ReadObject, read_object, object_read, Reason.MALFORMED_ANNOTATION),
    "header": Kind(ReadHeader, _header, _header_result, Reason.DAMAGED_HEADER),
    "diffusion": Kind(ReadDiffusion, _diffusion, _diffusion_result, Reason.DAMAGED_HEADER),
}
"""All that a worker does."""


_SAMPLES_A_SECOND = 2_000_000
"""Decoded: several times slower than the slowest decoder."""
_SEARCHED_A_SECOND = 500_000
"""Searched for text: several times slower than noise is."""
_MAX_SEARCHES = 14  # by `TextSearch`: twelve frames and the extremes over time


_READING_S = 20.0
"""To inflate a small file that holds much, and to import a reader for the first of its kind."""


def more_seconds(job: Job) -> float:
    """Return what a job may take beyond the time of one frame: for more of them, for the search of text, for large volumes."""
    if isinstance(job, ReadVolumes | ReadLabels | ReadObject):
        return _READING_S
    if not isinstance(job, DecodeImage | DecodePlanes):
        return 0.0
    pixels, frames = job.instance.pixels, len(job.indices)
    seconds = (frames - 1) * pixels.rows * pixels.columns * pixels.samples / _SAMPLES_A_SECOND
    if isinstance(job, DecodeImage):
        searches = 0 if job.search is None else min(frames, _MAX_SEARCHES)
        seconds += searches * pixels.rows * pixels.columns * pixels.samples / _SEARCHED_A_SECOND
    return seconds


def held_bytes(result: Result) -> int:
    """Of the arrays in a result."""
    parts = (
        part for value in vars(result).values() for part in (value if isinstance(value, tuple) else (value,))
    )
    return sum(part.nbytes for part in parts if isinstance(part, np.ndarray))


def kind_of(job: Job) -> str:
    """Return the name of a job's kind."""
    return next(name for name, kind in KINDS.items() if isinstance(job, kind.job))


def to_plain(job: Job) -> dict[str, Any]:
    """Return a job as JSON takes it. What tells the patient or the device is left out: pixels decode without."""
    if not isinstance(job, DecodeImage | DecodePlanes):
        return {"kind": kind_of(job), "job": {**dataclasses.asdict(job), "path": str(job.path)}}
    technical = replace(job, instance=_technical(job.instance, job.indices))
    # pydantic takes a fifth of the time of `dataclasses.asdict`, and a job is sent for every file.
    plain = {**_ADAPTERS[type(job)].dump_python(technical), "path": str(job.path)}
    return {"kind": kind_of(job), "job": plain}


def from_plain(message: Mapping[str, Any]) -> tuple[Kind, Job]:
    """Return the inverse of `to_plain`, with every type checked."""
    kind = KINDS[message["kind"]]
    # pydantic takes no text with surrogates, which the name of a file may have (PEP 383), but it takes a path.
    return kind, _ADAPTERS[kind.job].validate_python({**message["job"], "path": Path(message["job"]["path"])})


_ADAPTERS: Mapping[type[Any], TypeAdapter[Any]] = {kind.job: TypeAdapter(kind.job) for kind in KINDS.values()}


def _technical(instance: Instance, asked: Iterable[int]) -> Instance:
    wanted = set(asked)
    return replace(
        instance,
        sop_uid="",
        series_uid="",
        study_uid="",
        patient_id="",
        frame_of_reference="",
        image_type=(),
        frames=tuple(
            replace(frame, contrast=Contrast()) for frame in instance.frames if frame.index in wanted
        ),
    )
