"""`hilum plan` as its users type it."""

import json


def test_a_plan_of_a_site_counts_its_images_and_says_what_the_disk_needs(
    run_hilum, study_file, archives, tmp_path
):
    study = study_file()
    site = tmp_path / "site.toml"
    folder = archives / "site-0"
    site.write_text(
        f'[site]\nname = "site-0"\n[data]\ndicom = "{folder}/dicom"\nlabels = "{folder}/labels.csv"\n'
        f'[state]\nfolder = "{tmp_path}/state/site"\n'
    )
    early = run_hilum("plan", study, "--site", site)
    assert early.returncode == 3
    assert early.stderr.startswith("error: ")
    assert early.stderr.count("\n") == 1
    assert run_hilum("site", "index", folder / "dicom", "--home", tmp_path / "state").returncode == 0
    done = run_hilum("plan", study, "--site", site, "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert 0 < plan["images"] <= 40
    assert not plan["packed"]
    assert plan["disk_bytes"] < plan["free_disk_bytes"]
    told = run_hilum("plan", study, "--site", site).stdout
    assert "images a second" in told
    assert "are free" in told


def test_a_plan_without_a_site_is_for_the_images_that_are_named(run_hilum, study_file):
    done = run_hilum("plan", study_file(), "--images", "50", "--json")
    assert json.loads(done.stdout)["images"] == 50
    wrong = run_hilum("plan", study_file("other.toml", data={"modality": "ct", "image_size": 12}))
    assert wrong.returncode == 2
    assert "is not a multiple of encoder.patch_size" in wrong.stderr
