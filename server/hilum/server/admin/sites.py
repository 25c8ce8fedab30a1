"""What there is to tell about sites: plain functions, used while the server runs and when it does not."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from hilum.server.admin.authority import FederationFolder
from hilum.server.admin.client import AdminClient, NoServerError
from hilum.server.sites import RegisteredSite


@dataclass(frozen=True)
class SiteSummary(RegisteredSite):
    """One site for the admin's eyes.

    Attributes:
        seen_s_ago: Seconds since its last sign of life; None if there is none, or no server runs.
    """

    seen_s_ago: float | None


@dataclass(frozen=True)
class SiteList:
    """All sites of a federation, by name.

    Attributes:
        serving: Whether a server runs, which alone knows who is connected.
    """

    sites: tuple[SiteSummary, ...]
    serving: bool


def all_sites(folder: FederationFolder) -> SiteList:
    """Return every site of a federation, whether the server runs or not.

    Raises:
        ConfigError: If there is no federation.
    """
    registry = folder.sites()
    try:
        found = registry.sites()
    finally:
        registry.close()
    try:
        seen: Mapping[str, float] | None = AdminClient(folder.file("admin.sock")).seen()
    except NoServerError:
        seen = None
    return site_list(found, seen)


def site_list(found: Iterable[RegisteredSite], seen: Mapping[str, float] | None) -> SiteList:
    """Tell of each registered site when it was last seen.

    Args:
        found: From the registry.
        seen: Seconds since each site's last sign of life; None if no server runs.
    """
    ago = seen or {}
    sites = tuple(SiteSummary(**asdict(site), seen_s_ago=ago.get(site.name)) for site in found)
    return SiteList(sites, serving=seen is not None)
