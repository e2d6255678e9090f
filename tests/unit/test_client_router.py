"""
Routers are made of the events of `lifecycle`, wrong events are told by their key, and other
languages agree.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import subprocess
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from stream_monitor.client import Router, point, reassign, shares

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "examples" / "router" / "vectors.json"
STARTED = {
    "schema": 1,
    "type": "experiment_started",
    "model": "fraud",
    "at": "2026-11-02T09:00:00Z",
    "by": "ana",
    "experiment": "fraud-17",
    "arms": [{"name": "control", "version": "3"}, {"name": "b", "version": "4"}],
    "weights": {"control": 99, "b": 1},
    "ranges": [[9900, "control"], [10000, "b"]],
    "unit": "user",
    "primary": {"metric": "accuracy", "effect": 0.02, "goal": "not worse"},
}
CHANGED = {
    "schema": 1,
    "type": "experiment_changed",
    "model": "fraud",
    "at": "2026-11-03T09:00:00Z",
    "experiment": "fraud-17",
    "phase": 2,
    "weights": {"control": 95, "b": 5},
    "ranges": [[9500, "control"], [10000, "b"]],
}


def without(event, *names):
    return {name: value for name, value in event.items() if name not in names}


class TestVectors:
    def test_the_file_is_what_the_command_makes(self):
        path = ROOT / "scripts" / "router_vectors.py"
        spec = importlib.util.spec_from_file_location("router_vectors", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert VECTORS.read_text() == module.document(), (
            "run: python scripts/router_vectors.py > examples/router/vectors.json"
        )

    def test_python_agrees(self):
        document = json.loads(VECTORS.read_text())
        vectors, ranges = document["vectors"], document["ranges"]
        assert len(vectors) == 1_000
        assert len({v[2] for v in vectors}) > 990
        for experiment, key, p, slot, *arms in vectors:
            assert (point(experiment, key), p * 10_000 >> 53) == (p, slot)
            assert [Router(experiment, r)(key) for r in ranges.values()] == arms

    @staticmethod
    def java_runs_source():
        """A runtime alone has no compiler."""
        if shutil.which("java") is None:
            return False
        done = subprocess.run(
            ["java", "--list-modules"], capture_output=True, text=True, timeout=60, check=False
        )
        return "jdk.compiler" in done.stdout

    @pytest.mark.parametrize("broken", [False, True])
    @pytest.mark.parametrize("language", ["java", "node"])
    def test_other_languages_agree(self, language, broken, tmp_path):
        """And say no when a point is wrong."""
        there = self.java_runs_source() if language == "java" else shutil.which("node")
        if not there:
            if language == "java" and os.environ.get("CI"):
                pytest.fail("no JDK (openjdk-17-jdk-headless): routers of two languages must agree")
            pytest.skip(f"{language} is not installed")
        program = (
            ROOT / "examples" / "router" / {"java": "Router.java", "node": "router.mjs"}[language]
        )
        vectors = tmp_path / "vectors.json"
        text = VECTORS.read_text()
        if broken:
            point = json.loads(text)["vectors"][500][2]
            text = text.replace(f" {point},", f" {point + 1},")
        vectors.write_text(text)
        done = subprocess.run(
            [language, program, vectors], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stdout == f"{1_000 - broken} of 1000 vectors agree\n", done.stderr
        assert done.returncode == int(broken)


class TestFromEvent:
    def test_ranges_decide(self):
        event = {**STARTED, "ranges": [[100, "b"], [10_000, "control"]]}
        router = Router.from_event(event)
        assert router.ranges == [(100, "b"), (10_000, "control")]
        assert (router.experiment, router.model, router.phase) == ("fraud-17", "fraud", 1)
        assert (router.arms, router.control) == ({"control": "3", "b": "4"}, "control")

    def test_without_ranges_the_weights_do(self):
        event = without(STARTED, "ranges")
        assert Router.from_event(event).ranges == [(9900, "control"), (10_000, "b")]
        # the order of a JSON object says nothing
        assert Router.from_event({**event, "weights": {"b": 1, "control": 99}}).ranges == [
            (9900, "control"),
            (10_000, "b"),
        ]
        assert Router.from_event({**event, "weights": {"control": 100}}).ranges == [
            (10_000, "control")
        ]

    def test_an_arm_may_be_its_name_alone(self):
        """As in the event that the worker reads."""
        router = Router.from_event({**STARTED, "arms": ["control", {"name": "b", "version": "4"}]})
        assert router.arms == {"control": None, "b": "4"}

    def test_a_change_goes_on_from_the_table_before(self):
        before = Router.from_event(STARTED)
        after = Router.from_event(CHANGED, before)
        assert (after.ranges, after.phase) == ([(9500, "control"), (10_000, "b")], 2)
        assert after.arms == before.arms
        assert Router.from_event(CHANGED).arms == {"control": None, "b": None}
        odd = Router("fraud-17", [(4000, "b"), (10_000, "control")], arms=before.arms)
        assert Router.from_event(without(CHANGED, "ranges", "phase"), odd).ranges == reassign(
            odd.ranges, {"control": 95, "b": 5}
        )

    @pytest.mark.parametrize(
        ("fault", "key"),
        [
            ({"type": "experiment_stopped"}, "type"),
            ({"type": None}, "type"),
            ({"schema": 2}, "schema"),
            ({"experiment": ""}, "experiment"),
            ({"experiment": 17}, "experiment"),
            ({"experiment": "a\0b"}, "experiment"),
            ({"model": None}, "model"),
            ({"phase": 0}, "phase"),
            ({"phase": True}, "phase"),
            ({"arms": None}, "arms"),
            ({"arms": [{"name": "control"}]}, "arms"),
            ({"arms": [17, "b"]}, r"arms\[0\].name"),
            ({"arms": ["control", ""]}, r"arms\[1\].name"),
            ({"arms": [{"name": "b"}, {"name": "b"}]}, r"arms\[1\].name"),
            ({"arms": [{"name": "control", "version": 3}, {"name": "b"}]}, r"arms\[0\].version"),
            ({"ranges": []}, "ranges"),
            ({"ranges": {"b": 1}}, "ranges"),
            ({"ranges": [[9900, "control"]]}, "ranges: the last range must end at 10000"),
            ({"ranges": [[10_000, "control"], [10_000, "b"]]}, r"ranges\[1\]"),
            ({"ranges": [[0, "control"], [10_000, "b"]]}, r"ranges\[0\]"),
            ({"ranges": [[True, "control"], [10_000, "b"]]}, r"ranges\[0\]"),
            ({"ranges": [[9900.0, "control"], [10_000, "b"]]}, r"ranges\[0\]"),
            ({"ranges": [["control", 9900], [10_000, "b"]]}, r"ranges\[0\]"),
            ({"ranges": [[10_000, "c"]]}, "ranges: 'c' is not among the arms control, b"),
            ({"ranges": None, "weights": None}, "weights"),
            ({"ranges": None, "weights": {}}, "weights"),
            ({"ranges": None, "weights": [99, 1]}, "weights"),
            ({"ranges": None, "weights": {"control": 99, "c": 1}}, "weights: 'c'"),
            ({"ranges": None, "weights": {"control": 99, "b": "1"}}, "weights.b"),
            ({"ranges": None, "weights": {"control": 99, "b": -1}}, "weights.b"),
            ({"ranges": None, "weights": {"control": 99.995, "b": 0.005}}, "weights.control"),
            ({"ranges": None, "weights": {"control": 0, "b": 0}}, "weights"),
            ({"ranges": None, "weights": {"control": 3, "b": 1}}, "weights: must add up to 100"),
        ],
    )
    def test_a_wrong_event_is_told_by_its_key(self, fault, key):
        with pytest.raises(ValueError, match=f"^{key}"):
            Router.from_event({**STARTED, **fault})

    @pytest.mark.parametrize("event", [None, [], "experiment_started", 17, {}])
    def test_what_is_no_event_is_refused(self, event):
        with pytest.raises(ValueError, match=r"^type"):
            Router.from_event(event)

    def test_an_event_of_another_experiment_is_refused(self):
        with pytest.raises(ValueError, match=r"^experiment: expected 'fraud-17', got 'other'"):
            Router.from_event({**CHANGED, "experiment": "other"}, Router.from_event(STARTED))


class TestKeys:
    router = Router("fraud-17", reassign([], {"control": 50, "b": 50}))

    def test_a_key_is_its_text(self):
        user = UUID("12345678-1234-5678-1234-567812345678")
        assert self.router.fields(17) == self.router.fields("17") == self.router.fields(b"17")
        assert self.router.fields(np.int64(17)) == self.router.fields("17")
        assert self.router.fields(user) == self.router.fields(str(user))
        assert self.router.fields(-5)["unit"] == "-5"
        assert self.router.fields(b"\xff\xfe")["unit"] == "fffe"

    def test_surrogates_never_raise(self):
        assert self.router.fields("a\ud800")["unit"] == "a\ufffd"
        assert self.router.fields("\ud83d\ude00")["unit"] == "\U0001f600"

    def test_members_of_enumerations_are_their_values(self):
        class Text(str, Enum):  # noqa: UP042, StrEnum has another text
            USER = "user-17"

        class Number(IntEnum):
            USER = 17

        assert self.router.fields(Text.USER) == self.router.fields("user-17")
        assert self.router.fields(Number.USER) == self.router.fields(17)

    @pytest.mark.parametrize(
        "key", ["", "x" * 1_000_000, b"\xff" * 1_000_000, 10**4_000, -(2**200)]
    )
    def test_of_any_length(self, key):
        fields = self.router.fields(key)
        assert self.router(key) == self.router(fields["unit"]) == fields["variant"]

    @pytest.mark.parametrize(
        "key",
        [
            None,
            True,
            np.True_,
            1.5,
            math.nan,
            np.float64(17),
            Decimal(17),
            ["user"],
            ("user", 17),
            {"id": 1},
            bytearray(b"user"),
            np.array([1, 2]),
            object(),
        ],
    )
    def test_what_is_no_key_is_a_type_error(self, key):
        with pytest.raises(TypeError, match=r"^key: expected text, a whole number"):
            self.router(key)
        with pytest.raises(TypeError, match=r"^key"):
            self.router.fields(key)


class TestShares:
    def test_numbers_as_people_write_them(self):
        assert shares({"a": 33.34, "b": 33.33, "c": 33.33}) == {"a": 3334, "b": 3333, "c": 3333}
        assert shares({"a": 0.99, "b": 0.01}) == {"a": 9900, "b": 100}
        assert shares({"a": 100 - 0.07, "b": 0.07}) == {"a": 9993, "b": 7}
        assert shares({"a": 0.1 + 0.2, "b": 99.7}) == {"a": 30, "b": 9970}
        assert shares({"a": Decimal("99.99"), "b": Decimal("0.01")}) == {"a": 9999, "b": 1}
        assert shares({"a": 100, "b": 0}) == {"a": 10_000, "b": 0}

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"a": 2, "b": 1}, r"weights.a: 2 of 3 .*'a': 66.67, 'b': 33.33"),
            ({"a": 50, "b": 40}, "weights.a: 50 of 90 is not a whole hundredth"),
            ({"a": float("nan"), "b": 1}, "weights.a: expected a number"),
            ({"a": float("inf"), "b": 1}, "weights.a: expected a number"),
            ({"a": True, "b": 1}, "weights.a: expected a number"),
            ({1: 50, "b": 50}, "name of an arm must be text"),
            ({}, "weights: expected an object"),
        ],
    )
    def test_others_are_refused(self, weights, message):
        with pytest.raises(ValueError, match=message):
            shares(weights)


def test_after_the_end_one_arm_serves_all():
    router = Router.from_event(STARTED)
    assert {router.kept("b")(i) for i in range(100)} == {"b"}
    assert {router.kept(None)(i) for i in range(100)} == {"control"}
    with pytest.raises(ValueError, match=r"^keep: 'c' is not among the arms control, b"):
        router.kept("c")
