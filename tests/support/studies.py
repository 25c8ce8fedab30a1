"""Small studies."""

from typing import Any


def study_table(**changes: dict[str, Any]) -> dict[str, Any]:
    """A study that trains in seconds; `changes` replace or extend whole sections."""
    table: dict[str, Any] = {
        "study": {"name": "tiny", "seed": 11},
        "data": {"modality": "radiograph", "image_size": 16},
        "encoder": {"name": "vit", "size": "tiny", "patch_size": 8},
        "method": {"name": "mae", "decoder_width": 32, "decoder_depth": 1},
        "training": {"batch_size": 8, "local_epochs": 1},
        "federation": {"rounds": 2, "sites": 3, "deadline_s": 60.0},
        "privacy": {"min_patients": 1},  # the phantoms here are few
        "tasks": {"classification": {"label": "label"}},
        "evaluation": {
            "protocols": ["linear"],
            "arms": ["federated", "local", "random", "raw"],
            "label_fractions": [1.0],
            "bootstrap_draws": 100,
            "finetune_epochs": 1,
            "finetune_min_steps": 1,
        },
    }
    for section, values in changes.items():
        same_kind = "name" not in values or values["name"] == table.get(section, {}).get("name")
        table[section] = {**table.get(section, {}), **values} if same_kind else dict(values)
    return table
