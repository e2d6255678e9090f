"""
Vectors that check a router in any language.

    python scripts/router_vectors.py > examples/router/vectors.json

It does not use `stream_monitor`: it is the algorithm written down once more, so that the router is
checked by something else than itself. The same seed gives the same file.
"""

from __future__ import annotations

import hashlib
import json
import random

ALGORITHM = [
    "Input: the name of an experiment, a key (text), and the table `ranges` of the experiment.",
    "1. In both texts each surrogate without its other half becomes U+FFFD.",
    "2. Encode as UTF-8: the experiment, one zero byte, the key. Take SHA-256 of these bytes.",
    "3. point = the first 8 bytes as an unsigned big-endian integer, shifted right by 11 bits.",
    "4. slot = point * 10000, shifted right by 53 bits. The product needs 67 bits.",
    "5. The arm is that of the first range [end, arm] of the table with slot < end.",
    "A whole number as a key is its decimal text, a UUID its lower-case text with hyphens.",
    "Bytes as a key are read as UTF-8; if they are not UTF-8, they are their hexadecimal text.",
    "A vector is [experiment, key, point, slot, arm by `two`, arm by `three`].",
]
RANGES = {
    "two": [[9_500, "control"], [10_000, "b"]],
    "three": [[3_334, "control"], [5_000, "c"], [6_667, "b"], [9_999, "c"], [10_000, "b"]],
}
ODD_KEYS = [
    "",
    " ",
    "0",
    "-1",
    "17",
    "1e3",
    "9007199254740993",
    "a\0b",
    "\ufeff",
    "é",
    "e\u0301",
    "ß",
    "ПРИВЕТ",
    "用户-17",
    "\u202e17",
    "😀",
    "👩‍👩‍👧",
    "\U0010ffff",
    '"\\/\b\f\n\r\t',
    "\x7f\x80",
    "\ud800",
    "\udfff-17",
    "a\ud83d",
    "\ude00\ud83d",
    "\ud83d\ud83d\ude00",
    "x" * 300,
]


def text(key: str) -> str:
    """UTF-16 as JavaScript and Java hold it: halves that belong together are joined."""
    units = key.encode("utf-16-be", "surrogatepass")
    out, i = "", 0
    while i < len(units):
        first = int.from_bytes(units[i : i + 2], "big")
        second = int.from_bytes(units[i + 2 : i + 4], "big")
        i += 2
        if 0xD800 <= first < 0xDC00 and 0xDC00 <= second < 0xE000:
            out += chr(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))
            i += 2
        else:
            out += "\ufffd" if 0xD800 <= first < 0xE000 else chr(first)
    return out


def vector(experiment: str, key: str) -> list[str | int]:
    data = text(experiment).encode() + bytes(1) + text(key).encode()
    point = int(hashlib.sha256(data).hexdigest()[:16], 16) // 2**11
    slot = point * 10_000 // 2**53
    arms = [next(arm for end, arm in ranges if slot < end) for ranges in RANGES.values()]
    return [experiment, key, point, slot, *arms]


def vectors(count: int = 1_000) -> list[list[str | int]]:
    rng = random.Random(17)
    experiments = ["fraud-17", "expérience", "a", "実験 2", "x" * 100]
    keys = list(ODD_KEYS)
    keys += [f"user-{i}" for i in range(200)]
    keys += [str(rng.randrange(10**18)) for _ in range(200)]
    keys += [str(100 * i) for i in range(100)]
    keys += [f"{rng.getrandbits(128):032x}" for _ in range(200)]
    while len(keys) < count:
        length = rng.randint(1, 12)
        keys.append(
            "".join(
                chr(
                    rng.choice((rng.randrange(128), rng.randrange(0x800), rng.randrange(0x11_0000)))
                )
                for _ in range(length)
            )
        )
    return [vector(experiments[i % len(experiments)], key) for i, key in enumerate(keys)]


def document() -> str:
    """One vector a line, ASCII only: a language without JSON reads it with a regular expression."""
    lines = ",\n    ".join(json.dumps(v) for v in vectors())
    head = {"algorithm": ALGORITHM, "ranges": RANGES}
    rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in head.items())
    return f'{{\n{rows},\n  "vectors": [\n    {lines}\n  ]\n}}\n'


if __name__ == "__main__":
    print(document(), end="")
