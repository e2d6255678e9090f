"""
Peer: Bytewax, Kafka operators, `stateful_map` by model and `join` by event id, River.

Does: what `river_monitors` says, one worker thread; it copies the state of each key at the end of
every epoch of 10 s. Does not: keep anything over a restart: the recovery store in SQLite, to which
those copies could be pickled, is off here, and it commits no offsets. `join` keeps an id until both
sides came, without a bound.
"""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import orjson
from bytewax._bytewax import cli_main
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow
from river_monitors import Inputs, InputsOfVersion, Quality, QualityOfVersion, arguments, serve

a = arguments()
inputs, quality = Inputs(), Quality()
flow = Dataflow("peer")


def model_of(event: dict[str, Any]) -> str:
    return f"{event['model']}/{event['version']}"


def on_prediction(
    _: InputsOfVersion | None, event: dict[str, Any]
) -> tuple[InputsOfVersion, list[dict[str, Any]]]:
    alerts = inputs.update(event)
    return inputs.versions[event["model"], event["version"]], alerts


def on_pair(
    _: QualityOfVersion | None, pair: tuple[dict[str, Any], dict[str, Any]]
) -> tuple[QualityOfVersion, list[dict[str, Any]]]:
    event, label = pair
    alerts = quality.update(
        event["model"], event["version"], event["prediction"], label["label"], label["timestamp"]
    )
    return quality.versions[event["model"], event["version"]], alerts


def source(name: str, topic: str) -> Any:
    messages = kafka.input(name, flow, brokers=[a.bootstrap], topics=[topic], tail=True)
    return op.map(f"decode_{name}", messages.oks, lambda message: orjson.loads(message.value))


def sink(name: str, alerts: Any) -> None:
    flat = op.flat_map_value(f"flat_{name}", alerts, lambda found: found)
    kafka.output(
        f"alerts_{name}",
        op.map(
            f"encode_{name}", flat, lambda ka: KafkaSinkMessage(ka[0].encode(), orjson.dumps(ka[1]))
        ),
        brokers=[a.bootstrap],
        topic=a.alerts,
    )


predictions = source("predictions", a.predictions)
if a.work != "pairs":
    sink(
        "inputs",
        op.stateful_map("inputs", op.key_on("by_model", predictions, model_of), on_prediction),
    )
if a.work != "predictions":
    by_id = op.key_on("predictions_by_id", predictions, lambda e: e["event_id"])
    labels_by_id = op.key_on("labels_by_id", source("labels", a.labels), lambda e: e["event_id"])
    pairs = op.map("pair", op.join("join", by_id, labels_by_id), lambda keyed: keyed[1])
    sink(
        "quality",
        op.stateful_map(
            "quality", op.key_on("pairs_by_model", pairs, lambda pair: model_of(pair[0])), on_pair
        ),
    )

if __name__ == "__main__":
    serve(inputs, quality)
    cli_main(flow)
