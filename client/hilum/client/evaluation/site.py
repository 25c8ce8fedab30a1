"""What a site does when it is asked to evaluate: its own arms beside those it was sent."""

from collections.abc import Mapping
from pathlib import Path

from hilum.client.data.site_data import SiteData
from hilum.client.evaluation.protocol import evaluate_site
from hilum.client.evaluation.selection import scorer
from hilum.client.pretraining.device import Device, make_fabric
from hilum.client.pretraining.group import Group
from hilum.client.pretraining.site import pretrain_alone
from hilum.common.config import StudyConfig
from hilum.common.methods import build_method
from hilum.common.methods.parts import encoder_part, federated_manifest
from hilum.common.progress import NullProgress, Progress
from hilum.common.results_table import Evaluation
from hilum.common.weights import FlatWeights


def evaluate_arms(
    data: SiteData,
    study: StudyConfig,
    sent: Mapping[str, FlatWeights],
    folder: Path,
    *,
    start: FlatWeights | None = None,
    device: Device = "auto",
    devices: int = 1,
    group: Group | None = None,
    progress: Progress | None = None,
    training: Progress | None = None,
    steps: Progress | None = None,
) -> Evaluation:
    """Evaluate the arms that were sent, and those that need no one else.

    The arm `local` is this site's own pre-training with the study's whole schedule. It is trained here first, unless
    an earlier call left it in `folder`.

    Args:
        data: The site's images and labels.
        study: The study.
        sent: (P,) weights by arm.
        folder: Where the local arm is kept.
        start: (P,) what the local arm starts from; what the study's seed gives, if none.
        device: Where to train.
        devices: On how many devices of that kind pre-training is done.
        group: Processes on several machines, which then pre-train.
        progress: Told after each combination.
        training: Told after each round of the arm `local`.
        steps: Told after each step of any training, which may be long; it may stop the work.
    """
    manifest = federated_manifest(build_method(study))
    weights = dict(sent)
    if "local" in study.evaluation.arms and "local" not in weights:
        weights["local"] = pretrain_alone(
            data,
            study,
            folder,
            start=start,
            device=device,
            devices=devices,
            group=group,
            score=scorer(data, study, device=device),
            progress=training,
            steps=steps,
        ).weights
    encoders = {arm: encoder_part(manifest, flat) for arm, flat in weights.items()}
    fabric = make_fabric(device, study.evaluation.precision, study.training.threads)
    return evaluate_site(
        data,
        study,
        encoders,
        fabric,
        progress or NullProgress(),
        steps or NullProgress(),
        min_patients=study.privacy.min_patients,
    )
