"""
Answers of the embedded broker: from a request of one version to the fields of its answer.

Rule of the file: a handler changes topics and groups and returns a tuple in the order of the
answer's schema; it knows no socket. Only Fetch waits. The `version >= n` at the end of each handler
are the differences between versions. Handlers of groups are in `group_handlers.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from stream_monitor.demo.calls import NODE, Address, Answer, Call
from stream_monitor.demo.group_handlers import GroupHandlers
from stream_monitor.demo.protocol import Error
from stream_monitor.demo.topics import DEFAULTS, Topic, Topics
from stream_monitor.kafka.alter_configs import DELETE, SET

CLUSTER = "stream-monitor-demo"
LATEST, EARLIEST = -1, -2
TOPIC_RESOURCE = 2
FIRST_PRODUCER_ID = 1_000


class Handlers:
    """State of the broker, and one method per supported API."""

    def __init__(self, topics: Topics, address: Address, join_delay_s: float) -> None:
        self.topics = topics
        self.address = address
        self.groups = GroupHandlers(address, join_delay_s)
        self._producer_ids = itertools.count(FIRST_PRODUCER_ID)
        self._arrival = asyncio.Event()
        self.by_api_key: dict[int, Callable[[Call], Answer | Awaitable[Answer]]] = {
            0: self.produce,
            1: self.fetch,
            2: self.list_offsets,
            3: self.metadata,
            8: self.groups.offset_commit,
            9: self.groups.offset_fetch,
            10: self.groups.find_coordinator,
            11: self.groups.join_group,
            12: self.groups.heartbeat,
            13: self.groups.leave_group,
            14: self.groups.sync_group,
            15: self.groups.describe_groups,
            16: self.groups.list_groups,
            19: self.create_topics,
            20: self.delete_topics,
            22: self.init_producer_id,
            32: self.describe_configs,
            33: self.alter_configs,
            37: self.create_partitions,
            42: self.groups.delete_groups,
            44: self.incremental_alter_configs,
        }

    # ---- records

    def produce(self, call: Call) -> Answer:
        """Append records; transactions are refused."""
        topics = []
        now_ms = time.time_ns() // 1_000_000
        for name, parts in call.request.topics:
            answers = []
            for partition, data in parts:
                appended_ms = None
                log, topic = self.topics.log(name, partition), self.topics.get(name)
                if log is None or topic is None:
                    error, base, start = Error.UNKNOWN_TOPIC_OR_PARTITION, -1, -1
                elif call.request.transactional_id:
                    error, base, start = Error.INVALID_TXN_STATE, -1, log.start
                else:
                    appended_ms = now_ms if topic.dates_records else None
                    error, base = log.append(
                        bytes(data or b""), topic.record_bytes_max, appended_ms
                    )
                    start = log.start
                answers.append(
                    (
                        partition,
                        error,
                        base,
                        -1 if appended_ms is None else appended_ms,
                        *((start,) if call.version >= 5 else ()),
                    )
                )
            topics.append((name, answers))
        arrival, self._arrival = self._arrival, asyncio.Event()
        arrival.set()
        return topics, 0

    async def fetch(self, call: Call) -> Answer:
        """
        Read records. Waits for `min_bytes`, at most `max_wait_time`.

        Without transactions the last stable offset is the end, so both isolation levels read the
        same.
        """
        until_s = asyncio.get_running_loop().time() + call.request.max_wait_time / 1000
        while True:
            arrival = self._arrival
            topics, size, failed = self._read(call.request)
            left_s = until_s - asyncio.get_running_loop().time()
            if failed or size >= max(call.request.min_bytes, 1) or left_s <= 0:
                return 0, topics
            try:
                async with asyncio.timeout(left_s):
                    await arrival.wait()
            except TimeoutError:
                continue

    def _read(self, request: Any) -> tuple[list[tuple[str, list[Answer]]], int, bool]:
        topics, size, failed = [], 0, False
        for name, parts in request.topics:
            answers: list[Answer] = []
            for partition, offset, bytes_max in parts:
                log = self.topics.log(name, partition)
                if log is None:
                    answers.append((partition, Error.UNKNOWN_TOPIC_OR_PARTITION, -1, -1, None, b""))
                    failed = True
                    continue
                room = request.max_bytes - size
                data = log.read(offset, min(bytes_max, room)) if room > 0 else b""
                if data is None:
                    answers.append(
                        (partition, Error.OFFSET_OUT_OF_RANGE, log.end, log.end, None, b"")
                    )
                    failed = True
                    continue
                size += len(data)
                answers.append((partition, Error.NONE, log.end, log.end, None, data))
            topics.append((name, answers))
        return topics, size, failed

    def list_offsets(self, call: Call) -> Answer:
        """The first offset, the next offset, or the first offset at a time."""
        topics = []
        for name, parts in call.request.topics:
            answers = []
            for partition, time_ms in parts:
                log = self.topics.log(name, partition)
                if log is None:
                    answers.append((partition, Error.UNKNOWN_TOPIC_OR_PARTITION, -1, -1))
                elif time_ms in {LATEST, EARLIEST}:
                    answers.append(
                        (partition, Error.NONE, -1, log.end if time_ms == LATEST else log.start)
                    )
                else:
                    offset, found_ms = log.at_time(time_ms)
                    answers.append((partition, Error.NONE, found_ms, offset))
            topics.append((name, answers))
        return (0, topics) if call.version >= 2 else (topics,)

    def init_producer_id(self, call: Call) -> Answer:
        """
        An id for an idempotent producer.

        A transactional producer is refused here, at its start, so that nobody relies on
        transactions that do not exist.
        """
        if call.request.transactional_id:
            return 0, Error.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1, -1
        return 0, Error.NONE, next(self._producer_ids), 0

    # ---- topics

    def metadata(self, call: Call) -> Answer:
        """
        Answer that this broker leads everything.

        Topics that are requested by name are created if the client allows it.
        """
        everything = call.request.topics is None or (call.version == 0 and not call.request.topics)
        create = call.version < 4 or call.request.allow_auto_topic_creation
        topics = []
        for name in list(self.topics) if everything else call.request.topics:
            error = self.topics.create(name) if create and name not in self.topics else Error.NONE
            topic = self.topics.get(name)
            if topic is None:
                error = error or Error.UNKNOWN_TOPIC_OR_PARTITION
            offline: Answer = ([],) if call.version >= 5 else ()
            parts = [
                (Error.NONE, number, NODE, [NODE], [NODE], *offline)
                for number in range(len(topic.logs) if topic else 0)
            ]
            topics.append((error, name, *((False,) if call.version >= 1 else ()), parts))
        here = self.address
        broker = (NODE, here.host, here.port, *((None,) if call.version >= 1 else ()))
        cluster = (CLUSTER,) if call.version >= 2 else ()
        controller = (NODE,) if call.version >= 1 else ()
        return (*((0,) if call.version >= 3 else ()), [broker], *cluster, *controller, topics)

    def create_topics(self, call: Call) -> Answer:
        """Create topics with the requested partitions; replicas are ignored."""
        validate_only = call.version >= 1 and call.request.validate_only
        answers = []
        for name, partitions, _replicas, assignment, config in call.request.create_topic_requests:
            error = self.topics.create(
                name,
                len(assignment) if assignment else partitions,
                config or (),
                validate_only=validate_only,
            )
            answers.append((name, error, *((None,) if call.version >= 1 else ())))
        return (0, answers) if call.version >= 2 else (answers,)

    def delete_topics(self, call: Call) -> Answer:
        """Delete topics, and the offsets that groups have on them."""
        answers = []
        for name in call.request.topics:
            gone = self.topics.pop(name, None)
            for group in self.groups.by_name.values():
                group.offsets = {
                    position: offset
                    for position, offset in group.offsets.items()
                    if position[0] != name
                }
            answers.append((name, Error.NONE if gone else Error.UNKNOWN_TOPIC_OR_PARTITION))
        return (0, answers) if call.version >= 1 else (answers,)

    def create_partitions(self, call: Call) -> Answer:
        """Add partitions to topics."""
        answers = []
        for name, (count, _assignment) in call.request.topic_partitions:
            topic = self.topics.get(name)
            error = (
                Error.UNKNOWN_TOPIC_OR_PARTITION
                if topic is None
                else Error.NONE
                if call.request.validate_only
                else topic.grow(count)
            )
            answers.append((name, error, None))
        return 0, answers

    def describe_configs(self, call: Call) -> Answer:
        """Settings of topics that differ from Kafka's defaults; empty for other resources."""
        answers = []
        for kind, name, wanted, *_ in call.request.resources:
            topic = self.topics.get(name) if kind == TOPIC_RESOURCE else None
            error = (
                Error.UNKNOWN_TOPIC_OR_PARTITION
                if kind == TOPIC_RESOURCE and topic is None
                else Error.NONE
            )
            answers.append(
                (
                    error,
                    None,
                    kind,
                    name,
                    _config_entries(topic, wanted, call.version) if topic else [],
                )
            )
        return 0, answers

    def alter_configs(self, call: Call) -> Answer:
        """Replace the settings of topics; settings of other resources are accepted and ignored."""
        answers = []
        for kind, name, entries in call.request.resources:
            topic = self.topics.get(name) if kind == TOPIC_RESOURCE else None
            if topic is not None and not call.request.validate_only:
                topic.config = {key: value for key, value in entries if value is not None}
            answers.append(
                (
                    Error.UNKNOWN_TOPIC_OR_PARTITION
                    if kind == TOPIC_RESOURCE and topic is None
                    else Error.NONE,
                    None,
                    kind,
                    name,
                )
            )
        return 0, answers

    def incremental_alter_configs(self, call: Call) -> Answer:
        """
        Set or delete the named settings of topics and leave the rest. Settings of other resources
        are accepted and ignored.

        Adding to lists is not supported.
        """
        answers = []
        for kind, name, entries in call.request.resources:
            topic = self.topics.get(name) if kind == TOPIC_RESOURCE else None
            error = (
                Error.UNKNOWN_TOPIC_OR_PARTITION
                if kind == TOPIC_RESOURCE and topic is None
                else Error.NONE
            )
            if any(operation not in {SET, DELETE} for _, operation, _ in entries):
                error = Error.INVALID_REQUEST
            elif topic is not None and not call.request.validate_only:
                topic.config |= {
                    key: value for key, operation, value in entries if operation == SET
                }
                for key in (key for key, operation, _ in entries if operation == DELETE):
                    topic.config.pop(key, None)
            answers.append((error, None, kind, name))
        return 0, answers


def _config_entries(topic: Topic, wanted: list[str] | None, version: int) -> list[Answer]:
    entries: list[Answer] = []
    for key, value in {**DEFAULTS, **topic.config}.items():
        if wanted and key not in wanted:
            continue
        is_set = key in topic.config
        # config_source: 1 is "set on the topic", 5 is "default"
        entries.append(
            (key, value, False, 1 if is_set else 5, False, [])
            if version >= 1
            else (key, value, False, not is_set, False)
        )
    return entries
