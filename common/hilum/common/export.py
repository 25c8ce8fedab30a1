"""An encoder as files: what a run leaves, what a site loads.

<folder>/
    model.safetensors   the tensors, by their names inside the encoder
    manifest.json       `encoder_sha256` over names, shapes, dtypes and bytes; how it was made
    MODEL_CARD.md       the same for people
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from hilum.common import __version__
from hilum.common.config import StudyConfig
from hilum.common.config.data import DataSection
from hilum.common.config.resume import differences
from hilum.common.encoders import ENCODERS, build_encoder
from hilum.common.encoders.warm_start import WarmStartReport
from hilum.common.errors import DamagedError, RunError
from hilum.common.files import read_json, write_bytes, write_json, write_text
from hilum.common.methods import METHODS
from hilum.common.methods.parts import encoder_part
from hilum.common.weights import FlatWeights, Manifest, NamedWeights, sha256_of


@dataclass(frozen=True)
class Provenance:
    """How an encoder came to be.

    Attributes:
        rounds: How many rounds it was trained.
        sites: How many sites took part.
        start: What it started from; None for first values that the study's seed decides.
    """

    rounds: int
    sites: int
    start: WarmStartReport | None = None


@dataclass(frozen=True)
class EncoderFiles:
    """A loaded encoder: its tensors, their hash, and what its manifest says."""

    weights: NamedWeights = field(repr=False)
    sha256: str
    manifest: dict[str, Any] = field(repr=False)


_CUT = (
    "cut to the box around what is not black (over 0.03; pieces under 3 % of the largest do not count), then "
)
_CHANNELS = {1: "one channel", 3: "three channels (red, green, blue)"}


def geometry_of(data: DataSection) -> str:
    """Say how an image or volume comes to the encoder's size."""
    size = " x ".join(map(str, data.view_size))
    features = "the volume's features are the mean over those that show something, at most 64"
    beyond = "outside of the volume is the lowest value of the piece"
    if data.spacing_mm is not None:
        spacing = " x ".join(f"{mm:g}" for mm in data.spacing_mm)
        return (
            f"resampled to {spacing} mm (linear where voxels become smaller, else a triangle as wide as two new ones), cut into "
            f"patches of {size} voxels that cover it; {beyond}; {features}"
        )
    if data.cut == "slices":
        return (
            f"each slice scaled, true to its proportions in millimetres, until its longest edge has {data.store_size} pixels, "
            f"centred, then to {size} (bilinear with antialiasing); {beyond}; {features}"
        )
    return (_CUT if data.facts.dark_border else "") + (
        "scaled, true to its proportions in millimetres, until the longest edge fills the image (bilinear with antialiasing in 2D, "
        "averaged then trilinear in 3D), centred, the rest 0"
    )


def write_encoder(
    folder: Path, study: StudyConfig, manifest: Manifest, weights: FlatWeights, made: Provenance
) -> str:
    """Write the encoder's part of a method's federated weights.

    Args:
        folder: Where to; made if it is missing.
        study: The study.
        manifest: Of the federated parts.
        weights: (P,) the federated parts.
        made: How it came to be.

    Returns:
        The encoder's SHA-256.
    """
    encoder = {name: np.ascontiguousarray(array) for name, array in encoder_part(manifest, weights).items()}
    digest = sha256_of(encoder)
    write_bytes(folder / "model.safetensors", save_tensors(encoder))
    write_text(folder / "MODEL_CARD.md", _model_card(study, manifest, made, digest))
    facts = {
        "encoder_sha256": digest,
        "hilum": __version__,
        "study": study.study.name,
        "seed": study.study.seed,
        "encoder": study.encoder.model_dump(exclude={"init"}),
        "data": study.data.model_dump(mode="json"),
        "method": study.method.model_dump(),
        "rounds": made.rounds,
        "sites": made.sites,
        "start": None if made.start is None else made.start.summary(),
        "architecture": build_encoder(study).architecture(),
        "input": {
            "channels": study.data.facts.channels,
            "range": [0.0, 1.0],
            "intensity": study.data.facts.intensity,
            "geometry": geometry_of(study.data),
        },
        "tensors": Manifest.of(encoder).to_json(),
    }
    write_json(folder / "manifest.json", facts)
    return digest


