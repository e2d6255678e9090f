"""
What the documentation, the docstrings and the messages name is there: files, commands and their
options.
"""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click

from stream_monitor.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
SOURCES = sorted(
    p
    for folder in ("stream_monitor", "tests", "scripts", "bench", "examples")
    for p in (ROOT / folder).rglob("*.py")
)
FILES = re.compile(
    r"(?<![\w/.{<-])((?:tests|docs|bench|scripts|examples|dashboards|topics|stream_monitor|events|windows|stats|detectors|monitors|alerts|metrics|runtime|stages|checks|join|offline|kafka|inputs)/[\w./*-]*\w)"
)
COMMAND = re.compile(
    r"(?<!--group )stream-monitor((?: +(?:--?[\w-]+|[a-z][a-z-]+|[^\s`|#;)\"]+))+)"
)
NOT_YET: set[str] = set()
"""Commands of the contract that messages name already; an entry goes with the command."""
FILES_NOT_YET: set[str] = set()
"""Named before they were written; an entry goes with the file."""
ENDINGS = (".py", ".md", ".yaml", ".yml", ".json", ".txt")
MADE = {"stream_monitor/topics"}
"""Made by the build of a wheel."""


def texts(path: Path) -> Iterator[str]:
    """Strings and comments of a module, or the whole of a page."""
    content = path.read_text()
    if path.suffix != ".py":
        yield content
        return
    yield from (
        n.value
        for n in ast.walk(ast.parse(content))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    )
    yield from re.findall(r"# .*", content)


def exists(name: str) -> bool:
    if name in MADE or "NAME" in name:
        return True
    return any(
        list(base.glob(name + end))
        for base in (ROOT, ROOT / "stream_monitor")
        for end in ("", ".py")
    )


def test_files_that_are_named_exist() -> None:
    missing = []
    for path in [*PAGES, *(p for p in SOURCES if p != Path(__file__))]:
        named = {
            name
            for text in texts(path)
            for name in FILES.findall(text)
            if path.suffix == ".md" or name.endswith(ENDINGS)
        }
        missing += [
            f"{path.relative_to(ROOT)}: {name}"
            for name in sorted(named - FILES_NOT_YET)
            if not exists(name)
        ]
    assert missing == []


def found_command(words: list[str]) -> tuple[click.Command | None, str]:
    """The command that these words call, and how far they were understood."""
    command: click.Command | None = cli
    context = click.Context(cli)
    known: list[str] = []
    for word in words:
        if not isinstance(command, click.Group) or not re.fullmatch("[a-z][a-z-]+", word):
            break
        inner = command.get_command(context, word)
        if inner is None:
            return None, " ".join([*known, word])
        command, known = inner, [*known, word]
    return command, " ".join(known)


def check_command(text: str) -> str | None:
    """What is wrong with `stream-monitor …`, if anything."""
    words = text.split()
    if words[0] in NOT_YET:
        return None
    command, known = found_command(words)
    if command is None:
        return f"there is no `{known}`"
    options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {
        "--help",
        "-h",
        "--version",
    }
    unknown = [w for w in re.findall(r"(?<=\s)--[\w-]+", " " + text) if w not in options]
    return f"`{known}` has no {', '.join(unknown)}" if unknown else None


def named_commands(path: Path) -> Iterator[str]:
    """
    In pages every `stream-monitor WORD`; in code what follows `Example:` or stands in backticks.
    """
    for text in texts(path):
        for found in COMMAND.finditer(text):
            before = text[text.rfind("\n", 0, found.start()) + 1 : found.start()].rstrip()
            if (path.suffix == ".md" or before.endswith(("Example:", "`"))) and re.match(
                "[a-z-]", found[1].strip()
            ):
                yield found[1].strip().rstrip(".,:")


def test_commands_that_are_named_exist() -> None:
    wrong = []
    for path in [*PAGES, *(p for p in SOURCES if p.is_relative_to(ROOT / "stream_monitor"))]:
        wrong += [
            f"{path.relative_to(ROOT)}: {fault}"
            for text in named_commands(path)
            if (fault := check_command(text)) is not None
        ]
    assert wrong == []
    assert sum(1 for _ in named_commands(ROOT / "README.md")) >= 2


def test_scripts_that_are_named_can_be_run() -> None:
    for path in PAGES:
        for name in set(re.findall(r"(?<![\w/])(?:scripts|\.ci)/\w+(?:\.py)?", path.read_text())):
            script = ROOT / name
            assert script.is_file(), f"{path.name}: {name}"
            assert script.suffix == ".py" or os.access(script, os.X_OK), f"{name} is not executable"


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")
    yield path, command


def test_every_command_has_help_with_an_example() -> None:
    for path, command in commands(cli, "stream-monitor"):
        assert command.help, path
        assert re.search(r"Examples?:\s+stream-monitor", command.help), (
            f"{path}: its help must have an `Example: {path} …`"
        )
        assert all(o.help for o in command.params if isinstance(o, click.Option)), path


def test_what_is_not_there_yet_is_known() -> None:
    assert set(cli.list_commands(click.Context(cli))) <= set(COMMANDS)


def test_nobody_is_told_to_install_the_distribution_of_somebody_else() -> None:
    """`stream-monitor` on the package index is another project; ours has a name of its own."""
    told = re.compile(
        r"(?:pip|uv|pipx)[^`\n]*\binstall\b[^`\n]*(?<![\w./-])stream[-_]monitor(?![\w/-])"
    )
    here = [
        *PAGES,
        *SOURCES,
        *(ROOT / name for name in ("Dockerfile", "pyproject.toml", ".ci/run")),
        *ROOT.glob("scripts/*"),
        *ROOT.glob(".github/**/*.y*ml"),
    ]
    files = {path for path in here if path.is_file() and path != Path(__file__)}
    assert [
        f"{path.relative_to(ROOT)}: {found}"
        for path in sorted(files)
        for found in told.findall(path.read_text())
    ] == []
    assert told.search("pip install 'stream-monitor[parquet]'")
    assert not told.search("pip install 'model-stream-monitor[parquet]'")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "model-stream-monitor"
    assert project["scripts"] == {"stream-monitor": "stream_monitor.cli:main"}
