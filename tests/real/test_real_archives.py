"""Real radiographs and real DICOM: skipped where ../shared is absent."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def hospitals(shared_data, tmp_path_factory):
    """Three hospitals of real chest radiographs, every text attribute marked ZZPHI."""
    out = tmp_path_factory.mktemp("real") / "A"
    wrap = shared_data / "tools" / "wrap_as_dicom.py"
    command = [
        sys.executable,
        str(wrap),
        "cxr",
        str(shared_data / "data" / "cxr_nih_a"),
        str(out),
        "--size",
        "160",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def brains(shared_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "M"
    wrap = shared_data / "tools" / "wrap_as_dicom.py"
    command = [sys.executable, str(wrap), "mr3d", str(shared_data / "data" / "mr_hippocampus_a"), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def search(folder, marker=b"ZZPHI"):
    return [path for path in folder.rglob("*") if path.is_file() and marker in path.read_bytes()]


def test_the_marker_is_in_the_archives(hospitals):
    assert len(search(hospitals)) >= 300


def test_counts_add_up_and_a_second_call_reads_no_pixels(hospitals, run_hilum):
    first = json.loads(run_hilum("site", "index", hospitals / "site-0" / "dicom", "--json").stdout)
    assert first["files"] == first["instances"] + sum(first["skipped"].values()) == first["decoded"] == 94
    assert first["patients"] == 75
    second = json.loads(run_hilum("site", "index", hospitals / "site-0" / "dicom", "--json").stdout)
    assert second["decoded"] == 0


def test_a_federation_of_real_sites_measures_every_arm_and_leaks_no_marker(
    hospitals, run_hilum, study_file, tmp_path
):
    arms = ["federated", "local", "centralised", "scratch", "random", "raw"]
    study = study_file(
        data={"image_size": 32},
        evaluation={"protocols": ["linear", "finetune"], "arms": arms, "label_fractions": [1.0]},
    )
    done = run_hilum("simulate", study, "--archives", hospitals, "--out", "R", "--json", timeout_s=800)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["evaluation"]
    assert {(row["site"], row["arm"]) for row in rows} == {
        (f"site-{n}", arm) for n in range(3) for arm in arms
    }
    assert all(row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows)
    assert search(tmp_path / "R") == []
    assert search(tmp_path / "hilum-home") == []
    assert "ZZPHI" not in done.stdout + done.stderr


def test_a_federation_of_real_mr_volumes_runs_in_3d(brains, run_hilum, study_file, tmp_path):
    path = study_file(data={"modality": "mr", "dims": 3, "image_size": 16})
    study = path.read_text().replace('[tasks.classification]\nlabel = "label"\n', "")
    path.write_text(study)
    done = run_hilum("simulate", path, "--archives", brains, "--out", "R", "--json", timeout_s=800)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rounds"]) == 2
    assert search(tmp_path / "R") == search(tmp_path / "hilum-home") == []
