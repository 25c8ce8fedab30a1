"""A fine-tuned model as files: what `hilum site finetune` leaves, what predicts.

<folder>/
    model.safetensors   the tensors, `encoder.*` and `head.*`
    manifest.json       `model_sha256` over names, shapes, dtypes and bytes; the study, the names of the outputs, the temperature
    MODEL_CARD.md       the same for people

Shapes: n pieces of one image, m images, C channels, *S space as the encoder sees it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from torch import Tensor

from hilum.client.tasks.base import Predictions
from hilum.client.tasks.finetuning import EncoderWithHead
from hilum.client.tasks.model_kinds import MODEL_KINDS
from hilum.common import __version__
from hilum.common.config import StudyConfig, parse_study
from hilum.common.encoders import build_encoder
from hilum.common.errors import DamagedError, HilumError, RunError
from hilum.common.export import geometry_of
from hilum.common.files import read_json, write_bytes, write_json, write_text
from hilum.common.weights import Manifest, NamedWeights, sha256_of

MODEL_VERSION = 1
_PROBABILITIES = {"classification": "the probability of each class"}
_MODES = {
    "frozen": "the head alone, on an encoder that did not move",
    "lora": "head and low-rank adapters, which are merged into the weights",
    "finetune": "head and encoder",
}


@dataclass(frozen=True)
class TrainedOn:
    """What a model was trained on.

    Attributes:
        mode: What of it trained.
        label_share: Of the labelled training patients.
        patients: How many; None if they are fewer than the threshold.
        images: Of theirs; None likewise.
        validated: Whether some of them were held out, to choose when to stop and to calibrate.
    """

    mode: str
    label_share: float
    patients: int | None
    images: int | None
    validated: bool

    @classmethod
    def of(
        cls, mode: str, label_share: float, patients: int, images: int, *, validated: bool, threshold: int
    ) -> "TrainedOn":
        """Count, as far as a model may tell that leaves its site."""
        enough = patients >= threshold
        return cls(mode, label_share, patients if enough else None, images if enough else None, validated)


@dataclass(frozen=True)
class TaskModel:
    """An encoder with a head that a site trained for its task.

    Attributes:
        study: Its data, encoder and task sections say what the model takes and predicts.
        kind: The task, its key under `[tasks]`.
        names: Of the outputs, such as of classes, in their order.
        module: In evaluation mode; (m, C, *S) in [0, 1] -> outputs.
        temperature: What outputs are divided by; None for 1.
        encoder_sha256: Of the encoder that it began with.
        trained: What it was trained on.
    """

    study: StudyConfig
    kind: str
    names: tuple[str, ...]
    module: EncoderWithHead = field(repr=False)
    temperature: float | None
    encoder_sha256: str
    trained: TrainedOn

    @property
    def sha256(self) -> str:
        """Over names, shapes, dtypes and bytes of its tensors."""
        return sha256_of(self.weights())

    def weights(self) -> NamedWeights:
        """Return its tensors, on the CPU."""
        return {name: value.cpu().float().numpy() for name, value in self.module.state_dict().items()}

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Tensor:
        """Return outputs (m, ...) of images (m, C, *S), divided by the temperature."""
        given: Tensor = self.module.eval()(images.to(next(self.module.parameters()).device))
        return given / (self.temperature or 1.0)

    def predict(self, pieces: Tensor) -> Predictions:
        """Predict one image or volume.

        Args:
            pieces: (n, C, *S) in [0, 1], as `hilum.common.preparation.encoder_input.encoder_input` gives them; the mean of their outputs
                is the image's.

        Returns:
            (1, ...); of a classification the probability of each class, in the order of `names`.
        """
        return MODEL_KINDS[self.kind].predictions(self.outputs(pieces).mean(0, keepdim=True))


def write_model(folder: Path, model: TaskModel) -> str:
    """Write a model into a folder, which is made if it is missing.

    Returns:
        Its SHA-256.
    """
    weights = {name: np.ascontiguousarray(array) for name, array in model.weights().items()}
    digest = sha256_of(weights)
    facts = {
        "version": MODEL_VERSION,
        "hilum": __version__,
        "model_sha256": digest,
        "encoder_sha256": model.encoder_sha256,
        "kind": model.kind,
        "names": list(model.names),
        "temperature": model.temperature,
        "trained": {
            "mode": model.trained.mode,
            "label_share": model.trained.label_share,
            "patients": model.trained.patients,
            "images": model.trained.images,
            "validated": model.trained.validated,
        },
        "study": _told(model.study).model_dump(mode="json"),
        "architecture": model.module.encoder.architecture(),
        "input": {
            "channels": model.study.data.facts.channels,
            "range": [0.0, 1.0],
            "intensity": model.study.data.facts.intensity,
            "geometry": geometry_of(model.study.data),
        },
        "tensors": Manifest.of(weights).to_json(),
    }
    write_bytes(folder / "model.safetensors", save_tensors(weights))
    write_text(folder / "MODEL_CARD.md", _card(model, digest))
    write_json(folder / "manifest.json", facts)
    return digest


def load_model(folder: Path | str) -> TaskModel:
    """Read and verify what `write_model` wrote.

    Raises:
        RunError: If there is no model in the folder, or another version of Hilum made it.
        DamagedError: If a file is damaged, or tensors and description do not fit.
    """
    place = Path(folder)
    try:
        facts = read_json(place / "manifest.json")
        content = (place / "model.safetensors").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(
            "there is no fine-tuned model in this folder; give the folder that `hilum site finetune` wrote"
        ) from None
    except ValueError:
        raise DamagedError(
            "manifest.json of the model is damaged (it is not JSON); restore the folder, or fine-tune again"
        ) from None
    if not isinstance(facts, dict) or "model_sha256" not in facts:
        raise RunError(
            "this folder holds an encoder and not a fine-tuned model; give the folder that `hilum site finetune` wrote"
        )
    if facts.get("version") != MODEL_VERSION:
        raise RunError(
            f"this model has the form {facts.get('version')}, and this is a Hilum of form {MODEL_VERSION}; load it with Hilum "
            f"{facts.get('hilum')}"
        )
    try:
        weights = load_tensors(content)
    except Exception as error:  # whatever broke in safetensors, the file is damaged
        raise DamagedError(
            f"the model's tensors are damaged ({type(error).__name__}); restore the folder, or fine-tune again"
        ) from None
    if sha256_of(weights) != facts["model_sha256"]:
        raise DamagedError(
            "the model does not have the SHA-256 that its manifest states; restore the folder, or fine-tune again"
        )
    return _built(facts, weights)


def _built(facts: Mapping[str, Any], weights: NamedWeights) -> TaskModel:
    """Make the network that a manifest describes, and fill it."""
    try:
        study = parse_study(facts["study"])
        kind, names = str(facts["kind"]), tuple(map(str, facts["names"]))
        encoder = build_encoder(study)
        module = EncoderWithHead(encoder, MODEL_KINDS[kind].head(study, encoder, names))
        module.load_state_dict({name: torch.from_numpy(np.array(one)) for name, one in weights.items()})
        temperature = None if facts["temperature"] is None else float(facts["temperature"])
        trained = TrainedOn(**facts["trained"])
        return TaskModel(study, kind, names, module.eval(), temperature, facts["encoder_sha256"], trained)
    except (HilumError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DamagedError(
            f"manifest.json does not describe the model's tensors ({type(error).__name__}); restore the folder, or fine-tune "
            "again"
        ) from None


def _told(study: StudyConfig) -> StudyConfig:
    """Return a study as its model may tell it: where a file of first weights lay is the site's own affair."""
    return study.model_copy(update={"encoder": study.encoder.model_copy(update={"init": None})})


