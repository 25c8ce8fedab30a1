"""`hilum site start`: what must be right before the first connection, and then the supervisor."""

import os
import sys
from pathlib import Path

from hilum.client.link.identity import read_identity
from hilum.client.link.letters import MAX_MESSAGE_BYTES, MAX_RECORDS_BYTES
from hilum.client.link.proxies import proxy_for
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.config import SiteConfig, load_site
from hilum.common.config.site import LinkSection, PolicySection
from hilum.common.errors import ConfigError, DataError, LabelError
from hilum.common.files import private_folder
from hilum.common.locks import only_one
from hilum.common.supervise import Stamp, supervise

STAMP, ACKNOWLEDGED, _LOCK = "stamp", "acknowledged.json", "lock"
_TAKES_PART = (
    "this site takes part already: another `hilum site start` uses the state folder; stop that one first"
)


def start_link(site_file: Path) -> int:
    """Take part until asked to stop; give the exit code.

    Raises:
        ConfigError: If the site file, the papers or HTTPS_PROXY are not right.
        DataError: If nothing is indexed.
        RunError: If this site takes part already.
    """
    site = load_site(site_file)
    identity = read_identity(link_of(site, site_file), site.site.name)
    proxy_for(identity.host, os.environ)
    check_indexed(site)
    private_folder(link_folder(site))
    with only_one(link_folder(site) / _LOCK, _TAKES_PART) as lock:
        command = [sys.executable, "-P", "-m", "hilum.client.link", str(site_file.absolute())]
        # The loop holds the lock too, so that one that outlives its supervisor keeps a second from starting.
        return supervise(command, Stamp(link_folder(site) / STAMP), name="the link", pass_fds=(lock,))


def link_of(site: SiteConfig, site_file: Path) -> LinkSection:
    """Return the table `[link]`.

    Raises:
        ConfigError: If there is none.
    """
    if site.link is None:
        problem = (
            "the table `link` is missing; `hilum site enroll` and `hilum site join NAME.link.toml --site "
            f"{site_file.name}` put it there"
        )
        raise ConfigError(site_file.name, [problem])
    return site.link


def link_folder(site: SiteConfig) -> Path:
    """Return where the link keeps its own files, within the site's state."""
    return site.state.folder / "link"


def most_message_bytes(policy: PolicySection | None) -> int:
    """Return the largest message that can be of a study within the policy: it is held before its study can be looked at.

    Training takes at least ten times the memory of what travels (`hilum.common.footprint`), and an evaluation is sent
    two sets of weights at most.
    """
    if policy is None:
        return MAX_MESSAGE_BYTES
    return min(MAX_MESSAGE_BYTES, MAX_RECORDS_BYTES + int(policy.max_memory_gb * 10**9 / 5))


def check_indexed(site: SiteConfig) -> None:
    """See that there is something to train on, before the federation counts on it.

    Raises:
        DataError: If there is not; it names the command and the folder.
        LabelError: If the site file names a label table that can't be opened.
    """
    if site.data.labels is not None and not (
        site.data.labels.is_file() and os.access(site.data.labels, os.R_OK)
    ):
        problem = (
            "the label table that `data.labels` names does not exist or can't be read; mend the path, or leave the key "
            "out: then this site pre-trains and is not evaluated"
        )
        raise LabelError(problem)
    workspace = Workspace(site.state.folder)
    if workspace.catalogue.exists():
        catalogue = Catalogue(workspace.catalogue)
        try:
            if catalogue.items():
                return
        finally:
            catalogue.close()
    folder = workspace.folder
    if folder.name == "site":
        remedy = f"run `hilum site index {site.data.dicom} --home {folder.parent}` first"
    else:
        remedy = "`hilum site index --home HOME` writes to HOME/site: set `state.folder` to that folder"
    raise DataError(f"nothing is indexed in {folder}; {remedy}")
