"""Fleets from outside: manifests that people have, the real binary, real processes, a real PostgreSQL, and kubectl where there is one."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psycopg
import pytest
import yaml

from support import otlp, services
from support.certificates import Authority
from support.processes import free_port, start, stop, wait_until
from support.server import Tidemill, binary

TREE = Path(__file__).resolve().parents[1]
# As people published them; none is edited to run.
MANIFESTS = TREE / "pure/scaling/tests/manifests"
BATCH = MANIFESTS / "postgres-batch"
CLAP = shlex.join([sys.executable, str(TREE / "examples/clap/clap.py")])
REPLICA = shlex.join([sys.executable, str(TREE / "tests/support/replica.py")])
NAMESPACE = "keda-with-postgresql"
# What the query of the manifest counts, divided: one job for ten rows that wait.
BY_TEN = "SELECT ceil(COUNT(1)::decimal / 10) FROM make_it_clap LEFT JOIN clap ON make_it_clap.id = clap.id WHERE clap.status IS NULL;"
IN_FLIGHT = "SELECT COUNT(1) FROM clap WHERE status = 'RUNNING'"
WAIT_S = 90


class Fleet:
    """An installation whose commands are typed as a person types them."""

    def __init__(self, mill: Tidemill, namespace: str = "default"):
        self.mill = mill
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What a command prints to standard output."""
        return self.mill.cli(*arguments, "-n", self.namespace, stdin=stdin).stdout

    def fails(self, *arguments: str, stdin: str | None = None) -> tuple[int, str]:
        """The exit status and what a command that fails says."""
        done = self.mill.cli(*arguments, "-n", self.namespace, stdin=stdin, check=False)
        assert done.returncode != 0, f"{arguments} did not fail:\n{done.stdout}{done.stderr}"
        return done.returncode, done.stderr

    def apply(self, *objects: dict | str, options: tuple[str, ...] = ()) -> str:
        """Applies manifests that the test wrote."""
        documents = [document if isinstance(document, str) else yaml.safe_dump(document) for document in objects]
        return self("apply", "-f", "-", *options, stdin="\n---\n".join(documents))

    def items(self, kind: str, *options: str) -> list[dict]:
        """Objects of a kind."""
        return json.loads(self("get", kind, "-o", "json", *options))["items"]

    def object(self, kind: str, name: str) -> dict:
        """One object."""
        return json.loads(self("get", kind, name, "-o", "json"))

    def until(self, condition, what: str, at_most_s: float = WAIT_S):
        """Waits for something that follows."""
        return wait_until(condition, at_most_s=at_most_s, what=what, alive=self.mill.process, log=self.mill.log, every_s=0.1)

    def records(self, kind: str, name: str, limit: int = 1000) -> list[dict]:
        """Decisions, oldest first."""
        return json.loads(self("explain", kind, name, "--last", str(limit), "-o", "json"))

    def pods(self, label: str | None = None) -> dict[str, dict]:
        """Pods that have not ended, by name."""
        options = ("-l", label) if label else ()
        pods = self.items("pods", *options)
        return {pod["metadata"]["name"]: pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running")}


@contextlib.contextmanager
def only_one(name: str):
    """One test at a time, of all processes: names of hosts lead to the same loopback addresses for everyone on this machine."""
    with (Path(tempfile.gettempdir()) / f"tidemill-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def fleet(mill: Tidemill):
    """A fleet that looks often."""
    mill.configure(fleet__sync_period="1s")
    mill.start()
    found = Fleet(mill)
    yield found
    end(mill)


def end(mill: Tidemill) -> None:
    """No replica outlives its test: they do outlive a server that is killed."""
    if mill.process is None or mill.process.poll() is not None:
        mill.start()
    mill.stop()


class Batch(Fleet):
    """The fleet, and the database of the manifests."""

    def __init__(self, mill: Tidemill, database: str, port: int):
        super().__init__(mill, NAMESPACE)
        self.database = database
        self.host = f"my-release-postgresql=127.0.0.1:{port}"

    def sql(self, statement: str) -> list[tuple]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def add_rows(self, count: int, seconds: int) -> None:
        self.sql(f"INSERT INTO make_it_clap (duration_seconds) SELECT {seconds} FROM generate_series(1, {count})")

    def counts(self) -> dict[str, int]:
        """Rows by what became of them."""
        found = self.sql("SELECT COALESCE(clap.status, 'waiting'), COUNT(1) FROM make_it_clap LEFT JOIN clap ON make_it_clap.id = clap.id GROUP BY 1")
        return dict(found)

    def run(self, *options: str, image: str = CLAP) -> str:
        """Applies the manifest as it was published, and the secret that it names."""
        self("apply", "-f", "-", stdin=yaml.safe_dump(secret()))
        return self("apply", "-f", str(BATCH / "scaled-job.yaml"), "--image", f"postgres-batch:latest={image}", "--host", self.host, *options)

    def patch(self, patch: dict) -> None:
        self("patch", "scaledjob", "postgres-batch", "--type", "merge", "-p", json.dumps(patch))

    def created(self) -> list[int]:
        """How many jobs each decision created."""
        records = self.records("scaledjob", "postgres-batch")
        return [action["count"] for record in records for action in record["actions"] if action["action"] == "create_jobs"]


def secret() -> dict:
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "my-release-postgresql", "namespace": NAMESPACE},
        "stringData": {"postgresql-password": "clap-clap"},
    }  # fmt: skip


