import os
import subprocess
import sys

import pytest

import changed_tests
from changed_tests import changed_files, imports_of, module_of, select
from places import ROOT, SUPPORT


@pytest.fixture
def tree(tmp_path):
    """A repository of one package with a module, its tests, and others that import it."""
    texts = {
        "client/hilum/client/views/batch.py": "",
        "client/hilum/client/views/ct.py": "",
        "tests/unit/client/views/test_batch.py": "from hilum.client.views.batch import Viewer",
        "tests/unit/client/views/test_views.py": "import hilum.client.views",
        "tests/unit/client/data/test_data.py": "def test():\n    from hilum.client.views import batch",
        "tests/unit/client/data/test_other.py": "import numpy",
        "tests/integration/test_run.py": "import hilum.client.views.batch",
        "tests/support/studies.py": "",
        "tests/unit/common/test_study.py": "from studies import study_table",
        "tests/unit/common/test_packaging.py": "",
        "tests/docs/test_docs.py": "",
        "tests/docs/test_site.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_module_selects_its_own_test_then_its_packages_then_those_that_import_it(tree):
    found = select(["client/hilum/client/views/batch.py"], tree)
    assert found.run == (
        "tests/unit/client/views/test_batch.py",
        "tests/unit/client/views/test_views.py",
        "tests/unit/client/data/test_data.py",
    )
    assert found.left == ("tests/integration/test_run.py",)
    assert found.without == ()


def test_a_test_selects_itself_and_what_tests_share_those_that_use_it(tree):
    assert select(["tests/unit/client/data/test_other.py"], tree).run == (
        "tests/unit/client/data/test_other.py",
    )
    assert select(["tests/support/studies.py"], tree).run == ("tests/unit/common/test_study.py",)
    assert select(["tests/unit/client/conftest.py"], tree).run == (
        "tests/unit/client/data/test_data.py",
        "tests/unit/client/data/test_other.py",
        "tests/unit/client/views/test_batch.py",
        "tests/unit/client/views/test_views.py",
    )


def test_texts_select_the_tests_of_texts_and_files_of_the_project_its_own(tree):
    assert select(["docs/log.md"], tree).run == ("tests/docs/test_docs.py", "tests/docs/test_site.py")
    assert select(["pyproject.toml"], tree).run == ("tests/unit/common/test_packaging.py",)
    assert select(["client/hilum/client/commands/index.py"], tree).run == ("tests/docs/test_docs.py",)


def test_so_many_files_are_run_the_nearest_first_and_the_rest_is_named(tree, monkeypatch):
    monkeypatch.setattr(changed_tests, "MAX_FILES", 1)
    found = select(["client/hilum/client/views/batch.py"], tree)
    assert found.run == ("tests/unit/client/views/test_batch.py",)
    assert len(found.left) == 3


def test_what_no_test_knows_is_named_and_what_is_gone_selects_its_packages_tests(tree):
    assert select(["benchmarks/index.py"], tree).without == ("benchmarks/index.py",)
    assert "tests/unit/client/views/test_views.py" in select(["client/hilum/client/views/gone.py"], tree).run


def test_modules_are_named_as_they_are_imported():
    assert module_of("common/hilum/common/methods/__init__.py") == "hilum.common.methods"
    assert module_of("server/hilum/server/sites.py") == "hilum.server.sites"
    assert module_of("tests/support/places.py") == "places"
    assert module_of("README.md") is None
    assert "hilum.common.config" in imports_of(ROOT / "tests" / "conftest.py")


def test_changes_are_those_since_main_with_what_is_not_committed(tree):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        subprocess.run(["git", *identity, *words], cwd=tree, check=True, capture_output=True)

    git("init", "--initial-branch", "main")
    git("add", ".")
    git("commit", "-m", "One")
    assert changed_files(tree) == []
    git("checkout", "-b", "work")
    (tree / "client/hilum/client/views/ct.py").write_text("A = 1")
    git("commit", "-am", "Two")
    (tree / "tests/support/studies.py").write_text("B = 1")
    (tree / "new name.py").write_text("")
    assert changed_files(tree) == [
        "client/hilum/client/views/ct.py",
        "new name.py",
        "tests/support/studies.py",
    ]


def test_what_has_not_begun_when_the_time_is_up_is_skipped_and_named(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_it():\n    assert False")
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "HILUM_CHECK_SECONDS": "-1"}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-n", "0", "-p", "changed_tests", "test_one.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "left to `make test`" in done.stdout
