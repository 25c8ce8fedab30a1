"""What tests have another process do: a spawned child finds these by name, and no function of a test file."""

from pathlib import Path

from hilum.server.sites import SiteRegistry


def revoke(path: Path, name: str) -> None:
    """Shut a site out of the registry at `path`."""
    other = SiteRegistry(path)
    other.revoke(name)
    other.close()
