"""What doctor finds: on the embedded broker, on facts of clusters that are ill, and in records."""

from __future__ import annotations

import json
import socket
import time
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import OffsetAndMetadata
from click.testing import CliRunner

from stream_monitor.checks import archive as archive_checks
from stream_monitor.checks import broker as broker_checks
from stream_monitor.checks import doctor
from stream_monitor.checks import events as event_checks
from stream_monitor.checks import group as group_checks
from stream_monitor.checks import topics as topic_checks
from stream_monitor.checks.doctor import examine
from stream_monitor.checks.patient import Patient
from stream_monitor.checks.probe import probe
from stream_monitor.checks.topics import ACCESS
from stream_monitor.cli.doctor import command, probe_urls, report, shown
from stream_monitor.demo.broker import Broker, start_in_thread
from stream_monitor.errors import InputError
from stream_monitor.findings import Finding
from stream_monitor.ingest import tick
from stream_monitor.kafka.cluster import Cluster, GroupFacts, NewestRecords, TopicFacts
from stream_monitor.kafka.operations import READ, WRITE
from stream_monitor.lifecycle_settings import Archive
from stream_monitor.runtime.http import HttpServer
from stream_monitor.schema import topics
from stream_monitor.settings import (
    CoreSettings,
    HttpSettings,
    KafkaSettings,
    Labels,
    ModelSettings,
    Settings,
    WorkerSettings,
)
from stream_monitor.stages.commit_metadata import Note

NOW_MS = 1_750_000_000_000
GOOD = b'{"event_id": "1", "model": "churn", "prediction": 1}'
ALL = frozenset({READ, WRITE})


def settings_for(bootstrap: str, *, port: int = 0, **worker) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=bootstrap),
        worker=WorkerSettings(
            metrics=HttpSettings(port=port), **{"processing_guarantee": "at_least_once", **worker}
        ),
    )


async def found_by(settings: Settings, **options) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    async for finding in examine(settings, **{"timeout_s": 30.0, **options}):
        found.setdefault(finding.check, []).append(finding)
    return found


@asynccontextmanager
async def producing(bootstrap: str):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def make_topics(bootstrap: str, *names: str, **config: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs=config) for name in names])
    await admin.close()


async def test_healthy_cluster_with_good_events():
    async with Broker() as broker:
        await make_topics(broker.bootstrap, *(ACCESS.keys() - {"observations"}))
        await make_topics(broker.bootstrap, "observations", **topics()["observations"].config)
        async with producing(broker.bootstrap) as producer:
            for number in range(20):
                await producer.send(
                    "predictions",
                    b'{"event_id": "%d", "model": "churn", "prediction": 1}' % number,
                    partition=0,  # so that there are ten newest ones
                )
                label = b'{"event_id": "%d", "label": 1}' % number
                await producer.send("labels", label, partition=0)
            await producer.flush()
        found = await found_by(settings_for(broker.bootstrap), sample_n=10)
    assert {finding.status for findings in found.values() for finding in findings} == {"ok"}
    timed = {"pending"}  # only where the predictions have more than one time
    assert set(found) - timed == {
        "metrics port",
        "broker",
        "protocol",
        "transactions",
        "topics",
        "permissions",
        "retention",
        "group",
        "predictions",
        "labels",
        "clock",
        "ids",
    }
    assert "churn (10)" in found["predictions"][0].detail


async def test_nothing_is_written_and_no_group_is_joined():
    async with Broker() as broker:
        await found_by(settings_for(broker.bootstrap))
        async with Cluster(KafkaSettings(bootstrap_servers=broker.bootstrap), 5.0) as cluster:
            topics, group = await cluster.topics(), await cluster.group("stream-monitor")
    assert topics == {}
    assert group == GroupFacts("Dead", 0, None)


async def test_a_coordinator_that_still_loads_is_asked_again(monkeypatch):
    """
    On a fresh cluster, or after a restart of a broker, the group has moved or is not loaded yet: no
    reason for a worker to give up.
    """

    async with (
        Broker() as broker,
        Cluster(KafkaSettings(bootstrap_servers=broker.bootstrap), 0.5) as cluster,
    ):
        answers = iter([16, 14])
        ask = cluster._ask

        async def loading(request, node=None):
            answer = await ask(request, node)
            if node is not None and (code := next(answers, 0)):
                answer.groups[0] = (code, *answer.groups[0][1:])
            return answer

        monkeypatch.setattr(cluster, "_ask", loading)
        found = await cluster.group("stream-monitor")
    assert found == GroupFacts("Dead", 0, None)


