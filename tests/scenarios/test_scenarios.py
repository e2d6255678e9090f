"""
The scenarios: `*.txt` beside this file, in the language of `story`.

`pytest tests/scenarios --rewrite` writes what is said now into the files. Read the difference: it
is what a user would see. A file that begins with `# xfail: REASON` says what should be said, and is
not.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests.scenarios.story import Story

FILES = sorted(Path(__file__).parent.glob("*.txt"))
RULE = "----"
Block = tuple[list[str], list[str], list[str]]


def blocks(text: str) -> list[Block]:
    """(comments, commands, expected lines) of each block; an empty line ends one."""
    out = []
    for filled, group in groupby(text.splitlines(), key=bool):
        if filled:
            lines = list(group)
            comments = [line for line in lines if line.startswith("#")]
            rest = [line for line in lines if not line.startswith("#")]
            at = rest.index(RULE) if RULE in rest else len(rest)
            out.append((comments, rest[:at], rest[at + 1 :]))
    return out


def written(told: list[Block]) -> str:
    return (
        "\n\n".join(
            "\n".join([*comments, *([*commands, RULE] if commands else []), *said])
            for comments, commands, said in told
        )
        + "\n"
    )


def check_episodes(story: Story) -> None:
    """Whatever the story: transitions have ids of their own, and firing and resolved alternate."""
    assert len({a["id"] for a in story.said}) == len(story.said)
    for _, group in groupby(
        sorted(story.said, key=lambda a: a["fingerprint"]), key=lambda a: a["fingerprint"]
    ):
        steps = [a["status"] for a in group if a["status"] != "updated"]
        assert steps == (["firing", "resolved"] * len(steps))[: len(steps)]


def case(file: Path) -> ParameterSet:
    """A file, and whether it is known to be a bug."""
    found = re.match("# xfail: (.*)", file.read_text())
    return pytest.param(
        file, id=file.stem, marks=[pytest.mark.xfail(reason=found[1], strict=True)] if found else []
    )


@pytest.mark.parametrize("file", [case(file) for file in FILES])
def test_scenario(file: Path, request: pytest.FixtureRequest) -> None:
    story, expected = Story(), blocks(file.read_text())
    told = [(comments, commands, story.run(commands)) for comments, commands, _ in expected]
    check_episodes(story)
    if request.config.getoption("--rewrite") and "# xfail" not in file.read_text():
        file.write_text(written(told))
        return
    for (_, commands, said), (_, _, wanted) in zip(told, expected, strict=True):
        assert said == wanted, f"{file.name}: after `{commands[0]}` …"


def test_files_are_written_as_they_are_read() -> None:
    assert FILES
    for file in FILES:
        assert written(blocks(file.read_text())) == file.read_text(), (
            f"{file.name}: run `pytest tests/scenarios --rewrite`"
        )


def test_restarts_do_not_show() -> None:
    found = blocks((Path(__file__).parent / "restart.txt").read_text())
    without = Story()
    for _, commands, said in found:
        assert without.run([c for c in commands if c != "restart"]) == said
    assert sum(commands.count("restart") for _, commands, _ in found) >= 3
