"""Segments in S3 and Azure, a store that misbehaves, and the queries by which KEDA sees the queue."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import subprocess
import threading
import time
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import psycopg
import pytest

from conftest import fresh_database
from support import lake, otlp
from support.load import Load
from support.processes import start, stop, wait_until
from support.server import Tidemill, binary
from test_crash import kill_at, steps

SIGNALS = ("logs", "metrics", "traces")


def s3_client():
    return boto3.client("s3", endpoint_url=os.environ["TIDEMILL_TEST_S3"])


@pytest.fixture
def bucket() -> str:
    """A bucket of its own on moto."""
    name = f"mill-{uuid.uuid4().hex[:12]}"
    s3_client().create_bucket(Bucket=name)
    return name


def on_s3(mill: Tidemill, bucket: str, endpoint: str | None = None) -> Tidemill:
    mill.configure(storage__url=f"s3://{bucket}", storage__endpoint=endpoint or os.environ["TIDEMILL_TEST_S3"], storage__path_style=True, storage__region="us-east-1")
    return mill


def numbers_in_bucket(mill: Tidemill, bucket: str, folder: Path) -> dict[int, int]:
    """How often each log's number is stored, read by DuckDB from copies of the live segments."""
    paths = []
    for segment in mill.rows("segments"):
        if segment["signal"] == "logs":
            assert segment["bucket"] == bucket
            paths.append(str(folder / f"{len(paths)}.parquet"))
            s3_client().download_file(bucket, segment["object_key"], paths[-1])
    return dict(lake.ask(f"SELECT body::BIGINT, count(*) FROM read_parquet({paths!r}, union_by_name=true) GROUP BY 1"))


def test_a_cluster_on_postgresql_and_s3(mill: Tidemill, bucket: str, tmp_path: Path) -> None:
    on_s3(mill, bucket).configure(metastore__url=fresh_database())
    mill.start()
    for name in SIGNALS:
        assert mill.push(name, otlp.ENCODE[name](list(range(200)))).status_code == 200
    mill.drain()
    assert [mill.count(table) for table in ("logs", "metrics", "spans")] == [200, 200, 200]
    assert numbers_in_bucket(mill, bucket, tmp_path) == dict.fromkeys(range(200), 1)


def test_azure(mill: Tidemill) -> None:
    from azure.storage.blob import BlobServiceClient

    endpoint, account, key = (os.environ[f"TIDEMILL_TEST_AZURE{suffix}"] for suffix in ("", "_ACCOUNT", "_KEY"))
    container = f"mill-{uuid.uuid4().hex[:12]}"
    BlobServiceClient(endpoint, credential={"account_name": account, "account_key": key}).create_container(container)
    mill.configure(storage__url=f"az://{account}/{container}", storage__endpoint=endpoint, storage__access_key_id=account, storage__secret_access_key=key)
    mill.start()
    assert mill.push("logs", otlp.logs(list(range(100)))).status_code == 200
    mill.drain()
    assert mill.count("logs") == 100


