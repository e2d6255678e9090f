"""
`docs/topics.md`, generated from `topics/*.yaml`.

Rule of the file: a page that is written by hand is wrong after the next change. `python -m
stream_monitor.exports.topics_page > docs/topics.md` writes it anew, and a test holds the two equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stream_monitor.schema import REPLICAS, TopicSpec, topics

INTRODUCTION = f"""\
# Topics

<!-- Generated: python -m stream_monitor.exports.topics_page > docs/topics.md -->

`topics/NAME.yaml` has the settings of each topic and the JSON Schema (draft 2020-12) of its records; `kafka.topic_prefix` goes before every name. The worker makes what is missing when `kafka.create_topics` is on, with {REPLICAS} replicas where there are as many brokers.

    stream-monitor topics list                       # as specified, no broker needed; --json has the schemas
    stream-monitor topics check                      # exit 1 and a line for each difference
    stream-monitor topics apply --dry-run            # what would be made and set
    stream-monitor topics apply                      # makes and sets it; a second time changes nothing
    stream-monitor topics export --format strimzi    # KafkaTopic resources; asyncapi: an AsyncAPI 3 document

`apply` sets what is specified and leaves every other setting as it is. A retention that was made longer by hand stays; a shorter one is set back. It does not change replicas (`kafka-reassign-partitions.sh` does). `check` asks for the settings under "with {REPLICAS} replicas" only where the topic has them.
"""  # noqa: E501

PARTITIONS = """
## Another number of partitions

| topics | more than specified |
|---|---|
{rules}

Fewer than specified is always a difference. Kafka never takes partitions away.

- **predictions, labels**: `stream-monitor topics apply --partitions predictions=12` adds partitions to a topic that is in use, or makes it with so many. Workers that run read them within some 10 seconds, from their beginning.
- **observations, snapshots, history**: choose before they are made, `stream-monitor topics apply --partitions observations=16`. `snapshots` then gets as many. Models are spread over the partitions of `observations`, so their number bounds how many workers evaluate.
- **observations and snapshots are never changed in place.** The partition of a row follows from its model and the number of partitions: with another number the rows of a model would be in two places, and its counts wrong without an error. `apply` refuses it, and nobody else must do it (`kafka-topics.sh --alter`): the number is noted beside the group's positions, and a worker that finds another one ends (71). To have another number:
  1. Stop all workers.
  2. Delete `observations` and `snapshots` (with the prefix). Kafka forgets the positions of the group on them too.
  3. `stream-monitor topics apply --partitions observations=N`
  4. To have windows and counters filled again from what `predictions` and `labels` still hold, set the group back there: `kafka-consumer-groups.sh --bootstrap-server HOST:PORT --group stream-monitor --reset-offsets --to-datetime 2025-10-09T00:00:00.000 --topic predictions --topic labels --execute`. Alerts of that time are then written again. Without this step they begin empty, and labels of predictions from before find none.
  5. Start the workers.
"""  # noqa: E501

RULES = {
    "allowed": "may be added at any time",
    "at_creation": "only when the topic is made",
    "never": "never",
}


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    yield "| topic | what | written by | key | partitions | kept |"
    yield "|---|---|---|---|---|---|"
    for spec in topics().values():
        policy = spec.config["cleanup.policy"].replace(",", " + ")
        kept = f"{policy}{_days(spec.config.get('retention.ms'))}"
        yield (
            f"| [`{spec.name}`](#{spec.name}) | {spec.description} | {spec.writer} | {spec.key} | "
            f"{spec.partitions} | {kept} |"
        )
    rules = [
        (
            "| "
            f"{', '.join(f'`{s.name}`' for s in topics().values() if s.more_partitions == rule)} "
            f"| {text} |"
        )
        for rule, text in RULES.items()
    ]
    yield PARTITIONS.format(rules="\n".join(rules))
    for spec in topics().values():
        yield from _topic(spec)


def _days(retention_ms: str | None) -> str:
    return "" if retention_ms is None else f", {int(retention_ms) / 86_400_000:g} d"


def _topic(spec: TopicSpec) -> Iterator[str]:
    yield f"## {spec.name}\n"
    yield f"{spec.description}\n"
    settings = " ".join(f"`{key}={value}`" for key, value in spec.config.items())
    replicated = " ".join(f"`{key}={value}`" for key, value in spec.replicated.items())
    yield (
        f"Settings: {settings}{f'; with {REPLICAS} replicas {replicated}' if replicated else ''}.\n"
    )
    if spec.format is not None:
        version = (
            f" Version {spec.format.version}, `{spec.format.defined_in}`."
            if spec.format.version is not None
            else ""
        )
        yield f"Value: {spec.format.what}{version}\n"
    schema = spec.schema or spec.headers
    if schema is None:
        return
    yield f"{schema['title']}. {schema['description']}\n"
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    yield from _fields(schema)
    yield ""
    for example in spec.example:
        yield f"    {json.dumps(example, ensure_ascii=False)}"
    yield ""


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    refined = schema.get("else", {}).get("properties", {})
    for name, field in schema["properties"].items():
        field = {**refined.get(name, {}), **field}
        meaning = " ".join(
            [
                *(["Required."] if name in schema.get("required", ()) else []),
                *([text] if (text := field.get("description", "")) else []),
            ]
        )
        yield f"| `{name}` | {described(field)} | {_cell(meaning)} |"


def described(field: dict[str, Any]) -> str:
    """
    The type of a field and its bounds, in words.

    >>> (
    ...     described({"type": ["string", "null"], "maxLength": 128}),
    ...     described({"type": "number", "minimum": 0}),
    ... )
    ('string of 0 to 128 characters or null', 'number ≥ 0')
    >>> (
    ...     described({"enum": ["up", None]}),
    ...     described({"type": "object", "additionalProperties": {"type": "number"}}),
    ... )
    ('`up` or null', 'object, name → number')
    """
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join("null" if value is None else f"`{value}`" for value in field["enum"])
    if "oneOf" in field:
        return "; ".join(described(choice) for choice in field["oneOf"])
    types = [field["type"]] if isinstance(field.get("type"), str) else field.get("type", ["any"])
    text = " or ".join(kind + _bounds(kind, field) for kind in types)
    inner = field.get("additionalProperties")
    if isinstance(inner, dict):
        text += f", name → {described(inner)}"
    if "properties" in field:
        text += f" of {', '.join(f'`{name}`' for name in field['properties'])}"
    if "items" in field:
        text += f" of {described(field['items'])}"
    return text


def _bounds(kind: str, field: dict[str, Any]) -> str:
    if kind in {"number", "integer"} and "minimum" in field:
        low = _number(field["minimum"])
        return f" in [{low}, {_number(field['maximum'])}]" if "maximum" in field else f" ≥ {low}"
    if kind == "string" and "maxLength" in field:
        return f" of {field.get('minLength', 0)} to {field['maxLength']} characters"
    return " (RFC 3339)" if kind == "string" and field.get("format") == "date-time" else ""


def _number(value: float) -> str:
    return {2**53: "2⁵³", -(2**53): "-2⁵³"}.get(int(value), str(value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
