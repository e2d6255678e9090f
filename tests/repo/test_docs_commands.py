"""What README.md and docs/ tell people to type or to write is accepted by the program."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from stream_monitor.cli import cli
from stream_monitor.config import parse
from stream_monitor.config.json_schema import json_schema
from stream_monitor.events.cells import Texts
from stream_monitor.events.parse import PARSERS
from stream_monitor.exports.configuration_page import page
from stream_monitor.schema import topics

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("**/README.md")),
]
SCREENS = [page for page in PAGES if page.exists()]
COMMENT = re.compile(r"(^|\s)#.*$")
AWAITED: set[str] = set()
RECORD_MS = 1_760_000_000_000


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


def command_lines(path: Path) -> Iterator[str]:
    """
    Lines of code blocks (fenced or indented) that call the program, and calls within backticks of
    the text.
    """
    text = path.read_text("utf-8")
    lines = [
        line
        for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    lines += [line[4:] for line in text.splitlines() if line.startswith("    ")]
    for line in [
        *lines,
        *(f"{call} --help" for call in re.findall(r"`(stream-monitor [^`]+)`", text)),
    ]:  # in a sentence arguments may be left out
        plain = (
            COMMENT.sub("", line.strip().removeprefix("$ "))
            .partition(" | ")[0]
            .partition(" > ")[0]
            .strip()
        )
        if plain.startswith("stream-monitor ") and "…" not in plain:
            yield plain


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


COMMANDS = [
    pytest.param(line, id=f"{shown(p)}: {line}")
    for p in SCREENS
    for line in dict.fromkeys(command_lines(p))
]
CONFIGURATIONS = [
    pytest.param(text, id=f"{shown(p)} {i}")
    for p in SCREENS
    for i, text in enumerate(blocks(p, "yaml"))
]
EVENTS = [
    pytest.param(line, id=f"{shown(p)}: {line[:60]}")
    for p in SCREENS
    for text in blocks(p, "json")
    for line in text.splitlines()
    if line.startswith("{") and '"event_id"' in line
]
ALERTS = [
    pytest.param(text, id=shown(p))
    for p in SCREENS
    for text in blocks(p, "json")
    if '"annotations"' in text
]
FILES = [
    pytest.param(p.read_text("utf-8"), id=shown(p))
    for p in sorted(ROOT.glob("examples/**/monitor.yaml"))
]


def test_there_is_something_to_test():
    assert len(COMMANDS) > 20
    assert len(CONFIGURATIONS) > 3
    assert len(EVENTS) > 3
    assert len(ALERTS) > 1
    assert len(FILES) > 1


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_docs_is_understood(line):
    words = shlex.split(line)[1:]
    group: click.Command = cli
    context = click.Context(cli, info_name="stream-monitor", resilient_parsing=False)
    while words and isinstance(group, click.Group) and not words[0].startswith("-"):
        name, command, words = group.resolve_command(context, words)
        assert command is not None
        group, context = command, click.Context(command, parent=context, info_name=name)
    if words[-1:] == ["--help"]:
        with pytest.raises(click.exceptions.Exit):
            group.parse_args(context, words)
        return
    group.parse_args(context, words)


def test_a_command_that_does_not_exist_is_found_out():
    for line in (
        "stream-monitor wrker",
        "stream-monitor replay --predicitons x.csv",
        "stream-monitor config chek",
    ):
        with pytest.raises(click.UsageError):
            test_a_command_of_the_docs_is_understood(line)


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/**/monitor.yaml")), ids=shown)
def test_config_check_has_nothing_to_say_of_an_example(path):
    result = CliRunner().invoke(cli, ["config", "check", str(path)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("good: ")


@pytest.mark.parametrize("text", [*CONFIGURATIONS, *FILES])
def test_a_configuration_of_the_docs_is_right_and_fits_the_schema(text):
    from jsonschema import Draft202012Validator
    from ruamel.yaml import YAML

    parse(text)
    assert [
        error.message
        for error in Draft202012Validator(json_schema()).iter_errors(
            YAML(typ="safe", pure=True).load(text)
        )
    ] == []


@pytest.mark.parametrize("line", EVENTS)
def test_an_event_of_the_docs_is_accepted(line):
    kind = "labels" if "label" in json.loads(line) else "predictions"
    assert PARSERS[kind](line.encode(), RECORD_MS, Texts(), 1 << 20).event_id


def test_the_page_of_the_configuration_is_up_to_date():
    assert (ROOT / "docs" / "configuration.md").read_text("utf-8") == page(), (
        "run: python -m stream_monitor.exports.configuration_page > docs/configuration.md"
    )


@pytest.mark.parametrize("event", ALERTS)
def test_an_alert_of_the_docs_fits_its_schema(event):
    from jsonschema import Draft202012Validator

    assert [
        error.message
        for error in Draft202012Validator(topics()["alerts"].schema).iter_errors(json.loads(event))
    ] == []


def test_links_between_pages_lead_somewhere():
    """To files and to headings; pages that are still to be written are in `AWAITED`."""
    missing = []
    for path in SCREENS:
        text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name) if name else path
            if shown(file.resolve()) in AWAITED and not file.exists():
                continue
            if not file.exists() or (
                anchor and file.suffix == ".md" and anchor not in anchors(file)
            ):
                missing.append(f"{shown(path)}: {target}")
    assert missing == []


def anchors(path: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class TestSchema:
    @pytest.mark.parametrize(
        "content",
        [
            {"kafak": {}},
            {"defaults": {"windws": ["1h"]}},
            {"models": {"fraud": {"thresholds": {"accuracy": {"mn": 1}}}}},
            {"models": {"fraud": {"thresholds": {"acuracy": 0.9}}}},
            {"defaults": {"drift": {"errors": {"adwin": {"detla": 1}}}}},
            {"defaults": {"features": {"age": {"typ": "numeric"}}}},
            {"worker": {"metrics": {"port": 99_999}}},
            {"worker": {"flush_interval": "50 ms"}},
            {"kafka": {"security": {"password": "hush"}}},
            {"worker": {"metrics": {"token": "hush"}}},
            {"defaults": {"metrics": {"custom": {"x": {"field": "score"}}}}},
        ],
    )
    def test_refuses_what_the_checker_refuses(self, content):
        from jsonschema import Draft202012Validator

        assert list(Draft202012Validator(json_schema()).iter_errors(content))
        with pytest.raises(Exception, match=r"monitor\.yaml"):
            parse(json.dumps(content))

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "kafka:\ndefaults:\nmodels: {fraud: }",
            (
                "defaults: {thresholds: {accuracy: 0.9, mae: off}, drift: {errors: off, features: "
                "{kswin: , adwin: {delta: 0.01}}, thresholds: {psi: off}}}"
            ),
            (
                "defaults: {freshness: {predictions: off, labels: 1h}, quality: {missing_ratio: "
                "off}, positive_class: true}"
            ),
            "defaults: {segments: [country, {age: [18, 65]}, {name: plan}]}",
            "defaults: {segments: {age: [18, 65]}}",
            "kafka: {bootstrap_servers: ['a:1', 'b:2']}",
            "defaults: {drift: {errors: {hddm_a: {two_sided_test: true}}}}",
        ],
    )
    def test_accepts_every_way_of_writing(self, text):
        from jsonschema import Draft202012Validator
        from ruamel.yaml import YAML

        parse(text)
        schema = json_schema()
        Draft202012Validator.check_schema(schema)
        assert [
            error.message
            for error in Draft202012Validator(schema).iter_errors(
                YAML(typ="safe", pure=True).load(text)
            )
        ] == []
