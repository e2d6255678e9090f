"""
Peer: a loop by hand, confluent-kafka (batches of messages), orjson, River one event at a time, two
dicts for the join.

Does: what `river_monitors` says; offsets are committed in the background every 5 s. Does not: keep
anything over a restart (dicts and detectors are lost, and what was read before the last commit is
counted again), bound the dicts, or scale the join beyond one process unless both topics are keyed
alike.
"""

from __future__ import annotations

import orjson
from confluent_kafka import Consumer, Producer
from river_monitors import Inputs, Quality, arguments, serve


def main() -> None:
    a = arguments()
    consumer = Consumer(
        {
            "bootstrap.servers": a.bootstrap,
            "group.id": a.group,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 10,
            "check.crcs": True,
        }
    )
    producer = Producer({"bootstrap.servers": a.bootstrap, "linger.ms": 5})
    inputs, quality = Inputs(), Quality()
    predictions: dict[str, tuple[str, str, int]] = {}
    labels: dict[str, int] = {}
    consumer.subscribe([a.predictions] if a.work == "predictions" else [a.predictions, a.labels])
    serve(inputs, quality)
    while True:
        for message in consumer.consume(1_000, 0.2):
            if message.error():
                continue
            event = orjson.loads(message.value())
            alerts = []
            if message.topic() == a.predictions:
                if a.work != "pairs":
                    alerts += inputs.update(event)
                if a.work != "predictions":
                    pair = event["model"], event["version"], event["prediction"]
                    label = labels.pop(event["event_id"], None)
                    if label is None:
                        predictions[event["event_id"]] = pair
                    else:
                        alerts += quality.update(*pair, label, event["timestamp"])
            elif (found := predictions.pop(event["event_id"], None)) is None:
                labels[event["event_id"]] = event["label"]
            else:
                alerts += quality.update(*found, event["label"], event["timestamp"])
            for alert in alerts:
                producer.produce(a.alerts, orjson.dumps(alert))
        producer.poll(0)


if __name__ == "__main__":
    main()