@pytest.fixture
def batch(mill: Tidemill, own_postgres: services.Postgres):
    """The tables of the manifests on a PostgreSQL that wants the password of the secret."""
    with psycopg.connect(own_postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE postgres SUPERUSER LOGIN PASSWORD 'clap-clap'")
        for statement in (TREE / "examples/clap/schema.sql").read_text().split(";"):
            if statement.strip():
                connection.execute(statement)
        access = own_postgres.data / "pg_hba.conf"
        access.write_text("host all postgres 127.0.0.1/32 scram-sha-256\n" + access.read_text())
        connection.execute("SELECT pg_reload_conf()")
    with only_one("postgres-batch"):
        mill.configure(fleet__sync_period="1s")
        mill.start()
        yield Batch(mill, own_postgres.url("postgres"), own_postgres.port)
        end(mill)


# The manifests of postgres-batch


def test_what_a_manifest_lacks_is_told_at_once_with_the_line_to_add(fleet: Fleet) -> None:
    fleet.namespace = NAMESPACE
    done = fleet.mill.cli("apply", "-f", str(BATCH / "scaled-job.yaml"), "-n", NAMESPACE, check=False)
    told = done.stdout + done.stderr
    for line in ("--image 'postgres-batch:latest=", "--host 'my-release-postgresql=", "Secret my-release-postgresql"):
        assert line in told, f"{line} is not in\n{told}"


def test_forty_rows_are_forty_runs_and_never_more_than_ten_at_a_time(batch: Batch) -> None:
    batch.add_rows(40, 1)
    told = batch.run()
    assert "scaledjob.keda.sh/postgres-batch created" in told
    # The manifest polls every 30 s: the first poll makes ten jobs, and the test does not wait for the second.
    batch.until(lambda: batch.created(), "the first jobs")
    assert batch.created()[0] == 10
    batch.patch({"spec": {"pollingInterval": 1}})
    most = 0

    def is_done() -> bool:
        nonlocal most
        most = max(most, len(batch.pods()), batch.counts().get("RUNNING", 0))
        return batch.counts() == {"SUCCESS": 40}

    batch.until(is_done, "forty claps", 180)
    assert 0 < most <= 10
    assert sum(batch.created()) == 40
    # Every row was clapped for by a run of its own.
    assert batch.sql("SELECT COUNT(DISTINCT id), COUNT(DISTINCT session_id) FROM clap") == [(40, 40)]
    # Jobs that were created are the runs, and the last ten that succeeded are kept.
    is_trimmed = lambda: len(batch.items("jobs")) == 10 and all(job["status"].get("succeeded") == 1 for job in batch.items("jobs"))
    batch.until(is_trimmed, "the history of ten")
    jobs = batch.items("jobs")
    assert all(job["metadata"]["ownerReferences"][0]["name"] == "postgres-batch" for job in jobs)
    assert all(job["metadata"]["labels"]["scaledjob.keda.sh/name"] == "postgres-batch" for job in jobs)
    printed = batch("logs", f"job/{jobs[0]['metadata']['name']}")
    assert re.search(r"row \d+: clapping for 1 s\nrow \d+: done\n", printed), printed

    # Runs that fail: a duration below zero is none. Without retries, so that the test does not wait for their back-off.
    batch.patch({"spec": {"jobTargetRef": {"backoffLimit": 0}}})
    batch.add_rows(7, -1)
    batch.until(lambda: batch.counts() == {"SUCCESS": 40, "FAILED": 7}, "seven failures")
    has_failed = lambda job: any(condition["type"] == "Failed" for condition in job["status"].get("conditions", []))
    of = lambda failed: [job for job in batch.items("jobs") if has_failed(job) == failed]
    batch.until(lambda: len(of(True)) == 5 and len(of(False)) == 10, "the history of five")

    # What still runs goes with its ScaledJob, and gives its row back.
    batch.add_rows(3, 600)
    batch.until(lambda: batch.counts().get("RUNNING") == 3, "three long claps")
    told = batch("delete", "scaledjob", "postgres-batch")
    assert told == 'scaledjob.keda.sh "postgres-batch" deleted\n'
    batch.until(lambda: batch.items("jobs") == [] and batch.pods() == {}, "the end of its jobs")
    assert batch.counts() == {"SUCCESS": 40, "FAILED": 7, "waiting": 3}


def test_the_strategy_starves_and_exact_does_not(batch: Batch) -> None:
    # KEDA as it is, its clocks and its strategy; only the poll is quicker than the manifest's.
    batch.add_rows(5, 600)
    batch.run()
    batch.patch({"metadata": {"annotations": {"tidemill.dev/profile": "strict"}}, "spec": {"pollingInterval": 1}})
    batch.until(lambda: batch.counts().get("RUNNING") == 5, "five claps")
    batch.add_rows(4, 600)
    # 4 rows wait and 5 jobs run: the strategy `default` takes what runs off what waits, and 4 − 5 is no job.
    seen = len(batch.records("scaledjob", "postgres-batch"))
    starved = batch.until(
        lambda: [reasons for reasons in map(facts, batch.records("scaledjob", "postgres-batch")[seen:]) if reasons.get("queue_length") == 4][2:],
        "three looks at four rows that wait",
    )
    assert all(reasons["created"] == 0 and reasons["running"] == 5 for reasons in starved)
    assert batch.counts() == {"RUNNING": 5, "waiting": 4}
    shown = batch("explain", "scaledjob", "postgres-batch")
    assert "StrategyResult" in shown and "default" in shown, shown
    # Lint said so beforehand.
    linted = batch.mill.cli("lint", "-f", str(BATCH / "scaled-job.yaml"), "--output", "json", check=False)
    assert "starving-strategy" in linted.stdout
    # By naming what is in flight the query becomes exact.
    batch.patch({"metadata": {"annotations": {"tidemill.dev/profile": None}}})
    add = [{"op": "add", "path": "/spec/triggers/0/metadata/inFlightQuery", "value": IN_FLIGHT}]
    batch("patch", "scaledjob", "postgres-batch", "--type", "json", "-p", json.dumps(add))
    batch.until(lambda: batch.counts() == {"RUNNING": 9}, "nine claps")
    # And no job was one too many.
    assert len(batch.items("jobs")) == 9
    batch.until(lambda: facts(batch.records("scaledjob", "postgres-batch")[-1]).get("in_flight") == 9, "a look at nine claps")
    assert len(batch.items("jobs")) == 9
    assert "ExactJobs" in batch("explain", "scaledjob", "postgres-batch")


def facts(record: dict) -> dict:
    """What a decision saw, by name; the last reason that names it wins."""
    return {fact["name"]: fact["value"] for reason in record["reasons"] for fact in reason.get("facts", [])}


def test_the_query_divided_by_ten_is_one_run_for_ten_rows(batch: Batch) -> None:
    batch.add_rows(40, 0)
    # A run takes ten rows here. Before it starts, the query is the divided one.
    manifest = yaml.safe_load((BATCH / "scaled-job.yaml").read_text())
    manifest["spec"]["triggers"][0]["metadata"]["query"] = BY_TEN
    manifest["spec"]["pollingInterval"] = 1
    batch.apply(secret(), manifest, options=("--image", f"postgres-batch:latest={CLAP} --rows 10", "--host", batch.host))
    batch.until(lambda: batch.counts() == {"SUCCESS": 40}, "forty claps")
    assert sum(batch.created()) == 4
    batch.until(lambda: [job["status"].get("succeeded") for job in batch.items("jobs")] == [1] * 4, "four runs")
    assert batch.sql("SELECT COUNT(DISTINCT session_id) FROM clap") == [(4,)]


def test_the_same_container_as_a_plain_job(batch: Batch) -> None:
    batch.add_rows(1, 0)
    batch.apply(secret())
    # The image and the host may come in a file of their own.
    mapping = batch.mill.folder / "mapping.yaml"
    mapping.write_text(yaml.safe_dump({"images": {"postgres-batch:latest": CLAP}, "hosts": dict([batch.host.split("=", 1)])}))
    assert "job.batch/postgres-batch created" in batch("apply", "-f", str(BATCH / "job.yaml"), "--mapping", str(mapping))
    assert "job.batch/postgres-batch condition met" in batch("wait", "--for=condition=complete", "job/postgres-batch", "--timeout=60s")
    assert batch.counts() == {"SUCCESS": 1}
    assert "row 1: done" in batch("logs", "job/postgres-batch")


def test_a_database_that_is_gone_is_no_empty_queue(batch: Batch, own_postgres: services.Postgres) -> None:
    batch.add_rows(2, 600)
    batch.run()
    batch.patch({"spec": {"pollingInterval": 1}})
    batch.until(lambda: batch.counts().get("RUNNING") == 2, "two claps")
    own_postgres.stop()
    failing = lambda: [reason for reason in batch.records("scaledjob", "postgres-batch", 1)[-1]["reasons"] if reason["code"] == "TriggerError"]
    reason = batch.until(failing, "a decision that says so")[0]
    assert any(fact["name"] == "failed_for_ms" for fact in reason["facts"])
    assert "Warning" in batch("events", "--for", "scaledjob/postgres-batch")
    ready = next(condition for condition in batch.object("scaledjob", "postgres-batch")["status"]["conditions"] if condition["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "TriggerError")
    own_postgres.start()
    batch.add_rows(6, 600)
    batch.until(lambda: batch.counts().get("RUNNING", 0) > 2, "jobs again")


# Services and replicas


def service(name: str, port: int) -> dict:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": port}]}}


def deployment(name: str, port: int, replicas: int = 2, **container: object) -> dict:
    pod = {
        "terminationGracePeriodSeconds": 5,
        "containers": [{
            "name": "app", "image": "example/replica:1", "args": ["--port", str(port)], "ports": [{"containerPort": port}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": port}, "periodSeconds": 1}, **container,
        }],
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}}, "spec": pod}},
    }  # fmt: skip