async def test_exactly_once_on_a_broker_without_transactions_names_the_setting():
    async with Broker() as broker:
        found = await found_by(
            settings_for(broker.bootstrap, processing_guarantee="exactly_once"), sample_n=0
        )
    assert found["protocol"][0].status == "fail"
    assert "worker.processing_guarantee" in found["protocol"][0].detail
    assert "at_least_once" in found["protocol"][0].advice
    assert "transactions" not in found


async def test_bad_records_are_shown_with_their_place():
    async with Broker(partitions=1) as broker:
        async with producing(broker.bootstrap) as producer:
            for value in (GOOD, b"{", GOOD, b'{"event_id": "2"}'):
                await producer.send_and_wait("predictions", value)
            await producer.send_and_wait("labels", b"[]")
        found = await found_by(settings_for(broker.bootstrap))
    predictions, labels = found["predictions"][0], found["labels"][0]
    assert (predictions.status, labels.status) == ("warn", "fail")
    assert "of the newest 4 records of predictions 2 cannot be used" in predictions.detail
    assert "predictions/0@1: invalid_json" in predictions.detail
    assert "predictions/0@3: missing_field" in predictions.detail
    assert "labels/0@0: not_an_object" in labels.detail
    assert labels.advice


async def test_lag_of_the_group_and_records_that_were_lost():
    async with Broker(partitions=1) as broker:
        async with producing(broker.bootstrap) as producer:
            for _ in range(5):
                await producer.send_and_wait("predictions", GOOD)
        from aiokafka import AIOKafkaConsumer

        consumer = AIOKafkaConsumer(
            bootstrap_servers=broker.bootstrap,
            group_id="stream-monitor",
            enable_auto_commit=False,
        )
        await consumer.start()
        consumer.assign([TopicPartition("predictions", 0)])
        await consumer.commit({TopicPartition("predictions", 0): OffsetAndMetadata(2, "")})
        await consumer.stop()
        found = await found_by(settings_for(broker.bootstrap), sample_n=0)
    assert found["group"][0].status == "warn"
    assert "no worker is running" in found["group"][0].detail
    assert found["lag"] == [Finding("lag", "ok", "predictions: 3 records behind")]


async def test_retention_that_is_shorter_than_the_delay_of_labels():
    async with Broker() as broker:
        await make_topics(broker.bootstrap, "predictions", "labels", **{"retention.ms": "3600000"})
        core = CoreSettings(
            models={"slow": ModelSettings(labels=Labels(max_delay_ms=30 * 86_400_000))}
        )
        base = settings_for(broker.bootstrap)
        found = await found_by(
            Settings(kafka=base.kafka, worker=base.worker, core=core), sample_n=0
        )
    assert [finding.status for finding in found["retention"]] == ["warn", "warn"]
    assert "predictions keeps records for 1h, labels may take 30d" in found["retention"][0].detail


async def test_broker_that_is_not_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = await found_by(settings_for(f"127.0.0.1:{unused.getsockname()[1]}"), timeout_s=2.0)
    assert [finding.status for finding in found["broker"]] == ["fail"]
    assert "nothing listens on that address" in found["broker"][0].detail
    assert "kafka.bootstrap_servers" in found["broker"][0].advice
    assert set(found) == {"metrics port", "broker"}


async def test_broker_that_never_answers():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        found = await found_by(settings_for(f"127.0.0.1:{mute.getsockname()[1]}"), timeout_s=0.2)
    assert found["broker"][0].status == "fail"


def patient(*facts: TopicFacts, cluster=None, **settings) -> Patient:
    """Somebody with these topics."""
    names = {fact.name: fact for fact in facts}
    return Patient(Settings(**settings), cluster, names, {name: {} for name in names}, 0, NOW_MS)


