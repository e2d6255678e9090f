"""
Senders never wait for a producer and never fail because of one, and count what is lost.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Producer

from stream_monitor.client import AsyncSender, Sender, sending
from stream_monitor.demo.broker import start_in_thread

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(sending, "RETRIES_S", (0.0, 0.0))
    monkeypatch.setattr("stream_monitor.client.aiosending.RETRIES_S", (0.0, 0.0))


class FewPlaces:
    """As confluent-kafka's: a queue with few places that `poll` frees."""

    def __init__(self, places: int = 10) -> None:
        self.places, self.queue, self.got = places, 0, []  # type: ignore[var-annotated]
        self.left = 0

    def produce(self, topic, value=None, key=None):
        if self.queue >= self.places:
            raise BufferError("Local: Queue full")
        self.queue += 1
        self.got.append((topic, value, key))

    def poll(self, timeout):
        self.queue = 0
        return 0

    def flush(self, timeout):
        return self.left


class TestThread:
    def test_events_arrive_in_order(self):
        got: list[tuple[str, bytes, bytes | None]] = []
        with Sender(lambda *event: got.append(event)) as sender:
            for i in range(1_000):
                assert sender.put("predictions", b"%d" % i, b"k")
            assert sender.flush()
            assert sender.counts() == (0, 1_000, {}, {}, {})
        assert got == [("predictions", b"%d" % i, b"k") for i in range(1_000)]

    @pytest.mark.parametrize("as_method", [False, True])
    def test_a_producer_with_a_full_queue_is_polled(self, as_method):
        producer = FewPlaces()
        with Sender(producer.produce if as_method else producer) as sender:
            for i in range(500):
                sender.put("predictions", b"%d" % i)
        assert [value for _, value, _ in producer.got] == [b"%d" % i for i in range(500)]
        assert sender.counts().dropped == {}

    def test_a_producer_that_waits_holds_nobody(self):
        gate, began = threading.Event(), threading.Event()

        def send(topic, value, key):
            began.set()
            gate.wait(30)

        sender = Sender(send, events_max=5)
        sender.put("predictions", b"first")
        assert began.wait(10)
        start = time.thread_time()
        taken = [sender.put("predictions", b"x") for _ in range(1_000)]
        assert time.thread_time() - start < 1
        assert taken == [True] * 5 + [False] * 995
        assert sender.counts().dropped == {"full": 995}
        assert not sender.flush(0.01)
        gate.set()
        sender.close()
        assert sender.counts().sent == 6

    def test_bytes_are_bounded_too(self):
        gate = threading.Event()
        sender = Sender(lambda *_: gate.wait(30), bytes_max=1_000)
        sent = sum(sender.put("predictions", b"x" * 300) for _ in range(10))
        assert 3 <= sent <= 4
        assert not sender.put("predictions", b"x" * 1_001)
        gate.set()
        sender.close()
        assert sender.put("predictions", b"") is False
        assert sender.counts().dropped == {"full": 11 - sent, "closed": 1}

    def test_what_a_producer_refuses_is_counted_with_its_words(self):
        def send(topic, value, key):
            if value == b"bad":
                raise ValueError("too large")

        with Sender(send) as sender:
            for value in (b"good", b"bad", b"good"):
                sender.put("predictions", value)
        counts = sender.counts()
        assert (counts.sent, counts.dropped) == (2, {"refused": 1})
        assert counts.errors == {"refused": "ValueError: too large"}

    def test_a_producer_that_cannot_be_made_is_tried_again(self):
        tries = []

        def connect():
            tries.append(1)
            if len(tries) < 3:
                raise OSError("no broker")
            return lambda *_: None

        with Sender(connect=connect) as sender:
            sender.put("predictions", b"x")
        assert (sender.counts().sent, len(tries)) == (1, 3)

    def test_what_was_not_delivered_is_counted(self):
        producer = FewPlaces()
        producer.left = 7
        with Sender(producer) as sender:
            sender.put("predictions", b"x")
            sender.on_delivery(None, "message")
            sender.on_delivery("_MSG_TIMED_OUT", "message")
        assert sender.counts().dropped == {"undelivered": 8}

    def test_a_coroutine_is_told(self):
        async def send(topic, value, key):
            pass

        with Sender(send) as sender:
            sender.put("predictions", b"x")
        assert sender.counts().errors == {"refused": "the target is a coroutine: use AsyncSender"}

    def test_without_a_thread_the_end_sends(self, monkeypatch):
        def start(self):
            raise RuntimeError("can't start new thread")

        got: list[Any] = []
        monkeypatch.setattr(threading.Thread, "start", start)
        sender = Sender(lambda *event: got.append(event))
        assert sender.put("predictions", b"x")
        sender.close()
        assert len(got) == 1
        assert sender.counts().faults == {"thread": 1}

    def test_a_signal_handler_may_send(self):
        """It interrupts `put` anywhere, in the same thread."""
        sender = Sender(lambda *_: None, events_max=10**6)
        before = signal.signal(signal.SIGALRM, lambda *_: sender.put("predictions", b"signal"))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            for _ in range(50_000):
                sender.put("predictions", b"x")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        sender.close()
        counts = sender.counts()
        assert counts.sent > 50_000
        assert not counts.dropped

    def test_a_target_that_leaves_does_not_take_the_thread_along(self):
        def send(topic, value, key):
            if value == b"leave":
                sys.exit(1)

        with Sender(send) as sender:
            sender.put("predictions", b"leave")
            sender.put("predictions", b"x")
        assert (sender.counts().sent, sender.counts().dropped) == (1, {"refused": 1})

    def test_many_threads(self):
        got: list[bytes] = []
        with Sender(lambda _, value, __: got.append(value), events_max=10**6) as sender:
            threads = [
                threading.Thread(
                    target=lambda n=n: [sender.put("t", b"%d" % n) for _ in range(999)]
                )
                for n in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(got) == sorted(b"%d" % n for n in range(8) for _ in range(999))

    @pytest.mark.parametrize("arguments", [{}, {"target": print, "connect": print}])
    def test_one_target(self, arguments):
        with pytest.raises(ValueError, match="target, connect: give one of them"):
            Sender(**arguments)

    def test_wrong_arguments_are_told_at_once(self):
        with pytest.raises(TypeError, match="expected a producer or a function"):
            Sender(17)
        with pytest.raises(ValueError, match="events_max"):
            Sender(print, events_max=0)

    def test_a_sender_that_nobody_has_any_more_is_gone(self):
        sender = Sender(print)
        reference = weakref.ref(sender)
        del sender
        gc.collect()
        assert reference() is None


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_end_of_the_interpreter_sends_what_waits():
    assert run(
        "from stream_monitor.client import Sender\n"
        "sender = Sender(lambda t, value, k: print(value.decode(), flush=True))\n"
        "for i in range(300): sender.put('predictions', str(i).encode())\n"
    ).split() == [str(i) for i in range(300)]


def test_a_sender_of_asyncio_that_was_not_closed_says_what_is_lost():
    program = (
        "from stream_monitor.client import AsyncSender\n"
        "sender = AsyncSender(print)\n"
        "for _ in range(7): sender.put('predictions', b'x')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert done.stderr == "events dropped: 7 (closed) there was no time to send them\n"


def test_a_producer_that_hangs_does_not_hold_the_end_for_ever():
    assert (
        run(
            "import threading\n"
            "from stream_monitor.client import Sender, sending\n"
            "close = Sender.close\n"
            "Sender.close = lambda self: close(self, 0.2)\n"
            "sender = Sender(lambda *_: threading.Event().wait())\n"
            "sender.put('predictions', b'x'); sender.put('predictions', b'y')\n"
        )
        == ""
    )


@pytest.mark.parametrize("made", ["connect", "function", "producer"])
def test_after_a_fork_each_process_sends_its_own(made):
    """As gunicorn with `preload_app`: made and used before the fork."""
    program = f"""
import json, os, sys, threading
from stream_monitor.client import Sender
gate = threading.Event()
class Producer:
    def produce(self, topic, value, key):
        gate.wait()
        os.write(1, f"{{os.getpid() == parent}} {{value.decode()}}\\n".encode())
    def flush(self, timeout=None): return 0
parent = os.getpid()
sender = {{
    "connect": lambda: Sender(connect=Producer),
    "function": lambda: Sender(lambda *event: Producer().produce(*event)),
    "producer": lambda: Sender(Producer()),
}}[{made!r}]()
sender.put("predictions", b"before")
child = os.fork()
gate.set()
sender.put("predictions", b"after")
if not child:
    sender.flush()
    print("False", json.dumps(sender.counts().dropped), flush=True)
    sys.exit()
os.waitpid(child, 0)
"""
    printed = sorted(run(program).splitlines())
    child = ["False after", "False {}"] if made != "producer" else ['False {"forked": 1}']
    assert printed == sorted([*child, "True after", "True before"])


def test_a_fork_while_the_lock_is_held_does_not_hang():
    assert (
        run(
            "import os, threading\n"
            "from stream_monitor.client import Sender\n"
            "sender = Sender(lambda *_: None)\n"
            "held, release = threading.Event(), threading.Event()\n"
            "def hold():\n"
            "    with sender._lock:\n"
            "        held.set(); release.wait(30)\n"
            "threading.Thread(target=hold).start()\n"
            "held.wait(30)\n"
            "child = os.fork()\n"
            "if not child:\n"
            "    os._exit(0 if sender.put('predictions', b'x') else 1)\n"
            "release.set()\n"
            "print(os.waitpid(child, 0)[1])\n"
        )
        == "0\n"
    )


async def read(bootstrap: str, n: int) -> list[bytes]:
    async with AIOKafkaConsumer(
        "predictions", bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    ) as consumer:
        return [(await consumer.getone()).value for _ in range(n)]


class TestRealProducers:
    @pytest.fixture
    def broker(self):
        with start_in_thread(partitions=1) as running:
            yield running.bootstrap

    async def test_confluent_kafka(self, broker):
        sender = Sender(
            connect=lambda: Producer(
                {"bootstrap.servers": broker, "on_delivery": sender.on_delivery}
            )
        )
        for i in range(500):
            sender.put("predictions", b"%d" % i, b"k")
        await asyncio.to_thread(sender.close, 60)
        assert sender.counts() == (0, 500, {}, {}, {})
        assert await read(broker, 500) == [b"%d" % i for i in range(500)]

    def test_confluent_kafka_without_a_broker(self):
        """What the broker never got is counted at the end, within the time that was given."""
        sender = Sender(
            connect=lambda: Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
        )
        for i in range(50):
            assert sender.put("predictions", b"%d" % i)
        assert not sender.flush(0.5)
        sender.close(0.5)
        counts = sender.counts()
        assert (counts.sent, counts.dropped) == (50, {"undelivered": 50})

    async def test_aiokafka(self, broker):
        async with (
            AIOKafkaProducer(bootstrap_servers=broker) as producer,
            AsyncSender(producer) as sender,
        ):
            for i in range(500):
                sender.put("predictions", b"%d" % i, b"k")
        assert sender.counts() == (0, 500, {}, {}, {})
        assert await read(broker, 500) == [b"%d" % i for i in range(500)]


class TestTask:
    async def test_events_arrive_in_order(self):
        got: list[Any] = []

        async def send(topic, value, key):
            await asyncio.sleep(0)
            got.append(value)

        async with AsyncSender(send) as sender:
            for i in range(100):
                sender.put("predictions", b"%d" % i)
            assert await sender.flush()
        assert sender.counts() == (0, 100, {}, {}, {})
        assert got == [b"%d" % i for i in range(100)]

    async def test_other_threads_may_send(self):
        got: list[bytes] = []
        async with AsyncSender(lambda _, value, __: got.append(value)) as sender:
            await asyncio.to_thread(lambda: [sender.put("t", b"x") for _ in range(100)])
        assert len(got) == 100

    async def test_made_before_the_loop_it_connects_inside_of_it(self):
        got: list[Any] = []

        class Reporting:
            """As aiokafka's: the report of a delivery comes later."""

            async def send(self, topic, value=None, key=None):
                report = asyncio.get_running_loop().create_future()
                got.append(value)
                if value == b"bad":
                    report.set_exception(OSError("not delivered"))
                else:
                    report.set_result(None)
                return report

            async def stop(self):
                got.append("stopped")

        async def connect():
            return Reporting()

        def outside():
            sender.put("predictions", b"early")

        sender = AsyncSender(connect=connect)
        await asyncio.to_thread(outside)  # no loop runs there
        sender.put("predictions", b"bad")
        await sender.close()
        assert got == [b"early", b"bad", "stopped"]
        assert sender.counts().dropped == {"undelivered": 1}

    async def test_a_producer_that_hangs_or_raises_is_counted(self):
        began = asyncio.Event()

        async def send(topic, value, key):
            if value == b"hang":
                began.set()
                await asyncio.Event().wait()
            raise OSError("no broker")

        sender = AsyncSender(send, events_max=3)
        sender.put("predictions", b"x")
        await sender.flush()
        assert sender.counts().dropped == {"refused": 1}
        sender.put("predictions", b"hang")
        await began.wait()
        taken = [sender.put("predictions", b"y") for _ in range(5)]
        assert taken == [True] * 3 + [False] * 2
        assert not await sender.flush(0.01)
        await sender.close(0.01)
        await asyncio.gather(
            *asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True
        )
        counts = sender.counts()
        assert counts.waiting == 0
        assert counts.dropped == {"refused": 1, "full": 2, "closed": 3, "cancelled": 1}

    async def test_a_task_that_was_cancelled_begins_again(self):
        """Frameworks cancel all tasks at the end of a test or of a reload."""
        got: list[bytes] = []
        sender = AsyncSender(lambda _, value, __: got.append(value))
        for _ in range(2):
            sender.put("predictions", b"x")
            await sender.flush()
            (task,) = asyncio.all_tasks() - {asyncio.current_task()}
            task.cancel()
            await asyncio.wait([task])
        assert got == [b"x", b"x"]


def test_a_sender_goes_on_in_another_loop():
    got: list[bytes] = []
    sender = AsyncSender(lambda _, value, __: got.append(value))

    def run() -> None:
        with asyncio.Runner() as runner:
            runner.run(work())

    async def work():
        sender.put("predictions", b"x")
        await sender.flush()

    run()
    run()
    assert got == [b"x", b"x"]


def test_the_log_says_it_once_a_minute(caplog):
    sender = Sender(print)
    for _ in range(100):
        sender.drop("invalid", ValueError("score must be a number"))
    assert [r.getMessage() for r in caplog.records] == [
        "events dropped: 1 (invalid) ValueError: score must be a number"
    ]
    assert json.dumps(sender.counts().dropped) == '{"invalid": 100}'