WITH_IMAGE = ("--image", f"example/replica={REPLICA}")


def ask(port: int) -> str:
    """The name of the replica that answers on a service's port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return answer.read().decode().strip()


def test_a_service_is_balanced_over_what_is_ready_while_it_changes(fleet: Fleet) -> None:
    port = free_port()
    assert fleet.apply(deployment("web", port), service("web", port), options=WITH_IMAGE) == "deployment.apps/web created\nservice/web created\n"
    assert "condition met" in fleet("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    fleet.until(lambda: len({ask(port) for _ in range(20)}) == 2, "both replicas")
    done = collections.Counter()
    stop_at = time.monotonic() + 8

    def load() -> None:
        while time.monotonic() < stop_at:
            try:
                done[ask(port)] += 1
            except OSError as error:
                done[f"failed: {error}"] += 1

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(load) for _ in range(8)]
        assert fleet("scale", "deploy/web", "--replicas", "4") == "deployment.apps/web scaled\n"
        fleet.until(lambda: fleet.object("deploy", "web")["status"].get("readyReplicas") == 4, "four replicas", 30)
        # Another template: each replica is replaced while the others serve.
        change = {"spec": {"template": {"spec": {"containers": [{"name": "app", "env": [{"name": "V", "value": "2"}]}]}}}}
        assert fleet("patch", "deploy", "web", "-p", json.dumps(change)) == "deployment.apps/web patched\n"
        fleet.until(lambda: len(fleet.pods()) == 4 and fleet.object("deploy", "web")["status"].get("updatedReplicas") == 4, "the new template", 60)
        assert fleet("scale", "deploy/web", "--replicas=1") == "deployment.apps/web scaled\n"
        for each in loads:
            each.result()
    failures = {name: count for name, count in done.items() if name.startswith("failed")}
    assert failures == {}, f"{failures} of {sum(done.values())}"
    assert len(done) >= 6 and sum(done.values()) > 100


def test_a_killed_server_adopts_its_replicas_and_starts_no_second_copy(fleet: Fleet) -> None:
    port = free_port()
    fleet.apply(deployment("web", port, replicas=3), service("web", port), options=WITH_IMAGE)
    fleet("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    fleet.until(lambda: fleet.object("deploy", "web")["status"].get("readyReplicas") == 3, "three replicas")
    before = fleet.pods()
    processes = running(port)
    assert len(processes) == 3
    for _ in range(3):
        fleet.mill.kill()
        assert running(port) == processes, "replicas go on without their server"
        fleet.mill.start()
        fleet.until(lambda: fleet.object("deploy", "web")["status"].get("readyReplicas") == 3, "the same three")
        assert running(port) == processes
        assert set(fleet.pods()) == set(before)
        assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 0 for pod in fleet.pods().values())
    assert ask(port) in before
    # An end that was asked for takes them along.
    assert fleet.mill.stop() == 0
    assert running(port) == set()


def running(port: int) -> set[int]:
    """Processes that serve this port, by what their command lines say."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if str(TREE / "tests/support/replica.py").encode() in words and str(port).encode() in words and b"fleet-shim" not in words:
                found.add(int(path.parent.name))
    return found


