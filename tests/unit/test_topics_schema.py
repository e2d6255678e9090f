"""
The schemas in topics/ say what the code does: parsers, alerts, profiles, dead letters, versions of
formats.
"""

from __future__ import annotations

import copy
import json
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_monitor.alerts.event import Alert, Status, Window, alert_of, encode, fingerprint
from stream_monitor.checks.topics import ACCESS
from stream_monitor.events.cells import Texts
from stream_monitor.events.observations import MAGIC
from stream_monitor.events.parse import PARSERS, Bad
from stream_monitor.exports.topics_page import page
from stream_monitor.lifecycle import events as lifecycle_events
from stream_monitor.lifecycle.events import AnyEvent
from stream_monitor.monitors.baseline import (
    SCHEMA,
    FeatureProfile,
    Profile,
    category_profile,
    decode_profile,
    encode_profile,
    numeric_profile,
)
from stream_monitor.schema import REJECT_REASONS, topics
from stream_monitor.settings import Severity
from stream_monitor.stages import snapshots
from stream_monitor.verdicts import AlertKey, Kind, Span, Verdict

ROOT = Path(__file__).parents[2]
RECORD_MS = 1_760_000_100_000
KEYWORDS = {
    "$schema",
    "title",
    "description",
    "type",
    "required",
    "properties",
    "additionalProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "minProperties",
    "maxProperties",
    "items",
    "enum",
    "const",
    "default",
    "oneOf",
    "anyOf",
    "allOf",
    "if",
    "then",
    "else",
}
SCHEMAS = {
    name: schema for name, spec in topics().items() if (schema := spec.schema or spec.headers)
}
formats = jsonschema.FormatChecker(formats=())


@formats.checks("date-time", raises=ValueError)  # type: ignore[untyped-decorator] # no stubs
def is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value.upper()).tzinfo is not None


def accepts(schema: dict[str, Any], value: object) -> bool:
    return jsonschema.Draft202012Validator(schema, format_checker=formats).is_valid(value)


def parses(kind: str, event: object) -> bool:
    try:
        PARSERS[kind](json.dumps(event).encode(), RECORD_MS, Texts(), 1_000_000)
    except Bad:
        return False
    return True


def keywords(schema: Any) -> set[str]:
    """Every keyword that is used, so that a slip of the YAML does not pass for one nobody knows."""
    found = set(schema)
    for inner in schema.get("properties", {}).values():
        found |= keywords(inner)
    for key in ("additionalProperties", "items", "if", "then", "else"):
        if isinstance(schema.get(key), dict):
            found |= keywords(schema[key])
    for key in ("oneOf", "anyOf", "allOf"):
        for inner in schema.get(key, []):
            found |= keywords(inner)
    return found


# ---- all of them


def test_there_is_a_file_for_every_topic_a_worker_uses():
    assert set(topics()) == set(ACCESS) == {path.stem for path in (ROOT / "topics").glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(topics()))
def test_a_topic_has_a_schema_with_examples_or_says_what_its_format_is(name):
    spec = topics()[name]
    if name in SCHEMAS:
        assert spec.example
    else:
        assert spec.format is not None
        assert spec.format.version is not None
        assert (ROOT / str(spec.format.defined_in)).is_file()


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_valid_and_accept_their_examples(name):
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert keywords(schema) <= KEYWORDS
    for example in topics()[name].example:
        jsonschema.validate(
            example, schema, jsonschema.Draft202012Validator, format_checker=formats
        )


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_what_is_required_is_missed_and_what_is_a_constant_is_held(name):
    schema = SCHEMAS[name]
    for example in topics()[name].example:
        for field in schema.get("required", []):
            assert not accepts(
                schema, {key: value for key, value in example.items() if key != field}
            ), field
        for field, rule in schema["properties"].items():
            if "enum" in rule or "const" in rule:
                assert not accepts(schema, example | {field: "no such value"}), field
    assert not accepts(schema, [])


