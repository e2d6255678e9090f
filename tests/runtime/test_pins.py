"""
The private methods of Faust, mode and aiokafka that `stages/transport.py`, `kafka/fetching.py` and
`kafka/deliveries.py` override, call or rely on, pinned by a hash of their source.

A failure here is no bug yet: another version does something in another way. Read what changed,
compare it with the place that is named, run `tests/kafka`, then take the new hash over.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from stream_monitor.stages import transport

ROOT = Path(__file__).parents[2]
OURS = [
    transport.Thread,
    transport.Consumer,
    transport.Transport,
    transport.App,
    transport.RawSchema,
]
PUBLIC = {"__init__", "__module__", "__doc__", "__annotations__"}
PINS: dict[str, tuple[str, str]] = {
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.__init__": (
        "d28391029483fdbc",
        "Thread.__init__ passes loop and thread_loop on",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.__post_init__": (
        "21d9b9cc0d165197",
        "what the thread makes before on_start",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.on_start": (
        "675d03707bbecd3c",
        "makes and starts the consumer, on our loop",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.on_thread_stop": (
        "cdbbe53230d20fb6",
        "stops the consumer",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._create_consumer": (
        "8259d08bb468e150",
        "calls _create_worker_consumer",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._create_worker_consumer": (
        "c179c0bdb9755c3a",
        "Thread._create_worker_consumer replaces it: consumer_options, Fetching",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.getmany": (
        "1b1c58046a9b2bb7",
        "calls _fetch_records through call_thread",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._fetch_records": (
        "9e7369fc572de4d0",
        "Thread._fetch_records replaces it: flow_active, ConsumerStoppedError",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.subscribe": (
        "8657ab577d86ebe1",
        "the listener that tells of rebalances",
    ),
    "faust.transport.consumer:ConsumerThread.on_partitions_revoked": (
        "e10fd9e1e29f87b4",
        "Thread.on_partitions_revoked replaces it",
    ),
    "faust.transport.consumer:ConsumerThread.on_partitions_assigned": (
        "972fe557e7f7c884",
        "Thread.on_partitions_assigned replaces it",
    ),
    "mode.threads:ServiceThread.__init__": (
        "585a19094aad359b",
        "_thread_started, _shutdown: what Thread.start and Thread.stop set",
    ),
    "mode.threads:ServiceThread.start": (
        "ecd8f1bcf3eadb5d",
        "Thread.start replaces it: no thread is started",
    ),
    "mode.threads:ServiceThread.stop": (
        "22d5a8dad369a585",
        "Thread.stop replaces it: the order of what is stopped",
    ),
    "mode.threads:ServiceThread._shutdown_thread": (
        "405be9a095473e8d",
        "what of it Thread.stop does itself",
    ),
    "mode.threads:QueueServiceThread.call_thread": (
        "d1304f73ca65376d",
        "Thread.call_thread replaces it",
    ),
    "mode.threads:QueueServiceThread.cast_thread": (
        "fbb45a2bc034ebe4",
        "Thread.cast_thread replaces it",
    ),
    "mode.services:Service._crash": (
        "023e36034cd9b2b1",
        "App._crash ends the process where this only stops it",
    ),
    "mode.services:Service._default_start": ("983b5c4c514037ed", "called by Thread.start"),
    "mode.services:Service._default_stop_children": ("6ae33d6a91bfe1db", "called by Thread.stop"),
    "mode.services:Service._default_stop_futures": ("5cd0d80c28da254c", "called by Thread.stop"),
    "mode.services:Service._default_stop_exit_stacks": (
        "288197c35f7fb1e6",
        "called by Thread.stop",
    ),
    "mode.utils.futures:maybe_async": (
        "f8429e8a5119dd55",
        "a plain call or a coroutine, in call_thread",
    ),
    "faust.transport.drivers.aiokafka:Consumer._new_consumer_thread": (
        "8fd0d41b15145615",
        "Consumer._new_consumer_thread replaces it",
    ),
    "faust.transport.drivers.aiokafka:Consumer.verify_event_path": (
        "883ce70ac0a6007f",
        "Consumer.verify_event_path replaces it",
    ),
    "faust.transport.drivers.aiokafka:Consumer.on_stop": (
        "017029bcd2b68770",
        "what is stopped with the consumer",
    ),
    "faust.transport.consumer:Consumer.__init__": (
        "00f02908cf84d93a",
        "_read_offset, flow_active, can_resume_flow, suspend_flow",
    ),
    "faust.transport.consumer:Consumer.getmany": (
        "e486c434b7928ee8",
        "Consumer.getmany replaces it: generation, flow, active partitions",
    ),
    "faust.transport.consumer:Consumer._wait_next_records": (
        "ba40cd3671328d3b",
        "what of it Consumer.getmany does itself",
    ),
    "faust.transport.consumer:Consumer._get_active_partitions": (
        "da41bc1e8d869433",
        "called by Consumer.getmany",
    ),
    "faust.transport.consumer:Consumer._drain_messages": (
        "8f35dd7a11144daa",
        "calls getmany, reads and sets _read_offset (Forgetful), _add_gap where acks are on",
    ),
    "faust.transport.consumer:Consumer.perform_seek": (
        "2b4ceebd23deb7ee",
        "Consumer.perform_seek replaces it",
    ),
    "faust.transport.consumer:Consumer.wait_empty": (
        "53195dca246c0a86",
        "Consumer.wait_empty replaces it",
    ),
    "faust.transport.consumer:Consumer.on_stop": ("7accc1bf4f9759a1", "calls wait_empty"),
    "faust.transport.consumer:Consumer.on_partitions_revoked": (
        "652177e770ee66d6",
        "the order of a revocation",
    ),
    "faust.transport.consumer:Consumer.on_partitions_assigned": (
        "c07feb1175f7dcf1",
        "the order of an assignment",
    ),
    "faust.transport.consumer:ThreadDelegateConsumer._getmany": (
        "8dbffeccb0e3267f",
        "called by Consumer.getmany",
    ),
    "faust.transport.consumer:ThreadDelegateConsumer.assignment": (
        "bd585dfbb0b806a1",
        "called by FaustSource.assigned",
    ),
    "faust.app.base:App._on_partitions_revoked": (
        "c1abd58dcb37f0a2",
        "flow off, then wait_empty, before the partitions go",
    ),
    "faust.app.base:App._consumer_wait_empty": (
        "73ba99b95ca08c31",
        "calls wait_empty where stream_wait_empty is on (it is by default)",
    ),
    "faust.app.base:App._on_partitions_assigned": (
        "c9c5485eb273837f",
        "recovery, then perform_seek",
    ),
    "faust.app.base:App._on_rebalance_when_stopped": (
        "603ccb5e2c261c23",
        "closes the consumer: Thread.on_partitions_revoked lets it do so only when all is flushed",
    ),
    "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread.close": (
        "8eadeb1981dbba93",
        "closes the connections",
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._maybe_leave_group": (
        "7bc230e3f4dc0222",
        "called by Thread.on_partitions_revoked",
    ),
    "faust.app.base:App._stop_consumer": ("96573acf5f044586", "calls wait_empty at SIGTERM"),
    "faust.app.base:App._new_transport": ("11beddacb9fee5b0", "App._new_transport replaces it"),
    "faust.tables.recovery:Recovery._restart_recovery": (
        "f93138b040ef1bc2",
        "after each rebalance: with no table to recover it calls _resume_streams at once",
    ),
    "faust.tables.recovery:Recovery._resume_streams": (
        "fbe0f747b84c0b27",
        "calls perform_seek, then turns the flow on",
    ),
    "faust.serializers.schemas:Schema.compile": (
        "bd271ec59690d13e",
        "RawSchema.compile replaces it: decode(message, propagate)",
    ),
    "faust.events:Event.__init__": ("87b99777f830b6e3", "made by RawSchema"),
    "faust.types.tuples:Message.__init__": ("34616bad2796e4c6", "made by Consumer.getmany"),
    "aiokafka.consumer.fetcher:PartitionRecords.__init__": (
        "4649d3084e5956ef",
        "attributes that record_batches reads",
    ),
    "aiokafka.consumer.fetcher:PartitionRecords.__next__": (
        "0c0c7e1a9e163108",
        "takes from _records_iterator",
    ),
    "aiokafka.consumer.fetcher:PartitionRecords._unpack_records": (
        "047f7fc3f005c220",
        "record_batches does the same, down to the batch",
    ),
    "aiokafka.consumer.fetcher:PartitionRecords._consume_aborted_up_to": (
        "fcfcb05d740b641d",
        "called by record_batches",
    ),
    "aiokafka.consumer.fetcher:PartitionRecords._contains_abort_marker": (
        "9692685641abdf0f",
        "called by record_batches",
    ),
    "aiokafka.consumer.fetcher:FetchResult.__init__": ("00a9da5e051708f7", "_partition_records"),
    "aiokafka.consumer.fetcher:FetchResult.getall": (
        "b638929de3431c67",
        "counts batches as records, moves the position",
    ),
    "aiokafka.consumer.fetcher:FetchResult.has_more": (
        "10119aeb1b758c59",
        "when a result is used up",
    ),
    "aiokafka.consumer.fetcher:Fetcher.fetched_records": (
        "e20ce0c8117f12d2",
        "called by Fetching with timeout 0, so that it never waits",
    ),
    "aiokafka.consumer.fetcher:Fetcher._create_fetch_waiter": (
        "65046fcd40e702ff",
        "called by Fetching.fetch",
    ),
    "aiokafka.consumer.subscription_state:SubscriptionState.fetch_context": (
        "88fca759b6e7f216",
        "keeps the consumer from being idle",
    ),
    "aiokafka.consumer.subscription_state:Assignment.state_value": (
        "fd255204271deaed",
        "position after a fetch",
    ),
    "aiokafka.consumer.subscription_state:TopicPartitionState.position": (
        "6cdf7097b8646488",
        "position after a fetch",
    ),
    "aiokafka.consumer.subscription_state:TopicPartitionState.consumed_to": (
        "916a05acf90738c1",
        "position after a fetch",
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._send_req": (
        "ca4ba17474e11324",
        "called by committed_offsets",
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.ensure_coordinator_known": (
        "4f7b42e9896dfed8",
        "called by committed_offsets",
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.coordinator_dead": (
        "98a0dfe8579413be",
        "called by committed_offsets",
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._do_fetch_commit_offsets": (
        "fcd9abe4e50ff2f9",
        "takes errors of the group for no offsets: committed_offsets stands in for it",
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.commit_offsets": (
        "67fb44337ca73f7f",
        "commits on partitions that are not assigned; it asks nothing of the assignment",
    ),
    "aiokafka.producer.message_accumulator:MessageAccumulator.drain_by_nodes": (
        "cc2f3eafe1e19ba6",
        "fails what is older than _batch_ttl and has no leader; IngestStage sets that to infinity",
    ),
    "aiokafka.producer.message_accumulator:MessageAccumulator._append_batch": (
        "edfa9c58877ae4d7",
        "_batch_ttl",
    ),
    "aiokafka.producer.sender:SendProduceReqHandler._can_retry": (
        "0004177074b5b810",
        "an idempotent producer tries again until it succeeds",
    ),
    "aiokafka.consumer.consumer:AIOKafkaConsumer.seek": (
        "fec4e1829687b7a8",
        "a new position, without a fetch of the old one",
    ),
    "aiokafka.consumer.consumer:AIOKafkaConsumer.commit": (
        "f85283bf7c7cce0d",
        "metadata of commits",
    ),
}
"""`module:Class.method` to the hash of its source and what to check again when it changes."""


def function_of(name: str) -> Any:
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found.fget if isinstance(found, property) else getattr(found, "fun", found)


def hash_of(name: str) -> str:
    return hashlib.sha256(
        textwrap.dedent(inspect.getsource(function_of(name))).encode()
    ).hexdigest()[:16]


@pytest.mark.parametrize("package", ["faust-streaming", "aiokafka"])
def test_the_installed_version_is_the_pinned_one(package):
    pinned = re.search(
        rf'"{package}(?:\[[^]]*\])?==([^"]+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert pinned is not None, (
        f"pyproject.toml must pin {package} exactly: private methods of it are overridden"
    )
    assert version(package) == pinned[1]


@pytest.mark.parametrize("name", PINS)
def test_what_we_rely_on_is_as_it_was(name):
    expected, check = PINS[name]
    try:
        found = hash_of(name)
    except AttributeError:
        pytest.fail(f"{name} is gone. Check again: {check}.")
    assert found == expected, (
        f"{name}{inspect.signature(function_of(name))} has changed. Check again: {check}. "
        f"Then pin {found!r}."
    )


@pytest.mark.parametrize("ours", OURS, ids=lambda c: c.__name__)
def test_every_override_is_pinned(ours):
    """
    A method of ours that hides one of theirs must be in `PINS`, under whichever of their classes
    defines it.
    """
    pinned = {function_of(name) for name in PINS}
    for name, mine in vars(ours).items():
        if not inspect.isfunction(mine) or name in PUBLIC:
            continue
        hidden = next((vars(base)[name] for base in ours.__mro__[1:] if name in vars(base)), None)
        assert hidden is None or getattr(hidden, "fun", hidden) in pinned, (
            f"{ours.__name__}.{name} overrides {hidden.__qualname__}, which is not in PINS"
        )


@pytest.mark.parametrize("ours", OURS, ids=lambda c: c.__name__)
def test_every_method_hides_one_of_theirs(ours):
    """None was renamed away: ours would never be called."""
    dead = [
        name
        for name, mine in vars(ours).items()
        if inspect.isfunction(mine) and not any(hasattr(base, name) for base in ours.__mro__[1:])
    ]
    assert not dead


@pytest.mark.parametrize("ours", OURS, ids=lambda c: c.__name__)
def test_overrides_take_what_theirs_take(ours):
    for name, mine in vars(ours).items():
        if not inspect.isfunction(mine) or name in PUBLIC:
            continue
        theirs = inspect.signature(getattr(ours.__mro__[1], name)).parameters
        parameters = inspect.signature(mine).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            continue
        assert list(parameters)[: len(theirs)] == list(theirs), f"{ours.__name__}.{name}"
