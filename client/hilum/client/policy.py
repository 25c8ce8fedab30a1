"""What this site agrees to run: ceilings that no study can raise.

What a run uses up as it goes, hours and bytes, is counted in `run_ledger`; how many evaluations, in `answers`.
"""

from hilum.client.capacity import free_disk_bytes, free_memory_bytes
from hilum.common.config import SiteConfig, StudyConfig
from hilum.common.config.site import PolicySection
from hilum.common.errors import PolicyRefused
from hilum.common.footprint import footprint_of

MB, GB = 10**6, 10**9


def check_policy(policy: PolicySection, study: StudyConfig) -> None:
    """Compare a study with the site's ceilings.

    Raises:
        PolicyRefused: If the study asks for more; the code says of what, the detail how much.
    """
    _listed("policy_methods", "methods", study.method.name, policy.methods)
    _listed("policy_encoders", "encoders", study.encoder.name, policy.encoders)
    _listed("policy_encoders", "sizes", study.encoder.size, policy.sizes)
    for task in study.tasks.given:
        _listed("policy_labels", "labels", task.label, policy.labels)
    training, evaluation = study.training, study.evaluation
    _at_most("policy_rounds", "max_rounds", study.federation.rounds, policy.max_rounds)
    _at_most("policy_epochs", "max_local_epochs", training.local_epochs, policy.max_local_epochs)
    _at_most(
        "policy_batch", "max_batch_size", training.batch_size * training.accumulate, policy.max_batch_size
    )
    if study.tasks.given:
        _at_most("policy_epochs", "max_local_epochs", evaluation.finetune_epochs, policy.max_local_epochs)
        _at_most("policy_batch", "max_batch_size", evaluation.finetune_batch_size, policy.max_batch_size)
        least = evaluation.finetune_min_steps
        _at_most("policy_epochs", "max_finetune_steps", least, policy.max_finetune_steps)
    if training.select == "knn":
        _at_most("policy_scores", "max_scores", study.federation.rounds, policy.max_scores)
    _at_most("policy_test_share", "max_test_share", evaluation.test_share, policy.max_test_share)
    _at_least("policy_test_share", "min_test_share", evaluation.test_share, policy.min_test_share)
    _at_least("policy_min_patients", "min_patients", study.privacy.min_patients, policy.min_patients)


def check_size(
    site: SiteConfig,
    study: StudyConfig,
    images: int = 0,
    *,
    packed_bytes: int | None = None,
    lacking_bytes: int | None = None,
) -> None:
    """Estimate what a study takes, before anything of it is allocated, and compare with policy and machine.

    Args:
        site: The site. Without a policy, as in a simulation, the machine alone bounds the study.
        study: The study.
        images: How many images the site would prepare for it.
        packed_bytes: What they take on disk when they are packed; what images of the study's size take, if none.
        lacking_bytes: What of it is not packed yet, and takes of the free disk; all, if none.

    Raises:
        PolicyRefused: `policy_patches`, `policy_bytes`, `policy_memory` or `policy_disk`.
    """
    policy, needed = site.policy, footprint_of(study, images)
    prepared = images * needed.image_bytes if packed_bytes is None else packed_bytes
    disk = prepared + needed.state_bytes
    if policy is not None:
        _at_most("policy_patches", "max_patches", study.encoder.tokens(study.data), policy.max_patches)
        sent = study.federation.rounds * needed.update_bytes
        _at_most("policy_bytes", "max_sent_mb", sent / MB, policy.max_sent_mb)
        _at_most("policy_memory", "max_memory_gb", needed.memory_bytes / GB, policy.max_memory_gb)
        _at_most("policy_disk", "max_disk_gb", disk / GB, policy.max_disk_gb)
    free = free_memory_bytes(site.compute)
    _at_most("policy_memory", "the machine's free memory, GB", needed.memory_bytes / GB, free / GB)
    free = free_disk_bytes(site.state.folder)
    more = needed.state_bytes + (prepared if lacking_bytes is None else lacking_bytes)
    _at_most("policy_disk", "the state folder's free disk, GB", more / GB, free / GB)


def _listed(code: str, key: str, asked: str, allowed: tuple[str, ...] | None) -> None:
    if allowed is not None and asked not in allowed:
        listed = ", ".join(allowed) or "nothing"
        raise PolicyRefused(code, f"policy.{key} lists {listed}; the study asks for {asked}")


def _at_most(code: str, key: str, asked: float, allowed: float) -> None:
    if asked > allowed:
        raise PolicyRefused(code, f"{key} is {allowed:.6g}, the study needs {asked:.6g}")


def _at_least(code: str, key: str, asked: float, allowed: float) -> None:
    if asked < allowed:
        raise PolicyRefused(code, f"{key} is {allowed:.6g}, the study asks for {asked:.6g}")