def test_versions_of_the_formats_are_those_of_the_code():
    versions = {name: spec.format.version for name, spec in topics().items() if spec.format}
    assert versions["observations"] == MAGIC[3]
    assert versions["snapshots"] == snapshots.VERSION


def test_the_page_is_up_to_date():
    assert (ROOT / "docs" / "topics.md").read_text() == page(), (
        "run: python -m stream_monitor.exports.topics_page > docs/topics.md"
    )


# ---- predictions and labels: the schema and the parser give the same verdict

scalar = st.one_of(
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(-(2.0**53), 2.0**53, allow_nan=False),
    st.text(max_size=5),
)
anything = st.one_of(
    st.none(),
    scalar,
    st.just([1]),
    st.just([]),
    st.just({}),
    st.just({"a": 1}),
    st.just({"a": [None]}),
)
times = st.one_of(
    st.integers(RECORD_MS - 10**9, RECORD_MS + 10**9),
    st.sampled_from([0, 1_760_000_100, 946_684_799_999, 946_684_800_000, -1, 2**60]),
    st.datetimes(
        datetime(2000, 1, 2),  # noqa: DTZ001
        datetime(2100, 1, 1),  # noqa: DTZ001 - hypothesis wants them naive
        timezones=st.timezones(),
    )
    .map(lambda t: t.isoformat(timespec="milliseconds"))
    .filter(lambda t: len(t) == 29),
    st.sampled_from(
        [
            "2025-10-09T08:15:00Z",
            "2025-10-09t08:15:00.5z",
            "2025-10-09 08:15:00-00:00",
            "2024-02-29T00:00:00Z",
        ]
    ),
    st.sampled_from(
        [
            "2025-10-09",
            "2025-10-09T08:15:00",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-10-09T24:00:00Z",
            "2025-10-09T08:15:60Z",
            "1999-06-01T00:00:00Z",
            "",
            "now",
        ]
    ),
    st.sampled_from([None, 1.5, True, [], {}]),
)
probability = st.one_of(st.floats(0, 1), st.sampled_from([0, 1, -0.1, 1.1, True, None, "0.5"]))
text: st.SearchStrategy[Any] = st.one_of(
    st.text(min_size=1, max_size=6),
    st.sampled_from(["", "x" * 128, "x" * 129, "x" * 256, "x" * 257, "é" * 256, None, 7, True, []]),
)
shared = {
    "version": text,
    "timestamp": times,
    "prediction": st.one_of(scalar, anything),
    "score": st.one_of(
        probability, st.dictionaries(st.text(max_size=3), probability, max_size=3), anything
    ),
}
prediction_events = st.fixed_dictionaries(
    {},
    optional={
        "event_id": text,
        "model": text,
        **shared,
        "status": st.sampled_from(["ok", "error", "ok", "error", None, "", "OK", 1, []]),
        "features": st.one_of(st.dictionaries(st.text(max_size=3), anything, max_size=3), anything),
        "latency_ms": st.one_of(
            st.floats(0, 1e12), st.sampled_from([-1, 0, 1e12, 1.1e12, "3", None, True])
        ),
        "segments": st.one_of(
            st.dictionaries(st.text(max_size=3), st.text(max_size=300), max_size=2),
            st.just({"a": None}),
            anything,
        ),
        "variant": text,
        "unit": text,
        "embedding": st.one_of(
            st.lists(st.floats(-9, 9), max_size=3), st.lists(scalar, max_size=2), anything
        ),
        "extra": anything,
    },
)
label_events = st.fixed_dictionaries(
    {},
    optional={
        "event_id": text,
        "label": st.one_of(scalar, anything),
        "model": text,
        **shared,
        "extra": anything,
    },
)
EVENTS = {"predictions": prediction_events, "labels": label_events}


BOUNDS = [2**53, 946_684_800_000, 10**12, 1]
INNER: tuple[Any, ...] = (1, 0, -0.1, 1.1, "b", None, True, [])
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    0.5,
    1.5,
    1.0000001,
    [],
    [1],
    ["a"],
    [True],
    {},
    *({"a": inner} for inner in INNER),
    "ok",
    "error",
    "b",
]
VALUES += [sign * (bound + step) for bound in BOUNDS for step in (-1, 0, 1) for sign in (1, -1)] + [
    "x" * n for n in (0, 1, 127, 128, 129, 255, 256, 257)
]


