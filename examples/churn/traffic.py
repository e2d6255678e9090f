"""
Customers of `customers.py` who ask the server, and whose labels come later.

    python traffic.py                   # until Ctrl-C
    python traffic.py --changed         # after the world changed
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from typing import Any

from customers import Customer, customers

THREADS = 4
SHOWN_EVERY_S = 5.0


class Caller(threading.Thread):
    """Asks at its rate, on one connection, and sends labels when they are known."""

    def __init__(self, given: argparse.Namespace, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.given, self.stop = given, stop
        self.found = customers(random.Random(seed), changed=given.changed)
        self.right: deque[bool] = deque(maxlen=200)
        self.versions: Counter[str] = Counter()
        self.failed = ""

    def run(self) -> None:
        later: deque[tuple[float, str, int]] = deque()
        every_s, due = THREADS / self.given.rate, time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.given.port, timeout=30)
        try:
            while not self.stop.wait(max(0.0, due - time.monotonic())):
                due = max(due + every_s, time.monotonic() - 1)  # what was missed is not made up
                customer = next(self.found)
                later.append(self._ask(connection, customer))
                while later and later[0][0] <= time.monotonic():
                    _, name, left = later.popleft()
                    post(connection, "/labels", {"id": name, "label": left})
        except (OSError, RuntimeError, http.client.HTTPException) as e:
            self.failed = f"{type(e).__name__}: {e}"
            self.stop.set()

    def _ask(
        self, connection: http.client.HTTPConnection, customer: Customer
    ) -> tuple[float, str, int]:
        asked = {"user": customer.user, "features": customer.features}
        said = post(connection, "/predict", asked)
        self.right.append((said["score"] >= 0.5) == bool(customer.left))
        self.versions[said["version"]] += 1
        return time.monotonic() + self.given.delay, said["id"], customer.left


def post(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> Any:
    """POST, and what was answered."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    if response.status >= 400:
        raise RuntimeError(f"{path}: {response.status} {text.decode(errors='replace')}")
    return json.loads(text)


def main() -> None:
    """Send until it is over, and say how often the answers were right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--changed", action="store_true", help="after the world changed")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second")
    parser.add_argument("--delay", type=float, default=1.0, help="seconds until the label is known")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, help="the same seed asks the same customers")
    given = parser.parse_args()
    seed = random.randrange(1 << 30) if given.seed is None else given.seed
    stop, end = threading.Event(), time.monotonic() + given.seconds
    callers = [Caller(given, seed + i, stop) for i in range(THREADS)]
    for caller in callers:
        caller.start()
    with suppress(KeyboardInterrupt):
        while not stop.wait(min(SHOWN_EVERY_S, max(0.0, end - time.monotonic()))):
            right = [r for c in callers for r in list(c.right)]
            versions: Counter[str] = Counter()
            for c in callers:
                versions += c.versions
                c.versions = Counter()
            total = max(versions.total(), 1)
            shares = ", ".join(f"{v} {n / total:.0%}" for v, n in sorted(versions.items()))
            at = time.strftime("%H:%M:%S")
            print(f"{at}  accuracy {sum(right) / max(len(right), 1):.2f}  {shares}", flush=True)
            if time.monotonic() >= end:
                break
    stop.set()
    for caller in callers:
        caller.join()
    failed = next((c.failed for c in callers if c.failed), "")
    if failed:
        sys.exit(f"traffic.py: {failed} (does server.py run on port {given.port}?)")


if __name__ == "__main__":
    main()
