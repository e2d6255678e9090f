"""
`docs/topics.md`, generated from `topics/*.yaml`.

Rule of the file: a page that is written by hand is wrong after the next change. `python -m
stream_monitor.exports.topics_page > docs/topics.md` writes it, and a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stream_monitor.schema import REPLICAS, TopicSpec, topics

INTRODUCTION = f"""\
# Topics

<!-- Generated: python -m stream_monitor.exports.topics_page > docs/topics.md -->

`topics/NAME.yaml` has the settings of each topic and the JSON Schema (draft 2020-12) of its records. `kafka.topic_prefix` is put before every name. If `kafka.create_topics` is on, the worker creates missing topics, with {REPLICAS} replicas if there are enough brokers.

    stream-monitor topics list                       # the specified topics, no broker needed; --json has the schemas
    stream-monitor topics check                      # exit code 1 and a line for each difference
    stream-monitor topics apply --dry-run            # what would be created and set
    stream-monitor topics apply                      # creates and sets it; a second run changes nothing
    stream-monitor topics export --format strimzi    # KafkaTopic resources; asyncapi: an AsyncAPI 3 document

`apply` sets what is specified and leaves every other setting as it is. A retention that somebody made longer stays; a shorter one is set back. It does not change replicas (`kafka-reassign-partitions.sh` does). `check` requires the settings under "with {REPLICAS} replicas" only for topics with that many replicas.
"""  # noqa: E501

PARTITIONS = """
## Another number of partitions

| topics | more partitions than specified |
|---|---|
{rules}

Fewer partitions than specified are always a difference. Kafka never removes partitions.

- **predictions, labels**: `stream-monitor topics apply --partitions predictions=12` adds partitions to a topic that is in use, or creates the topic with that many. Running workers read them within about 10 seconds, from their beginning.
- **observations, snapshots, history**: choose the number before the topics are created: `stream-monitor topics apply --partitions observations=16`. `snapshots` then gets the same number. Models are spread over the partitions of `observations`, so this number limits how many workers evaluate.
- **observations and snapshots are never changed in place.** The model and the number of partitions decide the partition of a row. With another number the rows of a model would be in two places, and its counts would be wrong without an error. `apply` refuses the change. Do not change the number with other tools either (`kafka-topics.sh --alter`): it is stored beside the group's positions, and a worker that finds another number ends (71). To get another number:
  1. Stop all workers.
  2. Delete `observations` and `snapshots` (with the prefix). Kafka then also deletes the positions of the group on them.
  3. `stream-monitor topics apply --partitions observations=N`
  4. To fill windows and counters again from the records that `predictions` and `labels` still have, set the group back on these topics: `kafka-consumer-groups.sh --bootstrap-server HOST:PORT --group stream-monitor --reset-offsets --to-datetime 2025-10-09T00:00:00.000 --topic predictions --topic labels --execute`. Alerts of that time are then written again. Without this step windows and counters start empty, and labels of earlier predictions match nothing.
  5. Start the workers.
"""  # noqa: E501

RULES = {
    "allowed": "may be added at any time",
    "at_creation": "only when the topic is created",
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
