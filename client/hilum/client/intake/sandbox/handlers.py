"""How each job is done in the worker, and how its arrays become an answer in the parent.

A worker that a hostile file took over can give a wrong picture of that file, and nothing else: the parent checks what
comes back like anything from outside.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import NoneType
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from hilum.client.intake.formats.folder_volume import ReadVolumes, read_volumes, volumes_read
from hilum.client.intake.formats.ipc import Array, Facts, Write
from hilum.client.intake.headers.diffusion import Diffusion, read_diffusion
from hilum.client.intake.instance import Instance
from hilum.client.intake.pixels.images import read_images, read_planes
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sandbox.annotation_handlers import labels_read, object_read, read_labels, read_object
from hilum.client.intake.sandbox.jobs import (
    AttributesRead,
    DecodeImage,
    DecodePicture,
    DecodePlanes,
    HeaderRead,
    ImageDecoded,
    Job,
    PlanesDecoded,
    ReadAttributes,
    ReadDiffusion,
    ReadHeader,
    ReadLabels,
    ReadObject,
    Result,
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


def _attributes(job: ReadAttributes, _write: Write) -> Facts:
    reader = import_module("hilum.client.intake.headers.source_attributes")  # as for `_header`
    return {"attributes": reader.read_source_attributes(job.path, job.syntax)}


def _attributes_result(_job: ReadAttributes, _runs: list[Array], facts: Facts) -> Result:
    return _ATTRIBUTES.validate_python(facts)


_INSTANCE = TypeAdapter(Instance)
_ATTRIBUTES = TypeAdapter(AttributesRead)
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
    "attributes": Kind(ReadAttributes, _attributes, _attributes_result, Reason.DAMAGED_HEADER),
}
"""All that a worker does."""
