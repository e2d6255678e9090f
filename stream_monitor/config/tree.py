"""
Turns YAML and environment variables into a tree of nodes, each of which knows where it was written.

Rule of the file: only numbers, texts, booleans, nulls, lists and mappings are constructed. Size,
depth and the number of nodes (an alias counts each time) are limited. The meaning of a value does
not matter here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from stream_monitor.errors import ConfigError

TEXT_MAX_BYTES = 1 << 20
NODES_MAX = 100_000
DEPTH_MAX = 30
TAG = "tag:yaml.org,2002:"
PLAIN_TAGS = frozenset({"str", "timestamp", "binary"})

Path = tuple[str, ...]
Scalar = str | int | float | bool | None


class Node(NamedTuple):
    """A value of the configuration. `text` is a scalar as it was written."""

    value: dict[str, Node] | list[Node] | Scalar
    where: str
    """`FILE:LINE`, or the name of an environment variable."""
    path: Path
    text: str = ""

    def find(self, *keys: str) -> Node:
        """The node at a path below this one, or its nearest existing parent."""
        node = self
        for key in keys:
            if not isinstance(node.value, dict) or key not in node.value:
                return node
            node = node.value[key]
        return node

    def has(self, *keys: str) -> bool:
        """Whether there is a node at a path below this one."""
        return self.find(*keys).path[len(self.path) :] == keys


def merge(base: Node | None, own: Node) -> Node:
    """
    Override a base with own values, mapping by mapping; lists and scalars are replaced as a whole.

    A null of one's own leaves the base unchanged.
    """
    if base is None:
        return own
    if own.value is None:
        return base
    if not isinstance(base.value, dict) or not isinstance(own.value, dict):
        return own
    merged = dict(base.value)
    for key, node in own.value.items():
        merged[key] = merge(base.value.get(key), node)
    return Node(merged, own.where, own.path)


def read(
    text: str, name: str, problems: list[str], path: Path = (), *, numbered: bool = True
) -> Node | None:
    """
    The tree of a YAML text; None if the text is empty.

    Parameters
    ----------
    text : str
    name : str
        File or variable, for messages.
    problems : list of str
        Gets problems that leave something to read (a repeated key, an unknown tag).
    path : tuple of str
        Path at which the tree belongs.
    numbered : bool
        Whether messages contain lines.

    Raises
    ------
    ConfigError
        The text is not YAML, too large or too deep.

    Examples
    --------
    >>> read("a: {b: [1, off]}", "f", []).find("a", "b").value[1]
    Node(value='off', where='f:1', path=('a', 'b', '1'), text='off')
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text.encode("utf-8", "replace")) > TEXT_MAX_BYTES:
        raise ConfigError([f"{name}: larger than {TEXT_MAX_BYTES:,} bytes"])
    try:
        composed = YAML(typ="safe", pure=True).compose(text) if text.strip() else None
    except MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark and numbered else ""
        # the name of the alias may be a secret: `password: *hush`
        what, alias, _ = str(e.problem).partition(" alias ")
        raise ConfigError([f"{name}{line}: not valid YAML: {what}{alias.rstrip()}"]) from None
    except YAMLError as e:
        raise ConfigError([f"{name}: not valid YAML: {str(e).splitlines()[0]}"]) from None
    except (RecursionError, ValueError) as e:
        raise ConfigError(
            [
                (
                    f"{name}: not valid YAML: "
                    f"{'nested too deeply' if isinstance(e, RecursionError) else e}"
                )
            ]
        ) from None
    if composed is None:
        return None
    return _Builder(name, problems, numbered=numbered).node(composed, path, composed)


