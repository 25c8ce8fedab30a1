"""One task at one site: an encoder is fine-tuned into a model, and measured on the site's test patients beside the baselines."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from hilum.client.data.kept_split import KeptSplits
from hilum.client.data.site_data import SiteData, open_site
from hilum.client.evaluation.measurements import Measurements
from hilum.client.evaluation.protocol import Runner, note_of
from hilum.client.pretraining.device import Device, make_fabric
from hilum.client.state.workspace import Workspace
from hilum.client.tasks.base import Task
from hilum.client.tasks.finetuning import Mode, outputs_of
from hilum.client.tasks.model_files import TaskModel, TrainedOn
from hilum.client.tasks.model_kinds import MODEL_KINDS
from hilum.client.tasks.registry import open_task
from hilum.common.config import SiteConfig, StudyConfig, TaskConfig, parse_study
from hilum.common.errors import DataError, RunError
from hilum.common.export import EncoderFiles, read_encoder
from hilum.common.pretrained import study_of
from hilum.common.progress import Progress
from hilum.common.results_table import Evaluation


@dataclass(frozen=True)
class Begun:
    """What a fine-tuning begins with: the study that the encoder and the task file make together, and the encoder."""

    study: StudyConfig
    encoder: EncoderFiles
    mode: Mode
    share: float


@dataclass(frozen=True)
class Tuned:
    """What it gives.

    Attributes:
        evaluation: The model's rows have the arm `federated`; comparisons are of the model with every other row.
        steps: How many the model was trained.
    """

    model: TaskModel = field(repr=False)
    evaluation: Evaluation = field(repr=False)
    steps: int


def begin(task: TaskConfig) -> Begun:
    """Read the encoder that a task file names, and make the study that both are.

    Raises:
        RunError: If there is no encoder, there are no models of the task, or the task file is about other images than it takes.
        DamagedError: If a file of the encoder is damaged.
        ConfigError: If the task file's views are not such as the encoder's images have.
    """
    given, [section] = task.finetune, task.tasks.given
    if section.kind not in MODEL_KINDS:
        raise RunError(
            f"there are no models of {section.kind} yet; there are those of {', '.join(MODEL_KINDS)}"
        )
    folder, made = study_of(given.encoder)
    if task.data is not None:
        _check_same_images(task, made)
    table = made.model_dump(mode="json")
    study = parse_study(
        {
            **table,
            "study": {"name": made.study.name, "seed": made.study.seed if given.seed is None else given.seed},
            "tasks": task.tasks.model_dump(mode="json"),
            "views": task.views.model_dump(mode="json"),
            "privacy": task.privacy.model_dump(mode="json"),
            "evaluation": {
                **task.evaluation.model_dump(mode="json"),
                "label_fractions": [given.label_share],
                "protocols": list(dict.fromkeys(how for how, _ in _lines(given.mode))),
                "arms": list(dict.fromkeys(arm for _, arm in _lines(given.mode))),
            },
        },
        source="the task file",
    )
    return Begun(study, read_encoder(folder, made), given.mode, given.label_share)


def _check_same_images(task: TaskConfig, made: StudyConfig) -> None:
    assert task.data is not None, "asked by the caller"
    words = [
        f"{data.dims}D, {data.facts.channels} channel{'s' if data.facts.channels > 1 else ''}, {data.modality}"
        for data in (made.data, task.data)
    ]
    if words[0] != words[1]:
        raise RunError(
            f"the encoder takes images of {words[0]}, [data] of the task file says {words[1]}; name an encoder of such images"
        )
    if made.data != task.data:
        raise RunError(
            "[data] of the task file prepares images otherwise than those that the encoder was trained on; leave [data] out, and "
            "the encoder's is taken"
        )


def _lines(mode: Mode) -> list[tuple[str, str]]:
    """Return protocol and arm of the model, then of everything beside it."""
    same = [(mode, "random")] if mode != "finetune" else []
    return [
        (mode, "federated"),
        ("linear", "federated"),
        ("linear", "raw"),
        ("linear", "random"),
        *same,
        ("finetune", "scratch"),
    ]


def open_for_tuning(site: SiteConfig, begun: Begun) -> SiteData:
    """Open the site with the split that the encoder's run kept.

    Raises:
        DataError: If the site has no label table, no usable image, too few, or nobody who can be tested.
        LabelError: If the label table is wrong.
    """
    _need_labels(site)
    data = open_site(site, begun.study, encoder=begun.encoder.sha256)
    _need_test_patients(data)
    return data


def _need_test_patients(data: SiteData) -> None:
    labelled = sum(label is not None for label in data.labels)
    if not labelled:
        raise DataError(f"{data.name}: no image has a label; `hilum site check` looks at the label table")
    if not len(data.split.test):
        raise DataError(
            f"{data.name}: the encoder was trained on every labelled patient of this site, so none can be tested; pre-train with "
            "the task in the study, which sets patients aside, or take an encoder that was not trained here"
        )


def _need_labels(site: SiteConfig) -> None:
    if site.data.labels is None:
        raise DataError(
            f"{site.site.name}: the site file names no label table; write data.labels = FILE.csv, with the column that the task names"
        )


def tune(data: SiteData, begun: Begun, *, device: Device, progress: Progress, steps: Progress) -> Tuned:
    """Train the model, and measure it and the baselines on the site's test patients.

    Args:
        data: From `open_for_tuning`.
        begun: From `begin`.
        device: Where to train.
        progress: Told after each line.
        steps: Told after each step.

    Raises:
        DataError: If the site's labels do not serve the task.
    """
    study, share, mode = begun.study, begun.share, begun.mode
    [section] = study.tasks.given
    task = open_task(data, study, section.kind)
    train = task.training_rows(share)
    fabric = make_fabric(device, study.evaluation.precision, study.training.threads)
    runner = Runner(data, study, {"federated": begun.encoder.weights}, fabric, steps)
    measured = _measurements(data, task, study, (mode, "federated"))
    predicted, tuned = runner.tune(task, mode, "federated", train)
    measured.add(mode, share, "federated", predicted, note_of(tuned, study))
    for done, (protocol, arm) in enumerate(_lines(mode)[1:], 1):
        progress.advance(done, f"{arm} {protocol}")
        measured.add(protocol, share, arm, *runner.predict(task, protocol, arm, train))
    progress.advance(len(_lines(mode)))
    patients = len(np.unique(data.split.group[train]))
    trained = TrainedOn.of(
        mode,
        share,
        patients,
        len(train),
        validated=tuned.validated,
        threshold=study.privacy.min_patients,
    )
    kind = task.section.kind
    model = TaskModel(study, kind, task.names, tuned.module, tuned.temperature, begun.encoder.sha256, trained)
    return Tuned(model, measured.table(), tuned.steps)


def lines_count(mode: Mode) -> int:
    """Return how many times `tune` advances its progress."""
    return len(_lines(mode))


def keep_split(site: SiteConfig, data: SiteData, study: StudyConfig, model_sha256: str) -> None:
    """Keep at the site whom a model was trained on, so that no later evaluation of it tests them."""
    kept = replace(data.kept(study), encoder=model_sha256)
    KeptSplits(Workspace(site.state.folder)).keep(f"{study.study.name[:40]}-tuned-{model_sha256[:12]}", kept)


def evaluate_model(
    site: SiteConfig, model: TaskModel, *, device: Device, tell: Callable[[SiteData], None]
) -> Evaluation:
    """Measure a model on all test patients of a site; whom it, or its encoder, was trained on here is not among them.

    Args:
        site: The site.
        model: The model.
        device: Where to compute.
        tell: Told of the site's rows before anything is computed.

    Raises:
        DataError: If the site has no labels for the task, or a class that the model does not know.
    """
    _need_labels(site)
    study, sha256 = model.study, model.sha256
    known = KeptSplits(Workspace(site.state.folder)).knows(sha256)
    data = open_site(site, study, encoder=sha256 if known else model.encoder_sha256)
    tell(data)
    _need_test_patients(data)
    task = MODEL_KINDS[model.kind].task(data.of_task(model.kind), study, model.names)
    fabric = make_fabric(device, study.evaluation.precision, study.training.threads)
    module = model.module.to(fabric.device)
    outputs = outputs_of(module, data.images, task.test, study, fabric) / (model.temperature or 1.0)
    measured = _measurements(data, task, study, None)
    measured.add(model.trained.mode, model.trained.label_share, "federated", task.predictions(outputs))
    return measured.table()


def _measurements(
    data: SiteData, task: Task, study: StudyConfig, ours: tuple[str, str] | None
) -> Measurements:
    group, draws = data.split.group[task.test], study.evaluation.bootstrap_draws
    return Measurements(data.name, task, group, draws, study.study.seed, ours)
