"""A client that keeps its promises: it resends the same body until it is acknowledged, and remembers every number."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import requests

from .otlp import ENCODE
from .server import Tidemill


class Load:
    """Threads that push numbered records of each signal until told to end."""

    def __init__(
        self, mill: Tidemill, *, signals=("logs", "metrics", "traces"), records: int = 20, pause_s: float = 0.01, time_ns: Callable[[str], int | None] = lambda _signal: None
    ):
        """`time_ns` says at which event time a request of a signal begins; it is now for None."""
        self.mill = mill
        self.records = records
        self.pause_s = pause_s
        self.time_ns = time_ns
        self.counter = itertools.count()
        self.acknowledged: dict[str, set[int]] = {signal: set() for signal in signals}
        self.refused: list[str] = []
        self.resent = 0
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(signal,), name=signal, daemon=True) for signal in signals]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self, at_most_s: float = 60) -> None:
        """No new numbers; returns when the last request of each thread is acknowledged."""
        self.ending.set()
        for thread in self.threads:
            thread.join(at_most_s)
            assert not thread.is_alive(), f"{thread.name}: a request is still not acknowledged after {at_most_s} s"

    def _run(self, signal: str) -> None:
        session = requests.Session()
        session.trust_env = False
        while not self.ending.is_set():
            numbers = [next(self.counter) for _ in range(self.records)]
            body = ENCODE[signal](numbers, time_ns=self.time_ns(signal))
            while not self._send(session, signal, body):
                self.resent += 1
                time.sleep(0.02)
            self.acknowledged[signal].update(numbers)
            self.ending.wait(self.pause_s)

    def _send(self, session: requests.Session, signal: str, body: bytes) -> bool:
        try:
            session.headers.update(self.mill.session.headers)
            answer = session.post(
                self.mill.url("http", f"/v1/{signal}"), data=body, headers={"content-type": "application/x-protobuf"}, timeout=20
            )
        except requests.RequestException:
            return False
        if answer.status_code == 200:
            return True
        if answer.status_code not in (429, 503, 502, 504):
            self.refused.append(f"{signal}: {answer.status_code} {answer.text[:200]}")
        return False
