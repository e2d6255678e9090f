"""
A consumer of alerts: it knows what fires now, and prints each step of an episode as it is written.

    python examples/consume_alerts.py 127.0.0.1:9092

The topic is compacted by fingerprint, so reading it from the beginning gives the current state:
nothing has to be stored. `read_committed` shows each step once; on a broker without transactions a
step may be there twice, with the same `id`. Steps that a person should be told of have `notify`:
alerts with one cause are one incident, and people may have silenced it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

TOPIC = "alerts"  # with kafka.topic_prefix before it, if you have one


def line(alert: dict[str, Any]) -> str:
    """
    One step, as a person reads it; names come from whoever sends events, so nothing that a terminal
    would obey is let through.
    """
    at = (
        alert["starts_at"]
        if alert["status"] == "firing"
        else alert["ends_at"] or alert["window"]["end"]
    )
    told = "tell" if alert["notify"] else "    "
    text = f"{told}  {at}  {alert['status']:<8}  {alert['severity']:<8}  {alert['summary']}"
    return "".join(c if c.isprintable() else "?" for c in text)


async def main() -> None:
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=sys.argv[1],
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    firing: dict[str, dict[str, Any]] = {}
    last_ids: dict[str, str] = {}
    try:
        await consumer.start()
        ends = await consumer.end_offsets(list(consumer.assignment()))
        caught_up = False
        while True:
            batches = await consumer.getmany(timeout_ms=500)
            for record in (record for records in batches.values() for record in records):
                if record.value is None:
                    continue
                alert = json.loads(record.value)
                fingerprint = alert["fingerprint"]
                if last_ids.get(fingerprint) == alert["id"]:
                    continue
                last_ids[fingerprint] = alert["id"]
                if alert["status"] == "resolved":
                    firing.pop(fingerprint, None)
                else:
                    firing[fingerprint] = alert
                if caught_up:
                    print(line(alert), flush=True)
            if not caught_up and all(
                [await consumer.position(partition) >= end for partition, end in ends.items()]
            ):
                caught_up = True
                print(f"firing now: {len(firing)}", flush=True)
                for alert in firing.values():
                    print(line(alert), flush=True)
    except KafkaError as e:
        sys.exit(f"{type(e).__name__}: is the broker there? See `stream-monitor doctor`.")
    finally:
        await consumer.stop()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