class FakeCluster:
    """Answers like a cluster with one group."""

    brokers = 3
    versions = dict.fromkeys(
        [*broker_checks.API_NAMES, *broker_checks.TRANSACTION_API_NAMES], (0, 9)
    )

    def __init__(self, *, operations=ALL, refusal="", ends=None, committed=None, hidden=()):
        self._hidden = hidden
        self._operations, self._refusal, self._ends, self._committed = (
            operations,
            refusal,
            ends or {},
            committed or {},
        )

    async def hidden(self, names):
        return {name for name in names if name in self._hidden}

    async def group(self, name):
        return GroupFacts("Stable", 1, self._operations)

    async def transaction_coordinator(self, _):
        return self._refusal

    async def committed(self, _):
        return self._committed

    async def ends(self, _topic, _partitions):
        return self._ends


def topic(name, *, operations=ALL, replicas=3, leaderless=0):
    return TopicFacts(name, 1, replicas, leaderless, operations)


async def test_permissions_name_what_is_lacking():
    subject = patient(
        topic("predictions", operations=frozenset({WRITE})),
        topic("alerts", operations=frozenset()),
        topic("labels"),
        cluster=FakeCluster(operations=frozenset()),
    )
    found = await topic_checks.permissions(subject)
    assert [(finding.status, finding.detail) for finding in found] == [
        ("fail", "topic predictions: Read not allowed"),
        ("fail", "topic alerts: Read and Write not allowed"),
        ("fail", "group stream-monitor: Read not allowed"),
    ]


async def test_permissions_that_the_broker_does_not_tell():
    found = await topic_checks.permissions(
        patient(topic("predictions", operations=None), cluster=FakeCluster(operations=None))
    )
    assert found[0].status == "ok"
    assert "does not report" in found[0].detail


@pytest.mark.parametrize(
    ("refusal", "status"), [("", "ok"), ("TransactionalIdAuthorizationFailed", "fail")]
)
async def test_transactions(refusal, status):
    found = await broker_checks.transactions(patient(cluster=FakeCluster(refusal=refusal)))
    assert found[0].status == status
    assert "stream-monitor.observations.0" in found[0].detail
    assert refusal in found[0].detail


async def test_topics_without_leader_or_replica():
    found = await topic_checks.topics(
        patient(
            topic("predictions", leaderless=1),
            topic("observations", replicas=1),
            cluster=FakeCluster(),
        )
    )
    assert [finding.status for finding in found] == ["warn", "fail", "warn"]
    assert "labels" in found[0].detail
    assert "no leader" in found[1].detail
    assert "no replica" in found[2].detail


async def test_topics_that_are_hidden_are_not_called_missing():
    found = await topic_checks.topics(patient(cluster=FakeCluster(hidden={"alerts"})))
    assert [(finding.status, "alerts" in finding.detail) for finding in found] == [
        ("fail", True),
        ("warn", False),
    ]


@pytest.mark.parametrize(
    ("create", "advice"), [(True, "the worker creates them"), (False, "topics apply")]
)
async def test_missing_topics_depend_on_create_topics(create, advice):
    found = await topic_checks.topics(
        patient(
            cluster=FakeCluster(), kafka=KafkaSettings(create_topics=create, topic_prefix="ml.")
        )
    )
    assert advice in found[0].advice
    assert "ml.predictions" in found[0].detail


@pytest.mark.parametrize(
    ("ends", "status"), [((0, 10), "ok"), ((7, 10), "fail"), ((0, 1_000_000), "warn")]
)
async def test_lag(ends, status):
    subject = patient(
        topic("predictions"),
        cluster=FakeCluster(
            ends={0: ends},
            committed={
                TopicPartition("predictions", 0): (5, ""),
                TopicPartition("other", 0): (1, ""),
            },
        ),
    )
    assert [finding.status for finding in (await group_checks.group(subject))] == [
        "ok",
        status,
    ]


@pytest.mark.parametrize(
    ("ends", "behind_h", "status", "says"),
    [
        ((0, 5), 48, "ok", "all is archived"),
        ((0, 9), 1, "ok", "60 min ago"),
        ((0, 9), 7, "warn", "7 h ago"),
        ((8, 9), 1, "fail", "3 records were deleted"),
        (None, 0, "warn", "nothing is archived yet"),
    ],
)
async def test_how_far_the_archive_is(ends, behind_h, status, says):
    note = json.dumps({"time_ms": NOW_MS - behind_h * 3_600_000})
    committed = {TopicPartition("observations", 0): (5, note)} if ends else {}
    cluster = FakeCluster(ends={0: ends}, committed=committed)
    subject = patient(topic("observations"), cluster=cluster, archive=Archive(path="kept"))
    (found,) = await archive_checks.archive(subject)
    assert found.status == status
    assert says in found.detail
    assert await archive_checks.archive(patient(topic("observations"), cluster=cluster)) == []


