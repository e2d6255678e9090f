"""
`docs/security.md` and the advice that is given name access and settings as the program has them.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from stream_monitor.checks.topics import ACCESS
from stream_monitor.config import parse
from stream_monitor.kafka.operations import READ, WRITE
from stream_monitor.settings import HttpSettings, Security

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


@pytest.mark.parametrize(
    ("operations", "needed"),
    [
        ("Read, Describe", {READ}),
        ("Read, Write, Describe", {READ, WRITE}),
        ("Write, Describe", {WRITE}),
    ],
)
def test_access_is_that_of_the_program(operations: str, needed: set[int]) -> None:
    (names,) = re.findall(rf"^ +{operations} +topics P \+ (.*)$", PAGE, re.MULTILINE)
    assert set(names.split(", ")) == {topic for topic, wanted in ACCESS.items() if wanted == needed}


@pytest.mark.parametrize(
    ("section", "kind"), [("kafka.security", Security), ("worker.metrics", HttpSettings)]
)
def test_settings_that_are_named_are_there(section: str, kind: type[msgspec.Struct]) -> None:
    fields = {field.name for field in msgspec.structs.fields(kind)}
    texts = [PAGE, *(path.read_text() for path in (ROOT / "stream_monitor").rglob("*.py"))]
    named = {
        name for text in texts for name in re.findall(re.escape(section) + r"\.([a-z_]+)", text)
    }
    assert named
    assert named <= fields
    variables = {
        name.lower()
        for text in texts
        for name in re.findall(
            rf"STREAM_MONITOR_{section.upper().replace('.', '__')}__([A-Z_]+)", text
        )
    }
    assert {name.removesuffix("_file") for name in variables} <= fields


def test_mechanisms_and_protocols_are_those_that_are_offered() -> None:
    for protocol in re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE):
        files = ", ca_file: ca.pem" if protocol.endswith("SSL") else ""
        for mechanism in (
            re.findall(r"`(PLAIN|SCRAM-SHA-\d+)`", PAGE) if protocol.startswith("SASL") else [None]
        ):
            login = f", sasl_mechanism: {mechanism}, username: u" if mechanism else ""
            environ = {"STREAM_MONITOR_KAFKA__SECURITY__PASSWORD": "p"} if mechanism else {}
            assert (
                parse(
                    f"kafka: {{security: {{protocol: {protocol}{files}{login}}}}}", environ=environ
                ).kafka.security.sasl_mechanism
                == mechanism
            )
