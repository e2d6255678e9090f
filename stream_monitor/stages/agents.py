"""
The two Faust agents of a worker: INGEST reads `predictions`, `labels` and `lifecycle`, EVALUATE
reads `observations`.

Rule of the file: an agent gets one fetched batch at a time and passes it to `Hub.deliver`; it does
nothing else. Faust runs the loop that calls the agents, and orders what happens at a rebalance; the
consumer group itself (assignor, heartbeats) is run by aiokafka's coordinator. The transport
(`transport.py`) is ours, because Faust's own unpacks records one by one and drops some at a
rebalance. Offsets and state are ours, because Faust commits by rules that lose or repeat records,
and its tables cannot join, window and publish in one transaction.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import Any

from stream_monitor.stages.hub import Hub, Stage
from stream_monitor.stages.transport import App, RawSchema


def app_of(hub: Hub) -> App:
    """
    Faust's app with one agent per stage of the hub. Starting and stopping the app starts and stops
    the hub.
    """
    settings = hub.settings
    app = App(
        settings.worker.group,
        broker="kafka://" + settings.kafka.bootstrap_servers.split(",")[0],
        loop=asyncio.get_running_loop(),
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_buffer_maxsize=8,
        autodiscover=False,
        # Faust requires a folder; nothing of ours is written to it
        datadir=f"{tempfile.gettempdir()}/stream-monitor-{os.getpid()}",
    )
    app.hub = hub
    for stage in hub.stages:
        topic = app.topic(*sorted(stage.topics), acks=False, schema=RawSchema())
        app.agent(topic, name=type(stage).__name__)(agent_of(hub, stage))
    return app


def agent_of(hub: Hub, stage: Stage) -> Any:
    """The Faust agent of one stage."""

    async def agent(stream: Any) -> None:
        async for fetched in stream:
            await hub.deliver(stage, fetched)

    return agent
