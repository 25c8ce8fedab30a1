"""How a job crosses to the worker: as JSON, with nothing in it that tells the patient or the device."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hilum.client.intake.instance import Contrast, Instance
from hilum.client.intake.sandbox.handlers import KINDS, Kind
from hilum.client.intake.sandbox.jobs import DecodeImage, DecodePlanes, Job


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
