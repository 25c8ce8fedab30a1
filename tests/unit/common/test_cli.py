"""The command line as a whole: help, speed, exit codes, reports, options."""

import json
import tomllib

import click
import numpy as np
import pytest

from hilum.common.config import parse_study
from one_line import fails


def test_every_command_and_option_has_help(commands):
    silent = [name for name, command in commands.items() if not command.help]
    silent += [
        f"{name} --{parameter.name}"
        for name, command in commands.items()
        for parameter in command.params
        if parameter.param_type_name == "option"
        and parameter.name not in ("port", "help")
        and not parameter.help
    ]
    assert len(commands) > 10
    assert silent == []


def test_every_path_is_judged_by_hilum_and_so_by_one_line(commands):
    judged_by_click = [
        f"{name} {parameter.name}"
        for name, command in commands.items()
        for parameter in command.params
        if isinstance(parameter.type, click.Path) and (parameter.type.readable or parameter.type.exists)
    ]
    assert judged_by_click == []


def test_a_shell_completes_commands_and_options(run_hilum, monkeypatch):
    def completed(words):
        monkeypatch.setenv("_HILUM_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        return run_hilum().stdout.split()

    assert completed("hilum site ind") == ["index"]
    assert completed("hilum site index --wat") == ["--watch"]
    monkeypatch.setenv("_HILUM_COMPLETE", "source_bash")
    assert "_HILUM_COMPLETE=complete_bash" in run_hilum().stdout


def test_help_is_quick_to_come_and_imports_no_torch(run_hilum):
    done = run_hilum("--help")
    assert done.returncode == 0
    for group in ("site", "admin", "simulate", "phantom", "report", "study", "methods", "encoders"):
        assert group in done.stdout
    import subprocess
    import sys

    code = "import sys; from hilum.common.cli import build; build(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_new_study_is_valid_and_is_not_overwritten(run_hilum, tmp_path):
    assert run_hilum("study", "new", "my study.toml").returncode == 0
    study = parse_study(tomllib.loads((tmp_path / "my study.toml").read_text()))
    assert study.study.name == "my-study"
    assert "fine" in run_hilum("study", "check", "my study.toml").stdout
    fails(run_hilum("study", "new", "my study.toml"), "exists already")


def test_check_lists_every_problem_on_a_line_of_its_own(run_hilum, study_file):
    path = study_file(training={"bach_size": 3, "local_epochs": "x"})
    done = run_hilum("study", "check", path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 2
    report = json.loads(run_hilum("study", "check", path, "--json").stdout)
    assert report["ok"] is False
    assert len(report["problems"]) == 2


def test_methods_and_encoders_are_listed_as_documented(run_hilum):
    methods = json.loads(run_hilum("methods", "--json").stdout)
    keys = {"name", "paradigm", "dims", "encoders", "federated", "local", "frozen", "remembered"}
    keys |= {"dp", "dp_reason", "views", "paper"}
    assert all(set(method) == keys for method in methods)
    listed = {method["name"]: method["encoders"] for method in methods}
    assert listed["mae"] == ["vit"]
    encoders = json.loads(run_hilum("encoders", "--json").stdout)
    assert listed["simclr"] == [encoder["name"] for encoder in encoders]
    assert {"vit", "resnet"} <= set(listed["simclr"])
    assert "simclr" in run_hilum("methods").stdout


def test_indexing_reports_counts_that_add_up(run_hilum, dicom, tmp_path):
    rng = np.random.default_rng(0)
    for n in range(3):
        dicom(tmp_path / "archive" / f"{n}.dcm", rng.integers(0, 99, (8, 8)).astype(np.uint16))
    (tmp_path / "archive" / "ZZPHI.txt").write_text("hello")
    first = json.loads(run_hilum("site", "index", "archive", "--json").stdout)
    assert {k: first[k] for k in ("files", "instances", "series", "volumes", "patients", "skipped", "decoded", "split_series")} == {
        "files": 4, "instances": 3, "series": 3, "volumes": 0, "patients": 1, "skipped": {"not_dicom": 1}, "decoded": 3,
        "split_series": {},
    }  # fmt: skip
    second = json.loads(run_hilum("site", "index", "archive", "--json").stdout)
    assert second["decoded"] == 0
    status = json.loads(run_hilum("site", "status", "--json").stdout)
    assert status["files"] == 4
    assert "not a DICOM file" in run_hilum("site", "status").stdout


def test_a_folder_without_a_usable_image_is_counted_and_is_an_error(run_hilum, tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "note.txt").write_text("hello")
    done = run_hilum("site", "index", "archive", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["skipped"] == {"not_dicom": 1}
    assert "error: none of 1 files is a usable image" in done.stderr


def test_wrong_folders_are_refused(run_hilum, tmp_path, study_file):
    fails(run_hilum("site", "index", "nowhere"), "does not exist")
    (tmp_path / "empty").mkdir()
    fails(run_hilum("site", "index", "empty"), "is empty")
    fails(run_hilum("site", "status", "--home", tmp_path / "new"), "hilum site index")
    assert not (tmp_path / "new").exists()
    study = study_file()
    fails(
        run_hilum("simulate", study, "--archives", "nowhere", "--out", "run"),
        "archives folder does not exist",
    )
    fails(run_hilum("simulate", study, "--archives", "empty", "--out", "run"), "holds no site")
    fails(run_hilum("report", "empty"), "no finished run")
    assert not (tmp_path / "run").exists()


def test_a_site_file_without_a_link(run_hilum, tmp_path):
    (tmp_path / "site.toml").write_text('[site]\nname = "a"\n[data]\ndicom = "x"\n[state]\nfolder = "s"\n')
    fails(run_hilum("site", "start", "site.toml"), "`link` is missing")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["index", ".", "--every", "5"], "--every goes with --watch"),
        (["pull", "http://localhost/x", "--ca", "study.toml"], "https:// address"),
        (["pull", "http://localhost/x", "--client-cert", "study.toml"], "https:// address"),
        (
            ["pull", "http://pacs.example/x", "--insecure-http", "--client-key", "study.toml"],
            "https:// address",
        ),
        (
            ["pull", "https://pacs.example/x", "--insecure-http"],
            "--insecure-http goes with an http:// address",
        ),
        (["pull", "https://pacs.example/x", "--client-key", "study.toml"], "--client-cert"),
        (["receive", "--allow", "A@1.2.3.4", "--tls-cert", "study.toml"], "--tls-key"),
        (["receive", "--allow", "A@1.2.3.4", "--tls-ca", "study.toml"], "--tls-ca needs both"),
        (["describe", "--label", "finding"], "--labels and --label"),
        (["describe", "--labels", "study.toml"], "--labels and --label"),
    ],
)
def test_an_option_that_would_have_no_effect_is_a_usage_error(
    run_hilum, study_file, tmp_path, words, expected
):
    study_file()
    done = run_hilum("site", *words)
    fails(done, expected)
    assert done.returncode == 2
    assert not (tmp_path / "hilum-home").exists()
