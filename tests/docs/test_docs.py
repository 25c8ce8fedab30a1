"""The texts are true: commands exist, `bash` blocks run, links lead somewhere, tables are complete."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from commands_table import table
from hilum.common.config import load_study
from hilum.common.results_table import Comparison, Row
from hilum.common.verdict import Against, Verdict
from hilum.server.federation.results import build_results
from hilum.server.federation.roster import Roster
from hilum.server.federation.store import RoundRecord, RunState
from places import ROOT
from reference_tables import TABLES, in_page

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


@pytest.mark.parametrize("page", [p for p in PAGES if "```bash" in p.read_text()], ids=lambda p: p.name)
def test_bash_blocks_run_as_they_stand(page, tmp_path):
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "HILUM_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            ["bash", "-ec", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_every_command_in_the_texts_exists_with_its_options(commands):
    for page in PAGES:
        for line in re.findall(
            r"(?:^|`| )(hilum (?:site|admin|study) [a-z-]+[^`#\n]*|hilum (?:simulate|phantom|report) [^`#\n]*)",
            page.read_text(),
            flags=re.MULTILINE,
        ):
            words = line.split()
            name = " ".join(words[:3]) if words[1] in ("site", "admin", "study") else " ".join(words[:2])
            assert name in commands, f"{page.name}: {line}"
            options = {option for parameter in commands[name].params for option in parameter.opts}
            for word in words:
                if word.startswith("--") and word.strip("-"):
                    assert word in options, f"{page.name}: {line}"


def test_the_reference_has_the_table_that_the_command_line_gives():
    text = (ROOT / "docs" / "reference" / "commands.md").read_text()
    assert table() in text, "put in what `python tests/support/commands_table.py` prints"


@pytest.mark.parametrize(("path", "head"), TABLES, ids=lambda one: getattr(one, "stem", ""))
def test_the_reference_has_the_tables_that_the_code_gives(path, head):
    page = path.read_text()
    assert f"\n{head}\n" in page
    assert in_page(page, head, TABLES[path, head]()) == page, "run `python tests/support/reference_tables.py`"


def test_every_field_of_the_results_is_in_the_reference(make_study):
    text = (ROOT / "docs" / "reference" / "results.md").read_text()
    results = build_results(make_study(), RunState(np.zeros(1), ()), Roster(("a",)), [], [])
    of_classes = (
        field.name for kind in (Row, Comparison, Verdict, Against, RoundRecord) for field in fields(kind)
    )
    keys = {*results, *results["sites"][0], *results["privacy"]["a"], *of_classes}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_each_of_the_twelve_jobs_takes_three_edits_at_most():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [
        line.strip("|").split(" | ") for line in text.split("## Twelve jobs")[1].splitlines() if "`" in line
    ]
    assert len(rows) == 12
    for job, first, edits in rows:
        assert "`" in first, job
        assert len(edits.split(";")) <= 3, job
        for place in re.findall(r"`([a-z]+/[^`]*)`", first + edits):
            known = place.replace("NAME.py", "") if "NAME" in place else place
            assert (ROOT / known).exists() or place == "console/", f"{job}: {place}"


@pytest.mark.parametrize("study", sorted((ROOT / "examples").glob("*.toml")), ids=lambda p: p.name)
def test_every_example_is_a_valid_study(study):
    load_study(study)


def test_every_reason_for_which_the_server_leaves_something_out_is_in_the_page_of_results():
    page = (ROOT / "docs" / "reference" / "results.md").read_text()
    sources = [
        path.read_text() for portion in ("common", "server") for path in (ROOT / portion).rglob("*.py")
    ]
    codes = {code for text in sources for code in re.findall(r'UpdateRefused\(\s*"([a-z_]+)"', text)}
    assert len(codes) > 10
    assert sorted(code for code in codes if f"`{code}`" not in page) == []
