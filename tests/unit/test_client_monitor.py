"""
Calls of a model become events, with their arm; nothing around them fails a call.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from stream_monitor.client import (
    Answer,
    AsyncSender,
    Monitor,
    MonitorMiddleware,
    Router,
    Sender,
    current_call,
    header,
    reassign,
)
from stream_monitor.events.cells import Texts
from stream_monitor.events.parse import PARSERS

ROOT = Path(__file__).parents[2]
ROUTER = Router(
    "fraud-17",
    reassign([], {"control": 50, "b": 50}),
    model="fraud",
    arms={"control": "3", "b": "4"},
)


class Sent:
    """Events as they were handed over."""

    def __init__(self, **arguments: Any) -> None:
        self.records: list[tuple[str, bytes, bytes]] = []
        self.sender = Sender(lambda *record: self.records.append(record))
        self.monitor = Monitor("fraud", self.sender, **arguments)

    def events(self) -> list[dict[str, Any]]:
        assert self.sender.flush()
        kinds = {topic.removeprefix("x."): topic for topic, _, _ in self.records}
        for kind, topic in kinds.items():
            for name, value, _ in self.records:
                if name == topic:  # the worker accepts it
                    assert PARSERS[kind](value, 1_760_000_000_000, Texts(), 1 << 20).event_id
        return [json.loads(value) for _, value, _ in self.records]

    @property
    def dropped(self) -> dict[str, int]:
        return self.sender.counts().dropped

    @property
    def faults(self) -> dict[str, int]:
        return self.sender.counts().faults


def observe(score: float, user: str, amount: float) -> Answer:
    return {"score": score, "features": {"amount": amount}}


class TestCall:
    def test_a_call_is_an_event(self):
        sent = Sent(version="3", topic_prefix="x.")
        with sent.monitor.call(event_id="e1") as call:
            call.answer(score=0.25, features={"amount": 5, "country": "IT", "age": None})
        (event,) = sent.events()
        assert event.pop("latency_ms") >= 0
        assert event.pop("timestamp") > 1_700_000_000_000
        assert event == {
            "event_id": "e1",
            "model": "fraud",
            "version": "3",
            "score": 0.25,
            "features": {"amount": 5, "country": "IT", "age": None},
        }
        assert sent.records[0][0] == "x.predictions"
        assert sent.records[0][2] == b"e1"

    def test_a_unit_decides_the_arm_and_its_version(self):
        sent = Sent(version="0", router=ROUTER)
        for i in range(50):
            with sent.monitor.call(unit=i) as call:
                assert call.variant == ROUTER(i)
                assert call.version == {"control": "3", "b": "4"}[call.variant]
                call.answer(prediction=1)
        events = sent.events()
        assert [(e["variant"], e["unit"]) for e in events] == [
            (ROUTER(i), str(i)) for i in range(50)
        ]
        assert {e["variant"]: e["version"] for e in events} == {"control": "3", "b": "4"}
        assert len({e["event_id"] for e in events}) == 50

    def test_without_a_unit_the_control_serves_and_the_event_has_no_arm(self):
        sent = Sent(router=ROUTER)
        for unit in (None, 1.5):
            with sent.monitor.call(unit=unit) as call:  # type: ignore[arg-type]
                assert (call.variant, call.version) == ("control", "3")
                call.answer(prediction=1)
        assert all({"variant", "unit"}.isdisjoint(e) for e in sent.events())
        assert (sent.faults, sent.dropped) == ({"unit": 2}, {})

    def test_without_a_router_the_unit_is_kept(self):
        sent = Sent()
        with sent.monitor.call(unit=17) as call:
            call.answer(prediction=1)
        assert sent.events()[0]["unit"] == "17"

    def test_a_failed_call_is_an_event_with_its_unit(self):
        sent = Sent(router=ROUTER)
        error = KeyError("model")

        def fail():
            with sent.monitor.call(unit="u", event_id="e") as call:
                call.answer(prediction=1)
                raise error

        with pytest.raises(KeyError) as raised:
            fail()
        assert raised.value is error
        (event,) = sent.events()
        assert event["status"] == "error"
        assert (event["unit"], event["variant"]) == ("u", ROUTER("u"))
        assert "prediction" not in event

    def test_what_is_no_answer_is_counted(self):
        sent = Sent()
        with sent.monitor.call():
            pass
        with sent.monitor.call() as call:
            call.answer(score=17)
        with sent.monitor.call(event_id="") as call:
            call.answer(score=0.5)
        with pytest.raises(KeyboardInterrupt), sent.monitor.call():
            raise KeyboardInterrupt
        assert sent.events() == []
        assert sent.dropped == {"no_answer": 1, "invalid": 2, "cancelled": 1}

    def test_calls_are_found_where_they_run(self):
        sent = Sent()
        with pytest.raises(LookupError, match="no call of a model runs here"):
            current_call()
        with sent.monitor.call() as outer:
            with sent.monitor.call() as inner:
                assert current_call() is inner
            assert current_call() is outer
        with pytest.raises(LookupError):
            current_call()

    def test_labels_and_single_predictions(self):
        sent = Sent()
        assert sent.monitor.prediction("e1", score=0.5, version="2")
        assert sent.monitor.label("e1", True)
        assert not sent.monitor.label("e1", None)  # type: ignore[arg-type]
        assert not sent.monitor.prediction(17, score=0.5)  # type: ignore[arg-type]
        assert sent.events() == [
            {"event_id": "e1", "model": "fraud", "version": "2", "score": 0.5},
            {"event_id": "e1", "label": True, "model": "fraud"},
        ]
        assert sent.dropped == {"invalid": 2}

    def test_a_wrong_name_of_a_model_is_told_at_once(self):
        with pytest.raises(ValueError, match="model must have"):
            Monitor("", Sender(print))

    def test_arm_and_version_are_of_one_router_when_it_changes_meanwhile(self):
        """A follower changes its router in another thread, between any two steps of a call."""
        other = Router("fraud-18", [(10_000, "c")], model="fraud", arms={"control": "7", "c": "8"})

        class Changing:
            asked = 0

            @property
            def current(self) -> Router:
                self.asked += 1
                return ROUTER if self.asked % 2 else other

        sent = Sent(router=Changing())
        versions = {"control": "3", "b": "4", "c": "8"}
        for i in range(20):
            with sent.monitor.call(unit=i) as call:
                assert call.version == versions[call.variant or ""]
                call.answer(prediction=1)
        assert all(e["version"] == versions[e["variant"]] for e in sent.events())


class TestWatch:
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_a_function_is_watched(self, asynchronous):
        sent = Sent(router=ROUTER)
        watch = sent.monitor.watch(
            observe, unit=lambda user, amount: user, event_id=lambda user, amount: f"e-{user}"
        )
        arms = []

        @watch
        def predict(user: str, amount: float) -> float:
            """Say how likely it is."""
            arms.append(current_call().variant)
            return 1 / amount

        @watch
        async def predict_async(user: str, amount: float) -> float:
            """Say how likely it is."""
            await asyncio.sleep(0)
            arms.append(current_call().variant)
            return 1 / amount

        def run(user, amount):
            if asynchronous:
                return asyncio.run(predict_async(user, amount=amount))
            return predict(user, amount=amount)

        assert run("u", 4.0) == 0.25
        with pytest.raises(ZeroDivisionError):
            run("v", 0)
        assert run("w", 0.5) == 2.0  # no probability
        events = sent.events()
        assert [e["event_id"] for e in events] == ["e-u", "e-v"]
        assert [e.get("status") for e in events] == [None, "error"]
        assert events[0]["features"] == {"amount": 4.0}
        assert [e["variant"] for e in events] == [ROUTER("u"), ROUTER("v")]
        assert arms == [ROUTER(user) for user in "uvw"]
        assert sent.dropped == {"invalid": 1}
        assert predict.__doc__ == predict_async.__doc__ == "Say how likely it is."

    def test_a_fault_of_an_observer_is_no_fault_of_the_call(self):
        sent = Sent(router=ROUTER)

        def wrong(result, *args, **kwargs):
            raise RuntimeError("oops")

        watch: Any = sent.monitor.watch  # what is wrong here, mypy tells
        assert watch(wrong)(lambda x: x + 1)(1) == 2
        assert watch(lambda result, x: 17)(lambda x: x + 1)(1) == 2
        assert watch(lambda result, x: {"scroe": 1})(lambda x: x + 1)(1) == 2
        assert watch(lambda r, x: {"prediction": r}, unit=wrong)(lambda x: x)(1) == 1
        assert len(sent.events()) == 1
        assert sent.dropped == {"observe": 2, "invalid": 1}
        assert sent.faults["unit"] >= 1

    async def test_calls_at_the_same_time_do_not_mix(self):
        sent = Sent(router=ROUTER)

        @sent.monitor.watch(lambda result, user: {"prediction": result}, unit=lambda user: user)
        async def predict(user: str) -> str:
            await asyncio.sleep(0)
            return f"{user} {current_call().variant}"

        await asyncio.gather(*(predict(f"u{i}") for i in range(50)))
        events = sent.events()
        assert len(events) == 50
        assert all(e["prediction"] == f"{e['unit']} {e['variant']}" for e in events)

    async def test_a_cancelled_call_is_neither_an_answer_nor_an_error(self):
        sent = Sent()

        @sent.monitor.watch(lambda result: {"prediction": result})
        async def predict() -> int:
            await asyncio.Event().wait()
            return 1

        task = asyncio.create_task(predict())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (sent.events(), sent.dropped) == ([], {"cancelled": 1})

    def test_methods_and_objects(self):
        sent = Sent()

        class Model:
            @sent.monitor.watch(lambda result, self, x: {"prediction": result})
            def predict(self, x: int) -> int:
                return x

            async def __call__(self, x: int) -> int:
                return x

        assert Model().predict(5) == 5
        watched = sent.monitor.watch(lambda result, x: {"prediction": result})(Model())
        assert asyncio.run(watched(6)) == 6
        assert [e["prediction"] for e in sent.events()] == [5, 6]

    def test_generators_are_refused(self):
        def stream():
            yield 1

        async def stream_async():
            yield 1

        for function in (stream, stream_async):
            with pytest.raises(TypeError, match="is a generator"):
                Sent().monitor.watch(lambda result: {})(function)

    def test_types_are_checked(self, tmp_path):
        """A function that does not fit is found by mypy."""
        program = tmp_path / "server.py"
        program.write_text(
            "from stream_monitor.client import Answer, Monitor, Sender\n"
            "monitor = Monitor('fraud', Sender(print))\n"
            "def observe(score: float, user: str, amount: float) -> Answer:\n"
            "    return {'score': score, 'features': {'amount': amount}}\n"
            "@monitor.watch(observe, unit=lambda user, amount: user)\n"
            "def right(user: str, amount: float) -> float: return 1.0\n"
            "@monitor.watch(observe)\n"
            "async def also(user: str, amount: float) -> float: return 1.0\n"
            "reveal_type(right('u', 1.0))\n"
            "async def main() -> None: reveal_type(await also('u', 1.0))\n"
            "@monitor.watch(observe)\n"
            "def wrong(user: str) -> float: return 1.0\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", program],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            cwd=ROOT,
        )
        told = [line for line in done.stdout.splitlines() if "server.py" in line]
        assert [re.sub(r".*server.py:(\d+): (\w+):.*", r"\1 \2", line) for line in told[:2]] == [
            "9 note",
            "10 note",
        ]
        assert all('Revealed type is "' in line and "float" in line for line in told[:2])
        assert {line.split(":")[1] for line in told[2:]} == {"11"}


class TestMiddleware:
    @staticmethod
    def request(app, path="/predict", headers=(), kind="http"):
        """One request by hand: what a server of ASGI does."""
        sent: list[Any] = []

        async def receive():
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {"type": kind, "path": path, "method": "POST", "headers": list(headers)}
        asyncio.run(app(scope, receive, send))
        return sent

    @staticmethod
    def app(status=200, answer=None, error=None):
        async def app(scope, receive, send):
            if answer is not None:
                current_call().answer(**answer)
            if error is not None:
                raise error
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await send({"type": "http.response.body", "body": b"b"})

        return app

    def wrapped(self, sent, app):
        return MonitorMiddleware(
            app,
            sent.monitor,
            ["/predict"],
            unit=header("x-user-id"),
            event_id=header("X-Request-Id"),
        )

    def test_a_request_is_a_call(self):
        sent = Sent(router=ROUTER)
        app = self.wrapped(sent, self.app(answer={"score": 0.5}))
        headers = [(b"x-user-id", b"user-17"), (b"x-request-id", b"e1")]
        messages = self.request(app, headers=headers)
        assert [m["type"] for m in messages] == ["http.response.start"] + ["http.response.body"] * 2
        (event,) = sent.events()
        assert (event["event_id"], event["score"]) == ("e1", 0.5)
        assert (event["unit"], event["variant"]) == ("user-17", ROUTER("user-17"))

    def test_failures_of_the_server_are_errors_and_of_the_client_are_not(self):
        sent = Sent()
        self.request(self.wrapped(sent, self.app(status=503)))
        self.request(self.wrapped(sent, self.app(status=422)))
        error = RuntimeError("no model")
        with pytest.raises(RuntimeError) as raised:
            self.request(self.wrapped(sent, self.app(error=error, answer={"score": 0.5})))
        assert raised.value is error
        assert [e["status"] for e in sent.events()] == ["error", "error"]
        assert sent.dropped == {"client_error": 1}

    def test_other_requests_pass(self):
        sent = Sent()
        app = self.wrapped(sent, self.app())
        assert self.request(app, path="/health")[0]["status"] == 200
        self.request(app, kind="websocket")
        self.request(app, kind="lifespan")
        assert (sent.events(), sent.dropped) == ([], {})
        self.request(app)
        assert sent.dropped == {"no_answer": 1}

    def test_paths_may_be_a_function(self):
        sent = Sent()
        app = MonitorMiddleware(
            self.app(answer={"prediction": 1}), sent.monitor, lambda path: path.endswith("/predict")
        )
        self.request(app, path="/models/3/predict")
        assert len(sent.events()) == 1
        with pytest.raises(TypeError, match=r"paths: expected a list .*write \['/predict'\]"):
            MonitorMiddleware(self.app(), sent.monitor, "/predict")

    def test_a_thread_of_the_endpoint_finds_the_call(self):
        """Frameworks run `def` endpoints in threads, with the context of the request."""
        sent = Sent()

        async def app(scope, receive, send):
            def endpoint():
                assert threading.current_thread() is not threading.main_thread()
                current_call().answer(prediction=1)

            await asyncio.to_thread(endpoint)
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b""})

        self.request(self.wrapped(sent, app))
        assert len(sent.events()) == 1

    async def test_the_sender_of_asyncio_does_too(self):
        got: list[bytes] = []

        async def send(topic, value, key):
            got.append(value)

        sender = AsyncSender(send)
        monitor = Monitor("fraud", sender)
        with monitor.call() as call:
            call.answer(prediction=1)
        await sender.close()
        assert json.loads(got[0])["prediction"] == 1
