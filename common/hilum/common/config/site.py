"""The site file: what one hospital has, and what it agrees to."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from hilum.common.config.base import Name, Positive, Section
from hilum.common.config.encoders import EncoderName, Size
from hilum.common.config.methods import MethodName
from hilum.common.config.study import MIN_PATIENTS

FolderPath = Annotated[Path, Field(strict=False)]
SERVER_PATTERN = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}$"
"""HOST:PORT; an IPv6 address stands in brackets (RFC 3986, section 3.2.2)."""
STUDY_KEY_PATTERN = r"^ed25519:[A-Za-z0-9+/]{43}=$"


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
    """What trains.

    Attributes:
        devices: How many GPUs train one round together, a process for each.
        nodes: Of how many machines; of more than one, processes that torchrun started there do it, and `devices` is theirs.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1


class LinkSection(Section):
    """How this site reaches the federation, and whose studies it takes; `hilum site join` writes it.

    Attributes:
        server: HOST:PORT of the one outbound TLS connection.
        root_certificate: Of the federation: no other server is believed.
        certificate: This site's, from the federation's admin.
        key: This site's own, made here; nobody else needs it.
        study_key: The public key of the admin who signs studies.
    """

    server: Annotated[str, Field(pattern=SERVER_PATTERN)]
    root_certificate: FolderPath
    certificate: FolderPath
    key: FolderPath
    study_key: Annotated[str, Field(pattern=STUDY_KEY_PATTERN)]


class PolicySection(Section):
    """Ceilings that no study can raise. A list that is left out allows all but where it says otherwise.

    Attributes:
        sizes: Of encoders: `tiny`, `small`, `base`.
        max_finetune_steps: Of `evaluation.finetune_min_steps`.
        max_batch_size: Images in a step, `training.batch_size` times `training.accumulate`, and fine-tuning's.
        max_patches: Patches in an image for a transformer, pixels or voxels in 1024 for a convolution.
        max_hours: Of training and evaluating for one run, all together.
        max_sent_mb: Sent for one run, all together.
        max_memory_gb: Estimated before anything is allocated; the machine's free memory bounds it too.
        max_disk_gb: Of prepared arrays and local state of a run.
        labels: Columns of the label table that a study may name.
        min_patients: Stand behind every number that leaves.
        max_evaluations: Different evaluations that are begun in all, failed ones too; a repeated question gets the earlier answer.
        max_scores: Rounds of one study whose encoder is scored on labelled training patients (`training.select = "knn"`).
        max_repeats: From how many different weights one round may be asked for: a server that went back to a checkpoint
            asks again.
    """

    methods: Annotated[tuple[MethodName, ...], Field(strict=False)] | None = None
    encoders: Annotated[tuple[EncoderName, ...], Field(strict=False)] | None = None
    sizes: Annotated[tuple[Size, ...], Field(strict=False)] | None = None
    max_rounds: Positive = 1000
    max_local_epochs: Positive = 100
    max_finetune_steps: Positive = 10_000
    max_batch_size: Positive = 4096
    max_patches: Positive = 16_384
    max_hours: Annotated[float, Field(gt=0)] = 72.0
    max_sent_mb: Annotated[float, Field(gt=0)] = 500_000.0
    max_memory_gb: Annotated[float, Field(gt=0)] = 64.0
    max_disk_gb: Annotated[float, Field(gt=0)] = 200.0
    min_test_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    max_test_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    labels: Annotated[tuple[str, ...], Field(strict=False)] = ("label",)
    min_patients: Annotated[int, Field(ge=MIN_PATIENTS)] = MIN_PATIENTS
    max_evaluations: Positive = 20
    max_scores: Annotated[int, Field(ge=0)] = 100
    max_repeats: Positive = 3


class SiteConfig(Section):
    """One site.

    Attributes:
        policy: None only in a simulation, where the study's author owns all the data; a site file can't say so.
    """

    site: SiteSection
    data: SiteDataSection
    state: SiteStateSection
    compute: ComputeSection = ComputeSection()
    link: LinkSection | None = None
    policy: PolicySection | None = PolicySection()
