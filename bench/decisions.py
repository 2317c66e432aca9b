"""Decisions of a fleet: from a step of the backlog to the decision about it, and what a thousand workloads at rest cost."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

from measure import Report
from support import otlp
from support.server import Tidemill

# The promise is 99 of 100 below 100 ms; KEDA polls every 30 s, and its HPA syncs every 15 s.
STEPS, WORKLOADS, REST_S, WAKES = 300, 1000, 60, 15


def deployment(name: str) -> dict:
    labels = {"app": name}
    spec = {"containers": [{"name": "main", "image": "busybox", "command": ["sleep", "100000"]}], "terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}}


def scaled(name: str, queue: str, items: int, **spec: int) -> dict:
    trigger = {"type": "tidemill", "metadata": {"queue": queue, "itemsPerReplica": str(items)}}
    spec = {"scaleTargetRef": {"name": name}, "maxReplicaCount": 10, "triggers": [trigger], **spec}
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name}, "spec": spec}


def apply(mill: Tidemill, objects: list[dict]) -> None:
    mill.cli("apply", "-f", "-", stdin=yaml.dump_all(objects, Dumper=yaml.CSafeDumper))


def latency(mill: Tidemill, report: Report) -> None:
    """Every push is one item more that waits, because no worker takes any; the first decision that has seen it counts."""
    apply(mill, [deployment("web"), scaled("web", "logs/ingest", 10_000)])
    time.sleep(2)
    began = []
    for number in range(STEPS):
        began.append(time.time())
        # One organization's log each: pushes of one moment are one item.
        assert mill.push("logs", otlp.logs([number])).ok
        time.sleep(0.1)
    time.sleep(2)
    waiting = sum(entry["signal"] == "logs" for entry in mill.waiting())
    if waiting != STEPS:
        sys.exit(f"{STEPS} pushes made {waiting} items")
    records = json.loads(mill.cli("explain", "so", "web", "--last", "1000", "-o", "json").stdout)
    seen = [(record["observation"]["triggers"][0].get("value", {}).get("value", 0), record["now"] / 1000) for record in records]
    waits = sorted((next(at for value, at in seen if value > number) - start) * 1000 for number, start in enumerate(began))
    def at(share: float) -> str:
        return f"{waits[min(int(len(waits) * share), len(waits) - 1)]:.0f}"
    report.table(
        [f"{STEPS} pushes, each a step of the backlog", "p50 ms", "p99 ms", "most ms"],
        [["sending the push → the decision that has seen it, stored", at(0.5), at(0.99), f"{waits[-1]:.0f}"]],
    )


def rest(mill: Tidemill, report: Report) -> None:
    objects = []
    for number in range(WORKLOADS):
        objects += [deployment(f"w{number}"), scaled(f"w{number}", "traces/ingest", 10)]
    began = time.time()
    apply(mill, objects)
    applied = time.time() - began
    # Every policy has looked before the span that counts.
    time.sleep(40)
    process = psutil.Process(mill.process.pid)
    before = process.cpu_times()
    time.sleep(REST_S)
    after = process.cpu_times()
    share = (after.user + after.system - before.user - before.system) / REST_S
    records = json.loads(mill.cli("explain", "so", "w7", "--last", "100", "-o", "json").stdout)
    lately = [record for record in records if record["now"] / 1000 > time.time() - REST_S]
    report.table(
        [f"{WORKLOADS:,} Deployments at rest, each with a ScaledObject", ""],
        [
            ["CPU, share of one core", f"{share * 100:.1f} %"],
            ["resident memory, MiB", f"{process.memory_info().rss / (1 << 20):.0f}"],
            [f"decisions of one of them within {REST_S} s", len(lately)],
            ["applying all of them, s", f"{applied:.1f}"],
        ],
    )


def start_of_work(folder: Path, report: Report) -> None:
    """Roles as workloads, scaled natively: a push into an empty queue, until the process of its worker is seen."""
    values = folder / "values.yaml"
    values.write_text("global: {autoscaling: {mode: native}}\ningestLogs: {autoscaling: {native: {cooldownPeriod: 1}}}\n")
    mill = Tidemill(folder / "roles", roles__values=str(values))
    mill.start()

    def workers() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if words[1:4] == ["worker", "--signal", "logs"] and "ingest" in words:
                found.append(process)
        return found

    waits, visible = [], []
    try:
        for number in range(WAKES):
            while workers():
                time.sleep(0.2)
            time.sleep(2)
            began = time.time()
            assert mill.push("logs", otlp.logs([number])).ok
            while not workers():
                time.sleep(0.005)
            waits.append((time.time() - began) * 1000)
            while not mill.sql(f"SELECT count(*) AS n FROM logs WHERE body = '{number}'")[0]["n"]:
                time.sleep(0.01)
            visible.append((time.time() - began) * 1000)
    finally:
        mill.stop()
    report.table(
        [f"{WAKES} pushes into an empty queue, no worker running", "median ms", "most ms"],
        [
            ["sending the push → its worker's process", f"{sorted(waits)[WAKES // 2]:.0f}", f"{max(waits):.0f}"],
            ["sending the push → the line is in an answer", f"{sorted(visible)[WAKES // 2]:.0f}", f"{max(visible):.0f}"],
        ],
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    report = Report("decisions", "Decisions of a fleet")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        mill = Tidemill(Path(name) / "mill", worker__actions="compact")
        mill.start()
        try:
            latency(mill, report)
            rest(mill, report)
        finally:
            mill.stop()
        start_of_work(Path(name), report)
    report.write()


main()
