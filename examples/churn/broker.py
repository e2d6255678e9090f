"""
A Kafka broker in memory, to try the example without an installation. It forgets all when it ends.

    python broker.py                    # 127.0.0.1:9092
    python broker.py --port 9192
"""

from __future__ import annotations

import argparse
import signal
import sys

from stream_monitor.demo.broker import start_in_thread


def main() -> None:
    """Run until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9092)
    try:
        broker = start_in_thread(port=parser.parse_args().port)
    except OSError as e:
        sys.exit(f"broker.py: {e}; choose another port: python broker.py --port 9192")
    with broker:
        print(f"listening on {broker.bootstrap}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
