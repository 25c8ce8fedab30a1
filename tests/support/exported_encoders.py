"""Small encoders as a run leaves them, one of each kind, and a Python in which Hilum can't be imported."""

import os
from pathlib import Path

from hilum.common.config import StudyConfig, parse_study
from hilum.common.export import Provenance, write_encoder
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, get_federated
from studies import study_table

RESNET = {"encoder": {"name": "resnet", "size": "tiny"}, "method": {"name": "simclr"}}
KINDS = {
    "vit 2D": {"data": {"image_size": 32}},
    "resnet 2D": {**RESNET, "data": {"image_size": 32}},
    "vit 3D": {"data": {"image_size": [8, 16, 24], "dims": 3, "modality": "ct"}},
    "resnet 3D": {**RESNET, "data": {"image_size": 16, "dims": 3, "modality": "mr", "cut": "whole"}},
    "vit in colour": {
        "data": {"image_size": 24, "modality": "fundus"},
        "encoder": {"patch_size": 6, "positions": "learned"},
    },
}

_NO_HILUM = """
import sys


class NoHilum:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hilum":
            raise ModuleNotFoundError("Hilum is not here", name=name)


sys.meta_path.insert(0, NoHilum())
"""


def make_encoder(kind: str, run: Path) -> StudyConfig:
    """Write the encoder of one kind to `run/encoder`."""
    study = parse_study(study_table(**KINDS[kind]))
    method = build_method(study)
    made = Provenance(rounds=2, sites=3)
    write_encoder(run / "encoder", study, federated_manifest(method), get_federated(method), made)
    return study


def environment_without_hilum(folder: Path) -> dict[str, str]:
    """Return the environment of processes that can't import Hilum; what does that lies in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_NO_HILUM)
    return {**os.environ, "PYTHONPATH": str(folder)}
