"""What of a study may be changed when a run goes on: how long to wait and how often to write, and nothing else.

Those settings decide when a run gives up, not what it computes. Every other setting makes it another study.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAY_DIFFER: Mapping[str, str] = {
    "federation.deadline_s": "how long a round waits for its sites",
    "federation.return_s": "how long a round waits for a site that was lost",
    "evaluation.deadline_s": "how long the server waits for measurements",
    "training.checkpoint_minutes": "how long a killed site may have trained for nothing",
    "encoder.init.file": "where the file of the first weights lies; its SHA-256 says which it is",
}
ADDED: Mapping[str, Any] = {
    "tasks.multilabel": None,
    "tasks.regression": None,
    "tasks.retrieval": None,
    "tasks.segmentation": None,
    "federation.aggregator": {"name": "fedavg"},
    "data.cut": "whole",
    "data.spacing_mm": None,
    "data.per_volume": None,
    "data.window_hu": None,
    "data.intensity": None,
    "data.window_suv": None,
    "encoder.positions": "sincos",
    "encoder.init": None,
    "views.allow": [],
    "views.crop": None,
    "views.strong": None,
    "training.stop_on_collapse": False,
    "training.gradient_checkpointing": False,
    "training.select": "none",
    "training.compile": True,
    "training.deterministic": False,
    "evaluation.layer_decay": 1.0,
    "evaluation.validation_share": 0.0,
    "evaluation.patience": 5,
    "evaluation.class_weights": "balanced",
    "evaluation.precision": "fp32",
    "evaluation.frozen_learning_rate": 5e-3,
    "evaluation.lora_learning_rate": 2e-3,
    "evaluation.lora_rank": 8,
    "evaluation.lora_alpha": 16.0,
}
"""Keys that studies had not always, with what their absence stood for: with or without it, a study is the same one."""
_GONE = ("training.checkpoint_steps",)  # how often to write, before `training.checkpoint_minutes`
_OTHER_DEFAULT = (
    "data.cut",
    "evaluation.layer_decay",
    "evaluation.validation_share",
)  # of `ADDED`, what a study that leaves it out means otherwise today
_SHOWN = 3


@dataclass(frozen=True)
class Difference:
    """One key that two studies have otherwise; None where one of them lacks it."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {_shown(self.before)}, is {_shown(self.now)}"


def lasting(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's table without what may differ between a run and its resumption, and as it was before `ADDED`."""

    def lasts(key: str, value: Any) -> bool:
        return key not in MAY_DIFFER and key not in _GONE and (key not in ADDED or value != ADDED[key])

    def within(table: Mapping[str, Any], above: str) -> dict[str, Any]:
        kept = {
            key: within(value, f"{above}{key}.") if isinstance(value, Mapping) else value
            for key, value in table.items()
            if lasts(above + key, value)
        }
        # A table of added keys alone was not there before.
        return {key: value for key, value in kept.items() if value != {}}

    return within(table, "")


def as_of_today(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return some sections of a study with what the absence of a key stood for written out, where today's default is another."""
    stood_for = [(*key.split(".", 1), ADDED[key]) for key in _OTHER_DEFAULT]
    return {
        name: {key: value for section, key, value in stood_for if section == name} | dict(given)
        for name, given in sections.items()
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Return what makes two tables of studies different studies, in the order of the keys."""
    old, new = (_flat(ADDED) | _flat(lasting(table)) for table in (before, now))
    return [
        Difference(key, old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def in_words(found: list[Difference]) -> str:
    """Return the first few differences, and how many more there are."""
    more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(map(str, found[:_SHOWN])) + more


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{key}.")
        elif value is not None:
            flat[above + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)
