import itertools
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

import hilum.client
import hilum.common
import hilum.server
import hilum.simulations
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_hilum_is_a_namespace_that_four_folders_share():
    for portion in ("common", "client", "server", "simulations"):
        assert not (ROOT / portion / "hilum" / "__init__.py").exists()
        assert (ROOT / portion / "hilum" / portion / "py.typed").exists()
    assert (
        len(
            {
                Path(p.__file__).parents[2]
                for p in (hilum.common, hilum.client, hilum.server, hilum.simulations)
            }
        )
        == 4
    )


def read_yaml(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_the_citation_is_that_of_the_project():
    citation = read_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "type", "abstract"} <= set(citation)
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"] == [{"name": "Hilum contributors"}]
    assert citation["keywords"] == PROJECT["keywords"]
    assert citation["url"] == PROJECT["urls"]["Homepage"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]


def test_ci_runs_make_test_on_every_python_that_the_project_names():
    workflow = read_yaml(".github/workflows/test.yml")
    [job] = workflow["jobs"].values()
    of_ci = job["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: "
    named = [c.removeprefix(prefix) for c in PROJECT["classifiers"] if c.startswith(f"{prefix}3.")]
    assert of_ci == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test PYTHON=python"]
    assert workflow[True]["push"] == {"branches": ["main"]}  # `on` is a truth value in YAML 1.1
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_tools_are_pinned_in_one_place():
    hooks = [hook for repo in read_yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "mypy"}
    assert all(hook["entry"].startswith(".venv/bin/") and hook["language"] == "system" for hook in hooks)
    pins = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    names = [re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins]
    assert len(names) == len(set(names))
    needed = [*PROJECT["dependencies"], *itertools.chain(*PROJECT["optional-dependencies"].values())]
    assert {re.split(r"[\[<>=]", one)[0].lower() for one in needed} - {"hilum"} <= set(names)
    for file in ("Makefile", "docker/Dockerfile", ".github/workflows/test.yml"):
        assert "==" not in (ROOT / file).read_text(), file


def test_every_address_of_the_project_is_one_of_pyprojects():
    repository = PROJECT["urls"]["Repository"]
    assert all(url.startswith(repository) for url in PROJECT["urls"].values())
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    texts = [ROOT / name for name in files.stdout.split() if name.endswith((".md", ".toml", ".cff", ".yml"))]
    assert texts or not (ROOT / ".git").exists()
    for text in texts:
        for found in re.findall(r"https://github\.com/hilum[\w./-]*", text.read_text()):
            assert found.rstrip(".") == repository or found.startswith(f"{repository}/"), text


def test_forms_ask_and_name_where_weaknesses_go():
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    chooser = read_yaml(".github/ISSUE_TEMPLATE/config.yml")
    assert chooser["blank_issues_enabled"] is False
    private = f"{PROJECT['urls']['Repository']}/security/advisories/new"
    assert [link["url"] for link in chooser["contact_links"]] == [private]
    assert private in (ROOT / "SECURITY.md").read_text()
    for form in sorted(folder.glob("*.yml")):
        if form.name == "config.yml":
            continue
        asked = yaml.safe_load(form.read_text())
        assert {"name", "description", "body"} <= set(asked)
        for field in asked["body"]:
            assert field["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
            assert field["type"] == "markdown" or field["attributes"]["label"]
        assert any(field.get("validations", {}).get("required") for field in asked["body"])
    assert "make test" in (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text()
