"""
A plain-text story of what servers send, told to the whole core without a broker, and what the core
says of it.

Rule of the file: one clock, that of arrival; numbers come from `random.Random`, whose streams never
change. A file is a row of blocks: commands, `----`, what was said.

    config                                    the lines under it are monitor.yaml; only at the beginning
    load MODEL/VERSION N every 10ms seed 1    N predictions, and on lines of their own what they are like:
      x ~ normal(0, 1) [times 1000] [missing 10%] [broken 10%]     a feature; also uniform(a, b), constant(a), choice(a 0.7, b 0.3)
      error 10%                               share of labels that differ from the prediction
      labels after 5s | labels off            when labels come (at once), if they do
      labels repeated 10%                     share of labels that come twice
      corrected 10% after 1m                  share of labels that are taken back later
      repeated 10%                            share of predictions that come twice
      failed 10%                              share of calls with status error
    advance 10m                               time goes on with nothing but labels that are due
    restart                                   snapshot, and go on from it
    show MODEL/VERSION                        counts and windows, two seconds later
"""  # noqa: E501

from __future__ import annotations

import heapq
import json
import random
import re
from datetime import datetime
from typing import Any

import numpy as np

from stream_monitor.config import parse
from stream_monitor.evaluate import Shard
from stream_monitor.ingest import Ingest, tick
from stream_monitor.settings import Settings
from stream_monitor.verdicts import Out
from stream_monitor.windows.names import duration_ms

T0 = 1_760_000_000_000
FLUSH_MS = 1_000


def ms(text: str) -> int:
    found = duration_ms(text)
    assert found is not None, f"no duration: {text}"
    return found


def share(text: str) -> float:
    return float(text.removesuffix("%")) / 100


def clock(text: str) -> str:
    """Time of an alert since the beginning, to a tenth of a second."""
    tenths = round((datetime.fromisoformat(text).timestamp() * 1_000 - T0) / 100)
    return f"{tenths // 36_000:02}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


class Feature:
    """One line `NAME ~ DISTRIBUTION(…) …`."""

    def __init__(self, line: str) -> None:
        found = re.fullmatch(r"(\w+) ~ (\w+)\(([^)]*)\)((?: \w+ [\d.]+%?)*)", line)
        assert found, f"no feature: {line}"
        self.name, self.kind = found[1], found[2]
        self.arguments = [a.strip() for a in found[3].split(",")]
        words = found[4].split()
        options = dict(zip(words[::2], words[1::2], strict=True))
        self.factor = float(options.pop("times", 1))
        self.missing, self.broken = (
            share(options.pop("missing", "0%")),
            share(options.pop("broken", "0%")),
        )
        assert not options, f"unknown: {options}"

    def value(self, rnd: random.Random) -> Any:
        accident = rnd.random()
        drawn = self._drawn(rnd)
        return (
            None
            if accident < self.missing
            else ["broken"]
            if accident < self.missing + self.broken
            else drawn
        )

    def _drawn(self, rnd: random.Random) -> Any:
        if self.kind == "choice":
            names, weights = zip(*(a.split() for a in self.arguments), strict=True)
            return rnd.choices(names, [float(w) for w in weights])[0]
        numbers = [float(a) for a in self.arguments]
        return self.factor * (
            rnd.gauss(*numbers)
            if self.kind == "normal"
            else rnd.uniform(*numbers)
            if self.kind == "uniform"
            else numbers[0]
        )


class Load:
    """What a `load` says."""

    def __init__(self, lines: list[str]) -> None:
        found = re.fullmatch(r"load (\w+)/(\w+) (\d+) every (\w+) seed (\d+)", lines[0])
        assert found, lines[0]
        self.model, self.version, self.n, self.every_ms, self.seed = (
            found[1],
            found[2],
            int(found[3]),
            ms(found[4]),
            int(found[5]),
        )
        self.features: list[Feature] = []
        self.shares = {
            "error": 0.0,
            "repeated": 0.0,
            "failed": 0.0,
            "labels repeated": 0.0,
            "corrected": 0.0,
        }
        self.delay_ms: int | None = 0
        self.correction_ms = 0
        for line in lines[1:]:
            self._take(line.strip())

    def _take(self, line: str) -> None:
        if "~" in line:
            self.features.append(Feature(line))
        elif line.startswith("labels after "):
            self.delay_ms = ms(line.rsplit(maxsplit=1)[-1])
        elif line == "labels off":
            self.delay_ms = None
        elif found := re.fullmatch(
            r"(error|repeated|failed|labels repeated|corrected) ([\d.]+%)(?: after (\w+))?", line
        ):
            self.shares[found[1]] = share(found[2])
            self.correction_ms = ms(found[3]) if found[3] else 0
        else:
            raise AssertionError(f"not understood: {line}")


