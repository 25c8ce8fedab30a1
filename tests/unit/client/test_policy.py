"""Every ceiling of a site, by a study just at it and one just over it."""

import pytest

from hilum.client import policy as checks
from hilum.client.policy import check_policy, check_size
from hilum.common.config import SiteConfig, parse_study
from hilum.common.config.site import (
    ComputeSection,
    PolicySection,
    SiteDataSection,
    SiteSection,
    SiteStateSection,
)
from hilum.common.errors import PolicyRefused
from hilum.common.footprint import footprint_of
from hilum.common.refusals import REFUSALS

RESNET = {"encoder": {"name": "resnet", "size": "tiny"}, "method": {"name": "simclr"}}


def refusal_of(check, *words, **more):
    """The code of a refusal; None if nothing is refused."""
    try:
        check(*words, **more)
    except PolicyRefused as refused:
        return REFUSALS[refused.code] and refused.code
    return None


@pytest.fixture
def site(tmp_path):
    def make(**policy):
        return SiteConfig(
            site=SiteSection(name="a"),
            data=SiteDataSection(dicom=tmp_path),
            state=SiteStateSection(folder=tmp_path / "not made yet" / "state"),
            compute=ComputeSection(device="cpu"),
            policy=PolicySection(**policy),
        )

    return make


@pytest.mark.parametrize(
    ("code", "policy", "at", "over"),
    [
        ("policy_methods", {"methods": ("mae",)}, {}, {"method": {"name": "simclr"}}),
        ("policy_encoders", {"encoders": ("vit",)}, {}, RESNET),
        ("policy_encoders", {"sizes": ("tiny",)}, {}, {"encoder": {"size": "small"}}),
        ("policy_rounds", {"max_rounds": 2}, {"federation": {"rounds": 2}}, {"federation": {"rounds": 3}}),
        (
            "policy_epochs",
            {"max_local_epochs": 4},
            {"training": {"local_epochs": 4}},
            {"training": {"local_epochs": 5}},
        ),
        (
            "policy_epochs",
            {"max_local_epochs": 4},
            {"evaluation": {"finetune_epochs": 4}},
            {"evaluation": {"finetune_epochs": 5}},
        ),
        (
            "policy_epochs",
            {"max_finetune_steps": 40},
            {"evaluation": {"finetune_min_steps": 40}},
            {"evaluation": {"finetune_min_steps": 41}},
        ),
        (
            "policy_batch",
            {"max_batch_size": 64},
            {"training": {"batch_size": 16, "accumulate": 4}},
            {"training": {"batch_size": 13, "accumulate": 5}},
        ),
        (
            "policy_batch",
            {"max_batch_size": 64},
            {"evaluation": {"finetune_batch_size": 64}},
            {"evaluation": {"finetune_batch_size": 65}},
        ),
        (
            "policy_scores",
            {"max_scores": 2},
            {"training": {"select": "knn"}, "federation": {"rounds": 2}},
            {"training": {"select": "knn"}, "federation": {"rounds": 3}},
        ),
        (
            "policy_scores",
            {"max_scores": 0},
            {"training": {"select": "loss"}},
            {"training": {"select": "knn"}},
        ),
        (
            "policy_test_share",
            {"max_test_share": 0.4},
            {"evaluation": {"test_share": 0.4}},
            {"evaluation": {"test_share": 0.41}},
        ),
        (
            "policy_test_share",
            {"min_test_share": 0.2},
            {"evaluation": {"test_share": 0.2}},
            {"evaluation": {"test_share": 0.19}},
        ),
        (
            "policy_labels",
            {"labels": ("finding",)},
            {"tasks": {"classification": {"label": "finding"}}},
            {"tasks": {"classification": {"label": "name"}}},
        ),
        ("policy_labels", {"labels": ()}, {"tasks": {"classification": None}}, {}),
        (
            "policy_min_patients",
            {"min_patients": 12},
            {"privacy": {"min_patients": 12}},
            {"privacy": {"min_patients": 11}},
        ),
    ],
)
def test_a_study_at_the_ceiling_runs_and_one_over_it_does_not(make_study, code, policy, at, over):
    allowed = PolicySection(**policy)
    base = {"privacy": {"min_patients": 12}}
    assert refusal_of(check_policy, allowed, make_study(**{**base, **at})) is None
    assert refusal_of(check_policy, allowed, make_study(**{**base, **over})) == code


