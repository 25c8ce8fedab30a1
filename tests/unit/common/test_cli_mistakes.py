"""What people and machines do wrong: each is one line that says what to do."""

import errno
import functools
import json
import os
import shutil

import pytest
from PIL import Image

from hilum.common import cli
from hilum.common.errors import DataError
from hilum.simulations.archives import find_sites
from one_line import fails


@pytest.fixture
def simulate_fails(run_hilum, archives, tmp_path):
    """Run a simulation that must fail on changed archives, and leave nothing behind."""

    def run(study, spoil, *expected):
        copy = tmp_path / "archives"
        shutil.copytree(archives, copy)
        spoil(copy)
        fails(run_hilum("simulate", study, "--archives", copy, "--out", tmp_path / "run"), *expected)
        assert not (tmp_path / "run").exists()

    return run


def test_an_unknown_key_in_a_study(simulate_fails, study_file):
    simulate_fails(
        study_file(training={"bach_size": 3}),
        lambda a: None,
        "unknown key `training.bach_size`",
        "batch_size",
    )


def test_a_wrong_type_in_a_study(simulate_fails, study_file):
    simulate_fails(
        study_file(training={"batch_size": "3"}), lambda a: None, "training.batch_size = '3'", "integer"
    )


def test_a_study_for_volumes_on_radiographs(simulate_fails, study_file):
    simulate_fails(
        study_file(data={"dims": 3}),
        lambda a: None,
        "data.dims = 3 asks for volumes",
        "write data.dims = 2",
    )


def test_the_folder_of_one_site_is_not_taken_for_a_folder_of_sites(tmp_path):
    for name in ("dicom", "masks"):
        (tmp_path / "site-0" / name).mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "site-0" / "masks" / "a.png")
    with pytest.raises(DataError, match=r"is the folder of one site.*give the folder above"):
        find_sites(tmp_path / "site-0", tmp_path / "home")
    assert [site.site.name for site in find_sites(tmp_path, tmp_path / "home")] == ["site-0"]


def test_a_label_for_an_unknown_image(simulate_fails, study_file):
    def spoil(archives):
        with (archives / "site-1" / "labels.csv").open("a") as file:
            file.write("1.2.3.4,ZZPHI,1\n")

    simulate_fails(study_file(), spoil, "site-1", "labels.csv line 15", "is in no indexed file")


def test_a_site_without_a_usable_image(simulate_fails, study_file):
    def spoil(archives):
        for path in (archives / "site-2" / "dicom").iterdir():
            path.write_bytes(path.read_bytes()[:-500])

    simulate_fails(study_file(), spoil, "site-2", "none of 13 files is a usable image", "13")


def test_a_site_folder_that_can_not_be_a_name(simulate_fails, study_file):
    simulate_fails(
        study_file(), lambda a: (a / "site-1").rename(a / "site 1"), "a site's folder names the site"
    )


def test_another_number_of_sites_than_the_study_names(simulate_fails, study_file):
    simulate_fails(study_file(federation={"sites": 2}), lambda a: None, "set federation.sites = 3")


def test_damaged_files_are_counted_and_do_not_end_the_index(run_hilum, archives, tmp_path):
    shutil.copytree(archives / "site-0" / "dicom", tmp_path / "archive")
    files = sorted((tmp_path / "archive").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-500])
    files[1].write_bytes(b"DICM" * 100)
    counts = json.loads(run_hilum("site", "index", "archive", "--json").stdout)
    assert counts["skipped"] == {"damaged_header": 1, "truncated_pixels": 1}
    assert counts["files"] == counts["instances"] + 2


@pytest.fixture
def run_as_anyone(run_hilum):
    """As `run_hilum`, for a user whom file permissions bind; root is one too, once two capabilities are off."""
    if os.geteuid() != 0:
        return run_hilum
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is needed to test permissions as root")
    drop = "-dac_override,-dac_read_search"
    return functools.partial(run_hilum, before=[setpriv, f"--bounding-set={drop}", f"--inh-caps={drop}"])


