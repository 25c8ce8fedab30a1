"""Every exception class of Hilum stands in the tree drawn on top of `errors.py`, at its place."""

import ast
import builtins
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from hilum.common import errors
from hilum.common.errors import HilumError

ROOT = Path(__file__).resolve().parents[3]
PORTIONS = ("common", "client", "server", "simulations")
FILES = {
    path.relative_to(ROOT / portion / "hilum").as_posix(): ast.parse(path.read_text("utf-8"))
    for portion in PORTIONS
    for path in sorted((ROOT / portion / "hilum").rglob("*.py"))
}
BUILT_IN = {
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
}
DRAWN = re.compile(r"^    ([ │├└─]*)(\w+) +(\d+)  (\S+\.py)", re.MULTILINE)
LISTED = re.compile(r"^    (\w+) +(\S+\.py)", re.MULTILINE)

Place = tuple[str, str]
"""File and name of a class."""


def _module(file: str) -> str:
    return "hilum." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _class(place: Place) -> type[BaseException]:
    return getattr(import_module(_module(place[0])), place[1])


def _bases(node: ast.ClassDef) -> set[str]:
    return {base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in node.bases}


def _defined() -> set[Place]:
    classes = [
        (file, node)
        for file, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    names = set(BUILT_IN)
    while True:
        found = {(file, node.name) for file, node in classes if _bases(node) & names}
        if {name for _file, name in found} <= names:
            return found
        names |= {name for _file, name in found}


def _drawn() -> Iterator[tuple[Place, Place | None, int]]:
    """Give each class of the tree, the one that it hangs from, and its exit code."""
    above: list[Place] = []
    for branch, name, code, file in DRAWN.findall(errors.__doc__):
        del above[len(branch) // 4 :]
        yield (file, name), above[-1] if above else None, int(code)
        above.append((file, name))


def _outside() -> set[Place]:
    return {(file, name) for name, file in LISTED.findall(errors.__doc__)}


def test_every_exception_class_stands_in_the_tree_or_beside_it():
    drawn = [place for place, _above, _code in _drawn()]
    assert sorted(_defined()) == sorted([*drawn, *_outside()])


def test_the_tree_is_drawn_as_the_classes_are_derived():
    for place, above, code in _drawn():
        assert _class(place).__bases__ == ((Exception,) if above is None else (_class(above),)), place
        assert _class(place).exit_code == code, place


def test_what_stands_beside_the_tree_is_no_error_that_a_command_ends_with():
    assert not [place for place in _outside() if issubclass(_class(place), HilumError)]


@pytest.mark.parametrize(("file", "name"), sorted(place for place in _outside() if place[1] != "Interrupted"))
def test_what_stands_beside_the_tree_is_held_by_its_own_package_alone(file: str, name: str):
    package = file.rpartition("/")[0]
    for other, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == _module(file):
                taken = any(alias.name == name for alias in node.names)
                assert not taken or (other.startswith(f"{package}/") and not name.startswith("_")), other