def test_replicas_that_are_to_be_kept_outlive_the_server(mill: Tidemill) -> None:
    port = free_port()
    mill.configure(fleet__keep_replicas=True)
    mill.start()
    fleet = Fleet(mill)
    try:
        fleet.apply(deployment("web", port, replicas=1), options=WITH_IMAGE)
        fleet("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
        processes = running(port)
        assert mill.stop() == 0 and running(port) == processes
    finally:
        mill.configure(fleet__keep_replicas=False)
        end(mill)
    assert running(port) == set()


def test_a_replica_that_ends_is_started_again_and_one_that_is_killed_is_replaced(fleet: Fleet) -> None:
    port = free_port()
    fleet.apply(deployment("web", port, replicas=1), options=WITH_IMAGE)
    fleet("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    (name,) = fleet.pods()
    os.kill(running(port).pop(), signal.SIGKILL)
    restarted = lambda: [status for pod in fleet.pods().values() for status in pod["status"]["containerStatuses"] if status["restartCount"] == 1 and status["ready"]]
    status = fleet.until(restarted, "its restart")[0]
    assert status["lastState"]["terminated"]["exitCode"] == 137
    assert re.search(rf"{name} +1/1 +Running +1 \(\d+s ago\) +\d+s\n", fleet("get", "pods"))
    assert "listening" in fleet("logs", name, "--previous")
    assert fleet("delete", "pod", name) == f'pod "{name}" deleted\n'
    fleet.until(lambda: set(fleet.pods()) and name not in fleet.pods(), "another replica")


# Manifests that are broken


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("{", ["-"]),
        ("a: b", ["kind"]),
        ("kind: Deployment\napiVersion: apps/v1\nmetadata: {name: UPPER}\nspec: {}", ["metadata.name", "spec.selector", "spec.template"]),
        ("kind: Gizmo\napiVersion: example.com/v1\nmetadata: {name: x}", ["Gizmo", "example.com/v1"]),
        ("kind: Secret\napiVersion: v1\nmetadata: {name: x}\ndata: {key: 'not base64!'}", ["data.key", "stringData"]),
        ("kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {ports: [{port: 99999}, {port: 1, protocol: UDP}]}", ["spec.ports[0].port", "spec.ports[1].protocol"]),
        ("kind: ScaledJob\napiVersion: keda.sh/v1alpha1\nmetadata: {name: x}\nspec: {maxReplicaCount: many, triggers: []}", ["maxReplicaCount"]),
        ("kind: HorizontalPodAutoscaler\napiVersion: autoscaling/v2\nmetadata: {name: x}\nspec: {maxReplicas: 0}", ["scaleTargetRef"]),
        ("a: &a [*a]", []),
        ("a: &a [x,x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nkind: ConfigMap", []),
    ],
)  # fmt: skip
def test_a_broken_manifest_is_refused_with_its_place(fleet: Fleet, manifest: str, words: list[str]) -> None:
    status, told = fleet.fails("apply", "-f", "-", stdin=manifest)
    assert status in (1, 3), told
    for word in words:
        assert word in told, f"{word} is not in\n{told}"
    assert "panicked" not in told and fleet.mill.process.poll() is None
    assert fleet("get", "all") == ""


