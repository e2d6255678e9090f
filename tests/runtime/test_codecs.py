"""
What comes over Kafka is bytes to Faust and aiokafka: neither decodes, so neither can be made to run
what it reads.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from faust.serializers import codecs

from stream_monitor.settings import Settings
from stream_monitor.stages.agents import app_of
from stream_monitor.stages.hub import Hub
from stream_monitor.stages.transport import App, RawSchema, consumer_options

PICKLED = b"cos\nsystem\n(S'exit 1'\ntR."


class FakeStage:
    topics = frozenset({"observations"})


class FakeMessage:
    value = PICKLED
    key = PICKLED
    headers: tuple[Any, ...] = ()


async def test_faust_hands_bytes_over_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    hub = Hub(Settings())
    hub.stages = [FakeStage()]  # type: ignore[list-item]
    app: App = app_of(hub)
    assert isinstance(app.hub, Hub)
    (agent,) = app.agents.values()
    assert type(agent.channel.schema) is RawSchema
    monkeypatch.setattr(codecs, "loads", refuse)
    monkeypatch.setattr(os, "system", refuse)
    event = await agent.channel.schema.compile(app)(FakeMessage())
    assert event.value is PICKLED


def test_the_consumer_has_no_decoder() -> None:
    assert not {"key_deserializer", "value_deserializer"} & set(consumer_options(Settings()))
