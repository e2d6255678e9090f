"""
Consumer groups of the embedded broker: joining, assignments, heartbeats, committed offsets.

Rule of the file: the states are Kafka's own and change only here.

    EMPTY -join-> JOINING -all joined, or the slowest rebalance timeout-> SYNCING -the leader's
    assignment-> STABLE
      ^______________________________ the last member left
      ______________________________________________|
    Any join with news, any member that leaves or falls silent: back to JOINING. No static
    membership, no cooperative rebalance by the broker (clients may do it).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import NamedTuple

from stream_monitor.demo.protocol import Error

EMPTY, JOINING, SYNCING, STABLE = "Empty", "PreparingRebalance", "CompletingRebalance", "Stable"
JOIN_POLL_S = 0.05
REAP_S = 0.25


class Joined(NamedTuple):
    """The answer to JoinGroup; `members` is for the leader only."""

    error: int
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    member: str = ""
    members: tuple[tuple[str, bytes], ...] = ()


class Join(NamedTuple):
    """The request of a member that joins."""

    member: str
    client: str
    session_s: float
    rebalance_s: float
    protocol_type: str
    protocols: dict[str, bytes]


class Member:
    def __init__(self) -> None:
        self.client = ""
        self.session_s = self.rebalance_s = 0.0
        self.protocols: dict[str, bytes] = {}
        self.assignment = b""
        self.seen_s = 0.0
        self.joining: asyncio.Future[int] | None = None
        self.syncing: asyncio.Future[int] | None = None

    @property
    def joins(self) -> bool:
        return self.joining is not None and not self.joining.done()

    def answer(self, error: int) -> None:
        """Answer the waiting request of this member for its join or assignment."""
        for waiting in (self.joining, self.syncing):
            if waiting is not None and not waiting.done():
                waiting.set_result(error)


class Group:
    """One group. `join_delay_s` is how long it waits for further members after each join."""

    def __init__(self, join_delay_s: float) -> None:
        self.state = EMPTY
        self.generation = 0
        self.protocol_type = ""
        self.protocol = ""
        self.leader = ""
        self.members: dict[str, Member] = {}
        self.offsets: dict[tuple[str, int], tuple[int, str]] = {}
        self._join_delay_s = join_delay_s
        self._ids = itertools.count(1)
        self._since_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def join(self, join: Join) -> Joined:
        """Join, or join again; answers when the group is complete."""
        loop = asyncio.get_running_loop()
        name = join.member or f"{join.client}-{next(self._ids)}-{int(loop.time() * 1e6):x}"
        if join.member and join.member not in self.members:
            return Joined(Error.UNKNOWN_MEMBER_ID, member=join.member)
        if self.members and join.protocol_type != self.protocol_type:
            return Joined(Error.INCONSISTENT_GROUP_PROTOCOL, member=name)
        news = (
            join.member not in self.members or self.members[join.member].protocols != join.protocols
        )
        member = self.members.setdefault(name, Member())
        member.client, member.session_s, member.rebalance_s, member.protocols = (
            join.client,
            join.session_s,
            join.rebalance_s,
            join.protocols,
        )
        member.seen_s = loop.time()
        self.protocol_type = join.protocol_type
        # A known member that only missed the answer gets it again; a leader that joins a stable
        # group wants a new assignment.
        if not news and (self.state == SYNCING or (self.state == STABLE and name != self.leader)):
            return self._joined(name)
        if member.joins:
            member.answer(Error.UNKNOWN_MEMBER_ID)
        member.joining = loop.create_future()
        self._rebalance()
        error = await member.joining
        return Joined(error, member=name) if error else self._joined(name)

    async def sync(
        self, name: str, generation: int, assignments: Iterable[tuple[str, bytes]]
    ) -> tuple[int, bytes]:
        """Store the assignment (leader), or wait for it (other members)."""
        error = self._check(name, generation)
        if not error and self.state == JOINING:
            error = Error.REBALANCE_IN_PROGRESS
        if error:
            return error, b""
        member = self.members[name]
        if name == self.leader and self.state == SYNCING:
            for other, assignment in assignments:
                if other in self.members:
                    self.members[other].assignment = assignment
            self.state = STABLE
            for waiting in self.members.values():
                waiting.answer(Error.NONE)
        if self.state == SYNCING:
            member.syncing = asyncio.get_running_loop().create_future()
            error = await member.syncing
        return error, b"" if error else member.assignment

    def heartbeat(self, name: str, generation: int) -> int:
        """Error code for a heartbeat; REBALANCE_IN_PROGRESS tells the member to join again."""
        return self._check(name, generation) or (
            Error.REBALANCE_IN_PROGRESS if self.state == JOINING else Error.NONE
        )

    def leave(self, name: str) -> int:
        """Remove a member, on its request or because it was silent."""
        member = self.members.pop(name, None)
        if member is None:
            return Error.UNKNOWN_MEMBER_ID
        member.answer(Error.UNKNOWN_MEMBER_ID)
        if self.members:
            self._rebalance()
        else:
            self.state = EMPTY
        return Error.NONE

    def commit(
        self, name: str, generation: int, offsets: dict[tuple[str, int], tuple[int, str]]
    ) -> int:
        """
        Store offsets. As in Kafka, a commit from outside (generation below 0) is accepted only
        while the group has no members.
        """
        if generation < 0 and not name:
            error = Error.UNKNOWN_MEMBER_ID if self.members else Error.NONE
        else:
            error = self._check(name, generation) or (
                Error.REBALANCE_IN_PROGRESS if self.state == SYNCING else Error.NONE
            )
        if not error:
            self.offsets.update(offsets)
        return error

    def reap(self, now_s: float) -> list[str]:
        """Remove the members that were silent for their session timeout; returns their names."""
        silent = [
            name
            for name, member in self.members.items()
            if not member.joins and now_s - member.seen_s > member.session_s
        ]
        for name in silent:
            self.leave(name)
        return silent

    def close(self) -> None:
        """Cancel the timer and answer everybody who waits."""
        if self._timer is not None:
            self._timer.cancel()
        for member in self.members.values():
            member.answer(Error.UNKNOWN_MEMBER_ID)

    def _check(self, name: str, generation: int) -> int:
        member = self.members.get(name)
        if member is None:
            return Error.UNKNOWN_MEMBER_ID
        member.seen_s = asyncio.get_running_loop().time()
        return Error.NONE if generation == self.generation else Error.ILLEGAL_GENERATION

    def _joined(self, name: str) -> Joined:
        members = (
            tuple(
                (other, member.protocols[self.protocol]) for other, member in self.members.items()
            )
            if name == self.leader
            else ()
        )
        return Joined(Error.NONE, self.generation, self.protocol, self.leader, name, members)

    def _rebalance(self) -> None:
        loop = asyncio.get_running_loop()
        if self.state != JOINING:
            self.state, self._since_s = JOINING, loop.time()
            for member in self.members.values():
                if member.syncing is not None and not member.syncing.done():
                    member.syncing.set_result(Error.REBALANCE_IN_PROGRESS)
        self._wait(self._join_delay_s)

    def _wait(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._complete)

    def _complete(self) -> None:
        """
        Continue when all members have joined, or without those that did not join within the slowest
        rebalance timeout.
        """
        if self.state != JOINING:
            return
        now_s = asyncio.get_running_loop().time()
        missing = [name for name, member in self.members.items() if not member.joins]
        if missing and now_s - self._since_s < max(
            member.rebalance_s for member in self.members.values()
        ):
            self._wait(JOIN_POLL_S)
            return
        for name in missing:
            del self.members[name]
        if not self.members:
            self.state = EMPTY
            return
        common = set.intersection(*(set(member.protocols) for member in self.members.values()))
        if not common:
            for member in self.members.values():
                member.answer(Error.INCONSISTENT_GROUP_PROTOCOL)
            self.members.clear()
            self.state = EMPTY
            return
        self.generation += 1
        self.leader = self.leader if self.leader in self.members else next(iter(self.members))
        self.protocol = next(name for name in self.members[self.leader].protocols if name in common)
        self.state = SYNCING
        for member in self.members.values():
            member.seen_s, member.assignment = now_s, b""
            member.answer(Error.NONE)