def test_an_archive_without_permission_is_one_line(run_as_anyone, archives, tmp_path):
    shutil.copytree(archives / "site-0" / "dicom", tmp_path / "closed")
    (tmp_path / "closed").chmod(0)
    fails(run_as_anyone("site", "index", "closed"), "can't be read; this user needs read permission")
    (tmp_path / "closed").chmod(0o700)


def test_a_file_without_permission_is_counted(run_as_anyone, archives, tmp_path):
    shutil.copytree(archives / "site-0" / "dicom", tmp_path / "half")
    min(file for file in (tmp_path / "half").rglob("*") if file.is_file()).chmod(0)
    done = run_as_anyone("site", "index", "half", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"] == {"unreadable": 1}
    min(file for file in (tmp_path / "half").rglob("*") if file.is_file()).chmod(0o600)
    done = run_as_anyone("site", "index", "half", "--json")
    assert json.loads(done.stdout)["skipped"] == {}, "permissions change no time, and yet it is read now"


def test_a_folder_without_permission_is_counted_until_it_can_be_read(run_as_anyone, archives, tmp_path):
    shutil.copytree(archives / "site-0" / "dicom", tmp_path / "half" / "open")
    shutil.copytree(archives / "site-1" / "dicom", tmp_path / "half" / "shut")
    (tmp_path / "half" / "shut").chmod(0)
    done = run_as_anyone("site", "index", "half", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"] == {"unreadable_folder": 1}
    (tmp_path / "half" / "shut").chmod(0o700)
    done = run_as_anyone("site", "index", "half", "--json")
    assert json.loads(done.stdout)["skipped"] == {}


def test_a_state_folder_without_permission_is_one_line(run_as_anyone, archives, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    done = run_as_anyone("site", "index", archives / "site-0" / "dicom", "--home", "locked")
    fails(done, "can't be written", "--home")
    assert list((tmp_path / "locked").iterdir()) == []


def test_a_study_file_without_permission_is_one_line(run_as_anyone, study_file):
    study = study_file()
    study.chmod(0)
    fails(run_as_anyone("simulate", study, "--archives", "A", "--out", "R"), "can't be read")


def test_what_the_machine_refuses_is_one_line_that_names_no_file(run_as_anyone, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    words = "may not be written or read by this user: choose another folder"
    for call in (
        ("study", "new", "locked/new.toml"),
        ("phantom", "locked/archives", "--sites", 1, "--patients", 4),
    ):
        done = run_as_anyone(*call)
        fails(done, words)
        assert done.returncode == 4
        assert "locked" not in done.stderr
    assert list((tmp_path / "locked").iterdir()) == []


def test_a_full_disk_is_one_line_even_where_a_library_wraps_it(monkeypatch, capsys):
    def write():
        refused = OSError(errno.ENOSPC, "No space left on device", "archive/P1-00000")
        raise OSError("with tag (7FE0,0010) got exception") from refused

    monkeypatch.setattr(cli, "build", lambda: write)
    monkeypatch.setattr(cli, "close_outbound", lambda: None)
    monkeypatch.setattr(cli, "configure_logging", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 4
    said = capsys.readouterr().err
    assert said.startswith("error: a disk is full: make room")
    assert said.count("\n") == 1
    assert "P1" not in said


def test_an_output_folder_that_holds_another_run(run_hilum, archives, study_file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.resolved.toml").write_text("x")
    common = ("simulate", study_file(), "--archives", archives, "--out", tmp_path / "run")
    fails(run_hilum(*common), "holds another run", "--resume")
    fails(run_hilum(*common, "--resume"), "is damaged")
    assert (tmp_path / "run" / "study.resolved.toml").read_text() == "x"
    fails(run_hilum("phantom", tmp_path / "run"), "not empty")
