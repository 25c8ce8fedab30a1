"""Which micro-batch fits into the memory of the device that trains, by trying."""

import gc
from collections.abc import Callable

import numpy as np
import torch
from lightning_fabric import Fabric

from hilum.client.data.prepared import Packed
from hilum.client.pretraining.mechanisms import MECHANISMS
from hilum.client.pretraining.optimizer import make_optimizer
from hilum.client.pretraining.step import MicroBatch
from hilum.client.views import Viewer, random_numbers, to_unit
from hilum.common.config import StudyConfig
from hilum.common.encoders.blocks import recompute
from hilum.common.methods import build_method


def noise(study: StudyConfig, count: int) -> Packed:
    """Return images (count, C, *store) of noise, as a study's prepared ones: for timing and memory what they show is all one."""
    shape = (count, study.data.facts.channels, *study.data.block_size)
    return np.random.default_rng(0).integers(0, 65_536, shape, np.uint16)


def fits(study: StudyConfig, batch: int, fabric: Fabric) -> bool:
    """Tell whether the device has the memory for a step of so many images, by taking one on noise."""
    try:
        method = build_method(study)
        recompute(method, study.training.gradient_checkpointing)
        module, optimizer = fabric.setup(method, make_optimizer(method, study))
        step = MECHANISMS[study.privacy.mechanism].step(fabric, module, optimizer, study)
        rng = random_numbers(fabric.device, 0)
        views = Viewer(study.data, method.spec.views, study.views)(
            to_unit(noise(study, batch), fabric.device), rng
        )
        numbers = method.draw(batch, rng)
        step(
            [MicroBatch(views._replace(patients=torch.arange(batch, device=fabric.device)), numbers, batch)],
            [batch],
        )
    except torch.OutOfMemoryError:
        return False
    finally:
        release(fabric)
    return True


def release(fabric: Fabric) -> None:
    """Give memory back that nothing holds any more."""
    gc.collect()
    if fabric.device.type == "cuda":
        torch.cuda.empty_cache()


def largest_batch(most: int, least: int, does_fit: Callable[[int], bool]) -> int:
    """Return the largest of `most`, its half, its quarter, ... that fits; 0 if none down to `least` does."""
    while most >= max(1, least):
        if does_fit(most):
            return most
        most //= 2
    return 0


def what_fits(study: StudyConfig, fabric: Fabric, devices: int = 1) -> str:
    """Say what to write in place of a batch size that does not fit into the memory of so many devices like this one."""
    asked, least = study.training.batch_size, study.method.min_batch
    found = largest_batch(asked // 2, least, lambda batch: fits(study, -(-batch // devices), fabric))
    if not found:
        return (
            f"the device's memory does not hold a step of {max(1, least)} images either; choose a smaller encoder or data.image_size"
            + (
                ""
                if study.training.gradient_checkpointing
                else ", or write training.gradient_checkpointing = true"
            )
        )
    more = study.training.accumulate * -(-asked // found)
    same = (
        f"training.batch_size = {found} with training.accumulate = {more}, which is a step of as many images"
        if least == 1
        else f"training.batch_size = {found}"
    )
    return f"the device's memory holds a batch of {found} images: write {same}"
