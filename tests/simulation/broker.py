"""
Kafka in memory, as far as the workers see it: logs, transactions, the offsets and the members of a
group.

Rule of the file: each method is one request, applied at once; delays, losses and faults are the
world's. What the protocol leaves open is left open here too: a commit of a transaction is decided
before its markers and offsets are there, offsets in a transaction know no generation of the group,
and a record without a transaction fences nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, ProducerFenced, UnknownMemberIdError

SESSION_S, REBALANCE_S, TRANSACTION_S = 10.0, 30.0, 10.0
OPEN, PREPARED, COMMITTED, ABORTED = "open", "prepared", "committed", "aborted"


class LaterError(Exception):
    """The broker is not done with what came before: the client asks again."""


@dataclass
class Transaction:
    state: str = OPEN
    partitions: list[TopicPartition] = field(default_factory=list)
    offsets: dict[TopicPartition, tuple[int, str]] = field(default_factory=dict)


class Entry(NamedTuple):
    """A record, or a control record (value and key None, `control`)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    transaction: Transaction | None
    control: bool = False


class Batch:
    """Records in the form in which aiokafka gives a batch of them."""

    timestamp_type = 0

    def __init__(self, entries: list[Entry]) -> None:
        self.entries, self.base_offset, self.next_offset = (
            entries,
            entries[0].offset,
            entries[-1].offset + 1,
        )

    def __iter__(self) -> Any:
        return iter(self.entries)


@dataclass
class Coordinated:
    """A transactional id."""

    epoch: int = -1
    transaction: Transaction | None = None


@dataclass
class Member:
    heard: float
    answer: Callable[[tuple[int, set[TopicPartition]]], None] | None = None
    """Waits for the group to be whole."""


