"""The tests of what changed since main, for less than a minute: what `make check` runs after lint, types and contracts.

    python tests/support/changed_tests.py [SINCE]

A changed module selects the unit tests of its package, which lie in the folder that mirrors it, and each unit test file that
imports it; a changed test file selects itself; what tests share selects those that import it; texts select the tests of texts.
The nearest come first, up to a number of files, and what has not begun when the time is up is skipped and counted. The rest, slow
tests, integration tests and those on real images are left to `make test`.
"""

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILES = 24
BUDGET_S = 40.0  # for tests, of the 90 s of `make check`
_SECONDS = "HILUM_CHECK_SECONDS"
_PORTIONS = ("common", "client", "server", "simulations")
_FEW_FILES = 4  # starting a second worker takes longer than these


@dataclass(frozen=True)
class Selection:
    """What is run and what is not, as paths below the root.

    Attributes:
        run: Test files, the nearest to what changed first.
        left: Test files that have to do with what changed and are not for here.
        without: Changed files that no test here knows.
    """

    run: tuple[str, ...]
    left: tuple[str, ...]
    without: tuple[str, ...]


def select(changed: Iterable[str], root: Path) -> Selection:
    """Choose test files.

    Args:
        changed: Files that changed or are new, as paths below the root.
        root: Of the repository.
    """
    tests = sorted(path.relative_to(root).as_posix() for path in (root / "tests").rglob("test_*.py"))
    imported = {test: imports_of(root / test) for test in tests}
    near: dict[str, int] = {}
    without = []
    for file in sorted(changed):
        found = dict(_tests_of(file, tests, imported))
        for test, distance in found.items():
            near[test] = min(distance, near.get(test, distance))
        if not found and file.endswith(".py"):
            without.append(file)
    chosen = sorted(near, key=lambda test: (near[test], test))
    quick = [test for test in chosen if test.startswith(("tests/unit/", "tests/docs/"))]
    here = tuple(quick[:MAX_FILES])
    return Selection(here, tuple(test for test in chosen if test not in here), tuple(without))


def _tests_of(file: str, tests: list[str], imported: dict[str, set[str]]) -> Iterator[tuple[str, int]]:
    """Give test files and how far they are: 0 is the file itself, 4 are texts and the site."""
    path = Path(file)
    name = module_of(file)
    for test in tests:
        if test == file:
            yield test, 0
        elif path.name == "conftest.py" and Path(test).is_relative_to(path.parent):
            yield test, 1
        elif name and name in imported[test]:
            yield test, 1 if Path(test).stem == f"test_{path.stem}" else 3
        elif name and path.parts[0] in _PORTIONS and Path(test).parent == _mirror(path):
            yield test, 2
    texts = path.suffix == ".md" or path.parts[0] in ("docs", "examples") or file == "mkdocs.yml"
    if texts or "commands" in path.parts or path.name == "cli.py":
        yield "tests/docs/test_docs.py", 4
    if texts:
        yield "tests/docs/test_site.py", 4
    if len(path.parts) == 1 or path.parts[0].startswith("."):
        yield "tests/unit/common/test_packaging.py", 1


def module_of(file: str) -> str | None:
    """Return the dotted name under which a file is imported; None for what is not imported."""
    path = Path(file)
    if path.suffix != ".py":
        return None
    if path.parts[0] in _PORTIONS:
        parts = path.with_suffix("").parts[1:]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return path.stem if file.startswith("tests/support/") else None


def _mirror(path: Path) -> Path:
    """Return the folder of the unit tests of a module's package: client/hilum/client/views -> tests/unit/client/views."""
    return Path("tests/unit", *path.parent.parts[2:])


def imports_of(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in it, and what it takes of them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def changed_files(root: Path, since: Iterable[str] = ("main", "origin/main")) -> list[str]:
    """Return what differs from where this branch left another, committed or not, and what git does not know yet.

    Args:
        root: Of the repository.
        since: Names of the other branch, the first that exists; where none does, what is not committed.
    """

    def git(*words: str) -> list[str]:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.split("\0") if done.returncode == 0 else []

    bases = [git("merge-base", "HEAD", name) for name in since]
    base = next((found[0].strip() for found in bases if found), "HEAD")
    names = git("diff", "-z", "--name-only", base) + git("ls-files", "-z", "--others", "--exclude-standard")
    return sorted({name for name in names if name})


class Clock:
    """Skips what has not begun when the time is up, counted from the first test on."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._until = seconds, 0.0

    def pytest_collection_finish(self) -> None:
        """Start."""
        self._until = time.monotonic() + self._seconds

    def pytest_runtest_setup(self) -> None:
        """Look."""
        if time.monotonic() > self._until:
            pytest.skip("the time of `make check` is up: left to `make test`")


def pytest_configure(config: pytest.Config) -> None:
    """Take part in the run that `main` starts."""
    if _SECONDS in os.environ:
        config.pluginmanager.register(Clock(float(os.environ[_SECONDS])))


def main(*since: str) -> int:
    """Choose, say what is run and what is not, and run it."""
    selected = select(changed_files(ROOT, *([since] if since else [])), ROOT)
    for title, files in (
        ("run", selected.run),
        ("left to `make test`", selected.left),
        ("changed, and known to no test by name", selected.without),
    ):
        if files:
            print(f"{title}:", *files, sep="\n  ", flush=True)
    if not selected.run:
        print("nothing that changed has tests that are quick; `make test` runs all")
        return 0
    workers = "2" if len(selected.run) > _FEW_FILES else "0"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))
        ),
        _SECONDS: str(BUDGET_S),
    }
    pytest_options = ("-q", "-p", "changed_tests", "-m", "not slow", "-n", workers, "--dist", "loadfile")
    command = [sys.executable, "-m", "pytest", *pytest_options, *selected.run]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    return 0 if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED else done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
