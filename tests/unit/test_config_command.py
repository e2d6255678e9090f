"""`config init|check|schema`, and the manners that all commands share."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from stream_monitor.cli import cli, main
from stream_monitor.config import load
from stream_monitor.errors import InputError


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, words)

    return run


def test_init_writes_a_file_that_is_right_and_does_not_overwrite_it(call, tmp_path):
    assert "next: stream-monitor config check" in call("config", "init").output
    settings = load(str(tmp_path / "monitor.yaml"), {})
    assert settings.core.of("fraud").thresholds["accuracy"].min == 0.9
    assert settings.core.of("another").windows == ("last_1000", "1h", "24h")
    refused = call("config", "init")
    assert isinstance(refused.exception, InputError)
    assert "--force" in str(refused.exception)
    assert call("config", "init", "--force").exit_code == 0
    assert (
        call("config", "check").output
        == "good: monitor.yaml; 1 model configured, brokers 127.0.0.1:9092\n"
    )


def test_what_init_leaves_as_a_comment_is_right_too(call, tmp_path):
    call("config", "init")
    file = tmp_path / "monitor.yaml"
    keys = re.compile(r"^( *)# (?=[a-z_]+:|  )", re.MULTILINE)
    text = keys.sub(r"\1", file.read_text())
    assert "security: {" in text
    assert text.count("#") < file.read_text().count("#")
    file.write_text(text)
    settings = load(str(file), {"STREAM_MONITOR_KAFKA__SECURITY__PASSWORD": "x"})
    assert settings.kafka.security.protocol == "SASL_SSL"
    assert settings.core.of("fraud").drift.thresholds == {"psi": 0.25}
    assert settings.core.of("fraud").features["country"].categories == ("DE", "FR", "IT")
    assert [segment.name for segment in settings.core.of("fraud").segments] == ["country"]


@pytest.mark.parametrize("path", [".", "nowhere/monitor.yaml"])
def test_init_says_where_it_cannot_write(call, path):
    refused = call("config", "init", path)
    assert isinstance(refused.exception, InputError)
    assert path in str(refused.exception)


def test_check_without_a_file_says_so(call):
    assert call("config", "check").output.startswith(
        "good: no ./monitor.yaml, so the defaults; 0 models configured"
    )


def test_check_tells_all_problems_to_programs(call, tmp_path):
    (tmp_path / "monitor.yaml").write_text("defaults: {windws: [1h]}\nworker: {group: [1]}\n")
    result = call("config", "check", "--json")
    assert result.exit_code == 2
    assert len(json.loads(result.output)["problems"]) == 2


def test_schema_is_json(call):
    assert json.loads(call("config", "schema").output)["properties"]["models"]["description"]


def test_a_command_that_was_meant_is_named(call):
    result = call("wrker")
    assert result.exit_code == 2
    assert "Did you mean 'worker'?" in result.output
    assert "Did you mean" not in call("zzz").output


def test_an_error_for_people_is_one_line_and_a_code(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["stream-monitor", "replay", "nowhere.csv"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "stream-monitor: nowhere.csv: No such file or directory\n"


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command, the groups too."""
    yield path, group
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


EVERY = [pytest.param(path, id=" ".join(path) or "stream-monitor") for path, _ in commands(cli)]


@pytest.mark.parametrize("path", EVERY)
def test_every_help_has_an_example_that_works_and_explains_every_option(path):
    command = dict(commands(cli))[path]
    assert command.help is not None
    whole = re.sub(r"\\\n\s*", "", command.help)  # as a shell reads lines that go on
    examples = re.findall(
        r"^(?:Example: | +)(?:[A-Z_]+=\S+ )?(stream-monitor .+)$", whole, re.MULTILINE
    )
    assert examples, "no example"
    for line in examples:
        words = shlex.split(re.split(r" \| | > | {3,}", line)[0])[1:]
        found: click.Command = cli
        context = click.Context(cli)
        while words and isinstance(found, click.Group) and not words[0].startswith("-"):
            _, below, words = found.resolve_command(context, words)
            assert below is not None
            found, context = below, click.Context(below, parent=context)
        found.parse_args(context, words)
    assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help] == []


def test_every_line_of_a_list_of_commands_is_whole():
    for _, command in commands(cli):
        if isinstance(command, click.Group):
            listed = command.get_help(click.Context(command, terminal_width=100)).partition(
                "Commands:"
            )[2]
            assert "..." not in listed


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e300", 1e300),
        ("-1.7e308", -1.7e308),
        ("1e6", 1e6),
        ("5.", 5.0),
        (".5", 0.5),
        ("1e309", None),
        (".inf", None),
        ("1e400", None),
    ],
)
def test_every_finite_number_is_one(call, tmp_path, written, meant):
    """Floats without a point too, which YAML 1.1 takes for text."""
    file = tmp_path / "monitor.yaml"
    file.write_text(f"defaults: {{features: {{x: {{max: {written}}}}}}}")
    refused = call("config", "check")
    if meant is None:
        assert f"a number is expected (got {written})" in str(refused.exception)
    else:
        assert refused.exit_code == 0
        assert load(str(file), {}).core.defaults.features["x"].max == meant
