"""Who is drawn and how the weights move, as the study's `[privacy]` has it.

A mechanism is a pair that belongs together: differential privacy accounts for the sampler and the step as one.

Adding one takes a sampler and a step here, its line below, and its name and parameters in `PrivacySection`. One that adds noise must
ask `MethodSpec.dp` whether it can serve a method, and tell its epsilon where "none" is written now: `hilum.server.federation.results`,
the card in `hilum.common.export` and `report.html.j2` of the simulations. A new key with a default stands in
`hilum.common.config.resume` too, so that studies of before stay the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer

from hilum.client.data.site_data import SiteData
from hilum.client.data.volumes import Volumes
from hilum.client.pretraining.sampling import Sampler, ShuffledEpochs
from hilum.client.pretraining.step import PlainStep, Step
from hilum.client.pretraining.volume_sampling import VolumeEpochs
from hilum.common.config import StudyConfig


@dataclass(frozen=True)
class Mechanism:
    """How one kind of training draws and steps.

    Attributes:
        sampler: For a site's images.
        step: For a method and an optimizer on a device.
    """

    sampler: Callable[[SiteData, StudyConfig], Sampler]
    step: Callable[[Fabric, _FabricModule, _FabricOptimizer, StudyConfig], Step]


def _shuffled_epochs(data: SiteData, study: StudyConfig) -> Sampler:
    training = study.training
    if isinstance(data.images, Volumes):
        assert study.data.per_volume is not None, "volumes are taken in pieces"
        return VolumeEpochs(
            data.images,
            data.split.pretrain,
            data.split.group,
            per_volume=study.data.per_volume,
            batch_size=training.batch_size,
            accumulate=training.accumulate,
            epochs=training.local_epochs,
        )
    return ShuffledEpochs(
        data.split.pretrain,
        data.split.group,
        batch_size=training.batch_size,
        accumulate=training.accumulate,
        epochs=training.local_epochs,
    )


def _plain_step(
    fabric: Fabric, method: _FabricModule, optimizer: _FabricOptimizer, study: StudyConfig
) -> Step:
    return PlainStep(fabric, method, optimizer, study.training.gradient_clip)


MECHANISMS = {"none": Mechanism(_shuffled_epochs, _plain_step)}
"""By `privacy.mechanism`."""
