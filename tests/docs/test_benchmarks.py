"""Benchmarks run by hand, some beside packages that are not installed here: what they take of Hilum must be there all the same."""

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


def taken(path):
    """Return what a file takes of Hilum's modules, as (module, name)."""
    return [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hilum.")
        for alias in node.names
    ]


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_takes_of_hilum_is_there(path):
    missing = [
        f"{module}.{name}"
        for module, name in taken(path)
        if not hasattr(importlib.import_module(module), name) and find_spec(f"{module}.{name}") is None
    ]
    assert missing == []


def test_most_benchmarks_take_something():
    assert sum(bool(taken(path)) for path in BENCHMARKS) > 8
