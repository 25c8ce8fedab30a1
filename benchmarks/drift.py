"""Does longer pre-training help or harm: a study at several lengths, federated, local and in one place.

    python benchmarks/drift.py ARCHIVES --out FILE.jsonl [--epochs 40 80 160] [--seeds 1 2 3] [--set training.warmup=0.2 ...]

ARCHIVES has one folder a site, with DICOM and labels, as for `hilum simulate`. Each row of FILE is one encoder: its arm, length, seed, and at
every site the cross-validated probe (AUROC, by patient, over all of the site's labelled images), the effective rank of its
features (exp of the entropy of their singular values, centred; arXiv 2210.02885) and the root mean square of what enters its last norm. A row that is
there already is not trained again, so a killed run goes on. `--table` prints means over sites and seeds instead, and what a longer
training changes: the paired difference of the probe between the longest and the shortest, and of the centralised arms from the
local one, with its 95 % interval by Student's t over seeds and sites.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as students_t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from torch import nn

from hilum.client.data.site_data import SiteData, pooled
from hilum.client.pretraining.device import make_fabric
from hilum.client.pretraining.site import pretrain_alone, site_round
from hilum.client.tasks.features import encoder_features
from hilum.common.config import StudyConfig, parse_study
from hilum.common.encoders import Encoder
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, get_federated, set_federated
from hilum.common.progress import NullProgress
from hilum.common.weights import FlatWeights, apply_update
from hilum.simulations.archives import find_sites, index_sites, open_sites

ARMS = ("start", "federated", "local", "centralised", "centralised, as many steps")
_ROUNDS = 8
_FOLDS, _REPEATS = 4, 3
_TABLE: dict[str, Any] = {
    "study": {"name": "drift"},
    "data": {"modality": "radiograph", "image_size": 64},
    "encoder": {"name": "vit", "size": "tiny", "patch_size": 8},
    "method": {"name": "mae"},
    "training": {"batch_size": 32},
    "tasks": {"classification": {"label": "label"}},
}


def study_of(options: argparse.Namespace, epochs: int, seed: int, sites: int) -> StudyConfig:
    """Return the study of one length and seed; what `--set` says goes over it."""
    table = json.loads(json.dumps(_TABLE))
    table["study"]["seed"] = seed
    table["training"]["local_epochs"] = max(1, epochs // _ROUNDS)
    table["federation"] = {"rounds": _ROUNDS, "sites": sites}
    table["privacy"] = {"min_patients": 1}
    for setting in options.set:
        key, value = setting.split("=", 1)
        section, name = key.split(".")
        table.setdefault(section, {})[name] = json.loads(value)
    return parse_study(table)


def federate(data: list[SiteData], study: StudyConfig, folder: Path) -> FlatWeights:
    """Return the weights after all rounds, each the mean of the sites' updates by their images."""
    weights = get_federated(build_method(study))
    sizes = [len(one.split.pretrain) for one in data]
    for number in range(1, study.federation.rounds + 1):
        sent = [site_round(one, study, weights, number, folder / one.name).update for one in data]
        mean = np.average(np.stack(sent).astype(np.float64), axis=0, weights=sizes)
        weights = apply_update(weights, mean.astype(np.float32))
    return weights


def with_epochs(study: StudyConfig, epochs: int) -> StudyConfig:
    """Return a study with another number of local epochs."""
    table = study.model_dump()
    table["training"]["local_epochs"] = epochs
    return parse_study(table)


def trained(
    arm: str, data: list[SiteData], study: StudyConfig, folder: Path
) -> Iterator[tuple[str, Encoder]]:
    """Yield the arm's encoders, each with the site that it is measured at, or "" for all of them."""
    everywhere = pooled(data)
    batch = study.training.batch_size
    if arm == "start":
        yield "", encoder_of(study, get_federated(build_method(study)))
    elif arm == "federated":
        yield "", encoder_of(study, federate(data, study, folder))
    elif arm == "local":
        for one in data:
            yield one.name, encoder_of(study, pretrain_alone(one, study, folder / one.name).weights)
    else:
        longer = study
        if arm != "centralised":
            steps = max(-(-len(one.split.pretrain) // batch) for one in data)
            share = steps / -(-len(everywhere.split.pretrain) // batch)
            longer = with_epochs(study, max(1, round(study.training.local_epochs * share)))
        yield "", encoder_of(study, pretrain_alone(everywhere, longer, folder).weights)


def encoder_of(study: StudyConfig, weights: FlatWeights) -> Encoder:
    """Return the encoder of a method's weights."""
    method = build_method(study)
    assert federated_manifest(method).size == weights.size
    set_federated(method, weights)
    return method.encoder


def measure(encoder: Encoder, data: SiteData, study: StudyConfig) -> dict[str, float]:
    """Return probe, rank and residual norm at one site."""
    squares: list[torch.Tensor] = []
    last = next(
        module
        for module in reversed(list(encoder.modules()))
        if isinstance(module, nn.LayerNorm | nn.GroupNorm)
    )
    hook = last.register_forward_pre_hook(lambda _module, given: squares.append(given[0].square().mean()))
    rows = np.arange(len(data.images))
    features = encoder_features(encoder, data.images, rows, study, make_fabric("cpu", "fp32", 1))
    hook.remove()
    return {
        "probe": probe(features, data),
        "rank": effective_rank(features),
        "residual": float(torch.stack(squares).mean().sqrt()),
    }


def effective_rank(features: np.ndarray[Any, Any]) -> float:
    """Return exp of the entropy of the centred features' singular values."""
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares + 1e-12)).sum()))