def read_encoder(folder: Path, study: StudyConfig) -> EncoderFiles:
    """Read and verify what `write_encoder` wrote.

    Raises:
        RunError: If there is no encoder, it is not of the study's kind, or not the network that this version builds.
        DamagedError: If its content does not have the hash that the manifest states.
    """
    try:
        facts = read_json(folder / "manifest.json")
        weights = load_tensors((folder / "model.safetensors").read_bytes())
    except FileNotFoundError:
        raise RunError(
            "there is no encoder in this folder; give the `encoder` folder of a finished run"
        ) from None
    except Exception as error:  # JSON or safetensors: whatever broke, the files are damaged
        raise DamagedError(
            f"the encoder's files are damaged ({type(error).__name__}); fetch them again"
        ) from None
    digest = sha256_of(weights)
    if digest != facts.get("encoder_sha256"):
        raise DamagedError("the encoder does not have the SHA-256 that its manifest states; fetch it again")
    for part in ("encoder", "data"):
        # One of before there was a choice is as its absence says; where it started from, it need not have in common.
        wanted = getattr(study, part).model_dump(mode="json", exclude={"init"})
        if differences({part: facts.get(part)}, {part: wanted}):
            raise RunError(
                f"this encoder was made with another [{part}] than the study's; use the study it was made by"
            )
    stated, built = facts.get("architecture"), build_encoder(study).architecture()
    if stated != built:
        other = sorted(key for key in {*(stated or {}), *built} if (stated or {}).get(key) != built.get(key))
        raise RunError(
            f"manifest.json describes another network than this version builds ({', '.join(other)} differ); "
            f"load it with Hilum {facts.get('hilum')}"
        )
    return EncoderFiles(weights, digest, facts)


def _start_words(start: WarmStartReport | None) -> str:
    if start is None:
        return "random weights"
    counts = start.counts
    return (
        f"`{start.file}` (names of {start.kind}, SHA-256 `{start.sha256}`): {counts['matched']} tensors matched, "
        f"{counts['adapted']} adapted, {counts['left']} left; {counts['first_values']} of the encoder began at random"
    )


def _edges(data: DataSection) -> str:
    return f"{data.image_size}" if isinstance(data.image_size, int) else " x ".join(map(str, data.image_size))


def _model_card(study: StudyConfig, manifest: Manifest, made: Provenance, digest: str) -> str:
    encoder, method = ENCODERS[study.encoder.name], METHODS[study.method.name]
    size = f"{study.data.dims}D, {_edges(study.data)} px"
    pieces = study.data.cut != "whole"
    expects = (
        "(D, H, W)" + study.data.facts.expects.partition("(D, H, W)")[2]
        if pieces
        else study.data.facts.expects
    )
    number = "n" if pieces else "1"
    spacing = ", spacing_mm=(1.0, 1.0, 1.0)" if study.data.cut == "patches" else ""
    mean = ".mean(0, keepdim=True)" if pieces else ""
    facts, channels = build_encoder(study).architecture(), study.data.facts.channels
    heads = f" Depth {facts['depth']}, {facts['heads']} heads." if "heads" in facts else ""
    return f"""# {study.study.name}

| | |
| --- | --- |
| Encoder | {study.encoder.name} {study.encoder.size} ({encoder.paper}), {size}, {encoder.normalisation} |
| Start | {_start_words(made.start)} |
| Pre-training | {study.method.name} ({method.paper}), {made.rounds} rounds of {study.training.local_epochs} local epochs |
| Modality | {study.data.modality} |
| Sites | {made.sites} |
| Values shared in a round | {manifest.size:,} |
| Differential privacy | none: no noise was added, so no epsilon is claimed |
| SHA-256 | `{digest}` |
| Hilum | {__version__} |

**Input**: {_CHANNELS[channels]}. Intensity: {study.data.facts.intensity}. Geometry: {geometry_of(study.data)}.

**Output**: {facts["width"]} features, the {facts["pooling"]}.{heads}

```python
import numpy as np
import torch
from hilum.common import load_encoder

pretrained = load_encoder("encoder")  # this folder, or the run; checked against its hash
image = np.load("image.npy")  # {expects}
batch = pretrained.prepare(image{spacing})  # ({number}, {channels}, {", ".join(map(str, study.data.view_size))}) in [0, 1]
with torch.no_grad():
    features = pretrained.encoder(batch){mean}  # (1, {facts["width"]})
    maps = pretrained.encoder.feature_maps(batch)  # from fine to coarse, for dense tasks
```

Without Hilum: `safetensors.torch.load_file("model.safetensors")` gives the tensors, and `architecture` and `input` in
`manifest.json` say all that is not in them: order of pixels, positions, heads, norms, activations, pooling.

**Use**: as a starting point for a site's own task. It is not a medical device, and its features are not validated for any
clinical decision. What was measured, beside the baselines, is in the run's `results.json`.
"""
