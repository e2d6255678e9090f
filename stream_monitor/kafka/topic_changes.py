"""
Differences between the topics of a broker and `topics/*.yaml`, and their repair.

Rule of the file: `compare` decides and is pure; `look` only reads; `apply` repairs only what
`compare` lists as repairable. The number of partitions of a topic whose records are placed by
partition never changes, because the rows of a model must not move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import KafkaError, for_code
from msgspec import Struct

from stream_monitor.errors import BrokerError, InputError
from stream_monitor.kafka.alter_configs import SetTopicConfigs
from stream_monitor.kafka.cluster import Cluster
from stream_monitor.kafka.topics import admin, create, partitions_at_creation
from stream_monitor.schema import TopicSpec, topics
from stream_monitor.settings import KafkaSettings, Settings

TIMEOUT_S = 10.0
SHOWN_S = 0.2
PLACED = frozenset({"observations", "snapshots"})
"""Topics whose records are placed by partition."""
REMAKE = (
    "it cannot be changed in place: Kafka cannot remove partitions, and more of them would split "
    "the records of a key; delete the topic and apply again when nothing in it is needed"
)
PROCEDURE = (
    "the number of partitions cannot be changed in place: stop all workers, delete "
    "{prefix}observations and {prefix}snapshots, "
    "`stream-monitor topics apply --partitions observations=N`, start the workers (windows "
    "start empty; docs/topics.md has the details)"
)


class Found(Struct, frozen=True):
    """A topic as the broker describes it."""

    partitions: int
    replicas: int
    config: dict[str, str]


class Difference(Struct, frozen=True, kw_only=True):
    """
    One difference from the specification.

    Without a `repair` a person has to act, and `advice` says how.
    """

    topic: str
    """Logical name of the topic."""
    aspect: str
    """`topic`, `partitions`, or the name of a setting."""
    want: str
    have: str | None
    """The present value; None if it does not exist."""
    repair: Literal["create", "add_partitions", "alter"] | None
    advice: str = ""


def asked_partitions(given: Iterable[str]) -> dict[str, int]:
    """
    Requested numbers of partitions, each given as `NAME=N`.

    Raises
    ------
    InputError
        The topic does not exist, its number is fixed, or N is smaller than specified.

    Examples
    --------
    >>> asked_partitions(["predictions=12"])
    {'predictions': 12}
    """
    asked = {}
    for text in given:
        name, _, number = text.partition("=")
        spec = topics().get(name)
        if spec is None or spec.more_partitions == "never":
            names = ", ".join(n for n, s in topics().items() if s.more_partitions != "never")
            raise InputError(
                f"--partitions {text}: {name or text!r} cannot be given more partitions; "
                f"these can: {names}"
            )
        if not (number.isascii() and number.isdigit()) or int(number) < spec.partitions:
            raise InputError(
                f"--partitions {text}: give NAME=N with a number that is at least {spec.partitions}"
            )
        asked[name] = int(number)
    return asked


def compare(
    found: Mapping[str, Found], prefix: str = "", asked: Mapping[str, int] | None = None
) -> list[Difference]:
    """
    Differences from the specification, by topic.

    Parameters
    ----------
    found : mapping of logical name to Found
        Existing topics.
    prefix : str
        `kafka.topic_prefix`, for the advice.
    asked : mapping of logical name to partitions
        Greater numbers of partitions than specified.

    Examples
    --------
    >>> whole = {name: Found(spec.partitions, 1, spec.config) for name, spec in topics().items()}
    >>> compare(whole)
    []
    >>> [
    ...     (d.aspect, d.have, d.want)
    ...     for d in compare(
    ...         whole | {"labels": Found(9, 1, topics()["labels"].config | {"retention.ms": "1"})}
    ...     )
    ... ]
    [('retention.ms', '1', '604800000')]
    """
    wanted = partitions_at_creation(
        {name: topic.partitions for name, topic in found.items()}, asked
    )
    out = []
    for name, spec in topics().items():
        topic = found.get(name)
        if topic is None:
            out.append(
                Difference(
                    topic=name, aspect="topic", want=str(wanted[name]), have=None, repair="create"
                )
            )
            continue
        out += _partitions(
            spec, topic.partitions, wanted[name], prefix, asked=name in (asked or {})
        )
        out += [
            Difference(
                topic=name, aspect=key, want=value, have=topic.config.get(key), repair="alter"
            )
            for key, value in spec.settings(topic.replicas).items()
            if not _same(topic.config.get(key), value)
            and not _kept_longer(key, topic.config.get(key), value)
        ]
    return out


def _partitions(
    spec: TopicSpec, have: int, want: int, prefix: str, *, asked: bool
) -> list[Difference]:
    if have == want or (have > want and spec.more_partitions != "never" and not asked):
        return []
    grows = spec.more_partitions == "allowed" and have < want
    if grows:
        advice = (
            ""
            if asked
            else (
                f"`stream-monitor topics apply --partitions {spec.name}={want}` adds them; "
                "nothing is lost"
            )
        )
    else:
        advice = PROCEDURE.format(prefix=prefix) if spec.name in PLACED else REMAKE
    return [
        Difference(
            topic=spec.name,
            aspect="partitions",
            want=str(want),
            have=str(have),
            repair="add_partitions" if grows and asked else None,
            advice=advice,
        )
    ]


def _same(have: str | None, want: str) -> bool:
    """Whether two values are equal; settings that are lists (`cleanup.policy`) have no order."""
    return have is not None and sorted(part.strip() for part in have.split(",")) == sorted(
        want.split(",")
    )


def _kept_longer(key: str, have: str | None, want: str) -> bool:
    """
    Whether records are kept longer than specified. Somebody had a reason for it, and shortening
    would delete records.

    >>> _kept_longer("retention.ms", "-1", "1000"), _kept_longer("retention.ms", "10", "1000")
    (True, False)
    """
    return (
        key == "retention.ms"
        and have is not None
        and (have == "-1" or (have.isdigit() and int(have) > int(want)))
    )


async def look(kafka: KafkaSettings) -> dict[str, Found]:
    """
    Our topics that exist, by logical name. This only reads, and creates nothing.

    Raises
    ------
    BrokerError
        The broker cannot be reached, does not answer, or does not show us everything.
    """
    physical = {kafka.topic_prefix + name: name for name in topics()}
    try:
        async with Cluster(kafka, TIMEOUT_S) as cluster:
            seen = await cluster.topics()
            hidden = await cluster.hidden([name for name in physical if name not in seen])
            there = [name for name in physical if name in seen]
            configs = await cluster.configs(there)
    except BrokerError:
        raise  # this error names the setting to look at
    except (KafkaError, OSError) as e:  # TimeoutError is an OSError
        raise BrokerError(
            f"no response from Kafka at {kafka.bootstrap_servers} (kafka.bootstrap_servers): "
            f"{str(e) or type(e).__name__}"
        ) from None
    if hidden:
        raise BrokerError(
            f"not allowed to see {', '.join(sorted(hidden))}: grant Describe on these topics "
            "to the user of kafka.security"
        )
    if unread := [name for name in there if name not in configs]:
        raise BrokerError(
            f"the settings of {', '.join(unread)} cannot be read: grant DescribeConfigs on "
            "these topics to the user of kafka.security"
        )
    return {
        physical[name]: Found(seen[name].partitions, seen[name].replicas, configs[name])
        for name in there
    }


async def differences(
    kafka: KafkaSettings, asked: Mapping[str, int] | None = None
) -> list[Difference]:
    """Differences of the broker's topics from the specification, or from the requested numbers."""
    return compare(await look(kafka), kafka.topic_prefix, asked)


