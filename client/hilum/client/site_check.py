"""What a site engineer can see before the federation counts on this site: one line a thing, fine or what to do."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hilum.client.capacity import free_disk_bytes
from hilum.client.link.explain import clock_line, explain
from hilum.client.link.fleet_client import CallError, FleetClient
from hilum.client.link.identity import read_identity
from hilum.client.link.start import check_indexed, link_of
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.label_table import read_table
from hilum.client.state.workspace import Workspace
from hilum.common.config import SiteConfig
from hilum.common.cores import usable_cores
from hilum.common.errors import HilumError, RequestRefused
from hilum.common.machine import machine_problem
from hilum.common.wire_ids import node_id_of

_MIN_GB = 2.0
_GB = 10**9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: Of `archive`, `state`, `labels`, `device`, `disk`, `link`, `server`.
        fine: Whether nothing need be done.
        words: What was found, and what to do.
    """

    what: str
    fine: bool
    words: str


def check_site(site: SiteConfig, site_file: Path) -> list[Finding]:
    """Look at everything that a site file names. Nothing is changed; the server is asked once, with the site's papers."""
    looks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("archive", lambda: _archive(site)),
        ("state", lambda: _state(site)),
        ("labels", lambda: _labels(site)),
        ("device", lambda: _device(site)),
        ("disk", lambda: _disk(site)),
        ("link", lambda: _link(site, site_file)),
        ("server", lambda: _server(site, site_file)),
    )
    return [_found(what, look) for what, look in looks]


class _Mend(HilumError):  # noqa: N818 - what to do
    """Something to be done; the words say what."""


def _found(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, fine=True, words=look())
    except HilumError as problem:
        return Finding(what, fine=False, words=str(problem))
    except OSError as error:
        refused = machine_problem(error)
        return Finding(what, fine=False, words=str(refused or f"can't be looked at ({type(error).__name__})"))


def _archive(site: SiteConfig) -> str:
    folder = site.data.dicom
    if not folder.is_dir():
        raise _Mend(f"data.dicom = {folder} is not a folder; name the folder of DICOM files")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise _Mend(f"data.dicom = {folder} can't be read by this user; let this user read it")
    if not any(folder.iterdir()):
        raise _Mend(f"data.dicom = {folder} is empty; name the folder of DICOM files")
    return f"{folder} can be read"


def _state(site: SiteConfig) -> str:
    folder = site.state.folder
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    if not existing.is_dir():
        raise _Mend(f"state.folder = {folder}: {existing} is a file; name a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _Mend(f"state.folder = {folder} can't be written by this user; name another folder")
    unlabelled = site.model_copy(update={"data": site.data.model_copy(update={"labels": None})})
    check_indexed(unlabelled)
    catalogue = Catalogue(Workspace(folder).catalogue)
    try:
        counts = catalogue.counts()
    finally:
        catalogue.close()
    return f"{folder}: {counts.instances} images of {counts.patients} patients are indexed"


def _labels(site: SiteConfig) -> str:
    table = site.data.labels
    if table is None:
        return "data.labels is not set: this site pre-trains and is not evaluated"
    if not table.is_file() or not os.access(table, os.R_OK):
        raise _Mend(f"data.labels = {table} is missing or can't be read; mend the path, or leave the key out")
    wanted = site.policy.labels if site.policy is not None else ()
    for name in wanted:
        read_table(table, name, named_by="policy.labels of the site file")  # as a training reads it
    return f"{table} has {', '.join(wanted) or 'no column that a study may name (policy.labels)'}"


def _device(site: SiteConfig) -> str:
    import torch

    from hilum.client.pretraining.device import lacks_devices
    from hilum.client.pretraining.group import group_of, waiting_processes

    if (group := group_of(site)) is not None:
        try:
            return f"{waiting_processes(group)} processes of the group wait for work"
        except RequestRefused as missing:
            raise _Mend(missing.detail) from None
    if (problem := lacks_devices(site.compute.device, site.compute.devices)) is not None:
        raise _Mend(problem)
    if torch.cuda.is_available():
        if site.compute.device == "cpu":
            return "the CPU trains (compute.device), though there is a GPU"
        name, count = torch.cuda.get_device_name(), site.compute.devices
        return (
            f"{name} trains"
            if count == 1
            else f"{count} of {torch.cuda.device_count()} GPUs train, the first is {name}"
        )
    return f"the CPU trains, with {usable_cores()} cores: torch sees no GPU"


def _disk(site: SiteConfig) -> str:
    free_gb = free_disk_bytes(site.state.folder) / _GB
    if free_gb < _MIN_GB:
        raise _Mend(
            f"{free_gb:.1f} GB are free where state.folder lies; make room, or choose another disk: images are kept there "
            "decoded"
        )
    return f"{free_gb:.1f} GB are free where state.folder lies"


def _link(site: SiteConfig, site_file: Path) -> str:
    identity = read_identity(link_of(site, site_file), site.site.name)
    return f"the papers are those of {identity.name} for {identity.where}"


def _server(site: SiteConfig, site_file: Path) -> str:
    """Make the call that a running site makes every few seconds: it tells whether the server admits this site.

    It neither signs the site on nor off, so that a site that runs meanwhile is not disturbed.
    """
    if site.link is None:
        raise _Mend("is not known yet: the table `link` names it")
    identity = read_identity(link_of(site, site_file), site.site.name)
    client = FleetClient(identity)
    try:
        client.heartbeat(node_id_of(identity.name))
    except CallError as error:
        raise _Mend(explain(error, identity, client.proxy).text) from None
    finally:
        client.close()
    if (line := clock_line(client.clock_ahead_s)) is not None:
        raise _Mend(line)
    return f"{identity.where} answers and admits {identity.name}"


def as_lines(found: list[Finding]) -> Iterator[str]:
    """Return the findings in words."""
    for one in found:
        yield f"{'fine' if one.fine else 'MEND'}  {one.what:8} {one.words}"