def _card(model: TaskModel, digest: str) -> str:
    study, trained = model.study, model.trained
    counted = f"fewer than {study.privacy.min_patients} patients"
    if trained.patients is not None:
        counted = f"{trained.patients} patients, {trained.images} images"
    calibrated = (
        f"outputs are divided by {model.temperature:.4g}, fitted on held-out training patients (arXiv 1706.04599)"
        if model.temperature is not None
        else "none: too few patients to hold some out, or the study holds nobody out"
    )
    names = "\n".join(f"{number}. `{name}`" for number, name in enumerate(model.names))
    return f"""# {study.study.name}: {model.kind}

| | |
| --- | --- |
| Task | {model.kind}: {_PROBABILITIES.get(model.kind, "one number for each output")} |
| Encoder | {study.encoder.name} {study.encoder.size}, SHA-256 `{model.encoder_sha256}` before this training |
| Trained | {_MODES[trained.mode]} |
| On | {counted} ({trained.label_share:.0%} of the labelled training patients of one site) |
| Calibration | {calibrated} |
| Modality | {study.data.modality}, {study.data.dims}D |
| SHA-256 | `{digest}` |
| Hilum | {__version__} |

Outputs, in their order:

{names}

**Input**: {study.data.facts.intensity}. Geometry: {geometry_of(study.data)}.

```python
import numpy as np
from hilum.common.preparation.encoder_input import encoder_input
from hilum.client.tasks.model_files import load_model

model = load_model("model")  # this folder; checked against its hash
image = np.load("image.npy")  # {study.data.facts.expects}
print(dict(zip(model.names, model.predict(encoder_input(image, model.study.data))[0])))
```

**Use**: for research at the site whose labels it learned. It is not a medical device, and not validated for any clinical decision.
What it reaches on that site's test patients, beside the baselines, is in `results.json`; elsewhere it may do worse, and
`hilum site evaluate` measures it there.
"""