def test_of_several_objects_the_good_ones_are_applied_and_the_others_told(fleet: Fleet) -> None:
    good = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "good"}, "data": {"a": "1"}}
    bad = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bad"}, "data": {"a": 1}}
    status, told = fleet.fails("apply", "-f", "-", stdin=yaml.safe_dump_all([bad, good]))
    assert "data.a" in told and status in (1, 3)
    assert fleet("get", "cm", "-o", "name").splitlines() == ["configmap/good"]


# Verbs, as kubectl prints them


def config_map(name: str, **data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"team": "mill"}}, "data": data}


def golden(text: str) -> str:
    """With what differs from run to run taken out: ages, names' ends, addresses, times."""
    text = re.sub(r"\b(\d+[smhd]){1,2}\b", "AGE", text)
    text = re.sub(r"\b127\.\d+\.\d+\.\d+\b", "IP", text)
    text = re.sub(r"-[0-9a-f]{10}-[a-z0-9]{5}\b", "-HASH-ID", text)
    return re.sub(r" {2,}", "  ", text)


def test_apply_get_and_delete_speak_as_kubectl_does(fleet: Fleet) -> None:
    first = config_map("settings", a="1", b="2")
    assert fleet.apply(first, options=("--dry-run=server",)) == "configmap/settings created (server dry run)\n"
    assert fleet.apply(first, options=("--dry-run=client",)) == "configmap/settings created (dry run)\n"
    assert fleet("get", "cm", "-o", "name") == ""
    assert fleet.apply(first) == "configmap/settings created\n"
    assert fleet.apply(first) == "configmap/settings unchanged\n"
    assert fleet.apply(config_map("settings", a="1", c="3")) == "configmap/settings configured\n"
    # What an application no longer names goes; what another one set stays.
    assert fleet.object("configmap", "settings")["data"] == {"a": "1", "c": "3"}
    assert fleet("patch", "cm", "settings", "--type=merge", "-p", '{"data":{"z":"9"}}') == "configmap/settings patched\n"
    assert fleet("patch", "cm", "settings", "--type=merge", "-p", '{"data":{"z":"9"}}') == "configmap/settings patched (no change)\n"
    fleet.apply(config_map("settings", a="1"))
    assert fleet.object("cm", "settings")["data"] == {"a": "1", "z": "9"}
    assert golden(fleet("get", "cm")) == "NAME  DATA  AGE\nsettings  2  AGE\n"
    assert golden(fleet("get", "cm", "--no-headers")) == "settings  2  AGE\n"
    assert golden(fleet("get", "cm", "--show-labels")) == "NAME  DATA  AGE  LABELS\nsettings  2  AGE  team=mill\n"
    assert fleet("get", "cm/settings", "-o", "name") == "configmap/settings\n"
    assert fleet("get", "cm", "settings", "-o", "jsonpath={.data.a}{'\\n'}") == "1\n"
    assert fleet("get", "cm", "-o", "jsonpath={range .items[*]}{.metadata.name}={.data.z}{'\\n'}{end}") == "settings=9\n"
    assert fleet("get", "cm", "-o", "custom-columns=N:.metadata.name,Z:.data.z,NO:.data.none") == "N          Z   NO\nsettings   9   <none>\n"
    assert yaml.safe_load(fleet("get", "cm", "settings", "-o", "yaml"))["data"] == {"a": "1", "z": "9"}
    assert fleet("get", "cm", "-l", "team=mill", "-o", "name") == "configmap/settings\n"
    assert fleet("get", "cm", "-l", "team!=mill", "-o", "name") == ""
    assert fleet("get", "cm", "-l", "team in (a, mill),team", "-o", "name") == "configmap/settings\n"
    status, told = fleet.fails("get", "cm", "nothing")
    assert status == 4 and 'configmaps "nothing" not found' in told
    status, told = fleet.fails("get", "gizmos")
    assert "gizmos" in told and "deployments" in told
    assert fleet("delete", "cm", "settings") == 'configmap "settings" deleted\n'
    status, told = fleet.fails("delete", "cm", "settings")
    assert status == 4
    assert fleet("delete", "cm", "settings", "--ignore-not-found") == ""


def test_namespaces_are_isolated(fleet: Fleet) -> None:
    for namespace in ("one", "two"):
        Fleet(fleet.mill, namespace).apply(config_map("same", where=namespace))
    assert Fleet(fleet.mill, "one").object("cm", "same")["data"] == {"where": "one"}
    assert fleet("get", "cm", "-o", "name") == ""
    shown = golden(fleet.mill.cli("get", "cm", "-A").stdout)
    assert shown == "NAMESPACE  NAME  DATA  AGE\none  same  1  AGE\ntwo  same  1  AGE\n"
    fleet.mill.cli("delete", "namespace", "one")
    assert golden(fleet.mill.cli("get", "cm", "-A").stdout) == "NAMESPACE  NAME  DATA  AGE\ntwo  same  1  AGE\n"