def noted(*notes: Note) -> Patient:
    committed = {
        TopicPartition("observations", p): (7, note.text() + " failed=9:1")
        for p, note in enumerate(notes)
    } | {TopicPartition("predictions", 0): (5, "id")}
    return patient(
        TopicFacts("observations", 2, 3, 0, ALL), cluster=FakeCluster(committed=committed)
    )


@pytest.mark.parametrize(
    ("configs", "age_min", "status", "says"),
    [
        (("a", "a"), 60, "ok", "a in 0, 1 (newest change 60 min ago)"),
        (("a", "b"), 4, "ok", "a in 0; b in 1 (newest change 4 min ago)"),
        (("a", "b"), 6, "warn", "a in 0; b in 1 (newest change 6 min ago)"),
        (("a", ""), 6, "warn", "a in 0; none yet in 1"),
    ],
)
async def test_configurations_by_partition(configs, age_min, status, says):
    subject = noted(
        *(
            Note(3, 2, config, 1, NOW_MS - (age_min + 100 * p) * 60_000)
            for p, config in enumerate(configs)
        )
    )
    [finding] = await group_checks.configuration(subject)
    assert finding.status == status
    assert says in finding.detail
    assert f"this one is {Settings().core.hash}" in finding.detail
    assert ("finish the rollout" in finding.advice) == (status == "warn")


async def test_observations_with_another_number_of_partitions():
    found = await group_checks.configuration(
        noted(Note(3, 4, "a", 1, NOW_MS), Note(3, 4, "a", 1, NOW_MS))
    )
    assert [f.status for f in found] == ["fail", "ok"]
    assert "observations has 2 partitions, but its rows were partitioned for 4" in found[0].detail
    assert "stop all workers" in found[0].advice


@pytest.mark.parametrize(
    "subject",
    [
        patient(cluster=FakeCluster()),
        patient(TopicFacts("observations", 2, 3, 0, ALL), cluster=FakeCluster()),
    ],
    ids=["no topic", "no commits"],
)
async def test_nothing_is_evaluated_yet(subject):
    assert await group_checks.configuration(subject) == []


async def test_notes_come_from_the_metadata_of_commits():
    async with Broker(partitions=1) as broker:
        await make_topics(broker.bootstrap, "observations")
        from aiokafka import AIOKafkaConsumer

        consumer = AIOKafkaConsumer(
            bootstrap_servers=broker.bootstrap,
            group_id="stream-monitor",
            enable_auto_commit=False,
        )
        await consumer.start()
        consumer.assign([TopicPartition("observations", 0)])
        await consumer.commit(
            {
                TopicPartition("observations", 0): OffsetAndMetadata(
                    0, Note(3, 1, "abc", 0, 1).text()
                )
            }
        )
        await consumer.stop()
        outcome = await found_by(settings_for(broker.bootstrap), sample_n=0)
    assert "abc in 0" in outcome["configuration"][-1].detail


async def test_a_check_that_breaks_is_a_finding(monkeypatch):
    async def broken(_):
        raise RuntimeError("boom")

    monkeypatch.setitem(doctor.CHECKUPS, "topics", broken)

    async with Broker() as broker:
        found = await found_by(settings_for(broker.bootstrap), sample_n=0)
    assert [(finding.status, finding.detail) for finding in found["topics"]] == [
        ("fail", "could not be checked: boom")
    ]
    assert found["permissions"][0].status == "ok"


@pytest.mark.parametrize(
    ("age_ms", "status", "says"),
    [
        (90_000, "ok", "90 s old"),
        (-60_000, "ok", "60 s ahead"),
        (-3_600_000, "warn", "60 min ahead"),
    ],
)
def test_clock(age_ms, status, says):
    finding = event_checks.clock(
        "predictions", [NewestRecords(0, [1], [NOW_MS - age_ms], [GOOD])], NOW_MS
    )
    assert finding.status == status
    assert says in finding.detail