class Weather:
    """A proxy before moto that answers 503, tears downloads, hangs up and falls silent, as often as it is told."""

    TROUBLES = ("503", "before", "after", "tear", "silence before", "silence after")

    def __init__(self, upstream: str, seed: int):
        self.share = 0.0
        self.troubles = dict.fromkeys(self.TROUBLES, 0)
        self.random = random.Random(seed)
        target = urllib.parse.urlparse(upstream)
        weather = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                if self.headers.get("transfer-encoding") == "chunked":
                    return self.answer(411, [], b"")
                trouble = weather.random.choice(weather.TROUBLES) if weather.random.random() < weather.share else None
                if trouble:
                    weather.troubles[trouble] += 1
                if trouble == "503":
                    return self.answer(503, [], b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>")
                if trouble == "before":
                    return self.hang_up()
                if trouble == "silence before":
                    return self.say_nothing()
                upstream = http.client.HTTPConnection(target.hostname, target.port, timeout=30)
                upstream.request(self.command, self.path, body, dict(self.headers.items()))
                reply = upstream.getresponse()
                content = reply.read()
                if trouble == "after":
                    return self.hang_up()
                if trouble == "silence after":
                    return self.say_nothing()
                headers = [pair for pair in reply.getheaders() if pair[0].lower() not in ("content-length", "transfer-encoding", "connection", "date", "server")]
                if self.command == "HEAD":
                    headers.append(("content-length", reply.getheader("content-length", "0")))
                    return self.answer(reply.status, headers, None)
                self.answer(reply.status, headers, content, torn=trouble == "tear" and self.command == "GET" and len(content) > 1)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def answer(self, status: int, headers: list, content: bytes | None, torn: bool = False) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                if content is not None:
                    self.send_header("content-length", str(len(content)))
                self.end_headers()
                if content is not None:
                    self.wfile.write(content[: len(content) // 2] if torn else content)
                if torn:
                    self.hang_up()

            def say_nothing(self) -> None:
                """Until the client has had enough."""
                self.connection.settimeout(60)
                with contextlib.suppress(OSError):
                    self.connection.recv(1)
                self.hang_up()

            def hang_up(self) -> None:
                self.close_connection = True
                self.wfile.flush()
                self.connection.close()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.mark.slow
def test_bad_weather_at_the_store_loses_nothing(mill: Tidemill, bucket: str, tmp_path: Path) -> None:
    weather = Weather(os.environ["TIDEMILL_TEST_S3"], seed=11)
    try:
        on_s3(mill, bucket, weather.url).configure(storage__timeout="500ms")
        mill.start()
        weather.share = 0.15
        with Load(mill, signals=("logs",), pause_s=0.02) as load:
            wait_until(lambda: min(weather.troubles.values()) >= 8 and len(load.acknowledged["logs"]) > 1000,
                       at_most_s=180, what="enough troubles", alive=mill.process, log=mill.log)  # fmt: skip
        weather.share = 0.0
        mill.drain(at_most_s=120)
        assert not load.refused, load.refused[:3]
        assert [entry for entry in mill.rows("queue") if entry["state"] == "dead"] == []
        assert numbers_in_bucket(mill, bucket, tmp_path) == dict.fromkeys(load.acknowledged["logs"], 1)
        assert mill.count("logs") == len(load.acknowledged["logs"])
    finally:
        weather.server.shutdown()


@pytest.mark.slow
def test_kills_over_s3_lose_and_double_nothing(tmp_path: Path, bucket: str) -> None:
    seed = int(os.environ.get("TIDEMILL_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed} (TIDEMILL_TEST_SEED)")
    chance = random.Random(seed)
    mill = on_s3(Tidemill(tmp_path / "mill", worker__lease="2s", sweep__interval="1s", sweep__raw_grace="1s"), bucket)
    mill.start()
    load = Load(mill, signals=("logs",))
    # What only background work passes is killed over the folder.
    reached = [step for step in steps() if not step.startswith(("compact", "rollup"))]
    killed = dict.fromkeys(reached, 0)
    try:
        mill.kill()
        with load:
            for step in reached * 4:
                killed[step] += kill_at(mill, step, chance.randint(1, 3))
            mill.start()
            load.end()
        mill.drain(at_most_s=120)
        assert all(killed.values()), killed
        assert not load.refused, load.refused[:3]
        assert [entry for entry in mill.rows("queue") if entry["state"] == "dead"] == []
        assert numbers_in_bucket(mill, bucket, tmp_path) == dict.fromkeys(load.acknowledged["logs"], 1)
        mill.cli("catalog", "verify")
    finally:
        mill.kill()


# To the letter as the reference's charts have them.
INQUEUE = "SELECT COALESCE(COUNT(*),0) FROM inqueue WHERE telemetry_type='{}' AND claimed_at IS NULL"
WORK_QUEUE = "SELECT COALESCE(COUNT(*),0) FROM work_queue WHERE needs_run=true AND runnable_at<=now() AND signal='{}' AND action='{}'"


# Where a worker is stopped and looked at, and then killed.
STEPS = ("ingest-claimed", "ingest-uploaded", "publish-committed", "compact-claimed", "compact-uploaded", "rollup-uploaded")


def keda_sees(connection: psycopg.Connection) -> dict[tuple[str, str], int]:
    """The answer of each query."""
    queries = {(signal, "ingest"): INQUEUE.format(signal) for signal in SIGNALS}
    queries |= {(signal, action): WORK_QUEUE.format(signal, action) for signal in SIGNALS for action in ("compact", "rollup")}
    return {kind: connection.execute(query).fetchone()[0] for kind, query in queries.items()}


def assert_both_see_the_same(connection: psycopg.Connection, mill: Tidemill, step: str) -> dict[tuple[str, str], int]:
    """Work falls due while we look, so that `tidemill queue` tells what KEDA saw before or after it, or something between."""
    before = keda_sees(connection)
    entries = [entry for entry in mill.rows("queue") if entry["state"] in ("runnable", "delayed")]
    after = keda_sees(connection)
    for (signal, action), count in before.items():
        told = [entry for entry in entries if entry["queue"] == {"signal": signal, "action": action}]
        # The query of the inbox asks for no time.
        waiting = len(told if action == "ingest" else [entry for entry in told if entry["state"] == "runnable"])
        assert min(count, after[signal, action]) <= waiting <= max(count, after[signal, action]), (step, signal, action, count, waiting, told)
    return after


def test_keda_sees_the_queue_that_tidemill_sees(tmp_path: Path) -> None:
    url = fresh_database()
    mill = Tidemill(tmp_path / "mill", metastore__url=url, worker__lease="2s")
    # The first start makes the organization and its key; the receiver alone then leaves everything waiting.
    mill.start()
    mill.stop()
    log = tmp_path / "receiver.log"
    (mill.data / "ports.json").unlink(missing_ok=True)
    receiver = start([str(binary()), "receive"], log, env=mill.environment, cwd=mill.folder)
    seen = set()
    try:
        wait_until(mill.read_ports, at_most_s=30, what="the receiver", alive=receiver, log=log)
        with psycopg.connect(url, autocommit=True) as connection:
            for number in range(3):
                for name in SIGNALS:
                    # Of an hour that is over, so that there is something to roll up.
                    assert mill.push(name, otlp.ENCODE[name]([number], time_ns=time.time_ns() - 3 * 3600 * 10**9)).status_code == 200
                    assert_both_see_the_same(connection, mill, "pushed")
            assert sum(keda_sees(connection).values()) == 9
            stop(receiver)
            for step in STEPS:
                # What would fall due in a minute or two is due.
                connection.execute("UPDATE work SET runnable_at = now_ns() WHERE runnable_at > now_ns()")
                seen |= {kind for kind, count in assert_both_see_the_same(connection, mill, f"before {step}").items() if count}
                log = tmp_path / f"{step}.log"
                worker = start([str(binary()), "worker"], log, env={**mill.environment, "TIDEMILL_STOP_AT": step}, cwd=mill.folder)
                wait_until(lambda: stopped(worker), at_most_s=120, what=f"the stop at {step}", alive=worker, log=log)
                # Commands would ask the worker that sleeps.
                (mill.data / "ports.json").unlink(missing_ok=True)
                assert_both_see_the_same(connection, mill, step)
                stop(worker, with_signal=signal.SIGKILL)
                assert_both_see_the_same(connection, mill, f"killed at {step}")
            mill.start()
            mill.drain()
            assert_both_see_the_same(connection, mill, "drained")
            assert all(keda_sees(connection)[name, "ingest"] == 0 for name in SIGNALS)
        assert {action for _, action in seen} == {"ingest", "compact", "rollup"}, f"the run was to pass work of each kind: {seen}"
    finally:
        stop(receiver)
        mill.kill()


def stopped(process: subprocess.Popen) -> bool:
    """Whether SIGSTOP came."""
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
