"""
Peer: faust-streaming, agents that take one event at a time as its documentation shows, models as
Records, River.

Does: what `river_monitors` says; the join is in two Tables with a changelog each, so predictions
and labels that wait for each other survive a restart (at least once). Does not: keep the detectors
and the counts over a restart, drop duplicates, bound the tables, or see a label whose prediction
lies in another partition number.
"""

from __future__ import annotations

import sys
from typing import Any

import faust
from river_monitors import Inputs, Quality, arguments, serve

a = arguments()
app = faust.App(
    a.group,
    broker=f"kafka://{a.bootstrap}",
    value_serializer="json",
    topic_partitions=4,
    web_enabled=False,
    topic_disable_leader=True,
    datadir=f"{a.folder}/{a.group}",
    consumer_auto_offset_reset="earliest",
)


class Prediction(faust.Record, serializer="json"):
    event_id: str
    timestamp: int
    model: str
    version: str
    prediction: int
    score: float
    latency_ms: float
    features: dict


class Label(faust.Record, serializer="json"):
    event_id: str
    label: int
    timestamp: int


predictions, alerts = app.topic(a.predictions, value_type=Prediction), app.topic(a.alerts)
inputs, quality = Inputs(), Quality()


async def send(found: list[dict[str, Any]]) -> None:
    for alert in found:
        await alerts.send(value=alert)


if a.work != "predictions":
    waiting_predictions = app.Table("waiting-predictions", partitions=4)
    waiting_labels = app.Table("waiting-labels", partitions=4)

    @app.agent(app.topic(a.labels, value_type=Label))
    async def on_label(stream):
        async for event in stream:
            found = waiting_predictions.pop(event.event_id, None)
            if found is None:
                waiting_labels[event.event_id] = event.label
            else:
                await send(quality.update(*found, event.label, event.timestamp))


@app.agent(predictions)
async def on_prediction(stream):
    async for event in stream:
        if a.work != "pairs":
            await send(inputs.update(event.asdict()))
        if a.work != "predictions":
            pair = [event.model, event.version, event.prediction]
            label = waiting_labels.pop(event.event_id, None)
            if label is None:
                waiting_predictions[event.event_id] = pair
            else:
                await send(quality.update(*pair, label, event.timestamp))


if __name__ == "__main__":
    serve(inputs, quality)
    sys.argv[1:] = ["worker", "-l", "warn", "--without-web"]
    app.main()
