"""
A consumer of alerts: it knows what fires now, and prints each step of an episode as it is written.

    python examples/consume_alerts.py 127.0.0.1:9092

The topic is compacted by fingerprint, so reading it from the beginning gives the current state: nothing has to be stored. `read_committed` shows each step once;
on a broker without transactions a step may be there twice, with the same `id`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer

TOPIC = "alerts"  # with kafka.topic_prefix before it, if you have one


def line(alert: dict[str, Any]) -> str:
    """One step, as a person reads it."""
    at = alert["starts_at"] if alert["status"] == "firing" else alert["ends_at"] or alert["window"]["end"]
    return f"{at}  {alert['status']:<8}  {alert['severity']:<8}  {alert['summary']}"


async def main() -> None:
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=sys.argv[1], isolation_level="read_committed", auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    firing: dict[str, dict[str, Any]] = {}
    last_ids: dict[str, str] = {}
    try:
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
            if not caught_up and all([await consumer.position(partition) >= end for partition, end in ends.items()]):
                caught_up = True
                print(f"{len(firing)} alerts fire now", flush=True)
                for alert in firing.values():
                    print(line(alert), flush=True)
    finally:
        await consumer.stop()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
