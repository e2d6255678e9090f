"""
The table of docs/faults.md is current: every test that it names is there, and every fault names
one.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faults.md").read_text("utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROW = re.compile(r"^\| (\d+) \|(.*)\|(.*)\|(.*)\|$", re.MULTILINE)


@cache
def names_in(path: str) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    file = ROOT / path
    tree = ast.parse(file.read_text("utf-8")) if file.is_file() else ast.Module([], [])
    return {
        n.name: n
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name.startswith("test_")
    }


def test_every_test_that_is_named_is_there() -> None:
    named = NAMED.findall(PAGE)
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []
    assert len(set(named)) >= 40
    assert PAGE.count("::test_") == len(named), "a name that is not `FILE::TEST`"


def test_every_fault_says_what_is_expected_and_names_a_test() -> None:
    rows = ROW.findall(PAGE)
    assert [int(number) for number, *_ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 33
    assert [
        number
        for number, fault, expected, held in rows
        if not fault.strip() or not expected.strip() or not NAMED.search(held)
    ] == []
