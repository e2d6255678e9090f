"""
Peer: Quix Streams, a StreamingDataFrame, River.

Does: what `river_monitors` says; the join is its own `join_asof` (label with the latest prediction
of the same key), in RocksDB with a changelog topic, at least once. Does not: keep River's detectors
over a restart (its state takes JSON values), match a label that it reads before its prediction, or
take labels later than the grace of 30 s.
"""

from __future__ import annotations

from datetime import timedelta

from quixstreams import Application
from river_monitors import Inputs, Quality, arguments, serve


def main() -> None:
    a = arguments()
    app = Application(
        broker_address=a.bootstrap,
        consumer_group=a.group,
        auto_offset_reset="earliest",
        state_dir=f"{a.folder}/{a.group}",
        loglevel="WARNING",
    )
    inputs, quality = Inputs(), Quality()
    alerts = app.topic(a.alerts, value_serializer="json")
    frame = app.dataframe(app.topic(a.predictions, value_deserializer="json"))
    if a.work == "predictions":
        frame.apply(inputs.update, expand=True).to_topic(alerts)
    else:
        if a.work == "both":
            watched = frame.apply(inputs.update, expand=True)
            watched.to_topic(alerts)
        labels = app.dataframe(app.topic(a.labels, value_deserializer="json"))
        joined = labels.join_asof(
            frame,
            how="inner",
            grace_ms=timedelta(seconds=30),
            on_merge=lambda label, event: {**event, "label": label["label"]},
        )
        joined.apply(
            lambda e: quality.update(
                e["model"], e["version"], e["prediction"], e["label"], e["timestamp"]
            ),
            expand=True,
        ).to_topic(alerts)
    serve(inputs, quality)
    app.run()


if __name__ == "__main__":
    main()