def test_what_cannot_be_used_is_told_by_model_however_it_is_broken():
    deep = (
        b'{"event_id": "2", "model": "churn", "features": {"a": '
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}}"
    )
    values: list[bytes | None] = [
        GOOD,
        GOOD.replace(b"1}", b"[1]}"),
        b'{"event_id": "1", "model": "other"}',
        b"\xff",
        b'"\xff"',
        deep,
    ]
    finding = event_checks.judged(
        "predictions",
        "predictions",
        [NewestRecords(0, list(range(6)), [NOW_MS] * 6, values)],
        1_000_000,
    )
    assert (finding.status, "5 cannot be used" in finding.detail) == ("warn", True)
    assert finding.detail.endswith("by the model that they name: churn 1 of 2, other 1 of 1")


@pytest.mark.parametrize(
    ("ahead_ms", "by", "n"), [(7_200_000, "event", 1), (60_000, "record", 2), (0, "event", 0)]
)
def test_events_of_the_future_are_told(ahead_ms, by, n):
    """The clock of a producer, with the time of its records or without."""
    good = json.loads(GOOD) | ({"timestamp": NOW_MS + ahead_ms} if by == "event" else {})
    time_ms = NOW_MS + (ahead_ms if by == "record" else 0)
    values: list[bytes | None] = [
        json.dumps(
            good | {"event_id": str(i), **({} if i < max(n, 1) else {"timestamp": NOW_MS})}
        ).encode()
        for i in range(3)
    ]
    ingest = event_checks._taken(
        "predictions", "predictions", [NewestRecords(0, [1, 2, 3], [time_ms] * 3, values)], 1_000
    )[0]
    found = event_checks._dated("predictions", ingest, NOW_MS)
    assert [(f.status, f.detail.split(" are ")[0]) for f in found] == (
        [("warn", f"{n} of the newest 3 predictions")] if n else []
    )


def test_a_name_stays_on_its_line():
    assert (
        len(shown(Finding("predictions", "ok", "models: a\nfail  broker\x1b[2J (1)")).splitlines())
        == 1
    )


def test_tombstones_are_not_faults():
    assert (
        event_checks.judged(
            "predictions",
            "predictions",
            [NewestRecords(0, [1, 2], [NOW_MS, NOW_MS], [None, GOOD])],
            1_000,
        ).status
        == "ok"
    )


def test_too_large_for_the_limit_of_the_worker():
    assert (
        "too_large"
        in event_checks.judged(
            "predictions", "predictions", [NewestRecords(0, [7], [NOW_MS], [GOOD])], 10
        ).detail
    )


