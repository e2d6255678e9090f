"""
No test waits for a length of time and then states what must have happened, and async tests are
`async def` (tests/README.md).

Rule of the file: tests on a real Kafka, whose time is the machine's, are not looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MODULES = [
    path
    for path in sorted(TESTS.rglob("test_*.py"))
    if path.relative_to(TESTS).parts[0] not in ("kafka", "simulation")
]
VIRTUAL = "pytest.mark.virtual_time"
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[tuple[Function, bool]]:
    """Test functions, and whether time is virtual in them."""
    tree = ast.parse(source)
    everywhere = any(
        isinstance(each, ast.Assign) and ast.unparse(each) == f"pytestmark = {VIRTUAL}"
        for each in tree.body
    )
    for each in tree.body:
        if isinstance(each, Function) and each.name.startswith("test_"):
            yield each, everywhere or VIRTUAL in map(ast.unparse, each.decorator_list)


def waits(node: ast.AST) -> Iterator[str]:
    """Sleeps for some time; one in a loop is asked again and again whether it was enough."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and ast.unparse(child.func) in (
            "asyncio.sleep",
            "time.sleep",
        ):
            if ast.unparse(child.args[0]) != "0":
                yield ast.unparse(child)
        elif not isinstance(child, ast.While):
            yield from waits(child)


def loops(test: Function) -> Iterator[str]:
    """Event loops that are made for a function of the test."""
    own = {each.name for each in ast.walk(test) if isinstance(each, ast.AsyncFunctionDef)}
    for each in ast.walk(test):
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "asyncio.run":
            work = each.args[0]
            if isinstance(work, ast.Call) and ast.unparse(work.func) in own:
                yield ast.unparse(each)


def faults(source: str) -> list[str]:
    return [
        f"{test.name}: {fault}"
        for test, virtual in functions(source)
        for fault in (*(() if virtual else waits(test)), *loops(test))
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_test_waits_for_something_and_not_for_a_length_of_time(path):
    assert faults(path.read_text()) == []


def test_what_is_not_allowed_is_found():
    real = "async def test_a():\n    await asyncio.sleep(0.1)\n    assert x == 1\n"
    assert faults(real) == ["test_a: asyncio.sleep(0.1)"]
    assert faults(f"@{VIRTUAL}\n{real}") == faults(f"pytestmark = {VIRTUAL}\n{real}") == []
    assert faults("async def test_a():\n    while not x:\n        await asyncio.sleep(0.1)\n") == []
    assert faults("async def test_a():\n    await asyncio.sleep(0)\n") == []
    run = "def test_a():\n    async def body():\n        pass\n    asyncio.run(body())\n"
    assert faults(run) == ["test_a: asyncio.run(body())"]
