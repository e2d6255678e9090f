"""
The faults of a chaos run.

Rule of the file: a fault is a method; it waits until its victim is worth hurting, hurts it, and
counts what really happened. What must come of it is checked elsewhere.
"""

from __future__ import annotations

import argparse
import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from bench.chaos_brokers import SESSION_S as BROKER_SESSION_S
from bench.chaos_brokers import WATCHED, Broker, Brokers
from bench.chaos_fleet import Fleet, Member
from bench.tcp_proxy import KINDS, Fault

GROUP = "chaos"
SESSION_S = 10
TERM_LIMIT_S = 10
ZOMBIE_TRIES = 4
READY_S = 60
"""How long a fault waits for its victim to own something."""


class Faults:
    """What can be done to a fleet and its brokers."""

    def __init__(self, options: argparse.Namespace, brokers: Brokers, fleet: Fleet) -> None:
        self.options, self.brokers, self.fleet = options, brokers, fleet
        self.random = random.Random(options.seed)
        self.done: Counter[str] = Counter()
        """What happened."""
        self.problems: list[str] = []
        self.term_s: list[float] = []
        self.waiting = self.plan()
        self._watchers: list[threading.Thread] = []
        self._extra: list[Member] = []
        self._broker_away: threading.Thread | None = None

    def plan(self) -> deque[str]:
        """Names of the methods below, in the order of the seed."""
        o = self.options
        half = o.broker_restarts // 2
        wanted = {
            "kill": o.kills,
            "zombie": o.zombies,
            "pause": o.pauses,
            "term": o.terms,
            "scale": 2 * o.scales,
            "broker_clean": o.broker_restarts - half,
        }
        wanted |= {
            "broker_kill": half,
            "broker_stop": o.broker_stops,
            "steal": o.steals,
            "endtxn": o.endtxn,
            "election": o.elections,
        }
        faults = [name for name, n in wanted.items() for _ in range(n)]
        self.random.shuffle(faults)
        return deque(faults)

    def _victim(self, *, owner: bool = False) -> Member | None:
        """
        A worker that is ready; `owner`: of partitions of observations, in a group that is at rest.
        """
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            members = self.fleet.running
            self.random.shuffle(members)
            for member in members if len(members) > 1 and (not owner or self.fleet.ready()) else []:
                if member.owned() if owner else member.ready():
                    return member
            time.sleep(0.3)
        return None

    def kill(self) -> None:
        """
        Power cut, often in the middle of something: half of them hit a worker that has not opened
        yet, or is about to.
        """
        member = (
            self._victim()
            if self.random.random() < 0.5
            else self.random.choice(self.fleet.running or [None])
        )
        if member is not None:
            member.send(signal.SIGKILL)
            self.done["kill -9"] += 1

    def zombie(self) -> None:
        """
        Stopped for longer than the session timeout, then woken: another one owns its partitions by
        then.

        Again, when it leaves before it can be fenced.
        """
        if (member := self._victim(owner=True)) is None:
            return
        seen = len(member.log)
        member.send(signal.SIGSTOP)
        self.done["SIGSTOP beyond the session"] += 1
        sleep_s = SESSION_S + self.random.uniform(4, 8)

        def wake() -> None:
            time.sleep(sleep_s)
            member.send(signal.SIGCONT)
            deadline = time.monotonic() + 30
            while member.alive and time.monotonic() < deadline:
                time.sleep(0.2)
            fenced = "fenced" in member.log[seen:]
            self.done["zombies fenced" if fenced else "zombies that left by themselves"] += 1
            if (
                not fenced
                and self.done["SIGSTOP beyond the session"] < ZOMBIE_TRIES * self.options.zombies
            ):
                self.waiting.append("zombie")

        self._watch(wake)

    def pause(self) -> None:
        """Stopped for a while that the group does not notice."""
        if (member := self._victim()) is not None:
            member.send(signal.SIGSTOP)
            time.sleep(self.random.uniform(1, 5))
            member.send(signal.SIGCONT)
            self.done["SIGSTOP, short"] += 1

    def term(self) -> None:
        """A clean end, under load and with all brokers there: exit 0 within ten seconds."""
        self.brokers_back()
        if (member := self._victim()) is None:
            return
        began = time.monotonic()
        member.send(signal.SIGTERM)
        while member.alive and time.monotonic() - began < 30:
            time.sleep(0.05)
        took = time.monotonic() - began
        self.done["SIGTERM"] += 1
        self.term_s.append(took)
        if member.process.poll() != 0 or took > TERM_LIMIT_S:
            self.problems.append(
                f"SIGTERM to worker {member.number}: exit {member.process.poll()} after "
                f"{took:.1f} s\n{member.log[-2_000:]}"
            )

    def scale(self) -> None:
        """One worker more, or one less again."""
        if self._extra:
            member = self._extra.pop()
            member.retired = True
            member.send(signal.SIGTERM)
            self.done["scale down"] += 1
        else:
            self._extra.append(self.fleet.add())
            self.done["scale up"] += 1

    def broker_clean(self) -> None:
        def restart(broker: Broker) -> None:
            broker.server.stop()
            broker.server.start()

        self._hurt_broker("broker restart", restart)

    def broker_kill(self) -> None:
        away_s = self.random.uniform(0, 5)

        def kill(broker: Broker) -> None:
            broker.kill()
            time.sleep(away_s)
            broker.server.start()

        self._hurt_broker("broker kill -9", kill)

    def broker_stop(self) -> None:
        """
        With several brokers for longer than its session with the controller: it wakes up and
        believes that it still leads.
        """
        stopped_s = (
            BROKER_SESSION_S + self.random.uniform(3, 15)
            if self.brokers.several
            else self.random.uniform(3, 20)
        )

        def stop(broker: Broker) -> None:
            broker.server.signal(signal.SIGSTOP)
            time.sleep(stopped_s)
            broker.server.signal(signal.SIGCONT)

        self._hurt_broker("broker SIGSTOP", stop)

    def election(self) -> None:
        """Another leader for every partition, while no broker is away."""
        self.brokers_back()
        self.brokers.elect(self.random)
        self.rest()
        self.done["election"] += 1

    def _hurt_broker(self, name: str, work: Callable[[Broker], None]) -> None:
        """One broker; where there are others, workers are hurt meanwhile, but no second broker."""
        self.brokers_back()
        broker = self.brokers.victim(self.random)

        def hurt() -> None:
            work(broker)
            self.done[name] += 1
            self.rest()

        if self.brokers.several:
            self._broker_away = threading.Thread(target=hurt, name=name, daemon=True)
            self._broker_away.start()
        else:
            hurt()

    def brokers_back(self, limit_s: float | None = None) -> None:
        """Wait until no broker is away by our doing."""
        if self._broker_away is not None:
            self._broker_away.join(limit_s)

    def rest(self) -> None:
        if self.brokers.several and (why := self.brokers.rest()):
            self.problems.append(why)

    def steal(self) -> None:
        """
        A foreign producer takes the transactional id of a partition: whoever owns it must find out.
        """
        if (member := self._victim(owner=True)) is None:
            return
        owned = member.owned()
        if owned:
            name = f"{GROUP}.observations.{self.random.choice(owned)}"
            Producer(
                {
                    "bootstrap.servers": self.brokers.bootstrap,
                    "transactional.id": name,
                    "log_level": 0,
                }
            ).init_transactions(60)
            self.done["transactional id stolen"] += 1

    def endtxn(self) -> None:
        """
        The end of the next transaction is lost or late on its way; 12 s is later than its client
        waits.
        """
        self.brokers.arm(
            Fault(self.random.choice(KINDS), self.random.choice([3.0, 12.0])), self.random
        )

    def _watch(self, work: Any) -> None:
        self._watchers.append(threading.Thread(target=work, daemon=True))
        self._watchers[-1].start()

    def settle(self) -> None:
        """
        Wait for the zombies that are under way, and for the brokers; those that were not fenced are
        in the plan again.
        """
        for watcher in self._watchers:
            watcher.join(60)
        self.brokers_back()

    def missing(self) -> list[str]:
        """Faults that were asked for and did not happen."""
        o, d = self.options, self.done
        wanted = {
            "kill -9": o.kills,
            "zombies fenced": o.zombies,
            "SIGSTOP, short": o.pauses,
            "SIGTERM": o.terms,
            "scale up": o.scales,
            "broker SIGSTOP": o.broker_stops,
        }
        found = [
            (name, n, d[name])
            for name, n in (wanted | {"transactional id stolen": o.steals}).items()
        ]
        found.append(
            ("broker restarts", o.broker_restarts, d["broker restart"] + d["broker kill -9"])
        )
        found.append(("EndTxn lost or late", o.endtxn, self.brokers.hurt.total()))
        found.append(("elections", o.elections, d["election"]))
        if self.brokers.several and o.broker_restarts + o.broker_stops + o.elections:
            found += [
                (f"leader changes of {topic}", 1, self.brokers.leader_changes[topic])
                for topic in WATCHED
            ]
        return [
            f"{name}: asked for {n}, happened {happened}"
            for name, n, happened in found
            if happened < n
        ]