def near(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """
    An example with one or two fields that are otherwise: near enough to be accepted by chance.
    """
    return st.builds(
        lambda base, change, keep: {**base, **dict(list(change.items())[:keep])},
        st.sampled_from(topics()[kind].example),
        EVENTS[kind],
        st.integers(0, 2),
    )


@pytest.mark.parametrize("kind", ["predictions", "labels"])
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_schema_and_the_parser_agree(kind, data):
    event = data.draw(st.one_of(near(kind), near(kind), EVENTS[kind]))
    assert accepts(SCHEMAS[kind], event) == parses(kind, event)


@pytest.mark.parametrize("kind", ["predictions", "labels"])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: json.dumps(value)[:24])
def test_every_field_is_tried_with_every_kind_of_value_and_at_every_bound(kind, value):
    for example in topics()[kind].example:
        for field in SCHEMAS[kind]["properties"]:
            event = example | {field: value}
            assert accepts(SCHEMAS[kind], event) == parses(kind, event), (field, event)


@pytest.mark.parametrize("kind", ["predictions", "labels"])
def test_examples_are_accepted_by_the_parser(kind):
    for example in topics()[kind].example:
        PARSERS[kind](json.dumps(example).encode(), RECORD_MS, Texts(), 1_000_000)


@pytest.mark.parametrize(
    ("raw", "schema_accepts"),
    [
        # JSON Schema takes 1.0 for an integer, the parser does not
        (
            b'{"event_id": "a", "model": "m", "prediction": 1, "timestamp": 1760000000000.0}',
            True,
        ),
        # the parser does without the colon of RFC 3339
        (
            b'{"event_id":"a","model":"m","prediction":1,"timestamp":"2025-10-09T08:15:00+0200"}',
            False,
        ),
        # a double; JSON Schema cannot tell it from the integer, which is out of range
        (b'{"event_id": "a", "model": "m", "prediction": 1e17}', False),
    ],
)
def test_where_json_schema_cannot_say_what_the_parser_does(raw, schema_accepts):
    """The known exceptions; the page says to write times in ms without a decimal point."""
    assert accepts(SCHEMAS["predictions"], json.loads(raw)) == schema_accepts
    assert parses("predictions", json.loads(raw)) != schema_accepts


# ---- alerts


def verdict(**changes) -> Verdict:
    values: dict[str, Any] = {
        "key": AlertKey("fraud", "3", "country=DE", "data_drift", "amount", "adwin"),
        "level": "warning",
        "clear": False,
        "value": 0.3,
        "threshold": float("inf"),
        "direction": "up",
        "window": Span(RECORD_MS - 60_000, RECORD_MS, 500),
        "summary": "amount moved",
        "evidence": {"guarantee": "none"},
    }
    return Verdict(**values | changes)


def test_the_schema_of_alerts_has_the_fields_of_the_code_in_their_order():
    schema = SCHEMAS["alerts"]
    assert list(schema["properties"]) == schema["required"] == list(Alert.__struct_fields__)
    assert (
        list(schema["properties"]["window"]["properties"])
        == schema["properties"]["window"]["required"]
        == list(Window.__struct_fields__)
    )
    literal, none = get_args(get_type_hints(Verdict)["direction"])
    assert schema["properties"]["direction"]["enum"] == [*get_args(literal), None]
    assert none is type(None)
    for field, literal in {"status": Status, "kind": Kind, "severity": Severity}.items():
        assert schema["properties"][field]["enum"] == list(get_args(literal)), field


