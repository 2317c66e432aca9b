"""A public set of autoscaler manifests on real processes: time to decision, to ready and to target, overshoot; load through the Service."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from measure import TREE, Report, median
from support.server import Tidemill

MANIFESTS = TREE / "pure/scaling/tests/manifests/neurolake"
REPLICA = shlex.join([sys.executable, str(TREE / "tests/support/replica.py")])
NAMESPACE = "neurolake"
HPA = "neurolake-api-hpa"
# Of the manifests: what a replica requests, and the utilization that is aimed at.
REQUEST_MILLI, TARGET = 250, 0.70
# A load of three replicas at their target, and of ten.
LOW_MILLI, HIGH_MILLI = 3 * 175, 10 * 175
# The policies name it and the manifests do not have it.
WORKER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: neurolake-worker, namespace: neurolake}
spec:
  replicas: 2
  selector: {matchLabels: {app.kubernetes.io/component: worker}}
  template:
    metadata: {labels: {app.kubernetes.io/component: worker}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: worker, image: neurolake/worker, resources: {requests: {cpu: 250m, memory: 256Mi}}}
"""


class Fleet:
    """The commands, in the manifests' namespace."""

    def __init__(self, mill: Tidemill):
        self.mill = mill

    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        return self.mill.cli(*arguments, "-n", NAMESPACE, stdin=stdin, check=check).stdout

    def object(self, kind: str, name: str) -> dict:
        return json.loads(self("get", kind, name, "-o", "json"))

    def size(self, name: str) -> int:
        return self.object("deploy", name)["spec"]["replicas"]

    def ready(self, name: str) -> int:
        return self.object("deploy", name)["status"].get("readyReplicas", 0)

    def records(self, kind: str, name: str) -> list[dict]:
        return json.loads(self("explain", kind, name, "--last", "500", "-o", "json"))

    def scales(self, kind: str, name: str, since: float) -> list[tuple[float, int, int]]:
        """Changes of size that were decided since then: seconds after it, from, to."""
        found = []
        for record in self.records(kind, name):
            for action in record["actions"]:
                if action["action"] == "scale" and record["now"] / 1000 >= since:
                    found.append((record["now"] / 1000 - since, action["from"], action["to"]))
        return found

    def until(self, condition, at_most_s: float) -> float:
        """When it became true."""
        deadline = time.time() + at_most_s
        while not condition():
            if time.time() > deadline:
                sys.exit(f"not within {at_most_s} s")
            time.sleep(0.05)
        return time.time()


def install(fleet: Fleet) -> None:
    """The workloads and their autoscalers as published, and then a short window in place of 300 s."""
    images = {"neurolake/api": f"{REPLICA} --port 8000 --burn-ms 1", "neurolake/frontend": "sleep 100000", "neurolake/worker": "sleep 100000"}
    options = [word for name, command in images.items() for word in ("--image", f"{name}={command}")]
    fleet("apply", "-f", str(MANIFESTS / "workloads.yaml"), "-f", str(MANIFESTS / "hpa.yaml"), *options)
    fleet("apply", "-f", "-", stdin=WORKER)
    window = [{"op": "replace", "path": "/spec/behavior/scaleDown/stabilizationWindowSeconds", "value": 10}]
    fleet("patch", "hpa", HPA, "--type", "json", "-p", json.dumps(window))


def tell(file: Path, milli: int | None) -> None:
    """What the API's replicas use together; measured with `None`."""
    each = {"memory_bytes": 100 << 20}
    told = {} if milli is None else {f"{NAMESPACE}/neurolake-api": {"cpu_milli": milli, **each}}
    part = file.with_suffix(".part")
    part.write_text(json.dumps(told))
    part.rename(file)


def step_up(fleet: Fleet, usage: Path) -> dict:
    """From three replicas at their target to the load of ten."""
    tell(usage, LOW_MILLI)
    fleet("scale", "deploy/neurolake-api", "--replicas=3")
    fleet.until(lambda: fleet.ready("neurolake-api") == 3 and fleet.size("neurolake-api") == 3, 300)
    # Beyond the periods of the policies and the window, so that nothing of before counts.
    time.sleep(65)
    began = time.time()
    tell(usage, HIGH_MILLI)
    seen = []
    def is_there() -> bool:
        seen.append(fleet.object("deploy", "neurolake-api")["status"].get("replicas", 0))
        return fleet.ready("neurolake-api") >= 10
    ended = fleet.until(is_there, 200)
    scales = fleet.scales("hpa", HPA, began)
    pods = json.loads(fleet("get", "pods", "-l", "app.kubernetes.io/component=api", "-o", "json"))["items"]
    return {"decision_s": scales[0][0], "target_s": ended - began, "steps": [to for _, _, to in scales], "most": max(seen), "pods": len(pods)}


def load(fleet: Fleet, program: list[str]) -> tuple[str, list[tuple[float, int, int]]]:
    """One load through the Service; what its program prints, and the changes of size it led to."""
    began = time.time()
    done = subprocess.run(program, capture_output=True, text=True, timeout=600)
    if done.returncode:
        sys.exit(f"{' '.join(program)}:\n{done.stdout}{done.stderr}")
    time.sleep(3)
    return done.stdout, fleet.scales("hpa", HPA, began)