class Broker:
    """The whole of it. `after` does something later, `chance` is the seed's."""

    def __init__(
        self,
        topics: dict[str, int],
        now: Callable[[], float],
        after: Callable[[float, Callable[[], None]], None],
        chance: Any,
        epoch_ms: int,
    ) -> None:
        self.logs: dict[TopicPartition, list[Entry]] = {
            TopicPartition(t, p): [] for t, n in topics.items() for p in range(n)
        }
        self.now, self.after, self.chance, self.epoch_ms = now, after, chance, epoch_ms
        self.offsets: dict[TopicPartition, tuple[int, str]] = {}
        self.transactional: dict[str, Coordinated] = {}
        self.members: dict[str, Member] = {}
        self.generation, self.joining_until = 0, 0.0
        self.owners: dict[TopicPartition, str] = {}
        self.assignable: list[TopicPartition] = []
        self.rebalances = self.fenced = 0

    # ---- logs

    def append(
        self,
        tp: TopicPartition,
        value: bytes | None,
        key: bytes | None = None,
        transaction: Transaction | None = None,
        *,
        control: bool = False,
    ) -> int:
        log = self.logs[tp]
        offset = log[-1].offset + 1 if log else 0
        log.append(
            Entry(offset, int(self.epoch_ms + self.now() * 1e3), key, value, transaction, control)
        )
        return offset

    def end(self, tp: TopicPartition) -> int:
        log = self.logs[tp]
        return log[-1].offset + 1 if log else 0

    def stable_end(self, tp: TopicPartition) -> int:
        """Up to here nothing is undecided."""
        return next(
            (
                e.offset
                for e in self.logs[tp]
                if e.transaction and e.transaction.state in (OPEN, PREPARED)
            ),
            self.end(tp),
        )

    def read(self, tp: TopicPartition, start: int, limit: int) -> tuple[list[Entry], int]:
        """What is committed from `start` on, and the offset after it."""
        end = self.stable_end(tp)
        found: list[Entry] = []
        for entry in self.logs[tp]:
            if start <= entry.offset < end:
                if len(found) == limit:
                    return found, entry.offset
                if not entry.control and (
                    entry.transaction is None or entry.transaction.state == COMMITTED
                ):
                    found.append(entry)
        return found, max(end, start)

    def compact(self, tp: TopicPartition) -> None:
        """
        Of each key the last committed record stays; what is undecided, and the newest records, are
        not touched.
        """
        limit = self.stable_end(tp)
        cleanable = [e for e in self.logs[tp] if e.offset < limit]
        last = {
            e.key: e.offset
            for e in cleanable
            if not e.control and (e.transaction is None or e.transaction.state == COMMITTED)
        }
        gone = {e.offset for e in cleanable[:-3] if e.control or last.get(e.key) != e.offset}
        self.logs[tp] = [e for e in self.logs[tp] if e.offset not in gone]

    # ---- transactions

    def _demand(self, name: str, epoch: int) -> Coordinated:
        known = self.transactional[name]
        if known.epoch != epoch:
            self.fenced += 1
            raise ProducerFenced
        return known

    def init(self, name: str) -> int:
        known = self.transactional.setdefault(name, Coordinated())
        if known.transaction and known.transaction.state == PREPARED:
            raise LaterError
        known.epoch += 1
        self._abort(known)
        return known.epoch

    def _abort(self, known: Coordinated) -> None:
        if known.transaction:
            self._finish(known, known.transaction, ABORTED)

    def _finish(self, known: Coordinated, transaction: Transaction, state: str) -> None:
        transaction.state = state
        for tp in transaction.partitions:
            self.append(tp, None, None, transaction, control=True)
        if state == COMMITTED:
            self.offsets.update(transaction.offsets)
        if known.transaction is transaction:
            known.transaction = None

    def _open(self, name: str, epoch: int) -> Transaction:
        known = self._demand(name, epoch)
        if known.transaction and known.transaction.state == PREPARED:
            raise LaterError
        if known.transaction is None:
            transaction = known.transaction = Transaction()

            def expire() -> None:
                if known.transaction is transaction and transaction.state == OPEN:
                    known.epoch += 1
                    self._abort(known)

            self.after(TRANSACTION_S, expire)
        return known.transaction

    def produce_in(
        self, name: str, epoch: int, tp: TopicPartition, value: bytes | None, key: bytes | None
    ) -> int:
        transaction = self._open(name, epoch)
        if tp not in transaction.partitions:
            transaction.partitions.append(tp)
        return self.append(tp, value, key, transaction)

    def offsets_in(
        self, name: str, epoch: int, offsets: dict[TopicPartition, tuple[int, str]]
    ) -> None:
        self._open(name, epoch).offsets.update(offsets)

    def commit_transaction(self, name: str, epoch: int) -> None:
        known = self._demand(name, epoch)
        transaction = known.transaction
        if transaction and transaction.state == OPEN:
            transaction.state = PREPARED  # decided; markers and offsets come later
            self.after(
                0.3 * self.chance.random(), lambda: self._finish(known, transaction, COMMITTED)
            )

    # ---- the group

    def commit(
        self, member: str, generation: int, offsets: dict[TopicPartition, tuple[int, str]]
    ) -> None:
        if member not in self.members or generation != self.generation:
            raise CommitFailedError("another generation of the group")
        self.offsets.update(offsets)

    def heartbeat(self, member: str, generation: int) -> bool:
        """False: join again."""
        if member not in self.members or generation != self.generation:
            raise UnknownMemberIdError
        self.members[member].heard = self.now()
        return not self.joining_until

    def join(self, member: str, answer: Callable[[tuple[int, set[TopicPartition]]], None]) -> None:
        self.members[member] = Member(self.now(), answer)
        self._rebalance()

    def leave(self, member: str) -> None:
        if self.members.pop(member, None) is not None and self.members:
            self._rebalance()

    def expire(self) -> None:
        """What the broker does each second."""
        late = [
            m
            for m, known in self.members.items()
            if known.answer is None and self.now() - known.heard > SESSION_S
        ]
        for m in late:
            del self.members[m]
        if late:
            self._rebalance()
        if (
            self.joining_until
            and self.members
            and (all(m.answer for m in self.members.values()) or self.now() >= self.joining_until)
        ):
            self._assign()

    def _rebalance(self) -> None:
        if not self.joining_until:
            self.joining_until = self.now() + REBALANCE_S

    def _assign(self) -> None:
        self.members = {m: known for m, known in self.members.items() if known.answer}
        if not self.members:
            return
        self.joining_until, self.generation, self.rebalances = (
            0.0,
            self.generation + 1,
            self.rebalances + 1,
        )
        names, owned = list(self.members), {m: set[TopicPartition]() for m in self.members}
        for tp in self.assignable:  # sticky, most of the time
            before = self.owners.get(tp)
            owner = (
                before
                if before in owned and self.chance.random() < 0.6
                else self.chance.choice(names)
            )
            self.owners[tp] = owner
            owned[owner].add(tp)
        for name, known in self.members.items():
            answer, known.answer, known.heard = known.answer, None, self.now()
            if answer:
                answer((self.generation, owned[name]))