class _Builder:
    """Builds nodes from the nodes of ruamel.yaml."""

    def __init__(self, name: str, problems: list[str], *, numbered: bool) -> None:
        self.name, self.problems, self.numbered = name, problems, numbered
        self.nodes = 0

    def where(self, mark: Any) -> str:
        return f"{self.name}:{mark.start_mark.line + 1}" if self.numbered else self.name

    def node(self, composed: Any, path: Path, mark: Any, depth: int = 0) -> Node:
        """
        Build a node. `mark` gives the line: that of the key of a value, or of the item of a list.
        """
        self.nodes += 1
        where = self.where(mark)
        if self.nodes > NODES_MAX or depth > DEPTH_MAX:
            raise ConfigError(
                [f"{where}: too many values, or nested too deeply (an alias within itself?)"]
            )
        tag = str(composed.tag).removeprefix(TAG)
        if isinstance(composed.value, str):
            return Node(self._scalar(tag, composed.value, path, where), where, path, composed.value)
        if tag == "seq":
            return Node(
                [
                    self.node(item, (*path, str(i)), item, depth + 1)
                    for i, item in enumerate(composed.value)
                ],
                where,
                path,
            )
        if tag == "map":
            return Node(self._mapping(composed, path, depth), where, path)
        self._say(where, path, "tags (!…) are not used here")
        return Node(None, where, path)

    def _mapping(self, composed: Any, path: Path, depth: int) -> dict[str, Node]:
        own: dict[str, Node] = {}
        inherited: dict[str, Node] = {}
        for key, value in composed.value:
            where = self.where(key)
            if not isinstance(key.value, str):
                self._say(where, path, "a key is a text or a number")
            elif str(key.tag) == TAG + "merge":
                for part in value.value if str(value.tag) == TAG + "seq" else [value]:
                    if str(part.tag) == TAG + "map":
                        inherited = {**self._mapping(part, path, depth + 1), **inherited}
                    else:
                        self._say(where, path, "<< takes a mapping or a list of mappings")
                    self.nodes += 1
                    if self.nodes > NODES_MAX or depth > DEPTH_MAX:
                        raise ConfigError(
                            [
                                (
                                    f"{where}: too many values, or nested too deeply (an alias "
                                    "within itself?)"
                                )
                            ]
                        )
            elif key.value in own:
                self._say(
                    where, (*path, key.value), f"given twice, first in {own[key.value].where}"
                )
            else:
                own[key.value] = self.node(value, (*path, key.value), key, depth + 1)
        return {**inherited, **own}

    def _scalar(self, tag: str, text: str, path: Path, where: str) -> Scalar:
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() in {"true", "yes", "on", "y"}
        try:
            if tag == "int":
                return _integer(text)
            if tag == "float":
                return _decimal(text)
        except (ValueError, OverflowError):
            return text
        if tag not in PLAIN_TAGS:
            self._say(where, path, "tags (!…) are not used here")
        return text

    def _say(self, where: str, path: Path, what: str) -> None:
        self.problems.append(f"{where}: {'.'.join(path)}: {what}" if path else f"{where}: {what}")


def _integer(text: str) -> int:
    """
    An integer as in YAML 1.2.

    >>> _integer("1_000"), _integer("0o17"), _integer("-0x1f"), _integer("007")
    (1000, 15, -31, 7)
    """
    digits = text.replace("_", "")
    prefix = digits.lstrip("+-")[:2].lower()
    return int(digits, 0) if prefix in {"0o", "0x", "0b"} else int(digits)


def _decimal(text: str) -> float:
    """
    A float as in YAML 1.2.

    >>> _decimal("1e3"), _decimal("-.Inf"), _decimal("1_0.5")
    (1000.0, -inf, 10.5)
    """
    word = text.replace("_", "").lower()
    return float(word.replace(".inf", "inf").replace(".nan", "nan"))


def leaves(node: Node) -> Iterator[Node]:
    """Every node of a tree."""
    yield node
    below = (
        node.value.values()
        if isinstance(node.value, dict)
        else node.value
        if isinstance(node.value, list)
        else ()
    )
    for child in below:
        yield from leaves(child)
