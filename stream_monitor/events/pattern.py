r"""
Regular expressions that match whole texts, in time that is linear in the text.

Rule of the file: what is accepted means what it means to `re.fullmatch`. What cannot be matched in
linear time (back-references, lookaround), or needs a context (`\b`), is refused with its name.

Theory of operation
-------------------
`re` goes back when it fails: `(a+)+b` takes 2^n steps for n times `a`, so one event could stop a
worker. Here an expression becomes a set of states (Thompson, Programming techniques: Regular
expression search algorithm, CACM 11(6), 1968), and a text is read once, from one set of states to
the next. Steps between sets are kept, so a character of usual texts is one look into a dict. Of
what single characters match, such as `[A-Z\d]`, `re` is asked.
"""

from __future__ import annotations

import re
import warnings
from typing import NamedTuple

from stream_monitor.errors import InputError

LENGTH_MAX, STATES_MAX, NESTED_MAX, STEPS_MAX = 500, 2_000, 50, 20_000
"""Characters, states and groups within groups of an expression; steps that are kept."""
SIGN = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P<\w+>|\(\?:|\(\?|.",
    re.DOTALL,
)
REPEAT = re.compile(r"[*+?]|\{(\d*),?(\d*)\}")
LETTERS = frozenset("dDwWsSntrfvaxu")
"""Letters that may follow a backslash."""
TIMES = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class Node(NamedTuple):
    """A part of an expression."""

    kind: str
    """`one` character, `cat` of parts, `alt` of parts, or `rep` of a part."""
    parts: tuple[Node, ...] = ()
    sign: str = ""
    low: int = 0
    high: int | None = None

    @property
    def size(self) -> int:
        """Number of states that it takes, about."""
        inner = 1 + sum(part.size for part in self.parts)
        return inner if self.kind != "rep" else inner * max(self.high or self.low, 1)


class Pattern:
    r"""
    An expression for whole texts.

    Parameters
    ----------
    text : str
        Literals, `.`, classes (`[A-Z]`, `\d \w \s`), groups, `|`, and `* + ? {m,n}`. A `^` at
        its beginning and a `$` at its end change nothing.

    Raises
    ------
    InputError
        It is no regular expression, or one of which the time is not bounded; the message says why.

    Notes
    -----
    Time is O(characters of a text), about 0.1 µs each when its steps are known; memory is at most
    20,000 steps.

    Examples
    --------
    >>> iban = Pattern(r"[A-Z]{2}\d{2}( ?\w{4}){2,7}")
    >>> iban.matches("NL91 ABNA 0417 1643"), iban.matches("NL91 ABNA 0417 1643 ")
    (True, False)
    >>> Pattern("(a+)+b").matches("a" * 200)
    False
    >>> Pattern(r"(a)\1")
    Traceback (most recent call last):
    stream_monitor.errors.InputError: `\1` cannot be matched in bounded time
    """

    def __init__(self, text: str) -> None:
        self.text = text
        tree = _Parser(text).whole()
        if tree.size > STATES_MAX:
            raise InputError(f"it has more than {STATES_MAX:,} states; repeat less")
        self._tests: list[re.Pattern[str] | None] = []
        self._next: list[list[int]] = []
        self._end = self._state(None)
        first = self._built(tree, self._end)
        self._sets: dict[frozenset[int], int] = {}
        self._members: list[frozenset[int]] = []
        self._steps: dict[tuple[int, str], int] = {}
        self._closed([first])  # the set 0

    def matches(self, value: str) -> bool:
        """Whether all of a text is as the expression says."""
        steps = self._steps
        if len(steps) > STEPS_MAX:
            steps.clear()
            self._sets.clear()
            first, self._members = self._members[0], []
            self._numbered(first)
        at = 0
        for character in value:
            known = steps.get((at, character))
            at = self._step(at, character) if known is None else known
            if at < 0:
                return False
        return self._end in self._members[at]

    # ---- states

    def _state(self, test: re.Pattern[str] | None, *following: int) -> int:
        self._tests.append(test)
        self._next.append(list(following))
        return len(self._tests) - 1

    def _built(self, node: Node, then: int) -> int:
        """The first state of a part, after which comes the state `then`."""
        if node.kind == "one":
            return self._state(re.compile(node.sign, re.DOTALL * (node.sign != ".")), then)
        if node.kind == "alt":
            return self._state(None, *(self._built(part, then) for part in node.parts))
        if node.kind == "cat":
            for part in reversed(node.parts):
                then = self._built(part, then)
            return then
        (part,) = node.parts
        if node.high is None:
            again = self._state(None, then)
            self._next[again].append(self._built(part, again))
            then = again
        else:
            leave = then
            for _ in range(node.high - node.low):
                then = self._state(None, leave, self._built(part, then))
        for _ in range(node.low):
            then = self._built(part, then)
        return then

    def _closed(self, states: list[int]) -> int:
        """The number of the set of all states that are reached without a character."""
        found: set[int] = set()
        while states:
            state = states.pop()
            if state not in found:
                found.add(state)
                if self._tests[state] is None:
                    states += self._next[state]
        return self._numbered(
            frozenset(s for s in found if s == self._end or self._tests[s] is not None)
        )

    def _numbered(self, members: frozenset[int]) -> int:
        number = self._sets.setdefault(members, len(self._sets))
        if number == len(self._members):
            self._members.append(members)
        return number

    def _step(self, at: int, character: str) -> int:
        """The set after a character; -1 if there is none."""
        reached = [
            then
            for state in self._members[at]
            if (test := self._tests[state]) is not None and test.fullmatch(character)
            for then in self._next[state]
        ]
        found = self._steps[at, character] = self._closed(reached) if reached else -1
        return found


class _Parser:
    """Reads an expression that `re` understands."""

    def __init__(self, text: str) -> None:
        if len(text) > LENGTH_MAX:
            raise InputError(f"it has more than {LENGTH_MAX} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                re.compile(text)
        except (re.error, OverflowError, RecursionError, Warning) as e:
            raise InputError(f"no regular expression: {e}") from None
        self.text, self.at, self.nested = text, 0, 0

    def whole(self) -> Node:
        """The whole expression."""
        return self._alternatives()

    def _alternatives(self) -> Node:
        found = [self._sequence()]
        while self.text.startswith("|", self.at):
            self.at += 1
            found.append(self._sequence())
        return found[0] if len(found) == 1 else Node("alt", tuple(found))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            parts.append(self._repeated(self._one()))
        return Node("cat", tuple(parts))

    def _one(self) -> Node:
        begin = self.at
        matched = SIGN.match(self.text, begin)
        assert matched is not None
        sign, self.at = matched[0], matched.end()
        if sign in ("(", "(?:") or sign.startswith("(?P<"):
            self.nested += 1
            if self.nested > NESTED_MAX:
                raise InputError(f"it has more than {NESTED_MAX} groups within groups")
            inner = self._alternatives()
            self.at += 1
            self.nested -= 1
            return inner
        if sign == "(?":
            raise _refused(self.text[begin : begin + 4])
        if (sign == "^" and begin == 0) or (sign == "$" and self.at == len(self.text)):
            return Node("cat")
        if sign in "^$" or (sign[0] == "\\" and sign[1].isalnum() and sign[1] not in LETTERS):
            raise _refused(sign)
        return Node("one", sign=sign if sign[0] in "\\[." else re.escape(sign))

    def _repeated(self, node: Node) -> Node:
        found = REPEAT.match(self.text, self.at)
        if found is None or found[0] in ("{}", "{,}"):
            return node
        self.at = found.end()
        if self.text.startswith("+", self.at):
            raise _refused(f"{found[0]}+")
        self.at += self.text.startswith("?", self.at)  # lazy: the same texts
        if found[0] in TIMES:
            low, high = TIMES[found[0]]
        else:
            low = int(found[1] or 0)
            high = low if "," not in found[0] else int(found[2]) if found[2] else None
        return Node("rep", (node,), low=low, high=high)


def _refused(sign: str) -> InputError:
    return InputError(f"`{sign}` cannot be matched in bounded time")