async def apply(settings: Settings, changes: Collection[Difference]) -> None:
    """
    Repair what can be repaired, and wait until the broker shows it, because it answers before its
    metadata contains the change.

    Raises
    ------
    BrokerError
        The broker refuses, or does not show the changes in time; finished changes stay.
    """
    prefix = settings.kafka.topic_prefix
    made = {d.topic: int(d.want) for d in changes if d.repair == "create"}
    grown = {prefix + d.topic: int(d.want) for d in changes if d.repair == "add_partitions"}
    altered: dict[str, dict[str, str]] = {}
    for d in changes:
        if d.repair == "alter":
            altered.setdefault(prefix + d.topic, {})[d.aspect] = d.want
    if not (made or grown or altered):
        return
    async with admin(settings) as client:
        try:
            if made:
                await create(settings, client, made)
            if grown:
                await client.create_partitions(
                    {name: NewPartitions(total_count=number) for name, number in grown.items()}
                )
            if altered:
                await _alter(client, altered)
        except KafkaError as e:
            raise BrokerError(f"cannot change the topics: {e}") from None
    asked = {d.topic: int(d.want) for d in changes if d.repair in {"create", "add_partitions"}}
    done = {(d.topic, d.aspect) for d in changes if d.repair}
    until_s = asyncio.get_running_loop().time() + TIMEOUT_S
    while late := sorted(
        f"{prefix}{d.topic} ({d.aspect})"
        for d in await differences(settings.kafka, asked)
        if (d.topic, d.aspect) in done
    ):
        if asyncio.get_running_loop().time() > until_s:
            raise BrokerError(
                f"the broker accepted the changes but does not show them after {TIMEOUT_S:g} "
                f"s: {', '.join(late)}; see `stream-monitor topics check`"
            )
        await asyncio.sleep(SHOWN_S)


async def _alter(client: AIOKafkaAdminClient, altered: dict[str, dict[str, str]]) -> None:
    try:
        answer = await client._send_request(SetTopicConfigs(altered))
    except KafkaError as e:
        raise BrokerError(
            f"the settings of {', '.join(altered)} could not be changed "
            f"(IncrementalAlterConfigs, Kafka 2.3 or later): {e}"
        ) from None
    refused = [
        f"{name}: {message or for_code(code).__name__}"
        for code, message, _, name in answer.resources
        if code
    ]
    if refused:
        raise BrokerError(f"settings could not be changed: {'; '.join(refused)}")
