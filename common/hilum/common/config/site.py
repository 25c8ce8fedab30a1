"""The site file: what one hospital has, and what it agrees to."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hilum.common.config.base import Name, Positive, Section

FolderPath = Annotated[Path, Field(strict=False)]


class SiteSection(Section):
    """Who this site is in the federation."""

    name: Name


class SiteDataSection(Section):
    """Where the archive and its labels lie. Hilum only reads there."""

    dicom: FolderPath
    labels: FolderPath | None = None


class SiteStateSection(Section):
    """Where Hilum keeps this site's catalogue, cache and checkpoints."""

    folder: FolderPath


class ComputeSection(Section):
    """What trains."""

    device: Literal["auto", "cpu", "cuda"] = "auto"


class LinkSection(Section):
    """How this site reaches the federation: one outbound TLS connection."""

    superlink: Annotated[str, Field(pattern=r"^[^\s:]+:\d{1,5}$")]
    root_certificate: FolderPath
    node_key: FolderPath


class PolicySection(Section):
    """Ceilings that no study can raise."""

    methods: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    max_rounds: Positive = 1000
    max_local_epochs: Positive = 100


class SiteConfig(Section):
    """One site."""

    site: SiteSection
    data: SiteDataSection
    state: SiteStateSection
    compute: ComputeSection = ComputeSection()
    link: LinkSection | None = None
    policy: PolicySection = PolicySection()