def test_workloads_are_shown_as_kubectl_shows_them(fleet: Fleet) -> None:
    port = free_port()
    fleet.apply(deployment("web", port), service("web", port), options=WITH_IMAGE)
    fleet("wait", "--for=condition=Available", "deployment/web", "--timeout=60s")
    fleet.until(lambda: fleet.object("deploy", "web")["status"].get("readyReplicas") == 2, "two replicas")
    assert golden(fleet("get", "deploy")) == "NAME  READY  UP-TO-DATE  AVAILABLE  AGE\nweb  2/2  2  2  AGE\n"
    assert golden(fleet("get", "svc")) == f"NAME  TYPE  CLUSTER-IP  EXTERNAL-IP  PORT(S)  AGE\nweb  ClusterIP  IP  <none>  {port}/TCP  AGE\n"
    pods = golden(fleet("get", "po"))
    assert pods == "NAME  READY  STATUS  RESTARTS  AGE\n" + "web-HASH-ID  1/1  Running  0  AGE\n" * 2
    all_of_it = fleet("get", "all")
    assert all(name in all_of_it for name in ("deployment.apps/web", "service/web", "pod/web-"))
    assert fleet("get", "deploy,svc", "-o", "name") == "deployment.apps/web\nservice/web\n"
    assert golden(fleet("get", "deploy", "-o", "wide")) == (
        "NAME  READY  UP-TO-DATE  AVAILABLE  AGE  CONTAINERS  IMAGES  SELECTOR\nweb  2/2  2  2  AGE  app  example/replica:1  app=web\n"
    )
    described = fleet("describe", "deploy", "web")
    for words in ("Name:", "web", "example/replica:1", "ScalingReplicas", "Replicas:"):
        assert words in described, described
    name = next(iter(fleet.pods()))
    assert "listening on" in fleet("logs", name)
    assert fleet("logs", name, "--tail=0") == ""
    assert re.match(r"\d{4}-\d\d-\d\dT\S+Z listening on", fleet("logs", name, "--timestamps"))
    assert fleet("logs", "-l", "app=web").count("listening on") == 2
    assert "listening on" in fleet("logs", "deploy/web")
    assert golden(fleet("get", "events")).startswith("LAST SEEN  TYPE  REASON  OBJECT  MESSAGE\n")
    assert "ScalingReplicas" in fleet("events", "--for", "deployment/web")
    # A replica is shown once it was measured.
    shown = re.compile(r"NAME +CPU\(cores\) +MEMORY\(bytes\)\n(web-\S+ +\d+m +\d+Mi\n){2}$")
    fleet.until(lambda: shown.match(fleet.mill.cli("top", "pods", check=False).stdout), "the usage of both")
    assert fleet("delete", "deploy/web", "svc/web") == 'deployment.apps "web" deleted\nservice "web" deleted\n'
    fleet.until(lambda: fleet.pods() == {}, "no replicas")


def test_a_watch_tells_changes_and_waits_end(fleet: Fleet) -> None:
    log = fleet.mill.folder / "watch.log"
    watching = start([str(binary()), "get", "cm", "-w", "--no-headers"], log, env=fleet.mill.environment, cwd=fleet.mill.folder)
    try:
        fleet.apply(config_map("one", a="1"))
        fleet.until(lambda: re.search(r"^one +1 ", log.read_text(), re.M), "the first line")
        fleet.apply(config_map("one", a="1", b="2"))
        fleet.until(lambda: re.search(r"^one +2 ", log.read_text(), re.M), "the second line")
    finally:
        stop(watching)
    status, told = fleet.fails("wait", "--for=jsonpath={.data.c}=3", "cm/one", "--timeout=1s")
    assert status == 1 and "timed out" in told, told
    waiting = start([str(binary()), "wait", "--for=delete", "cm/one", "--timeout=30s"], log, env=fleet.mill.environment, cwd=fleet.mill.folder)
    fleet("delete", "cm", "one")
    assert waiting.wait(30) == 0
    fleet.apply(config_map("one", c="3"))
    assert "condition met" in fleet("wait", "--for=jsonpath={.data.c}=3", "cm/one", "--timeout=10s")


def test_logs_are_followed_to_their_end(fleet: Fleet) -> None:
    script = "i=0; while [ $i -lt 5 ]; do echo line $i; i=$((i+1)); sleep 0.2; done"
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "count"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", script]}]}}},
    }  # fmt: skip
    assert fleet.apply(job) == "job.batch/count created\n"
    fleet.until(lambda: fleet.items("pods"), "its pod")
    assert fleet("logs", "-f", "job/count") == "".join(f"line {number}\n" for number in range(5))
    fleet("wait", "--for=condition=complete", "job/count", "--timeout=30s")
    assert golden(fleet("get", "jobs")) == "NAME  STATUS  COMPLETIONS  DURATION  AGE\ncount  Complete  1/1  AGE  AGE\n"
    assert fleet("logs", "job/count", "--tail", "2") == "line 3\nline 4\n"
    assert re.search(r"count-\w+ +0/1 +Completed +0 ", fleet("get", "pods"))


