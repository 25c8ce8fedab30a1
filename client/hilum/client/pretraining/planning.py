"""What a study takes of this machine: a short probe of the real loop, and arithmetic for the rest."""

from dataclasses import dataclass

from lightning_fabric import Fabric

from hilum.client.capacity import free_disk_bytes, free_memory_bytes
from hilum.client.data.prepared import holding_of
from hilum.client.pretraining.device import device_name, make_fabric
from hilum.client.pretraining.fitting import fits, largest_batch
from hilum.client.pretraining.speed import measure_speed
from hilum.client.state.workspace import Workspace
from hilum.common.config import SiteConfig, StudyConfig, parse_study
from hilum.common.config.site import ComputeSection
from hilum.common.footprint import footprint_of

_MAX_BATCH = 8192


@dataclass(frozen=True)
class Plan:
    """What a study takes.

    Attributes:
        device: Where it was measured.
        images: How many training images, or volumes, the numbers are for.
        packed: Whether they are prepared already; None where nobody knows what they take: volumes differ, and there is no site to ask.
        batch_size: What was measured with: the study's, unless that does not fit, or there are not so many images.
        largest_batch_size: The largest of the study's batch size, doubled and halved, that fits.
        memory_bytes: Peak while training.
        free_memory_bytes: Of the device, before.
        images_per_second: Of the loop.
        steps: Of a round.
        round_seconds: Of training in a round, without the way to the server and back.
        hours: Of training in all rounds.
        bytes_down: Of a round, for each site.
        bytes_up: Likewise.
        disk_bytes: Prepared images that are still to be written, and checkpoints.
        free_disk_bytes: Where the site keeps its state.
    """

    device: str
    images: int
    packed: bool | None
    batch_size: int
    largest_batch_size: int
    memory_bytes: int
    free_memory_bytes: int
    images_per_second: float
    steps: int
    round_seconds: float
    hours: float
    bytes_down: int
    bytes_up: int
    disk_bytes: int
    free_disk_bytes: int


