"""Each page on how to add something is carried out on a copy of the sources, and what it adds is used."""

import csv
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pages_as_changes import PORTIONS, apply_to_copy, changed, read_page
from places import ROOT

PAGES = sorted((ROOT / "docs" / "how-to" / "extend").glob("add-*.md"))
MAX_CHANGED_FILES = 3


@pytest.fixture(scope="module")
def labelled(archives, tmp_path_factory):
    """The phantoms, with a number in a column of each label table."""
    folder = tmp_path_factory.mktemp("labelled") / "archives"
    shutil.copytree(archives, folder)
    for path in folder.glob("*/labels.csv"):
        rows = list(csv.DictReader(path.open(newline="")))
        for number, row in enumerate(rows):
            row["grade"] = str(7 * int(row["label"] == rows[0]["label"]) + number % 5)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_what_a_page_adds_works_and_needs_few_changes(path, labelled, tmp_path):
    page = read_page(path)
    assert page.commands
    assert len(page.changes) <= MAX_CHANGED_FILES
    sources = apply_to_copy(page, tmp_path)
    (tmp_path / "archives").symlink_to(labelled)
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for words, printed in page.commands:
        done = _run(sources, tmp_path, words)
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
        for line in printed:
            assert line in done.stdout, f"{shlex.join(words)} prints:\n{done.stdout}"


def _run(sources: Path, folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(sources / portion) for portion in PORTIONS),
        "HILUM_HOME": str(folder / "home"),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    programs = {
        "hilum": ["-c", "from hilum.common.cli import main; main()"],
        "pytest": ["-m", "pytest", "-q"],
    }
    command = [sys.executable, *programs[words[0]], *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)


def test_a_change_that_does_not_fit_is_told():
    assert changed("a\nb\nc\n", " a\n+x\n@@\n-c\n", "f") == "a\nx\nb\n"
    with pytest.raises(AssertionError, match="f has this 0 times"):
        changed("a\n", " b\n+x\n", "f")
    with pytest.raises(AssertionError, match="f has this 2 times"):
        changed("a\na\n", " a\n+x\n", "f")