class Prometheus(ThreadingHTTPServer):
    """Answers every instant query with one value."""

    value = 1000.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802
        result = [{"metric": {}, "value": [time.time(), str(self.server.value)]}]
        body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Quiet."""


def external(fleet: Fleet) -> dict:
    """The ScaledObject over Prometheus, in place of the horizontal autoscaler."""
    server = Prometheus()
    fleet("delete", "hpa", HPA)
    fleet("apply", "-f", str(MANIFESTS / "scaledobject-prometheus.yaml"), "--host", f"prometheus-server=127.0.0.1:{server.server_address[1]}")
    patch = [{"op": "add", "path": "/spec/pollingInterval", "value": 1}]
    fleet("patch", "scaledobject", "neurolake-api-scaledobject", "--type", "json", "-p", json.dumps(patch))
    fleet.until(lambda: fleet.records("scaledobject", "neurolake-api-scaledobject") != [], 60)
    time.sleep(3)
    began = time.time()
    server.value = 6000.0
    ended = fleet.until(lambda: fleet.ready("neurolake-api") >= 6, 200)
    scales = fleet.scales("scaledobject", "neurolake-api-scaledobject", began)
    return {"decision_s": scales[0][0], "target_s": ended - began, "steps": [to for _, _, to in scales]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3, help="how often the load steps up")
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    for program in ("ab", "hey", "wget"):
        if not shutil.which(program):
            sys.exit(f"{program} is missing: apt-get install apache2-utils wget; go install github.com/rakyll/hey@v0.1.4")
    report = Report("fleet", "A fleet of processes: public autoscaler manifests")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        usage = Path(name) / "usage.json"
        tell(usage, LOW_MILLI)
        mill = Tidemill(Path(name) / "mill", fleet__sync_period="1s")
        mill.environment["TIDEMILL_FLEET_USAGE"] = str(usage)
        mill.start()
        fleet = Fleet(mill)
        try:
            measure(fleet, usage, report, options)
        finally:
            mill.stop()
    report.write()


def measure(fleet: Fleet, usage: Path, report: Report, options: argparse.Namespace) -> None:
    install(fleet)
    runs = [step_up(fleet, usage) for _ in range(options.steps)]
    report.table(
        ["step of the load from 3 to 10 replicas' worth", "median", "each"],
        [
            ["step → first decision, s", median([run["decision_s"] for run in runs]), ", ".join(f"{run['decision_s']:.2f}" for run in runs)],
            ["step → ten ready, s", median([run["target_s"] for run in runs]), ", ".join(f"{run['target_s']:.1f}" for run in runs)],
            ["sizes that were decided", "", "; ".join(" → ".join(map(str, run["steps"])) for run in runs)],
            ["most replicas at a time (10 is the target)", max(run["most"] for run in runs), ""],
        ],
    )
    down = time.time()
    tell(usage, LOW_MILLI)
    ended = fleet.until(lambda: fleet.size("neurolake-api") == 3, 400)
    steps = fleet.scales("hpa", HPA, down)
    report.say(f"Back down, with a window of 10 s in place of 300 s and the published rates: {', '.join(f'{to} after {at:.0f} s' for at, _, to in steps)}; all of it took {ended - down:.0f} s.\n")

    tell(usage, None)
    time.sleep(5)
    url, count = "http://127.0.0.1:8000/health", str(options.requests)
    rows = []
    for program in (["ab", "-q", "-n", count, "-c", "100", url], ["hey", "-n", count, "-c", "100", url]):
        printed, scales = load(fleet, program)
        rate = re.search(r"Requests(?: per second|/sec):\s+([\d.]+)", printed)
        failed = re.search(r"Failed requests:\s+(\d+)", printed)
        good = re.search(r"\[200\]\s+(\d+) responses", printed)
        p99 = re.search(r"99%\s+(?:in\s+)?([\d.]+)(\s*secs)?", printed)
        lost = int(failed.group(1)) if failed else options.requests - int(good.group(1))
        late = float(p99.group(1)) * (1000 if p99.group(2) else 1)
        rows.append([" ".join(program[:-1]), float(rate.group(1)), lost, late, " → ".join(str(to) for _, _, to in scales) or "none"])
        fleet.until(lambda: fleet.size("neurolake-api") == 3, 600)
    report.table(["through the Service, CPU as measured", "requests/s", "failed", "p99 ms", "sizes that were decided"], rows)

    began = time.time()
    fleet("apply", "-f", str(MANIFESTS / "load-generator.yaml"))
    fleet.until(lambda: fleet.object("job", "load-generator").get("status", {}).get("active") == 10, 60)
    time.sleep(30)
    scales = fleet.scales("hpa", HPA, began)
    fleet("delete", "job", "load-generator")
    report.say(f"The load generator as published (10 runs of `wget` in a loop, 30 s): {' → '.join(str(to) for _, _, to in scales) or 'no change of size'}.\n")

    run = external(fleet)
    report.say(
        f"The ScaledObject over Prometheus, polled every second, from 1,000 to 6,000 requests/s with a threshold of 1,000: first decision after {run['decision_s']:.2f} s,\n"
        f"six ready after {run['target_s']:.1f} s, sizes {' → '.join(map(str, run['steps']))}.\n"
    )
    fleet("apply", "-f", str(MANIFESTS / "vpa.yaml"), "-f", str(MANIFESTS / "hpa-custom-metrics.yaml"))
    time.sleep(5)
    report.say("The other policies of the set:\n\n```\n" + fleet("get", "hpa,vpa,so") + "```\n")


main()