async def test_metrics_port():
    async def no_metrics(_: str) -> tuple[bytes, str]:
        return b"", ""

    found = []
    for ready in (True, False):
        answer = lambda ready=ready: (ready, "so it is")  # noqa: E731
        server = HttpServer(HttpSettings(port=0), no_metrics, answer)
        port = await server.start()
        found.append(await doctor.metrics_port(HttpSettings(port=port)))
        await server.stop()
    found.append(await doctor.metrics_port(HttpSettings(port=port)))
    found.append(await doctor.metrics_port(HttpSettings(port=0)))
    runner = web.AppRunner(web.Application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.append(await doctor.metrics_port(HttpSettings(port=runner.addresses[0][1])))
    await runner.cleanup()
    assert [finding.status for finding in found] == ["ok", "warn", "ok", "ok", "fail"]
    assert "so it is" in found[1].detail
    assert "worker.metrics.port" in found[4].advice


def worker_that_sees(bootstrap: str, predictions: list[dict], *, blind: bool = False):
    """
    Metrics of a worker that reads the topics itself: `model_labels_total` counts labels of
    predictions it has seen.
    """
    from aiokafka import AIOKafkaConsumer

    async def metrics(_accept):
        consumer = AIOKafkaConsumer(
            "predictions", "labels", bootstrap_servers=bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        ids: dict[str, set] = {"predictions": set(), "labels": set()}
        for records in (await consumer.getmany(timeout_ms=100)).values():
            for record in records:
                event = json.loads(record.value)
                predictions.append(event)
                ids[record.topic].add((event["model"], event["event_id"]))
        await consumer.stop()
        labels_n = len(ids["predictions"] & ids["labels"])
        if blind or not labels_n:
            return b"stream_monitor_ready 1\n", "text/plain"
        return (
            (
                b'model_labels_total{model="__probe__",version=""} '
                b'%d\nmodel_accuracy{model="__probe__",version="",window="1h"} 1.0\n'
            )
            % labels_n,
            "text/plain",
        )

    return metrics


@pytest.mark.parametrize(("blind", "status"), [(False, "ok"), (True, "fail")])
async def test_probe(blind, status):
    events: list[Any] = []
    async with Broker() as broker:
        await make_topics(broker.bootstrap, "predictions", "labels")
        server = HttpServer(
            HttpSettings(port=0),
            worker_that_sees(broker.bootstrap, events, blind=blind),
            lambda: (True, ""),
        )
        port = await server.start()
        finding = await probe(
            KafkaSettings(bootstrap_servers=broker.bootstrap),
            [f"http://127.0.0.1:{port}/metrics"],
            wait_s=1.0 if blind else 20.0,
        )
        await server.stop()
    assert finding.status == status
    assert {event["model"] for event in events} == {"__probe__"}
    now_ms = time.time_ns() // 1_000_000
    for event in events:
        kind = "labels" if "label" in event else "predictions"
        assert (
            event_checks.judged(
                kind, kind, [NewestRecords(0, [0], [now_ms], [json.dumps(event).encode()])], 1_000
            ).status
            == "ok"
        )


async def test_probe_without_a_worker_sends_nothing():
    finding = await probe(
        KafkaSettings(bootstrap_servers="127.0.0.1:1"),
        ["http://127.0.0.1:1/metrics"],
        wait_s=1.0,
    )
    assert finding.status == "fail"
    assert "--metrics-url" in finding.advice


def test_probe_urls():
    assert probe_urls(Settings(), ("http://a:1", "http://b:2/metrics")) == [
        "http://a:1/metrics",
        "http://b:2/metrics",
    ]
    assert probe_urls(Settings(), ()) == ["http://127.0.0.1:9108/metrics"]
    with pytest.raises(InputError, match="--metrics-url"):
        probe_urls(settings_for("x", port=0), ())


@pytest.mark.parametrize("as_json", [True, False])
def test_report(as_json, capsys):
    with start_in_thread() as broker:
        statuses = report(
            settings_for(broker.bootstrap),
            sample_n=1,
            urls=["http://127.0.0.1:1/metrics"],
            as_json=as_json,
        )
    out = capsys.readouterr().out
    assert statuses["fail"] == 1
    if as_json:
        found = json.loads(out)
        assert {status: found[status] for status in ("ok", "warn", "fail")} == statuses
        assert [check["check"] for check in found["checks"] if check["status"] == "fail"] == [
            "probe"
        ]
        assert len(found["checks"]) == statuses.total()
    else:
        lines = out.splitlines()
        assert lines[0].startswith("ok    metrics port")
        assert lines[-1] == f"{statuses['ok']} ok, {statuses['warn']} warning(s), 1 failed"
        assert sum(line.startswith(("ok", "warn", "fail")) for line in lines) == statuses.total()


def test_help_has_an_example():
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0
    assert "stream-monitor doctor --config monitor.yaml" in done.output


def test_a_finding_as_text():
    assert "-> do this" in shown(Finding("lag", "warn", "behind", "do this"))
    assert "->" not in shown(Finding("lag", "ok", "fine", "do this"))


# ---- the clocks of workers


@pytest.mark.parametrize(
    ("kind", "ahead_ms", "status", "says"),
    [
        ("LogAppendTime", 20, "ok", "have the time of the broker"),
        ("LogAppendTime", 7_300_000, "warn", "2 h ahead of the broker's"),
        ("LogAppendTime", -45_000, "warn", "45 s behind the broker's"),
        ("CreateTime", 0, "warn", "log time goes by the clocks of workers"),
    ],
)
async def test_the_clock_of_a_worker_is_compared_with_the_brokers(kind, ahead_ms, status, says):
    class Sampled(Cluster):
        async def newest(self, *_):
            return [
                NewestRecords(
                    0, [1, 2], [NOW_MS, NOW_MS], [tick(NOW_MS - 3), tick(NOW_MS + ahead_ms)]
                )
            ]

    facts = TopicFacts("observations", 1, 1, 0, ALL)
    patient = Patient(
        Settings(),
        Sampled(KafkaSettings(), 1),
        {"observations": facts},
        {"observations": {"message.timestamp.type": kind}},
        10,
        NOW_MS,
    )
    (finding,) = await event_checks.log_time(patient)
    assert (finding.check, finding.status) == ("clock", status)
    assert says in finding.detail
    assert finding.advice or status == "ok"
