"""PromQL ranges over the same samples in three servers: Tidemill, Debian's Prometheus and VictoriaMetrics, caches of answers off. Answers are compared first."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

import pyarrow
import requests

from measure import Report, cpu_s, exchange, median, memory_mib, wait_until_idle
from support.processes import free_port, start, stop, wait_until
from support.server import Tidemill

STEP_S, POINTS, ASKED_STEP_S = 15, 1000, 60
BOUNDS = ["0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf"]
QUERIES = {
    "sum(rate)": "sum(rate(http_requests_total[5m]))",
    "sum by (job) (rate)": "sum by (job) (rate(http_requests_total[5m]))",
    "topk(increase)": "topk(10, increase(http_requests_total[1h]))",
    "avg_over_time[30m]": "avg by (job) (avg_over_time(temperature[30m]))",
    "histogram_quantile": "histogram_quantile(0.9, sum by (le, job) (rate(latency_seconds_bucket[5m])))",
    "one series": 'rate(http_requests_total{instance="host-7",job="job-7"}[5m])',
    # What a question costs that reads nothing.
    "no series": "vector(1)",
}


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def labels(**pairs: str) -> bytes:
    return b"".join(field(1, field(1, name.encode()) + field(2, value.encode())) for name, value in sorted(pairs.items()))


def series(count: int) -> list[tuple[bytes, str]]:
    """A third of each kind: counters, gauges, and buckets of histograms; labels as they are sent."""
    each = count // 3
    found = [(labels(__name__="http_requests_total", job=f"job-{n % 20}", instance=f"host-{n}"), "counter") for n in range(each)]
    found += [(labels(__name__="temperature", job=f"job-{n % 20}", instance=f"host-{n}"), "gauge") for n in range(each)]
    for n in range(each // len(BOUNDS)):
        found += [(labels(__name__="latency_seconds_bucket", job=f"job-{n % 20}", instance=f"host-{n}", le=bound), "bucket") for bound in BOUNDS]
    return found


def writes(count: int, first_ms: int):
    """Bodies of remote writes in the order of time, ten scrapes each."""
    dice = random.Random(7)
    known = series(count)
    values = [0.0] * len(known)
    for scrapes in itertools.batched(range(POINTS), 10) if hasattr(itertools, "batched") else (range(at, at + 10) for at in range(0, POINTS, 10)):
        times = [b"\x10" + varint(first_ms + scrape * STEP_S * 1000) for scrape in scrapes]
        body = bytearray()
        for index, (names, kind) in enumerate(known):
            samples = bytearray()
            for at in times:
                if kind == "gauge":
                    value = dice.randrange(150, 350) / 10
                else:
                    # Buckets of one histogram grow with their bound.
                    # A part of its own for each series: no two have one increase, so that topk has no ties.
                    value = values[index] + dice.randrange(0, 50) + index / 8192 + (10 * (index % len(BOUNDS)) if kind == "bucket" else 0)
                values[index] = value
                sample = b"\x09" + struct.pack("<d", value) + at
                samples += b"\x12" + bytes([len(sample)]) + sample
            body += field(1, names + bytes(samples))
        yield pyarrow.compress(bytes(body), codec="snappy", asbytes=True)


class Peer:
    """A server of Prometheus's API."""

    def __init__(self, name: str, command: list[str], port: int, log: Path, write: str, extra: dict[str, str]):
        self.name, self.port, self.write, self.extra = name, port, write, extra
        self.process = start(command, log)
        wait_until(lambda: requests.get(self.url("/health") if extra else self.url("/-/ready")).ok if self.accepts() else False, at_most_s=60, what=name, alive=self.process, log=log)

    def accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def push(self, body: bytes) -> requests.Response:
        return requests.post(self.url(self.write), data=body, headers={"content-encoding": "snappy", "content-type": "application/x-protobuf"}, timeout=120)

    def ask(self, **parameters: object) -> bytes:
        return fetch(self.name, self.port, {**parameters, **self.extra}, {})

    def cpu_s(self) -> float:
        return time.clock_gettime(~self.process.pid << 3 | 2)


def fetch(name: str, port: int, parameters: dict[str, object], headers: dict[str, str]) -> bytes:
    """The body of the answer to a range query."""
    status, body = exchange(port, "GET", "/api/v1/query_range?" + urllib.parse.urlencode(parameters), headers)
    assert status == 200, f"{name}: {body[:500]}"
    return body


def by_labels(result: list[dict]) -> dict:
    return {tuple(sorted(one["metric"].items())): {float(at): float(value) for at, value in one["values"]} for one in result}


