"""`hilum site status`: what is indexed, held and prepared here."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hilum.common.cli import AsJson, Home, print_json
from hilum.common.home import hilum_home

if TYPE_CHECKING:
    from hilum.client.gallery.status import IndexRunStatus, SiteStatus


def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show what is indexed. This is for the site alone: nothing of it is sent."""
    from hilum.client.gallery.status import site_status
    from hilum.client.state.workspace import Workspace

    found = site_status(Workspace(hilum_home(home) / "site"))
    if as_json:
        print_json(status_json(found))
    else:
        print("\n".join(status_lines(found)))


def status_json(status: "SiteStatus") -> dict[str, Any]:
    """Return the status as plain values, the counts on top."""
    table = asdict(status)
    for facts in table["families"].values():
        if facts["not_in_hounsfield_units"] is None:
            del facts["not_in_hounsfield_units"]
        if facts["in_suv"] is None:
            del facts["in_suv"], facts["no_suv"]
    return {**table.pop("counts"), **table}


def status_lines(status: "SiteStatus") -> list[str]:
    """Return the status in words."""
    from hilum.client.intake.no_suv import NoSuv
    from hilum.client.intake.reasons import Reason

    counts = asdict(status.counts)
    lines = [f"{counts[name]:8} {name}" for name in ("files", "instances", "series", "volumes", "patients")]
    for family, facts in status.families.items():
        kinds = ", ".join(f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in facts.kinds.items())
        lines.append(f"\n{family}: {kinds} of {facts.patients} patients in {facts.studies} studies")
        for kind, axes in facts.spacing_mm.items():
            ranges = " x ".join(
                f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}" for low, high in axes
            )
            lines.append(f"  {kind} spacing {ranges} mm")
        lines += [f"  {row.items:6} of shape {' x '.join(map(str, row.shape))}" for row in facts.shapes]
        if facts.other_shapes:
            lines.append(f"  {facts.other_shapes:6} of other, rarer shapes")
        if facts.not_in_hounsfield_units:
            lines.append(
                f"  {facts.not_in_hounsfield_units:6} volumes are not known to be in Hounsfield units: no study takes them"
            )
        if facts.in_suv is not None:
            lines.append(
                f'  {facts.in_suv:6} volumes can be taken in SUV (a study with data.intensity = "suv")'
            )
        for code, count in facts.no_suv.items():
            lines.append(f"  {count:6} volumes have no SUV: {NoSuv(code).meaning} ({code})")
        if facts.series_of_several_volumes:
            lines.append(
                f"  {facts.series_of_several_volumes:6} series hold several volumes each (time points, echoes, stacks, ...)"
            )
    lines.append("")
    for reason, count in sorted(status.counts.skipped.items(), key=lambda one: (-one[1], one[0])):
        lines.append(f"{count:8} skipped: {Reason(reason).meaning} ({reason})")
    if status.counts.skipped:
        lines.append("         which files: `hilum site skipped [REASON]`")
    lines += [
        f"{count:8} {state} in quarantine: {family}"
        for state, families in status.quarantine.items()
        for family, count in families.items()
    ]
    lines.append(
        f"cache {status.cache_bytes / 1e6:.1f} MB; inbox {status.inbox.bytes / 1e6:.1f} MB in "
        f"{status.inbox.files} files; {status.free_bytes / 1e9:.1f} GB of the disk are free"
    )
    lines += [
        f"prepared: {one.family}, {one.what} at {one.size}, {one.bytes / 1e6:.1f} MB"
        for one in status.prepared
    ]
    lines += [_run_words(run) for run in status.index_runs]
    return lines


def _run_words(run: "IndexRunStatus") -> str:
    what = run.folder or "the inbox alone"
    if run.state == "finished":
        return (
            f"indexed {what}, {run.began}, in {run.seconds} s: {run.decoded} files had their pixels read, "
            f"{run.removed} were gone"
        )
    if run.state == "running":
        return f"an index of {what} is running since {run.began}"
    return f"an index of {what}, begun {run.began}, never ended; run it again, it goes on where it was"