class Story:
    """The core, and the clock of its events."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.ingest, self.shard = Ingest(1), Shard(0, self.settings.core)
        self.now_ms = self.flushed_ms = T0
        self.offsets = {"predictions": 0, "labels": 0}
        self.due: list[tuple[int, int, str, bytes]] = []
        """Events to come: (arrival, number, kind, value)."""
        self.arrived: dict[str, list[tuple[int, bytes]]] = {"predictions": [], "labels": []}
        self.made = 0
        self.said: list[dict[str, Any]] = []
        """Alert events so far."""

    def run(self, commands: list[str]) -> list[str]:
        """Do what a block says; the lines it gives."""
        out: list[str] = []
        at = 0
        while at < len(commands):
            end = at + 1
            while end < len(commands) and commands[end].startswith(" "):
                end += 1
            out += self._command(commands[at:end])
            at = end
        return out

    def _command(self, lines: list[str]) -> list[str]:
        word, _, rest = lines[0].partition(" ")
        shown: list[str] = []
        if word == "config":
            assert not self.made, "the configuration comes first"
            self.settings = parse("\n".join(lines[1:]))
            self.shard = Shard(0, self.settings.core)
        elif word == "load":
            self._load(Load(lines))
        elif word == "advance":
            self._until(self.now_ms + ms(rest))
        elif word == "restart":
            parts = {name: part for name, part in self.shard.snapshot().items() if part is not None}
            self.shard = Shard.restore(0, self.settings.core, parts)
        elif word == "show":
            self._until(self.now_ms + 2 * FLUSH_MS)  # until what waits was reduced
            shown = self._shown(*rest.split("/"))
        else:
            raise AssertionError(f"not understood: {lines[0]}")
        return [*self._heard(), *shown]

    # ---- events

    def _load(self, load: Load) -> None:
        rnd = random.Random(load.seed)
        for i in range(load.n):
            self._prediction(load, rnd, self.now_ms + i * load.every_ms)
        self._until(self.now_ms + load.n * load.every_ms)

    def _prediction(self, load: Load, rnd: random.Random, time_ms: int) -> None:
        happens = {name: rnd.random() < p for name, p in load.shares.items()}
        score = rnd.random()
        event: dict[str, Any] = {
            "event_id": f"{self.made}",
            "model": load.model,
            "version": load.version,
            "timestamp": time_ms,
        }
        if happens["failed"]:
            self._put(time_ms, "predictions", {**event, "status": "error"})
            return
        event |= {
            "prediction": int(score >= 0.5),
            "score": score,
            "features": {f.name: f.value(rnd) for f in load.features},
        }
        for _ in range(1 + happens["repeated"]):
            self._put(time_ms, "predictions", event)
        if load.delay_ms is None:
            return
        truth = int(score >= 0.5) ^ happens["error"]
        time_ms += load.delay_ms
        label = {
            "event_id": event["event_id"],
            "model": load.model,
            "label": 1 - truth if happens["corrected"] else truth,
            "timestamp": time_ms,
        }
        for _ in range(1 + happens["labels repeated"]):
            self._put(time_ms, "labels", label)
        if happens["corrected"]:
            time_ms += load.correction_ms
            self._put(time_ms, "labels", {**label, "label": truth, "timestamp": time_ms})

    def _put(self, time_ms: int, kind: str, event: dict[str, Any]) -> None:
        self.made += 1
        heapq.heappush(self.due, (time_ms, self.made, kind, json.dumps(event).encode()))

    def _until(self, end_ms: int) -> None:
        """
        Let everything arrive that is due before `end_ms`; INGEST flushes once a second, or ticks.
        """
        while self.now_ms < end_ms:
            arrival = min(self.due[0][0], end_ms) if self.due else end_ms
            while arrival - self.flushed_ms > FLUSH_MS:
                self._flush(self.flushed_ms + FLUSH_MS)
            self.now_ms = max(self.now_ms, arrival)
            if self.due and self.due[0][0] < end_ms:
                time_ms, _, kind, value = heapq.heappop(self.due)
                self.arrived[kind].append((time_ms, value))
        self._flush(end_ms)

    def _flush(self, time_ms: int) -> None:
        """What arrived since the last flush: predictions, then labels, as of two topics."""
        self.flushed_ms = time_ms
        for kind, rows in self.arrived.items():
            offsets = np.arange(self.offsets[kind], self.offsets[kind] + len(rows))
            rejects = self.ingest.take(
                f"{kind}@scenario/0",
                kind,
                [value for _, value in rows],
                offsets,
                np.array([t for t, _ in rows], np.int64),
            )
            assert not rejects, rejects
            self.offsets[kind] += len(rows)
            rows.clear()
        for record in self.ingest.flush(time_ms).get(0, [tick(time_ms)]):
            self.shard.fold(record)

    # ---- what is said

    def _heard(self) -> list[str]:
        out, self.shard.outbox = self.shard.outbox, []
        return [self._line(o) for o in out if o.topic != "history"]

    def _line(self, out: Out) -> str:
        if out.topic != "alerts":
            return f"{out.topic} {(out.key or b'').decode()}"
        a = json.loads(out.value)
        self.said.append(a)
        at = {
            "firing": clock(a["starts_at"]),
            "updated": " " * 10,
            "resolved": clock(a["ends_at"] or a["starts_at"]),
        }[a["status"]]
        since = "" if a["status"] == "firing" else f", since {clock(a['starts_at'])}"
        what = f"{a['model']}/{a['version']} {a['kind']} {a['subject']} by {a['detector']}"
        return (
            f"{at} {a['status']:8} {a['severity']:8} {what}: {a['value']:.3g} "
            f"{a['direction'] or '-'}, limit {a['threshold']:.3g}{since}"
        )

    def _shown(self, model: str, version: str) -> list[str]:
        found = self.shard.summary()["models"][model]["versions"][version]
        lines = [
            f"{model}/{version}: "
            + " ".join(f"{k} {found[k]}" for k in ("predictions", "labels", "pending", "expired"))
        ]
        for name, window in found["windows"].items():
            lines.append(f"  {name}: labels {window['labels']} accuracy {window['accuracy']:.3f}")
        for name, feature in found["features"].items():
            lines.append(
                f"  {name}: "
                + " ".join(
                    f"{k} {feature[k]:.3g}" for k in ("missing_ratio", "mean") if k in feature
                )
            )
        return lines
