"""What the benchmarks share: the server under measurement, the peer in a process of its own, and the report."""

from __future__ import annotations

import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from support.server import Tidemill

TREE = Path(__file__).resolve().parent.parent


def bench(*arguments: object) -> dict:
    """Runs `tidemill-bench` and returns what it reports."""
    done = subprocess.run([os.environ["TIDEMILL_BENCH_BINARY"], *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"tidemill-bench {' '.join(map(str, arguments))}:\n{done.stderr}")
    return json.loads(done.stdout)


def header(mill: Tidemill) -> str:
    """The key as `tidemill-bench push --header` takes it."""
    return next(f"{name}={value}" for name, value in mill.headers.items())


def cpu_s(mill: Tidemill) -> float:
    """User and system seconds of the server's process so far, to the nanosecond: its CPU clock, as clock_getcpuclockid(3) names it."""
    return time.clock_gettime(~mill.process.pid << 3 | 2)


def memory_mib(mill: Tidemill, field: str) -> float:
    """`VmRSS` now, or `VmHWM` at its highest."""
    for line in Path(f"/proc/{mill.process.pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


DUCKDB = """
import duckdb, json, resource, sys, time
job = json.load(sys.stdin)
connection = duckdb.connect()
connection.execute("SET enable_progress_bar = false")
for statement in job["before"]:
    connection.execute(statement)
began, usage = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
rows = [connection.execute(statement).fetchall() for statement in job["measured"]]
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
print(json.dumps({"cpu_s": cpu, "wall_s": time.perf_counter() - began, "rows": rows}, default=str))
"""


def duckdb(measured: list[str], before: list[str] = ()) -> dict:
    """Runs statements in a DuckDB process of its own; its start does not count."""
    job = json.dumps({"before": list(before), "measured": measured})
    done = subprocess.run([sys.executable, "-c", DUCKDB], input=job, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def drop_page_cache() -> bool:
    """Makes the next reads cold, where we may."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def wait_until_idle(mill: Tidemill, at_most_s: float = 3600) -> None:
    """Until nothing is left to ingest, compact or roll up within two minutes: a day of traces is indexed once it has rested for longer."""
    deadline = time.monotonic() + at_most_s
    quiet = 0
    while quiet < 3:
        soon = time.time_ns() + 120 * 10**9
        busy = [entry for entry in mill.rows("queue") if entry["state"] in ("runnable", "leased", "delayed") and entry["runnable_at"] < soon]
        quiet = 0 if busy else quiet + 1
        if time.monotonic() > deadline:
            sys.exit(f"still busy after {at_most_s} s: {busy[:3]}")
        time.sleep(0.5)


def machine() -> str:
    """What ran this."""
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GiB, Linux {platform.release()}"


def median(values: list[float]) -> float:
    return statistics.median(values)


class Report:
    """A page of `docs/bench/`, printed as it is written."""

    def __init__(self, name: str, title: str):
        self.path = TREE / f"docs/bench/{name}.md"
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=TREE, capture_output=True, text=True).stdout.strip()
        command = " ".join(["bench/run", name, *sys.argv[1:]])
        self.lines: list[str] = []
        self.say(f"# {title}\n")
        self.say(f"- command: `{command}`\n- commit: {commit}, {time.strftime('%Y-%m-%d')}\n- machine: {machine()}\n")

    def say(self, text: str) -> None:
        print(text, flush=True)
        self.lines.append(text)

    def table(self, head: list[str], rows: list[list[object]]) -> None:
        """A Markdown table."""
        def cell(value: object) -> str:
            return f"{value:,.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)

        self.say("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for row in rows:
            self.say("| " + " | ".join(map(cell, row)) + " |")
        self.say("")

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join(self.lines) + "\n")


CONNECTIONS: dict[int, http.client.HTTPConnection] = {}


def exchange(port: int, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an answer, over one connection a server that stays open: of what a client takes, as little as can be."""
    for is_last in (False, True):
        if port not in CONNECTIONS:
            CONNECTIONS[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
            CONNECTIONS[port].connect()
            CONNECTIONS[port].sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            CONNECTIONS[port].request(method, path, body=body, headers=headers)
            answer = CONNECTIONS[port].getresponse()
            return answer.status, answer.read()
        except ConnectionError:
            # The server closes what has been idle for long.
            del CONNECTIONS[port]
            if is_last:
                raise
    raise AssertionError("the second try answers or raises")
