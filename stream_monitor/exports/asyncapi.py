"""
The topics as an AsyncAPI 3 document.

Rule of the file: everything comes from `topics/*.yaml`. Operations are named from our side: we
receive predictions and labels, send the rest, and do both on `lifecycle`.
"""

from __future__ import annotations

import json
from typing import Any

from stream_monitor import __version__
from stream_monitor.schema import TopicSpec, topics

VERSION = "3.1.0"
SCHEMA_FORMAT = "application/schema+json;version=draft-07"
"""The draft that every AsyncAPI tool reads. The schemas use only what it shares with 2020-12."""
KAFKA_BINDING = "0.5.0"
RECEIVED, BOTH = ("predictions", "labels"), ("lifecycle",)


def document(prefix: str) -> dict[str, Any]:
    """
    The AsyncAPI document.

    Parameters
    ----------
    prefix : str
        `kafka.topic_prefix`.

    Examples
    --------
    >>> made = document("prod.")
    >>> made["channels"]["labels"]["address"], made["operations"]["receive-labels"]["action"]
    ('prod.labels', 'receive')
    """
    specs = topics()
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "stream-monitor",
            "version": __version__,
            "description": "Monitors machine-learning models on Kafka.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(spec, prefix) for name, spec in specs.items()},
        "operations": {
            f"{action}-{name}": {"action": action, "channel": {"$ref": f"#/channels/{name}"}}
            for name in specs
            for action in _actions(name)
        },
    }


def _actions(name: str) -> tuple[str, ...]:
    if name in BOTH:
        return "receive", "send"
    return ("receive",) if name in RECEIVED else ("send",)


def _channel(spec: TopicSpec, prefix: str) -> dict[str, Any]:
    return {
        "address": prefix + spec.name,
        "description": spec.description,
        "messages": {spec.name: _message(spec)},
        "bindings": {
            "kafka": {
                "topic": prefix + spec.name,
                "partitions": spec.partitions,
                "topicConfiguration": _configuration(spec.config),
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _message(spec: TopicSpec) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": spec.name,
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": spec.key},
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }
    if spec.schema is not None:
        message |= {
            "title": spec.schema["title"],
            "payload": _payload(spec.schema),
            "examples": [{"payload": example} for example in spec.example],
        }
    if spec.format is not None:
        message |= {"contentType": "application/octet-stream", "summary": spec.format.what}
    if spec.headers is not None:
        message |= {
            "title": spec.headers["title"],
            "headers": _payload(spec.headers),
            "examples": [{"headers": example} for example in spec.example],
        }
    return json.loads(json.dumps(message))  # type: ignore[no-any-return]  # parts that the YAML shares become parts of their own


def _payload(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "schemaFormat": SCHEMA_FORMAT,
        "schema": {key: value for key, value in schema.items() if key != "$schema"},
    }


def _configuration(config: dict[str, str]) -> dict[str, Any]:
    """Settings for the Kafka binding: numbers as numbers and lists as lists."""
    return {
        key: value.split(",")
        if key == "cleanup.policy"
        else int(value)
        if value.lstrip("-").isdigit()
        else value
        for key, value in config.items()
    }