def test_every_key_of_the_policy_is_tested_here_or_with_the_ledgers():
    """A key that is added to the site file must come with the check that it promises."""
    tested = {
        *("methods", "encoders", "sizes", "labels", "min_patients", "min_test_share", "max_test_share"),
        *("max_rounds", "max_local_epochs", "max_finetune_steps", "max_batch_size"),
        "max_scores",
        *("max_patches", "max_memory_gb", "max_disk_gb", "max_sent_mb"),
        *(
            "max_hours",
            "max_evaluations",
            "max_repeats",
        ),  # test_run_ledger.py, test_answers.py, integration/client_app
    }
    assert set(PolicySection.model_fields) == tested


@pytest.mark.parametrize(
    ("changes", "patches"),
    [
        ({"data": {"image_size": 32}}, 16),
        ({"data": {"image_size": 32, "dims": 3, "modality": "ct"}}, 64),
        ({"data": {"image_size": 64}, **RESNET}, 4),
        ({"data": {"image_size": 33}, **RESNET}, 2),
    ],
)
def test_patches_are_counted_before_anything_is_built(make_study, site, changes, patches):
    study = make_study(**changes)
    assert refusal_of(check_size, site(max_patches=patches), study) is None
    if patches > 1:
        assert refusal_of(check_size, site(max_patches=patches - 1), study) == "policy_patches"


def test_memory_disk_and_bytes_are_compared_with_policy(make_study, site):
    study = make_study(federation={"rounds": 3})
    needed = footprint_of(study, 1000)
    memory, sent = needed.memory_bytes / 1e9, 3 * needed.update_bytes / 1e6
    disk = (1000 * needed.image_bytes + needed.state_bytes) / 1e9
    fits = site(max_memory_gb=memory, max_disk_gb=disk, max_sent_mb=sent)
    assert refusal_of(check_size, fits, study, 1000) is None
    for code, policy in [
        ("policy_memory", {"max_memory_gb": 0.999 * memory}),
        ("policy_disk", {"max_disk_gb": 0.999 * disk}),
        ("policy_bytes", {"max_sent_mb": 0.999 * sent}),
    ]:
        assert refusal_of(check_size, site(**policy), study, 1000) == code
    assert refusal_of(check_size, site(max_disk_gb=disk), study, 1001) == "policy_disk"


def test_memory_and_disk_are_compared_with_the_machine_in_a_simulation_too(make_study, site, monkeypatch):
    study = make_study()
    needed = footprint_of(study, 1000)
    simulated = site().model_copy(update={"policy": None})
    monkeypatch.setattr(checks, "free_memory_bytes", lambda compute: needed.memory_bytes)
    assert refusal_of(check_size, simulated, study, 1000) is None
    monkeypatch.setattr(checks, "free_memory_bytes", lambda compute: needed.memory_bytes - 1)
    assert refusal_of(check_size, simulated, study, 1000) == "policy_memory"
    monkeypatch.setattr(checks, "free_memory_bytes", lambda compute: 2**62)
    monkeypatch.setattr(checks, "free_disk_bytes", lambda folder: needed.state_bytes)
    assert refusal_of(check_size, simulated, study, 1000) == "policy_disk"
    assert refusal_of(check_size, simulated, study, 1000, lacking_bytes=0) is None


def test_a_simulation_has_no_ceilings_but_the_machines(make_study, site):
    study = make_study(federation={"rounds": 100_000})
    assert refusal_of(check_size, site(), study) == "policy_bytes"
    assert refusal_of(check_size, site().model_copy(update={"policy": None}), study) is None


def test_the_machines_free_memory_and_disk_are_read(site, tmp_path):
    from hilum.client.capacity import free_disk_bytes, free_memory_bytes

    assert 10**8 < free_memory_bytes(ComputeSection(device="cpu")) < 2**50
    assert free_disk_bytes(tmp_path / "not" / "there") == free_disk_bytes(tmp_path) > 0


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    from hilum.client import capacity
    from hilum.common import memory

    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    for name, text in (("memory.max", "3000000"), ("memory.current", "1000000")):
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "memory.stat").write_text("active_file 5\ninactive_file 400000\n")
    assert capacity.free_memory_bytes(ComputeSection(device="cpu")) == 2_400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert capacity.free_memory_bytes(ComputeSection(device="cpu")) > 10**8


def test_the_default_policy_takes_the_template():
    import tomllib

    from hilum.common.config.template import STUDY_TEMPLATE

    check_policy(PolicySection(), parse_study(tomllib.loads(STUDY_TEMPLATE.format(name="x"))))
