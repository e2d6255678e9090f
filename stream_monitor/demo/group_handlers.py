"""
Answers of the embedded broker about groups: members, their assignments, and committed offsets.

Rule of the file: a handler changes groups and returns a tuple in the order of the answer's schema.
Only JoinGroup and SyncGroup wait.
"""

from __future__ import annotations

from collections import defaultdict

from stream_monitor.demo.calls import NODE, Address, Answer, Call
from stream_monitor.demo.groups import Group, Join
from stream_monitor.demo.protocol import Error


class GroupHandlers:
    """The groups of the broker, and one method per API about groups."""

    def __init__(self, address: Address, join_delay_s: float) -> None:
        self.by_name: dict[str, Group] = {}
        self.address = address
        self._join_delay_s = join_delay_s

    def group(self, name: str) -> Group:
        """The group with a name; created if it does not exist."""
        return self.by_name.setdefault(name, Group(self._join_delay_s))

    def find_coordinator(self, call: Call) -> Answer:
        """Answer that this broker is the coordinator."""
        return (
            (0, Error.NONE, None, NODE, self.address.host, self.address.port)
            if call.version >= 1
            else (Error.NONE, NODE, self.address.host, self.address.port)
        )

    async def join_group(self, call: Call) -> Answer:
        """Wait for the group to be complete."""
        rebalance_ms = (
            call.request.rebalance_timeout if call.version >= 1 else call.request.session_timeout
        )
        protocols = {name: bytes(metadata) for name, metadata in call.request.group_protocols}
        join = Join(
            call.request.member_id,
            call.client,
            call.request.session_timeout / 1000,
            rebalance_ms / 1000,
            call.request.protocol_type,
            protocols,
        )
        joined = await self.group(call.request.group).join(join)
        return (*((0,) if call.version >= 2 else ()), *joined[:5], list(joined.members))

    async def sync_group(self, call: Call) -> Answer:
        """Wait for the leader's assignment."""
        error, assignment = await self.group(call.request.group).sync(
            call.request.member_id, call.request.generation_id, call.request.group_assignment
        )
        return (0, error, assignment) if call.version >= 1 else (error, assignment)

    def heartbeat(self, call: Call) -> Answer:
        """Note that a member is alive."""
        error = self.group(call.request.group).heartbeat(
            call.request.member_id, call.request.generation_id
        )
        return (0, error) if call.version >= 1 else (error,)

    def leave_group(self, call: Call) -> Answer:
        """Remove a member from its group."""
        error = self.group(call.request.group).leave(call.request.member_id)
        return (0, error) if call.version >= 1 else (error,)

    def offset_commit(self, call: Call) -> Answer:
        """Store positions with their metadata."""
        offsets = {
            (name, partition): (offset, metadata or "")
            for name, parts in call.request.topics
            for partition, offset, metadata in parts
        }
        error = self.group(call.request.consumer_group).commit(
            call.request.consumer_id, call.request.consumer_group_generation_id, offsets
        )
        answers = [
            (name, [(part[0], error) for part in parts]) for name, parts in call.request.topics
        ]
        return (0, answers) if call.version >= 3 else (answers,)

    def offset_fetch(self, call: Call) -> Answer:
        """Stored positions; -1 if there is none."""
        group = self.by_name.get(call.request.consumer_group)
        stored = group.offsets if group else {}
        wanted = call.request.topics
        if wanted is None:
            by_topic = defaultdict(list)
            for name, partition in stored:
                by_topic[name].append(partition)
            wanted = list(by_topic.items())
        answers = [
            (
                name,
                [
                    (partition, *stored.get((name, partition), (-1, "")), Error.NONE)
                    for partition in parts
                ],
            )
            for name, parts in wanted
        ]
        return (
            *((0,) if call.version >= 3 else ()),
            answers,
            *((Error.NONE,) if call.version >= 2 else ()),
        )

    def list_groups(self, call: Call) -> Answer:
        """All groups."""
        return (
            *((0,) if call.version >= 1 else ()),
            Error.NONE,
            [(name, group.protocol_type) for name, group in self.by_name.items()],
        )

    def describe_groups(self, call: Call) -> Answer:
        """State and members of groups."""
        answers: list[Answer] = []
        for name in call.request.groups:
            group = self.by_name.get(name)
            if group is None:
                answers.append((Error.NONE, name, "Dead", "", "", []))
                continue
            members = [
                (
                    member_name,
                    member.client,
                    "/" + self.address.host,
                    member.protocols.get(group.protocol, b""),
                    member.assignment,
                )
                for member_name, member in group.members.items()
            ]
            answers.append(
                (Error.NONE, name, group.state, group.protocol_type, group.protocol, members)
            )
        return (0, answers) if call.version >= 1 else (answers,)

    def delete_groups(self, call: Call) -> Answer:
        """Delete groups without members."""
        answers = []
        for name in call.request.groups_names:
            group = self.by_name.get(name)
            error = (
                Error.GROUP_ID_NOT_FOUND
                if group is None
                else Error.NON_EMPTY_GROUP
                if group.members
                else Error.NONE
            )
            if not error:
                del self.by_name[name]
            answers.append((name, error))
        return 0, answers