def probe(features: np.ndarray[Any, Any], data: SiteData) -> float:
    """Return the AUROC of a ridge probe, cross-validated by patient, the best of its strengths, mean over repeats."""
    known = np.array([label is not None for label in data.labels])
    labels = np.array([label == max(one for one in data.labels if one) for label in data.labels])[
        known
    ].astype(int)
    table, patients = features[known], data.split.group[known]
    deviation = table.std(0)
    table = (table - table.mean(0)) / np.where(deviation > 0, deviation, 1)
    best = []
    for strength in (1e-4, 1e-3, 1e-2, 1e-1):
        found = []
        for repeat in range(_REPEATS):
            scores = np.zeros(len(labels))
            for fit, held in StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=repeat).split(
                table, labels, patients
            ):
                model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000).fit(
                    table[fit], labels[fit]
                )
                scores[held] = model.decision_function(table[held])
            found.append(roc_auc_score(labels, scores))
        best.append(statistics.mean(found))
    return max(best)


def run(options: argparse.Namespace) -> None:
    """Train and measure what the file lacks."""
    have = {(row["arm"], row["epochs"], row["seed"], row["name"]) for row in read(options.out)}
    with tempfile.TemporaryDirectory() as scratch:
        sites = find_sites(options.archives, Path(scratch) / "home")
        index_sites(sites, NullProgress())
        for seed in options.seeds:
            for epochs in options.epochs:
                study = study_of(options, epochs, seed, len(sites))
                data, _ = open_sites(sites, study)
                for arm in options.arms:
                    if (arm, epochs, seed, options.name) in have or (
                        arm == "start" and epochs != options.epochs[0]
                    ):
                        continue
                    folder = Path(tempfile.mkdtemp(dir=scratch))
                    told = {
                        one.name: measure(encoder, one, study)
                        for site, encoder in trained(arm, data, study, folder)
                        for one in data
                        if site in ("", one.name)
                    }
                    row = {"name": options.name, "arm": arm, "epochs": epochs, "seed": seed, "sites": told}
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row, file=sys.stderr, flush=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; none if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_table(path: Path) -> None:
    """Print means over sites, and their standard deviation over seeds."""
    cells: dict[tuple[str, str, int], dict[int, list[dict[str, float]]]] = {}
    for row in read(path):
        key = (row["name"], row["arm"], row["epochs"])
        cells.setdefault(key, {}).setdefault(row["seed"], []).extend(row["sites"].values())
    print(
        "| recipe | arm | epochs | seeds | probe | rank | residual |\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    for (name, arm, epochs), by_seed in sorted(cells.items()):
        means = {
            key: [statistics.mean(site[key] for site in sites) for sites in by_seed.values()]
            for key in ("probe", "rank", "residual")
        }
        words = [f"{statistics.mean(found):.3g}" for found in means.values()]
        if len(by_seed) > 1:
            words[0] = f"{statistics.mean(means['probe']):.3f} ± {statistics.stdev(means['probe']):.3f}"
        print(f"| {name} | {arm} | {epochs} | {len(by_seed)} | {' | '.join(words)} |")


def print_differences(path: Path) -> None:
    """Print paired differences of the probe, the unit being a site in a seed."""
    probes = {
        (row["name"], row["arm"], row["epochs"], row["seed"], site): found["probe"]
        for row in read(path)
        for site, found in row["sites"].items()
    }
    lengths = sorted({key[2] for key in probes if key[1] != "start"})
    names = sorted({key[0] for key in probes})
    asked = [(arm, lengths[-1], arm, lengths[0]) for arm in ARMS[1:]]
    asked += [(arm, length, "local", length) for arm in ARMS[3:] for length in lengths]
    print(
        "\n| recipe | what | less what | difference | 95 % interval | pairs |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name in names:
        for arm, length, other, its_length in asked:
            found = [
                value - probes[name, other, its_length, *unit]
                for (recipe, one, at, *unit), value in probes.items()
                if (recipe, one, at) == (name, arm, length) and (name, other, its_length, *unit) in probes
            ]
            if len(found) < 2:  # noqa: PLR2004 - a deviation takes two
                continue
            middle = statistics.mean(found)
            half = students_t.ppf(0.975, len(found) - 1) * statistics.stdev(found) / len(found) ** 0.5
            print(
                f"| {name} | {arm}, {length} epochs | {other}, {its_length} epochs | {middle:+.3f} | {middle - half:+.3f} to {middle + half:+.3f} "
                f"| {len(found)} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archives", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, nargs="+", default=[40, 80, 160])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--name", default="as it is", help="Of the recipe, in the rows.")
    parser.add_argument("--set", nargs="*", default=[], help="Settings, as section.key=JSON.")
    parser.add_argument("--table", action="store_true", help="Print the table of the rows that are there.")
    chosen = parser.parse_args()
    if chosen.table:
        print_table(chosen.out)
        print_differences(chosen.out)
    else:
        run(chosen)