def compare(label: str, mine: bytes, theirs: bytes) -> None:
    """Equal series, times and values, but for the last digits of sums."""
    left, right = (by_labels(json.loads(body)["data"]["result"]) for body in (mine, theirs))
    assert left and left.keys() == right.keys(), f"{label}: {len(left)} series are not {len(right)}"
    for key, points in left.items():
        assert points.keys() == right[key].keys(), f"{label}: other times of {key}"
        wrong = [at for at, value in points.items() if not math.isclose(value, right[key][at], rel_tol=1e-9) and not (math.isnan(value) and math.isnan(right[key][at]))]
        assert not wrong, f"{label}: {key} at {wrong[0]}: {points[wrong[0]]} is not {right[key][wrong[0]]}"


def measure(count: int, runs: int, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        end = int(time.time()) // 60 * 60
        first = end - POINTS * STEP_S
        (folder / "prometheus.yml").write_text("global: {}\n")
        ports = free_port(), free_port()
        prometheus = Peer(
            "Prometheus",
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus", f"--web.listen-address=127.0.0.1:{ports[0]}", "--web.enable-remote-write-receiver"],
            ports[0], folder / "prometheus.log", "/api/v1/write", {},
        )  # fmt: skip
        victoria = Peer(
            "VictoriaMetrics",
            ["victoria-metrics", f"-storageDataPath={folder}/victoria", f"-httpListenAddr=127.0.0.1:{ports[1]}", "-search.disableCache"],
            ports[1], folder / "victoria.log", "/api/v1/write", {"nocache": "1"},
        )  # fmt: skip
        mill = Tidemill(folder / "mill")
        mill.start()
        samples = len(series(count)) * POINTS
        for body in writes(count, first * 1000):
            for peer in (prometheus, victoria):
                answer = peer.push(body)
                assert answer.ok, f"{peer.name}: {answer.status_code} {answer.text}"
            answer = mill.session.post(mill.url("api", "/api/v1/write"), data=body, headers={"content-encoding": "snappy", "content-type": "application/x-protobuf"}, timeout=120)
            assert answer.ok, answer.text
        wait_until_idle(mill)
        requests.get(victoria.url("/internal/force_flush"), timeout=60)
        segments = [row for row in mill.rows("segments") if row["signal"] == "metrics"]
        report.say(f"{len(series(count)):,} series × {POINTS:,} samples ({samples:,}), {STEP_S} s apart; {len(segments)} segments, {sum(row['bytes'] for row in segments):,} bytes. Ranges over all of it, a step of {ASKED_STEP_S} s.\n")
        # Between samples: where one lies on the left edge of a range, Prometheus before 3.0 takes it and later ones do not.
        times = {"start": first + 3607, "end": end - 53, "step": ASKED_STEP_S}

        def ours(query: str) -> bytes:
            return fetch("Tidemill", mill.ports["api"], {"query": query, **times}, mill.headers)

        rows = []
        for label, query in QUERIES.items():
            compare(label, ours(query), prometheus.ask(query=query, **times))
            spent = {"mine": [], "prometheus": [], "victoria": []}
            cpu = {"mine": [], "prometheus": [], "victoria": []}
            for who, ask, used in (
                ("mine", lambda: ours(query), lambda: cpu_s(mill)),
                ("prometheus", lambda: prometheus.ask(query=query, **times), prometheus.cpu_s),
                ("victoria", lambda: victoria.ask(query=query, **times), victoria.cpu_s),
            ):
                # Each is asked in a row, as a page of a dashboard asks; the first answer is not counted.
                ask()
                for _ in range(runs):
                    began, before = time.perf_counter(), used()
                    ask()
                    spent[who].append((time.perf_counter() - began) * 1000)
                    cpu[who].append((used() - before) * 1000)
            mine, other, fast = (median(spent[who]) for who in ("mine", "prometheus", "victoria"))
            rows.append([label, mine, other, fast, other / mine, fast / mine, median(cpu["mine"]), median(cpu["prometheus"]), median(cpu["victoria"])])
        report.table(["query, warm", "Tidemill ms", "Prometheus ms", "VictoriaMetrics ms", "× Prometheus", "× VictoriaMetrics", "CPU ms", "CPU ms", "CPU ms"], rows)
        report.say(f"Resident afterwards: {memory_mib(mill, 'VmRSS'):.0f} MiB.\n")
        mill.stop()
        for peer in (prometheus, victoria):
            stop(peer.process)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    for program in ("prometheus", "victoria-metrics"):
        if subprocess.run(["which", program], capture_output=True).returncode:
            sys.exit(f"{program} is missing: apt-get install {program}")
    report = Report("promql", "PromQL ranges")
    for count in options.series:
        measure(count, options.runs, report)
    report.write()


main()
