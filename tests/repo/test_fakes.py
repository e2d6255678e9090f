"""The table of fakes in tests/README.md is whole, and their names say what they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = re.findall(
    r"^\| `(\w+)` in `([\w/.]+)` \|((?:[^|\n]*\|){4})$",
    (ROOT / "tests" / "README.md").read_text(),
    re.MULTILINE,
)
SIMULATION = ("tests/simulation/broker.py", "tests/simulation/clients.py", "tests/clock.py")
"""Every class of behaviour in them stands for something."""
PARTS = {"Transaction", "Entry", "Batch", "Coordinated", "Member", "Written", "Clock", "OwnClock"}
"""What the fakes of these modules are made of."""


def classes(path: Path) -> set[str]:
    """Classes of a module that may be used by several tests."""
    found = {each for each in ast.parse(path.read_text()).body if isinstance(each, ast.ClassDef)}
    return {each.name for each in found if not each.name.endswith("Error")}


TESTS = {
    str(path.relative_to(ROOT)): classes(path) for path in sorted((ROOT / "tests").rglob("*.py"))
}


def test_every_fake_is_in_the_table_and_is_there():
    fakes = {
        (name, path)
        for path, names in TESTS.items()
        for name in names
        if name.startswith("Fake") or (path in SIMULATION and name not in PARTS)
    }
    listed = [(name, path) for name, path, _ in TABLE]
    assert len(set(listed)) == len(listed)
    assert fakes <= set(listed)
    assert all(name in classes(ROOT / path) for name, path in listed)
    assert fakes, "the scan finds them"


def test_every_fake_says_what_it_stands_for_and_who_uses_it():
    for name, path, rest in TABLE:
        stands_for, can, _, users, _ = (cell.strip() for cell in rest.split("|"))
        assert stands_for, name
        assert can, name
        for user in re.findall(r"`(test_\w+\.py)`", users):
            modules = list((ROOT / "tests").rglob(user))
            imported = path.removesuffix(".py").replace("/", ".")
            assert any(
                str(module.relative_to(ROOT)) == path or imported in module.read_text()
                for module in modules
            ), f"{user} does not use {name} of {path}"


def test_what_has_the_name_of_a_part_of_the_product_is_called_a_fake():
    ours = {
        each.name
        for path in (ROOT / "stream_monitor").rglob("*.py")
        for each in ast.parse(path.read_text()).body
        if isinstance(each, ast.ClassDef)
    }
    same = {
        f"{path}: {name}"
        for path, names in TESTS.items()
        if path.startswith(("tests/runtime/", "tests/unit/"))
        for name in names & ours
    }
    assert same == set()