@pytest.mark.parametrize("status", get_args(Status))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_alerts_of_the_code_are_accepted(kind, status):
    given_verdict = verdict(
        key=AlertKey("fraud", "", "", kind, "x", "threshold"), direction=None, value=float("nan")
    )
    for v in (verdict(), given_verdict):
        ends_ms = RECORD_MS if status == "resolved" else None
        event = json.loads(encode(alert_of(v, status, "info", RECORD_MS - 1, ends_ms, 2)))
        jsonschema.validate(
            event, SCHEMAS["alerts"], jsonschema.Draft202012Validator, format_checker=formats
        )


def test_the_example_alert_has_the_ids_of_the_code():
    [example] = topics()["alerts"].example
    key = AlertKey(
        example["model"],
        example["version"],
        "",
        example["kind"],
        example["subject"],
        example["detector"],
    )
    made = alert_of(
        verdict(
            key=key,
            value=0.874,
            threshold=0.9,
            direction="down",
            window=Span(1_759_999_400_123, 1_760_000_000_123, 1_000),
            summary=example["summary"],
            evidence=example["evidence"],
        ),
        "firing",
        "critical",
        1_760_000_000_123,
        None,
        0,
    )
    assert example["fingerprint"] == fingerprint(key)
    assert json.loads(encode(made)) == example


# ---- the others


def test_reasons_of_dead_letters_are_those_of_the_code():
    assert (
        tuple(SCHEMAS["dead-letters"]["properties"]["stream-monitor.reason"]["enum"])
        == REJECT_REASONS
    )


def test_profiles_of_the_code_are_accepted_and_all_their_fields_are_described():
    schema = SCHEMAS["baselines"]
    assert list(schema["properties"]) == list(Profile.__struct_fields__)
    feature = schema["properties"]["features"]["additionalProperties"]
    assert list(feature["properties"]) == list(FeatureProfile.__struct_fields__)
    assert feature == schema["properties"]["outputs"]["additionalProperties"]
    assert schema["properties"]["schema"]["const"] == SCHEMA
    profile = Profile(
        model="m",
        version="1",
        rows=100,
        features={
            "a": numeric_profile(np.random.default_rng(1).normal(size=100), 3),
            "b": category_profile({"x": 3}, 1),
        },
        outputs={"__score__": numeric_profile(np.ones(4), 0)},
        performance={"accuracy": 0.9, "labels": 90},
    )
    for one in (profile, Profile()):
        jsonschema.validate(
            json.loads(encode_profile(one)), schema, jsonschema.Draft202012Validator
        )
    [example] = topics()["baselines"].example
    assert decode_profile(json.dumps(example).encode()).model == example["model"]
    broken = copy.deepcopy(example)
    broken["features"]["amount"]["count"] = -1
    assert not accepts(schema, broken)


@pytest.mark.parametrize("kind", ["acknowledged", "muted", "false_alarm"])
def test_what_is_said_of_an_alert_names_it(kind):
    event = {
        "schema": 1,
        "type": kind,
        "model": "m",
        "at": "2025-10-09T08:55:00Z",
        "until": "2025-10-10T08:55:00Z",
        "fingerprint": "0" * 32,
    }
    assert accepts(SCHEMAS["lifecycle"], event)
    del event["fingerprint"]
    assert not accepts(SCHEMAS["lifecycle"], event)
    assert accepts(SCHEMAS["lifecycle"], event | {"type": "paused"})


def test_every_event_of_the_loop_has_an_example_that_its_class_reads_and_writes():
    kinds = {kind.__struct_config__.tag: kind for kind in get_args(AnyEvent)}
    examples: dict[str, list[dict[str, Any]]] = {}
    for example in topics()["lifecycle"].example:
        examples.setdefault(example["type"], []).append(example)
    assert kinds.keys() <= examples.keys()
    assert kinds.keys() <= set(SCHEMAS["lifecycle"]["properties"]["type"]["enum"])
    for kind, made in kinds.items():
        for example in examples[kind]:
            event = lifecycle_events.decode(json.dumps(example).encode())
            assert isinstance(event, made)
            assert event.id == event.named().id
            written = json.loads(lifecycle_events.encode(event))
            assert written == example, "it has no field that the class does not know"
