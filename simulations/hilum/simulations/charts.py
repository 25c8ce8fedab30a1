"""The report's charts, as inline SVG that follows the page's text colour."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hilum.common.config.tasks import Metric

# Okabe and Ito's colours, told apart by people with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7f7f7f")
ARM_COLOURS = {
    "federated": "#0072B2",
    "centralised": "#56B4E9",
    "local": "#009E73",
    "scratch": "#E69F00",
    "random": "#999999",
    "raw": "#CC79A7",
}
_INK = "#010203"  # replaced by the page's text colour
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hilum",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def loss_chart(rounds: Sequence[dict[str, Any]]) -> str:
    """Training loss of each site over the rounds."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 2.9), layout="constrained")
        axes = figure.subplots()
        names = sorted({name for record in rounds for name in record["sites"]})
        for index, name in enumerate(names):
            points = [(r["round"], r["sites"][name]["loss"]) for r in rounds if name in r["sites"]]
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, marker="o", markersize=3, label=name, color=_COLOURS[index % len(_COLOURS)])
        axes.set_xlabel("round")
        axes.set_ylabel("loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, ncols=min(4, len(names)))
        return _svg(figure)


_HEALTH_PANELS = {
    "effective_rank": ("effective rank", "start_rank"),
    "feature_deviation": ("spread of features", "start_deviation"),
    "residual_norm": ("residual norm", "start_norm"),
    "gradient_norm": ("gradient norm", None),
}


def health_chart(rounds: Sequence[dict[str, Any]]) -> str | None:
    """Health of each site over the rounds, beside the encoder that the study started from (dotted); None for a run of before there was any."""
    told = [
        record for record in rounds if any("effective_rank" in facts for facts in record["sites"].values())
    ]
    if not told:
        return None
    names = sorted({name for record in told for name in record["sites"]})
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 2.3), layout="constrained")
        panels = figure.subplots(1, len(_HEALTH_PANELS))
        for axes, (number, (words, start)) in zip(panels, _HEALTH_PANELS.items(), strict=True):
            for index, name in enumerate(names):
                here = [
                    (record["round"], record["sites"][name]) for record in told if name in record["sites"]
                ]
                colour = _COLOURS[index % len(_COLOURS)]
                axes.plot(
                    [place for place, _ in here],
                    [facts[number] for _, facts in here],
                    marker="o",
                    markersize=2.5,
                    linewidth=1.2,
                    color=colour,
                )
                if start:
                    axes.axhline(here[0][1][start], color=colour, linewidth=0.7, linestyle=":")
            axes.set_title(words, fontsize=9)
            axes.set_xlabel("round")
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        return _svg(figure)


def arms_chart(rows: Sequence[dict[str, Any]], arms: Sequence[str], metric: Metric) -> str:
    """Value and interval of every arm at every site, one panel a site."""
    sites = sorted({row["site"] for row in rows})
    shown = [arm for arm in arms if any(row["arm"] == arm for row in rows)]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(max(4.5, 2.4 * len(sites)), 0.6 + 0.32 * len(shown)), layout="constrained")
        panels = figure.subplots(1, len(sites), sharex=True, sharey=True, squeeze=False)[0]
        for axes, site in zip(panels, sites, strict=True):
            _panel(axes, [row for row in rows if row["site"] == site], shown, metric)
            axes.set_title(site, fontsize=9)
        return _svg(figure)


def _panel(axes: Axes, rows: Sequence[dict[str, Any]], arms: Sequence[str], metric: Metric) -> None:
    if metric.chance is not None:
        axes.axvline(metric.chance, color=_INK, linewidth=0.6, linestyle=":")
    for row in rows:
        place = arms.index(row["arm"])
        axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=ARM_COLOURS[row["arm"]], linewidth=2)
        axes.plot(row["value"], place, "o", color=ARM_COLOURS[row["arm"]], markersize=6)
    axes.set_yticks(range(len(arms)), arms)
    axes.set_ylim(len(arms) - 0.5, -0.5)
    low, high = metric.low, metric.high
    ticks = [low, (low + high) / 2, high]
    axes.set_xlim(low, high + 0.03 * (high - low))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.tick_params(length=0)


def _svg(figure: Figure) -> str:
    """Return the figure as an SVG element that scales with its column."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1),
        count=1,
    )
