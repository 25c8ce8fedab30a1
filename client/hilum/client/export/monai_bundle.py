"""A MONAI bundle (MONAI Bundle Specification 1.x) that `python -m monai.bundle run` runs, without Hilum.

bundle/
    configs/metadata.json    what MONAI's specification asks for
    configs/inference.json   prepared arrays in images/ -> one .npy for each in output/
    models/model.pt2         the program of `torch.export`
    scripts/                 two short files of plain torch that the configuration names
    docs/README.md, LICENSE
"""

import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from hilum.client.export import bundle_scripts
from hilum.client.export.agreement import check_agreement, in_words, without_chatter
from hilum.client.export.bundle_scripts import inference, network
from hilum.client.export.exportable import Exportable
from hilum.client.export.torch_program import FILE as PROGRAM
from hilum.client.export.torch_program import traced
from hilum.common import __version__
from hilum.common.files import write_json, write_text

FOLDER = "bundle"
TOLERANCE = 1e-4
_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)


def write_bundle(source: Exportable, folder: Path) -> str:
    """Write `bundle/`, and say in one line what was checked.

    Raises:
        RunError: If the network is no graph, or gives other results when MONAI builds it from the configuration.
    """
    place = folder / FOLDER
    for part in ("configs", "models", "scripts", "docs", "images"):
        (place / part).mkdir(parents=True)
    with without_chatter():
        torch.export.save(traced(source), place / "models" / PROGRAM)
    for module in (bundle_scripts, network, inference):
        text = Path(_file_of(module)).read_text()
        write_text(place / "scripts" / Path(_file_of(module)).name, text)
    write_json(place / "configs" / "metadata.json", _metadata(source))
    write_json(place / "configs" / "inference.json", _inference(source))
    write_text(place / "LICENSE", source.licence + "\n")
    write_text(place / "docs" / "README.md", _readme(source))
    write_text(place / "images" / "README.md", "Prepared arrays go here, one .npy for each image.\n")
    built = _built_by_monai(place)
    worst = check_agreement(source, built, TOLERANCE, "the network that MONAI builds from the bundle")
    return f"{FOLDER}/: a MONAI bundle, which as MONAI builds it {in_words(worst)}"


def _file_of(module: ModuleType) -> str:
    assert module.__file__ is not None, "it is a file"
    return module.__file__


def _built_by_monai(place: Path) -> Any:
    """Return the network as MONAI's own parser builds it; the bundle's `scripts` are not those of another one."""
    from monai.bundle.config_parser import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(place / "configs" / "inference.json"))
    parser.update({"bundle_root": str(place), "device": "$torch.device('cpu')"})
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "scripts"}
    sys.path.insert(0, str(place))
    try:
        with without_chatter():
            return parser.get_parsed_content("network")
    finally:
        sys.path.remove(str(place))
        for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
            del sys.modules[name]
        sys.modules.update(before)


def _inference(source: Exportable) -> dict[str, Any]:
    return {
        "imports": [
            "$import torch",
            "$from pathlib import Path",
            "$from scripts.inference import run_network",
        ],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "scripts.network.ExportedNetwork",
            "program": f"$@bundle_root + '/models/{PROGRAM}'",
            "device": "@device",
        },
        "network": "@network_def",
        "files": "$sorted(Path(@dataset_dir).glob('*.npy'))",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "reader": "NumpyReader", "image_only": True},
                {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32", "track_meta": False},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': str(file), 'name': file.stem} for file in @files]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 8, "num_workers": 0},
        "inferer": _inferer(source),
        "run": ["$run_network(@network, @dataloader, @inferer, @output_dir, @device)"],
    }


def _inferer(source: Exportable) -> dict[str, Any]:
    """Return what calls the network: maps of a volume are put together from overlapping patches."""
    if source.output == "maps" and source.data.cut == "patches":
        roi = list(source.data.view_size)
        return {"_target_": "SlidingWindowInferer", "roi_size": roi, "overlap": 0.5, "mode": "gaussian"}
    return {"_target_": "SimpleInferer"}


def _metadata(source: Exportable) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by Hilum {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "name": source.name,
        "task": f"{source.output} of {source.data.modality}",
        "description": f"{source.name}: {source.output_words}",
        "authors": "the sites that trained it, with Hilum",
        "copyright": source.licence,
        "license": source.licence,
        "intended_use": "research; it is not a medical device and not validated for any clinical decision",
        "data_type": "npy",
        "image_classes": f"{source.data.modality}, prepared to [0, 1]. {source.input_words}",
        "pred_classes": source.output_words,
        "sha256": source.sha256,
        "network_data_format": _data_format(source),
    }


def _data_format(source: Exportable) -> dict[str, Any]:
    facts, example = source.data.facts, source.module(source.example(1)).detach()
    is_map, is_patch = source.output == "maps", source.data.cut == "patches"
    channels = ("image",) if facts.channels == 1 else ("red", "green", "blue")
    names = source.names or tuple(f"feature {number}" for number in range(example.shape[1]))
    return {
        "inputs": {
            "image": {
                "type": "image",
                "format": facts.family,
                "modality": source.data.modality,
                "num_channels": facts.channels,
                "spatial_shape": list(source.data.view_size),
                "dtype": "float32",
                "value_range": [0, 1],
                "is_patch_data": is_patch,
                "channel_def": {str(number): name for number, name in enumerate(channels)},
            }
        },
        "outputs": {
            "pred": {
                "type": "image" if is_map else "tuples",
                "format": "segmentation" if is_map else source.output,
                "num_channels": example.shape[1],
                "spatial_shape": list(example.shape[2:]),
                "dtype": "float32",
                "value_range": [],
                "is_patch_data": is_map and is_patch,
                "channel_def": {str(number): name for number, name in enumerate(names)},
            }
        },
    }


def _readme(source: Exportable) -> str:
    shape = ", ".join(map(str, source.input_shape))
    return f"""# {source.name}

{source.kind.capitalize()} of {source.data.modality}, SHA-256 `{source.sha256}`. Licence: {source.licence}.

**Input**: float32 ({shape}) in [0, 1], one `.npy` for each image in `images/`. {source.input_words}

**Output**: {source.output_words}{": " + ", ".join(source.names) if source.names else ""}; one `.npy` for each image in `output/`.

From this folder, with MONAI and fire, and without Hilum:

    python -m monai.bundle run --config_file configs/inference.json

or from Python, from this folder:

```python
from monai.bundle import ConfigParser

parser = ConfigParser()
parser.read_config("configs/inference.json")
network = parser.get_parsed_content("network")  # (B, {shape}) in [0, 1] -> the output
```

The graph was made by torch {torch.__version__.split("+")[0]}; this or a later one reads it. It is that of evaluation: to train further,
take the tensors (`--to safetensors`).

**Use**: as a starting point for a site's own task. It is not a medical device, and it is not validated for any clinical decision.
"""