def test_jobs_keep_their_rules(fleet: Fleet) -> None:
    def job(name: str, command: str, **spec: object) -> dict:
        pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", command]}]}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": {"spec": pod}, **spec}}

    fleet.apply(
        job("many", "exit 0", parallelism=2, completions=5),
        job("fails", "exit 3", backoffLimit=0),
        job("slow", "sleep 60", activeDeadlineSeconds=1),
        job("cleaned", "exit 0", ttlSecondsAfterFinished=1),
    )
    fleet("wait", "--for=condition=complete", "job/many", "--timeout=60s")
    assert fleet.object("job", "many")["status"]["succeeded"] == 5
    fleet("wait", "--for=condition=failed", "job/fails", "job/slow", "--timeout=60s")
    reasons = {name: fleet.object("job", name)["status"]["conditions"][0]["reason"] for name in ("fails", "slow")}
    assert reasons == {"fails": "BackoffLimitExceeded", "slow": "DeadlineExceeded"}
    fleet.until(lambda: "job.batch/cleaned" not in fleet("get", "jobs", "-o", "name"), "what is cleaned up")


# Autoscalers


def test_a_size_follows_its_queue_and_explains_itself(fleet: Fleet) -> None:
    database = fleet.mill.folder / "queue.db"
    rows = lambda statement: subprocess.run([sys.executable, "-c", f"import sqlite3; c=sqlite3.connect({str(database)!r}); c.executescript({statement!r})"], check=True)
    rows("CREATE TABLE items (id integer); INSERT INTO items VALUES (1), (2), (3), (4), (5)")
    port = free_port()
    scaled = {
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"name": "web"}, "pollingInterval": 1, "cooldownPeriod": 1, "minReplicaCount": 0, "maxReplicaCount": 4,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}},
            "triggers": [{"type": "sqlite", "metadata": {"path": str(database), "query": "SELECT COUNT(*) FROM items", "targetQueryValue": "2"}}],
        },
    }  # fmt: skip
    fleet.apply(deployment("web", port, replicas=0), scaled, options=WITH_IMAGE)
    size = lambda: fleet.object("deploy", "web")["spec"]["replicas"]
    fleet.until(lambda: size() == 3, "three replicas for five items")
    shown = fleet("explain", "so/web")
    assert re.search(r"5\b", shown) and "sqlite" in shown, shown
    # What is decided is decided again from what is printed.
    checked = fleet("explain", "scaledobject", "web", "--last", "50", "--check")
    assert "reproduced" in checked.lower() and "not reproduced" not in checked.lower(), checked
    assert golden(fleet("get", "so")).splitlines()[1].startswith("web  apps/v1.Deployment  web  0  4  True  True")
    # While it is paused its size stays.
    assert "paused" in fleet("pause", "so/web")
    fleet.until(lambda: golden(fleet("get", "so")).splitlines()[1].split("  ")[8] == "True", "the pause")
    rows("DELETE FROM items")
    seen = len(fleet.records("so", "web"))
    fleet.until(lambda: len(fleet.records("so", "web")) >= seen + 3, "three looks")
    assert size() == 3
    assert "resumed" in fleet("resume", "so/web")
    fleet.until(lambda: size() == 0, "none")
    # Told after the size is set.
    fleet.until(lambda: "KEDAScaleTargetDeactivated" in fleet("events", "--for", "scaledobject/web"), "its event")
    fleet.until(lambda: fleet.pods() == {}, "the end of the last replica")


def test_a_backlog_of_the_mill_s_own_queue_wakes_a_workload(mill: Tidemill) -> None:
    # Its own workers leave logs alone, so that what is pushed waits.
    mill.configure(fleet__sync_period="60s", worker__signals="metrics,traces")
    mill.start()
    fleet = Fleet(mill)
    try:
        scaled = {
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "ingest"},
            "spec": {
                "scaleTargetRef": {"name": "ingest"}, "pollingInterval": 60, "minReplicaCount": 0, "maxReplicaCount": 3,
                "triggers": [{"type": "tidemill", "metadata": {"queue": "logs/ingest", "itemsPerReplica": "1"}}],
            },
        }  # fmt: skip
        fleet.apply(deployment("ingest", free_port(), replicas=0), scaled, options=WITH_IMAGE)
        fleet.until(lambda: fleet.records("so", "ingest"), "the first look")
        assert fleet.object("deploy", "ingest")["spec"]["replicas"] == 0
        assert mill.push("logs", otlp.logs([1])).status_code == 200
        acknowledged = time.time()
        changed = lambda: [record for record in fleet.records("so", "ingest") if any(action["action"] == "scale" for action in record["actions"])]
        record = fleet.until(changed, "a size", 20)[0]
        # The poll comes once a minute: it was the commit that woke it.
        assert record["now"] / 1000 - acknowledged < 0.3
        fleet.until(lambda: fleet.object("deploy", "ingest")["status"].get("readyReplicas") == 1, "one replica")
    finally:
        end(mill)


