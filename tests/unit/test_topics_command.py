"""
`stream-monitor topics`: the decisions on facts, the whole way on the embedded broker, and what is
exported.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import NamedTuple

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from click.testing import CliRunner
from ruamel.yaml import YAML

from stream_monitor.cli import main
from stream_monitor.cli.topics import command
from stream_monitor.demo.broker import start_in_thread
from stream_monitor.errors import BrokerError, InputError
from stream_monitor.exports.asyncapi import RECEIVED, document
from stream_monitor.exports.strimzi import kafka_topics
from stream_monitor.kafka.topic_changes import (
    Difference,
    Found,
    apply,
    asked_partitions,
    compare,
    differences,
    look,
)
from stream_monitor.kafka.topics import describe, ensure, partitions_at_creation
from stream_monitor.schema import topics
from stream_monitor.settings import KafkaSettings, Settings

WHOLE = {name: Found(spec.partitions, 1, spec.config) for name, spec in topics().items()}


def with_(
    name: str, partitions: int | None = None, replicas: int = 1, **config: str
) -> dict[str, Found]:
    spec = topics()[name]
    return WHOLE | {
        name: Found(
            partitions or spec.partitions,
            replicas,
            spec.config | {key.replace("_", "."): value for key, value in config.items()},
        )
    }


def told(differences_found: list[Difference]) -> list[tuple]:
    return [(d.topic, d.aspect, d.have, d.want, d.repair) for d in differences_found]


# ---- compare


def test_nothing_is_there():
    found = compare({})
    assert [(d.topic, d.repair) for d in found] == [(name, "create") for name in topics()]
    assert {d.topic: d.want for d in found}["observations"] == "4"


@pytest.mark.parametrize("name", ["predictions", "labels", "observations", "snapshots", "history"])
def test_more_partitions_than_specified_are_no_difference(name):
    found = with_(name, 9)
    assert compare(found | {"snapshots": Found(9, 1, topics()["snapshots"].config)}) == []


@pytest.mark.parametrize("name", ["alerts", "baselines", "lifecycle", "dead-letters", "anomalies"])
def test_topics_that_are_read_in_order_keep_their_one_partition(name):
    assert told(compare(with_(name, 3))) == [(name, "partitions", "3", "1", None)]


def test_inputs_with_few_partitions_grow_only_when_asked():
    few = with_("predictions", 2)
    [left] = compare(few)
    assert told([left]) == [("predictions", "partitions", "2", "4", None)]
    assert "--partitions predictions=4" in left.advice
    assert told(compare(few, asked={"predictions": 6})) == [
        ("predictions", "partitions", "2", "6", "add_partitions")
    ]
    assert compare(with_("predictions", 6), asked={"predictions": 6}) == []
    [shrink] = compare(with_("predictions", 9), asked={"predictions": 6})
    assert shrink.repair is None


@pytest.mark.parametrize("have", [2, 8])
def test_partitions_of_observations_are_refused_with_the_procedure(have):
    found = with_("observations", have) | {"snapshots": Found(9, 1, topics()["snapshots"].config)}
    [refused] = compare(found, "p.", asked={"observations": 16})[:1]
    assert told([refused]) == [("observations", "partitions", str(have), "16", None)]
    assert "stop all workers, delete p.observations and p.snapshots" in refused.advice


def test_snapshots_need_a_partition_for_each_of_observations():
    [refused] = compare(with_("observations", 8))
    assert told([refused]) == [("snapshots", "partitions", "4", "8", None)]
    assert partitions_at_creation({}, {"observations": 8})["snapshots"] == 8
    assert partitions_at_creation({"observations": 2})["snapshots"] == 4


def test_settings_are_compared_with_those_of_so_many_replicas():
    assert compare(with_("observations", replicas=1, min_insync_replicas="1")) == []
    assert told(compare(with_("observations", replicas=3, min_insync_replicas="1"))) == [
        ("observations", "min.insync.replicas", "1", "2", "alter")
    ]
    assert compare(with_("alerts", cleanup_policy="delete,compact", segment_ms="5")) == []
    assert told(compare(with_("alerts", cleanup_policy="delete"))) == [
        ("alerts", "cleanup.policy", "delete", "compact,delete", "alter")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "nothing=5",
        "alerts=2",
        "predictions",
        "predictions=",
        "predictions=x",
        "predictions=-8",
        "predictions=3",
        "predictions=²",
        "=5",
        "",
    ],
)
def test_partitions_that_cannot_be_had(text):
    with pytest.raises(InputError, match="--partitions"):
        asked_partitions([text])


# ---- on the embedded broker


@pytest.fixture(scope="module")
def bootstrap():
    with start_in_thread() as broker:
        yield broker.bootstrap
        assert not broker.broker.errors, "a client was not understood"


class Monitoring(NamedTuple):
    """A configuration, and how to run a command with it."""

    path: Path
    settings: Settings

    def __call__(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(
            command, [*arguments[:1], "--config", str(self.path), *arguments[1:]]
        )
        assert result.exit_code == code, (result.output, result.exception)
        return result.output


@pytest.fixture
def monitor(bootstrap, tmp_path, request):
    """A prefix of its own for each test."""
    prefix = f"{request.node.name[-20:].replace('[', '-').replace(']', '')}."
    path = tmp_path / "monitor.yaml"
    path.write_text(f"kafka: {{bootstrap_servers: '{bootstrap}', topic_prefix: '{prefix}'}}\n")

    return Monitoring(
        path, Settings(kafka=KafkaSettings(bootstrap_servers=bootstrap, topic_prefix=prefix))
    )


def test_apply_makes_and_repairs_and_then_has_nothing_to_do(monitor):
    prefix = monitor.settings.kafka.topic_prefix
    assert f"{prefix}alerts: is missing" in monitor("check", code=1)
    assert f"would make {prefix}alerts" in monitor("apply", "--dry-run")
    assert f"{prefix}alerts: is missing" in monitor("check", code=1), "a dry run did something"
    assert f"made {prefix}observations, partitions: 8" in monitor(
        "apply", "--partitions", "observations=8"
    )
    assert monitor("check") == "all topics are as specified\n"
    assert monitor("apply") == "nothing to change\n"
    found = asyncio.run(look(monitor.settings.kafka))
    assert (found["observations"].partitions, found["snapshots"].partitions) == (8, 8)
    assert "left as it is" in monitor("apply", "--partitions", "observations=12", code=1)
    assert f"added partitions to {prefix}labels: 4 -> 6" in monitor(
        "apply", "--partitions", "labels=6"
    )
    assert monitor("apply", "--partitions", "labels=6") == "nothing to change\n"


async def made(kafka: KafkaSettings, topic: NewTopic) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([topic])
    await admin.close()


def test_settings_are_repaired_and_others_stay(monitor):
    kafka = monitor.settings.kafka
    settings = {"retention.ms": "1000", "retention.bytes": "777"}
    asyncio.run(made(kafka, NewTopic(f"{kafka.topic_prefix}labels", 4, 1, topic_configs=settings)))
    monitor("apply")
    labels = asyncio.run(look(kafka))["labels"]
    assert labels.config["retention.ms"] == "604800000"
    assert labels.config["retention.bytes"] == "777"
    assert monitor("apply") == "nothing to change\n"


def test_json_says_the_same(monitor):
    assert {d["repair"] for d in json.loads(monitor("check", "--json", code=1))["differences"]} == {
        "create"
    }
    planned = json.loads(monitor("apply", "--json", "--dry-run"))
    assert planned["dry_run"]
    assert [d["topic"] for d in planned["changed"]] == list(topics())
    made = json.loads(monitor("apply", "--json"))
    assert (made["dry_run"], made["changed"], made["left"]) == (False, planned["changed"], [])
    assert json.loads(monitor("check", "--json")) == {"differences": []}


async def partitions_of_a_worker(settings: Settings, observations: int) -> dict[str, int]:
    """After a worker was started where `observations` has so many."""
    found = await differences(settings.kafka, {"observations": observations})
    await apply(settings, [each for each in found if each.topic == "observations"])
    await ensure(settings)
    return await describe(settings)


def test_a_worker_makes_snapshots_with_the_partitions_of_observations(monitor):
    assert asyncio.run(partitions_of_a_worker(monitor.settings, 7)) == {
        name: spec.partitions for name, spec in topics().items()
    } | {
        "observations": 7,
        "snapshots": 7,
    }
    assert monitor("check") == "all topics are as specified\n"


async def test_what_the_broker_refuses_is_said(monitor):
    wanted = Difference(topic="labels", aspect="retention.ms", want="1", have="2", repair="alter")
    with pytest.raises(
        BrokerError, match=f"{monitor.settings.kafka.topic_prefix}labels: UnknownTopicOrPartition"
    ):
        await apply(monitor.settings, [wanted])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["check"], 1, "no connection to Kafka at 127.0.0.1:1 "),
        (["apply", "--partitions", "alerts=2"], 2, "--partitions alerts=2"),
    ],
)
def test_errors_are_one_line(arguments, code, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STREAM_MONITOR_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr("sys.argv", ["stream-monitor", "topics", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


# ---- without a broker


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments))
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture
def prefixed(tmp_path):
    path = tmp_path / "monitor.yaml"
    path.write_text("kafka: {topic_prefix: 'Team_A.'}\n")
    return str(path)


def test_list_has_a_line_for_each_topic(prefixed):
    lines = run("list", "--config", prefixed).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [f"Team_A.{name}" for name in topics()]
    assert "90d" in lines[1]
    listed = json.loads(run("list", "--json", "--config", prefixed))
    assert {t["name"]: t["schema"] for t in listed} == {
        name: spec.schema for name, spec in topics().items()
    }
    assert all(t["topic"] == f"Team_A.{t['name']}" for t in listed)


@pytest.mark.parametrize("name", ["list", "check", "apply", "export"])
def test_help_has_an_example(name):
    assert f"stream-monitor topics {name}" in run(name, "--help")


def test_strimzi_resources(prefixed):
    text = run("export", "--format", "strimzi", "--config", prefixed, "--cluster", "events")
    resources = list(YAML(typ="safe", pure=True).load_all(text))
    assert resources == kafka_topics("Team_A.", cluster="events", replicas=3)
    observations = {r["spec"]["topicName"]: r for r in resources}["Team_A.observations"]
    assert observations["apiVersion"] == "kafka.strimzi.io/v1"
    assert observations["metadata"] == {
        "name": "team-a.observations",
        "labels": {"strimzi.io/cluster": "events"},
    }
    assert observations["spec"]["config"]["min.insync.replicas"] == "2"
    single = json.loads(run("export", "--format", "strimzi", "--replicas", "1", "--json"))
    assert single["kind"] == "List"
    assert all(
        "min.insync.replicas" not in r["spec"]["config"] and "topicName" not in r["spec"]
        for r in single["items"]
    )


def test_asyncapi_document(prefixed, tmp_path):
    path = tmp_path / "asyncapi.yaml"
    run("export", "--format", "asyncapi", "--config", prefixed, "--output", str(path))
    made = YAML(typ="safe", pure=True).load(path.read_text())
    assert (
        made
        == document("Team_A.")
        == json.loads(run("export", "--format", "asyncapi", "--config", prefixed, "--json"))
    )
    assert "*" not in path.read_text().split("channels:")[0]
    assert set(made["channels"]) == set(topics())
    actions: dict[str, set[str]] = {}
    for operation in made["operations"].values():
        name = operation["channel"]["$ref"].removeprefix("#/channels/")
        actions.setdefault(name, set()).add(operation["action"])
    assert actions.pop("lifecycle") == {"receive", "send"}
    assert set(actions) == set(topics()) - {"lifecycle"}
    assert all(a == {"receive" if n in RECEIVED else "send"} for n, a in actions.items())
    payload = made["channels"]["labels"]["messages"]["labels"]["payload"]["schema"]
    assert payload == {
        key: value for key, value in (topics()["labels"].schema or {}).items() if key != "$schema"
    }
    assert made["channels"]["alerts"]["bindings"]["kafka"]["topicConfiguration"] == {
        "retention.ms": 7_776_000_000,
        "cleanup.policy": ["compact", "delete"],
    }


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    result = CliRunner().invoke(
        command, ["export", "--format", "strimzi", "--output", str(tmp_path / "no" / "x.yaml")]
    )
    assert isinstance(result.exception, InputError)