def plan_study(study: StudyConfig, site: SiteConfig | None, images: int, *, seconds: float = 5.0) -> Plan:
    """Measure a study on this machine, on one device: several that train together are faster by what is not measured.

    Args:
        study: The study.
        site: Whose images are counted; its device is taken.
        images: How many there are, where there is no site.
        seconds: How long the probe measures.

    Raises:
        DataError: If the site has no image of the study's kind.
    """
    compute = site.compute if site is not None else ComputeSection()
    lacking = images * footprint_of(study).image_bytes
    if site is not None:
        held = holding_of(Workspace(site.state.folder), study.data)
        lacking, images = held.lacking_bytes, held.images
        if study.tasks.given:
            images = max(1, round(images * (1 - study.evaluation.test_share)))
    needed, pieces = footprint_of(study, images), images * (study.data.per_volume or 1)
    fabric = make_fabric(compute.device, study.training.precision, study.training.threads)
    free = free_memory_bytes(compute)
    asked = min(study.training.batch_size, max(pieces, study.method.min_batch))
    largest = _largest(study, asked, fabric, free)
    measured = with_batch(study, min(asked, largest or study.method.min_batch))
    speed = measure_speed(measured, fabric, seconds=seconds)
    seen = pieces * study.training.local_epochs
    round_seconds = seen / speed.images_per_second
    return Plan(
        device=device_name(fabric)
        + (f", one of the {compute.devices} that train together here" if compute.devices > 1 else ""),
        images=images,
        packed=None if site is None and study.data.cut != "whole" else lacking == 0,
        batch_size=measured.training.batch_size,
        largest_batch_size=largest,
        memory_bytes=speed.memory_bytes,
        free_memory_bytes=free,
        images_per_second=speed.images_per_second,
        steps=-(-seen // (measured.training.batch_size * measured.training.accumulate)),
        round_seconds=round_seconds,
        hours=study.federation.rounds * round_seconds / 3600,
        bytes_down=needed.update_bytes,
        bytes_up=needed.update_bytes,
        disk_bytes=needed.state_bytes + lacking,
        free_disk_bytes=free_disk_bytes(site.state.folder) if site is not None else 0,
    )


def with_batch(study: StudyConfig, batch: int) -> StudyConfig:
    """Return a study with another batch size."""
    table = study.model_dump()
    table["training"]["batch_size"] = batch
    return parse_study(table)


def _largest(study: StudyConfig, asked: int, fabric: Fabric, free: int) -> int:
    """Return the largest batch that fits, from the one that is asked for by doubling and halving; 0 if none does."""

    def does_fit(batch: int) -> bool:
        if fabric.device.type == "cuda":
            return fits(study, batch, fabric)
        # A processor's memory is not tried: who takes too much of it is killed.
        return footprint_of(with_batch(study, batch)).memory_bytes <= free

    found = largest_batch(asked, study.method.min_batch, does_fit)
    while found >= asked and 2 * found <= _MAX_BATCH and does_fit(2 * found):
        found *= 2
    return found


def in_words(plan: Plan, study: StudyConfig) -> list[str]:
    """Return a plan as lines for people."""
    gib = 2**30
    batch, asked = plan.batch_size, study.training.batch_size
    lines = [
        f"measured on {plan.device}, with a batch of {batch} images of noise",
        f"memory     {plan.memory_bytes / gib:.1f} GiB at its peak, {plan.free_memory_bytes / gib:.1f} GiB were free",
        f"batch      up to {plan.largest_batch_size} images fit",
        f"speed      {plan.images_per_second:,.0f} images a second",
        f"a round    {_seen(plan, study)}, {plan.steps:,} steps: {in_time(plan.round_seconds)}",
        f"the study  {study.federation.rounds} rounds: {in_time(3600 * plan.hours)} of training, evaluation not counted",
        f"network    {plan.bytes_down / 1e6:,.1f} MB down and {plan.bytes_up / 1e6:,.1f} MB up in a round",
        f"disk       {plan.disk_bytes / gib:.2f} GiB"
        + (f", {plan.free_disk_bytes / gib:.1f} GiB are free" if plan.free_disk_bytes else "")
        + _PACKED[plan.packed],
    ]
    if plan.largest_batch_size < min(asked, plan.images * (study.data.per_volume or 1)):
        least = max(1, study.method.min_batch)
        if plan.largest_batch_size < least:
            lines.append(
                f"too large: not even {least} images fit; choose a smaller encoder or data.image_size, or training.gradient_checkpointing = true"
            )
        else:
            more = study.training.accumulate * -(-asked // plan.largest_batch_size)
            lines.append(
                f"too large: training.batch_size = {asked} does not fit; write training.batch_size = {plan.largest_batch_size}"
                + (f" and training.accumulate = {more}, a step of as many images" if least == 1 else "")
            )
    if plan.free_disk_bytes and plan.disk_bytes > plan.free_disk_bytes:
        lines.append("too large: make room on the disk of the site's state folder, or name another folder")
    return lines


_PACKED = {
    True: ", the images are prepared already",
    False: "",
    None: ", and what the packed volumes take: --site SITE tells that",
}


def _seen(plan: Plan, study: StudyConfig) -> str:
    """Return what a round sees, as it is counted there."""
    epochs = study.training.local_epochs
    of = f"{plan.images:,} images"
    if study.data.per_volume is not None:
        of = f"{plan.images:,} volumes, {study.data.per_volume} {study.data.cut} of each"
    return f"{of}, {epochs} epoch{'s' if epochs > 1 else ''}"


def in_time(seconds: float) -> str:
    """Write seconds as people do: `40 s`, `12 min`, `3.5 h`, `4.2 days`."""
    minute, hour, day = 60, 3600, 86_400
    if seconds < 2 * minute:
        return f"{seconds:.0f} s"
    if seconds < 2 * hour:
        return f"{seconds / minute:.0f} min"
    return f"{seconds / hour:.1f} h" if seconds < 2 * day else f"{seconds / day:.1f} days"