def test_a_horizontal_autoscaler_follows_usage_within_its_rates(mill: Tidemill) -> None:
    usage = mill.folder / "usage.json"
    tell = lambda milli: usage.write_text(json.dumps({"default/web": {"cpu_milli": milli, "memory_bytes": 1 << 20}}))
    tell(300)
    mill.configure(fleet__sync_period="1s")
    mill.environment["TIDEMILL_FLEET_USAGE"] = str(usage)
    mill.start()
    fleet = Fleet(mill)
    try:
        scaler = {
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "minReplicas": 2, "maxReplicas": 6,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}],
                "behavior": {
                    "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 5}]},
                    "scaleDown": {"stabilizationWindowSeconds": 3, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 1}]},
                },
            },
        }  # fmt: skip
        port = free_port()
        # 300m of two replicas that request 300m each are 50 %: that is the target.
        fleet.apply(deployment("web", port, resources={"requests": {"cpu": "300m"}}), scaler, options=WITH_IMAGE)
        line = r"web +Deployment/web +cpu: 50%/50% +2 +6 +2 +"
        fleet.until(lambda: re.search(line, fleet("get", "hpa")), "the target")
        tell(900)
        sizes = lambda: [action["to"] for record in fleet.records("hpa", "web") for action in record["actions"] if action["action"] == "scale"]
        fleet.until(lambda: sizes() == [4, 6], "two and two")
        fleet.until(lambda: re.search(r"cpu: 50%/50% +2 +6 +6 +", fleet("get", "hpa")), "the target again")
        tell(300)
        fleet.until(lambda: sizes() == [4, 6, 5, 4, 3, 2], "one by one")
        assert "reproduced" in fleet("explain", "deploy/web", "--last", "100", "--check")
        assert "SuccessfulRescale" in fleet("events", "--for", "hpa/web")
    finally:
        end(mill)


# Clients that people have


def kubectl(fleet: Fleet, *arguments: str, stdin: str | None = None) -> str:
    key = (fleet.mill.data / "operator.key").read_text().strip()
    # It sends a token by TLS only.
    server = ["--server", fleet.mill.url("api"), "--certificate-authority", str(fleet.mill.folder / "authority.pem"), "--token", key]
    command = ["kubectl", *server, "--cache-dir", str(fleet.mill.folder / "kube"), *arguments]
    environment = {**fleet.mill.environment, "KUBECONFIG": "/dev/null", "HOME": str(fleet.mill.folder)}
    done = subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=120, env=environment)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl")
def test_kubectl_works_against_it(mill: Tidemill) -> None:
    issued = Authority(mill.folder, "authority").issue(mill.folder / "tls", "127.0.0.1")
    mill.configure(tls__cert=issued.certificate, tls__key=issued.key)
    mill.start()
    try:
        use_kubectl(Fleet(mill))
    finally:
        end(mill)


def use_kubectl(fleet: Fleet) -> None:
    port = free_port()
    fleet.apply(config_map("first", a="1"), options=WITH_IMAGE)
    assert "Server Version" in kubectl(fleet, "version")
    assert "scaledjobs" in kubectl(fleet, "api-resources")
    manifest = yaml.safe_dump_all([deployment("web", port), service("web", port)])
    assert kubectl(fleet, "apply", "--validate=false", "-f", "-", stdin=manifest) == "deployment.apps/web created\nservice/web created\n"
    assert kubectl(fleet, "apply", "--validate=false", "-f", "-", stdin=manifest) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    assert "condition met" in kubectl(fleet, "wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    assert kubectl(fleet, "scale", "deploy/web", "--replicas=3") == "deployment.apps/web scaled\n"
    fleet.until(lambda: fleet.object("deploy", "web")["status"].get("readyReplicas") == 3, "three replicas")
    assert kubectl(fleet, "get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}") == "3"
    assert "deployment \"web\" successfully rolled out" in kubectl(fleet, "rollout", "status", "deploy/web")
    name = kubectl(fleet, "get", "pods", "-l", "app=web", "-o", "name").splitlines()[0]
    assert "listening on" in kubectl(fleet, "logs", name)
    assert kubectl(fleet, "patch", "cm", "first", "--type=json", "-p", '[{"op":"replace","path":"/data/a","value":"2"}]') == "configmap/first patched\n"
    assert kubectl(fleet, "label", "cm", "first", "x=y") == "configmap/first labeled\n"
    assert kubectl(fleet, "annotate", "cm", "first", "n=1") == "configmap/first annotated\n"
    assert kubectl(fleet, "get", "cm", "-l", "x=y", "-o", "name") == "configmap/first\n"
    assert "Name:" in kubectl(fleet, "describe", "cm", "first")
    # The same answers as our own verbs give.
    for arguments in (["get", "deploy", "-o", "name"], ["get", "cm", "first", "-o", "jsonpath={.data.a}"], ["get", "pods", "-l", "app=web", "-o", "name"]):
        assert kubectl(fleet, *arguments) == fleet(*arguments)
    for arguments in (["-o", "jsonpath={range .items[?(@.kind==\"ConfigMap\")]}{.metadata.name}{end}"], ["-o", "jsonpath={.items[-1:].metadata.name}"], ["-o", "jsonpath={..name}"]):
        assert kubectl(fleet, "get", "cm", *arguments) == fleet("get", "cm", *arguments), arguments
    assert kubectl(fleet, "delete", "deploy/web", "svc/web", "--wait=false").count("deleted") == 2
    fleet.until(lambda: fleet.pods() == {}, "no replicas")
