"""What a model card says beyond its own: the data by counts that may leave, what was measured beside the baselines, limits, licence."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.client.export.exportable import Exportable
from hilum.common.config.study import MIN_PATIENTS
from hilum.common.errors import DataError
from hilum.common.files import read_json

_BEGINS = "\n## Data\n"


def whole_card(source: Exportable, results: dict[str, Any] | None, descriptions: Sequence[Path]) -> str:
    """Return the card with what is known of data, privacy, results, use and limits; its own words come first.

    Args:
        source: The encoder or model.
        results: The run's `results.json`, if there is one.
        descriptions: Files that `hilum site describe --json` wrote: counts that may leave a site.

    Raises:
        DataError: If a file is no such description.
    """
    parts = [
        source.card.split(_BEGINS)[0].rstrip(),
        "## Data\n\n" + "\n".join(_data(results, [_description(path) for path in descriptions])),
        "## Privacy\n\n" + _privacy(results),
        "## Results\n\n" + _results(results),
        "## Limits\n\n" + _limits(source),
        f"## Licence\n\n{source.licence}.",
    ]
    return "\n\n".join(parts) + "\n"


def results_of(source: Exportable) -> dict[str, Any] | None:
    """Return what the run of an encoder measured; None where no run is around it, or another study's."""
    path = source.folder.parent / "results.json"
    if source.kind != "encoder" or not path.is_file():
        return None
    results: dict[str, Any] = read_json(path)
    same = all(results.get(key) == source.manifest.get(key) for key in ("study", "seed"))
    return results if same else None


def _description(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
        threshold = int(found["threshold"])
        lines = {
            name: tuple(one.get(what) for what in ("patients", "images", "volumes"))
            for name, one in found["families"].items()
        }
        protected = all(not count % threshold for counts in lines.values() for count in counts if count)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
        raise DataError(
            f"{path.name} is not a description of a site; give what `hilum site describe --json` prints"
        ) from None
    if threshold < MIN_PATIENTS or not protected:
        raise DataError(
            f"{path.name} holds counts that may not leave a site: each must be a multiple of a threshold of at least "
            f"{MIN_PATIENTS} patients; give what `hilum site describe --json` prints"
        )
    return {"threshold": threshold, "lines": lines}


def _data(results: dict[str, Any] | None, descriptions: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    sites = [one for one in (results or {}).get("sites", []) if one["examples"] is not None]
    if sites:
        at_least = sum(one["examples"] for one in sites)
        lines.append(
            f"At least {at_least:,} training images of {len(sites)} sites: each site rounds its own number down before it tells it."
        )
    for number, one in enumerate(descriptions, 1):
        lines.append(
            f"\nSite {number}, in multiples of {one['threshold']} patients (`hilum site describe`):\n\n"
            "| images | patients | images | volumes |\n| --- | --- | --- | --- |"
        )
        lines += [
            f"| {family} | {' | '.join(map(_count, counts))} |"
            for family, counts in one["lines"].items()
            if any(counts)
        ]
    return lines or ["Not stated. A site may tell counts of its patients by `hilum site describe`."]


def _count(value: int | None) -> str:
    return "hidden" if value is None else f"{value:,}"


def _privacy(results: dict[str, Any] | None) -> str:
    spent = [one for one in (results or {}).get("privacy", {}).values() if one.get("epsilon") is not None]
    if spent:
        epsilon, delta = (max(one[key] for one in spent) for key in ("epsilon", "delta"))
        return f"Differential privacy, at most epsilon {epsilon:g} at delta {delta:g} at any site ({spent[0]['unit']})."
    return (
        "Differential privacy: none. No noise was added, so no epsilon is claimed: who has the weights may learn something of the "
        "images they were trained on. No image and no patient's value is in the files."
    )


def _results(results: dict[str, Any] | None) -> str:
    rows = (results or {}).get("evaluation", [])
    if not rows:
        return "Nothing was measured, or the run's `results.json` is not beside it."
    means: dict[tuple[str, str, float, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        key = row["task"], row["protocol"], row["label_fraction"], row["metric"]
        means[key][row["arm"]].append(row["value"])
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    table = [
        "| task | protocol | labels | metric | " + " | ".join(arms) + " |",
        "| --- " * (4 + len(arms)) + "|",
    ]
    for (task, protocol, share, metric), values in means.items():
        cells = [_mean(values[arm]) if arm in values else "" for arm in arms]
        table.append(f"| {task} | {protocol} | {share:.0%} | {metric} | {' | '.join(cells)} |")
    assert results is not None, "there are rows"
    verdicts = results.get("verdicts") or [
        results.get("verdict") or {}
    ]  # one for each task, or of a study of one
    said = [" ".join(one[key] for key in ("headline", "detail") if one.get(key)) for one in verdicts]
    return "\n".join(
        [
            "Means over the sites, on patients that no training saw; `federated` is this encoder, the others are baselines.",
            "",
            *table,
            *(line for words in said if words for line in ("", words)),
        ]
    )


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f}"


def _limits(source: Exportable) -> str:
    return (
        f"- It has seen images of one modality ({source.data.modality}) of the sites above alone; on other scanners, protocols and patients it was not measured, "
        "unless a table says so.\n"
        "- It is not a medical device and not validated for any clinical decision.\n"
        "- How it does for groups of patients (sex, age, origin) is not measured here.\n"
        "- Images that are prepared in another way than is written above give other results, without any warning."
    )
