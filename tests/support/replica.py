"""A replica of a service: an HTTP server on the replica's own address that answers with its name, and ends politely.

`/health` and `/ready` answer 200; `/ready` not before `--ready-after` seconds. A request costs `--burn-ms` milliseconds of CPU.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Connections that come at once wait their turn."""

    request_queue_size = 512
    daemon_threads = False


class Handler(BaseHTTPRequestHandler):
    """Answers every path."""

    protocol_version = "HTTP/1.1"
    burn_s = 0.0
    ready_at = 0.0

    def do_GET(self) -> None:  # noqa: N802
        end = time.thread_time() + self.burn_s
        while time.thread_time() < end:
            pass
        status = 503 if self.path == "/ready" and time.monotonic() < self.ready_at else 200
        body = (os.environ.get("HOSTNAME", "?") + "\n").encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Quiet."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--burn-ms", type=float, default=0)
    parser.add_argument("--ready-after", type=float, default=0)
    arguments = parser.parse_args()
    Handler.burn_s = arguments.burn_ms / 1000
    Handler.ready_at = time.monotonic() + arguments.ready_after
    server = Server((os.environ["POD_IP"], arguments.port), Handler)
    print(f"listening on {os.environ['POD_IP']}:{arguments.port}", flush=True)

    def end(*_: object) -> None:
        # What balances learns that this replica ends while it still takes requests.
        threading.Timer(0.3, server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    print("ended politely", flush=True)


if __name__ == "__main__":
    main()
