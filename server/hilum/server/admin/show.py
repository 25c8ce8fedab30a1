"""Tables for an admin's terminal."""

import datetime as dt
from collections.abc import Mapping, Sequence

from hilum.server.admin.runs import RunSummary
from hilum.server.sites import RegisteredSite


def site_lines(sites: Sequence[RegisteredSite], seen: Mapping[str, float] | None) -> list[str]:
    """Return one line a site.

    Args:
        sites: From the registry.
        seen: Seconds since each site's last sign of life; None if no server runs.
    """
    if not sites:
        return ["no site yet; `hilum admin approve site.csr` lets one in"]
    width = max(len(site.name) for site in sites)
    lines = [
        f"{site.name:{width}}  {site.status:8}  until {_day(site.ends_at)}  {_connection(site, seen):28}  "
        f"{site.fingerprint}"
        for site in sites
    ]
    return lines if seen is not None else [*lines, "no server runs on this state folder"]


def run_lines(runs: Sequence[RunSummary]) -> list[str]:
    """Return one line a run, and one more for why it failed."""
    if not runs:
        return ["no run yet; `hilum admin submit STUDY` starts one"]
    width = max(len(run.run) for run in runs)
    lines = []
    for run in runs:
        lines.append(
            f"{run.run:{width}}  {run.state:8}  {run.rounds_done} of {run.rounds} rounds  since {_minute(run.since)}"
        )
        if run.reason:
            lines.append(f"{'':{width}}  {run.reason}")
    return lines


def _connection(site: RegisteredSite, seen: Mapping[str, float] | None) -> str:
    if seen is not None and site.name in seen:
        return f"seen {seen[site.name]:.0f} s ago"
    return (
        "not yet seen" if site.first_seen_at is None else f"not connected, joined {_day(site.first_seen_at)}"
    )


def _day(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d")


def _minute(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
