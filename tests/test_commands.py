"""The command line and the administration behind it, from outside."""

from __future__ import annotations

import collections
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import grpc
import pytest
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

from support import lake, otlp
from support.load import Load
from support.processes import free_port, start, stop, tail, wait_until
from support.server import Tidemill, binary


def test_config_show_tells_where_values_come_from_and_hides_secrets(mill: Tidemill) -> None:
    mill.configure(metastore__url="postgres://mill:hunter2@db.example/mill")
    shown = mill.cli("config", "show", "--set", "listen.http_port=4444").stdout
    assert "hunter2" not in shown
    values = {line["key"]: line for line in json.loads(mill.cli("config", "show", "--set", "listen.http_port=4444", "--output", "json").stdout)}
    assert values["listen.http_port"]["value"] == "4444" and "--set" in values["listen.http_port"]["origin"]
    assert "TIDEMILL_METASTORE_URL" in values["metastore.url"]["origin"]
    assert values["query.timeout"]["origin"] == "default"


def test_all_problems_of_a_configuration_are_told_at_once(mill: Tidemill) -> None:
    (mill.folder / "tidemill.toml").write_text("[listen]\nhttp_prot = 1\n\n[worker]\nlease = \"soon\"\n")
    mill.environment["TIDEMILL_WORKRE_COUNT"] = "3"
    done = mill.cli("config", "show", check=False)
    assert done.returncode == 3, done.stderr
    for word in ("http_prot", "soon", "TIDEMILL_WORKRE_COUNT"):
        assert word in done.stderr


def test_one_up_on_a_data_folder(mill: Tidemill) -> None:
    mill.start()
    second = subprocess.run([str(binary()), "up"], env=mill.environment, cwd=mill.folder, capture_output=True, text=True, timeout=30)
    assert second.returncode == 5, second.stderr
    assert mill.push("logs", otlp.logs([1])).status_code == 200


def test_a_first_start_that_fails_is_no_first_start(mill: Tidemill) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mill.configure(listen__api_port=taken.getsockname()[1])
        done = mill.cli("up", check=False)
        assert done.returncode == 6 and "listen.api_port" in done.stderr and done.stdout == ""
    mill.configure(listen__api_port=0)
    # Waits for the key, which nobody was told before.
    mill.start()
    assert mill.push("logs", otlp.logs([1])).status_code == 200
    mill.stop()
    mill.log.write_text("")
    mill.start()
    assert "x-api-key" not in mill.log.read_text(), "and only one start is the first"


def test_a_stale_ports_file_leads_nowhere(mill: Tidemill) -> None:
    """A server that was killed leaves `ports.json` behind; its process id may be any other process's by now."""
    mill.start()
    written = json.loads((mill.data / "ports.json").read_text())
    mill.kill()
    (mill.data / "ports.json").write_text(json.dumps({**written, "pid": os.getpid()}))
    assert mill.cli_json("sql", "SELECT 1 AS one") == [{"one": 1}]
    mill.start()
    assert mill.push("logs", otlp.logs([1])).status_code == 200


def test_a_named_metastore_is_asked_and_not_the_server_that_runs_here(mill: Tidemill) -> None:
    mill.start()
    assert [found["name"] for found in mill.cli_json("org", "list")] == ["default"]
    elsewhere = ["--set", "metastore.url=postgres://mill@127.0.0.1:9/elsewhere"]
    done = mill.cli("org", "list", *elsewhere, check=False)
    assert done.returncode == 7 and "PostgreSQL" in done.stderr, done.stdout + done.stderr


def test_no_auth_is_for_loopback(mill: Tidemill) -> None:
    done = mill.cli("up", "--no-auth", "--listen", "0.0.0.0", check=False)
    assert done.returncode == 3 and "loopback" in done.stderr
    mill.configure(auth__enabled=False)
    mill.start(until_ready=False)
    wait_until(mill.read_ports, at_most_s=30, what="tidemill up", alive=mill.process, log=mill.log)
    headers = {"content-type": "application/x-protobuf"}
    answer = requests.post(mill.url("http", "/v1/logs"), data=otlp.logs([1]), headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text


def test_keys_come_and_go_without_restart(mill: Tidemill) -> None:
    mill.configure(auth__cache="100ms")
    mill.start()
    made = json.loads(mill.cli("key", "create", "--organization", "default", "--output", "json").stdout)
    push = lambda: requests.post(
        mill.url("http", "/v1/logs"), data=otlp.logs([1]), timeout=10, headers={"content-type": "application/x-protobuf", "x-api-key": made["key"]}
    ).status_code
    wait_until(lambda: push() == 200, at_most_s=5, what="the new key to be known")
    assert made["key"] not in mill.cli("key", "list", "--output", "json").stdout
    mill.cli("key", "revoke", made["id"])
    wait_until(lambda: push() == 401, at_most_s=5, what="the key to be refused")


def test_organizations_see_nothing_of_each_other(mill: Tidemill) -> None:
    mill.start()
    mill.cli("org", "create", "other")
    key = json.loads(mill.cli("key", "create", "--organization", "other", "--output", "json").stdout)["key"]
    assert mill.push("logs", otlp.logs([1, 2, 3])).status_code == 200
    mill.drain()
    stranger = {"x-api-key": key}
    ask = lambda query, headers: requests.post(
        mill.url("api", "/api/v1/sql"), json={"query": query}, headers={**headers, "accept": "application/x-ndjson"}, timeout=30
    )
    assert json.loads(ask("SELECT count(*) AS n FROM logs", stranger).text) == {"n": 0}
    assert mill.count("logs") == 3
    for query in (
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_parquet('/etc/passwd')",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY logs TO '/tmp/x.parquet'",
        "INSERT INTO logs SELECT * FROM logs",
        "SET datafusion.execution.batch_size = 1",
        "SELECT 1; SELECT 2",
        "DROP TABLE logs",
    ):
        answer = ask(query, mill.headers)
        assert answer.status_code == 400, f"{query}: {answer.status_code} {answer.text}"


@pytest.mark.slow
def test_a_deleted_organization_leaves_nothing(mill: Tidemill) -> None:
    mill.configure(sweep__interval="1s", sweep__raw_grace="1s", sweep__replaced_grace="1s", query__timeout="1s")
    mill.start()
    assert mill.push("logs", otlp.logs([1, 2, 3])).status_code == 200
    mill.drain()
    organization = mill.organization
    mill.cli("org", "delete", "default", "--yes")
    assert lake.live_segments(mill, "logs") == []
    wait_until(lambda: not [path for path in (mill.data / "objects").rglob("*") if path.is_file() and organization in str(path)],
               at_most_s=60, what="its objects to be gone", alive=mill.process, log=mill.log, every_s=0.5)  # fmt: skip
    assert mill.push("logs", otlp.logs([4])).status_code == 401


def test_status_and_doctor_speak(mill: Tidemill) -> None:
    mill.start()
    assert mill.push("logs", otlp.logs([1])).status_code == 200
    mill.drain()
    status = mill.cli_json("status")
    assert status
    assert mill.cli("doctor").returncode == 0
    assert mill.session.get(mill.url("api", "/healthz"), timeout=5).status_code == 200
    assert mill.session.get(mill.url("api", "/readyz"), timeout=5).status_code == 200
    metrics = mill.session.get(mill.url("api", "/metrics"), timeout=5).text
    told = set(re.findall(r"^# TYPE (\S+) ", metrics, re.M))
    page = (Path(__file__).parents[1] / "docs/operations.md").read_text()
    assert set(re.findall(r"`(tidemill_\w+)`", page)) == told
    # Each metric has its head once, and its samples below it.
    assert len(re.findall(r"^# TYPE ", metrics, re.M)) == len(told)


def test_a_cut_list_says_so(mill: Tidemill) -> None:
    mill.start()
    for name in ("b", "c", "d"):
        mill.cli("org", "create", name)
        key = json.loads(mill.cli("key", "create", "--organization", name, "--output", "json").stdout)["key"]
        assert mill.push("logs", otlp.logs([1]), x_api_key=key).status_code == 200
    mill.drain()
    assert len(lake.live_segments(mill, "logs")) == 3
    cut = mill.cli("segments", "list", "--limit", "2", "--output", "json")
    assert len(json.loads(cut.stdout)) == 2 and "more" in cut.stderr
    whole = mill.cli("segments", "list", "--limit", "3", "--output", "json")
    assert len(json.loads(whole.stdout)) == 3 and whole.stderr == ""


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_told_from_one_that_is_slow(mill: Tidemill) -> None:
    mill.start()
    mill.process.send_signal(signal.SIGSTOP)
    done = mill.cli("status", check=False)
    assert done.returncode != 0 and "does not answer" in done.stderr


def test_sql_from_the_command_line(mill: Tidemill) -> None:
    mill.start()
    assert mill.push("logs", otlp.logs([1, 2, 3])).status_code == 200
    mill.drain()
    assert mill.cli_json("sql", "SELECT body FROM logs ORDER BY body") == [{"body": "1"}, {"body": "2"}, {"body": "3"}]
    assert mill.cli("sql", "SELECT body FROM logs WHERE body = '2'", "--output", "csv").stdout.split() == ["body", "2"]
    stats = mill.cli("sql", "SELECT count(*) FROM logs", "--stats")
    assert "segments" in stats.stdout + stats.stderr
    described = mill.cli_json("sql", "DESCRIBE logs")
    assert {"time", "body", "service_name", "trace_id"} <= {next(iter(row.values())) for row in described}
    keys = mill.cli_json("attributes")
    assert "number" in json.dumps(keys)
    wrong = mill.cli("sql", "SELECT nonsense FROM logs", check=False)
    assert wrong.returncode == 3 and "nonsense" in wrong.stderr


def test_what_the_reader_of_an_answer_must_know_is_said(mill: Tidemill) -> None:
    mill.start()
    assert mill.push("logs", otlp.logs([1, 2, 3])).status_code == 200
    mill.drain()
    query = "SELECT attr('numbre') FROM logs"
    answer = mill.session.post(mill.url("api", "/api/v1/sql"), json={"query": query}, timeout=30)
    assert answer.status_code == 200 and "numbre" in answer.headers["x-tidemill-warning"]
    for where in ("of the server", "here"):
        asked = mill.cli("sql", query)
        assert asked.stderr.startswith("warning: ") and "numbre" in asked.stderr, where
        assert mill.cli("sql", "SELECT attr('number') FROM logs").stderr == "", where
        mill.stop()


def test_whoever_stops_reading_is_not_an_error(mill: Tidemill) -> None:
    """`tidemill … | head` ends when `head` does, and a server outlives the reader of its log."""
    mill.start()
    assert mill.push("logs", otlp.logs(list(range(2000)))).status_code == 200
    mill.drain()
    # More rows than could be printed in the time that this may take.
    query = "SELECT a.body FROM logs a, logs b, logs c, logs d"
    for flags in ("", "--output json", "--output csv"):
        done = subprocess.run(
            f"{binary()} sql '{query}' {flags} | head -n 3; exit ${{PIPESTATUS[0]}}",
            shell=True, executable="/bin/bash", env=mill.environment, cwd=mill.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), flags
        assert len(done.stdout.splitlines()) == 3, flags
    mill.stop()

    reader, writer = os.pipe()
    mill.environment["TIDEMILL_LOG_LEVEL"] = "debug"
    (mill.data / "ports.json").unlink(missing_ok=True)
    mill.process = subprocess.Popen([str(binary()), "up"], stdout=writer, stderr=writer, env=mill.environment, cwd=mill.folder)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    wait_until(mill.read_ports, at_most_s=30, what="tidemill up", alive=mill.process)
    assert mill.push("logs", otlp.logs([9999])).status_code == 200
    mill.drain()
    assert mill.stop() == 0


class Role:
    """One role of an installation as a process of its own; ends with SIGTERM when the block does."""

    def __init__(self, mill: Tidemill, *arguments: str):
        self.mill, self.log = mill, mill.folder / f"{arguments[0]}.log"
        self.process = start([str(binary()), *arguments], self.log, env=mill.environment, cwd=mill.folder)

    def __enter__(self) -> str:
        """The address of its API."""
        ready = lambda: re.search(r"health and metrics at (\S+)", self.log.read_text())
        return wait_until(ready, at_most_s=30, what="the role", alive=self.process, log=self.log).group(1)

    def __exit__(self, *_: object) -> None:
        assert stop(self.process) == 0, tail(self.log)


def test_roles_work_alone_and_together(any_mill: Tidemill) -> None:
    mill = any_mill
    with Role(mill, "receive"):
        mill.read_ports()
        # A role has no key for commands, so they go to the metastore itself.
        mill.cli("org", "create", "shop")
        key = {"x-api-key": mill.cli("key", "create", "--organization", "shop").stdout.strip()}
        for signal_name in ("logs", "metrics"):
            assert mill.push(signal_name, otlp.ENCODE[signal_name]([1, 2, 3]), x_api_key=key["x-api-key"]).status_code == 200
        with Role(mill, "worker", "--signal", "logs", "--action", "ingest"):
            waiting = lambda: {entry["signal"] for entry in mill.waiting()}
            wait_until(lambda: waiting() == {"metrics"}, at_most_s=30, what="the logs to be ingested")
        with Role(mill, "query") as api:
            answer = requests.post(f"{api}/api/v1/sql", data="SELECT count(*) AS n FROM logs", headers=key, timeout=30)
            assert answer.json() == {"n": 3}
            assert requests.get(f"{api}/readyz", timeout=30).status_code == 200
        assert waiting() == {"metrics"}, "it was restricted to logs"
        with Role(mill, "worker", "--signal", "metrics"), Role(mill, "notify"), Role(mill, "sweeper"):
            wait_until(lambda: not mill.waiting(), at_most_s=30, what="the metrics to be ingested")
    assert list(mill.data.glob("spool-*")) == []


def test_a_file_that_is_refused_does_not_stop_the_others(mill: Tidemill) -> None:
    mill.start()
    line = json.dumps({"timestamp": int(time.time() * 1000), "message": "ground"})
    texts = {"logs_1.json": line, "logs_2.json": "", "logs_3.json": line + " "}
    for name, text in texts.items():
        (mill.folder / name).write_text(text)
    done = mill.cli("load", *texts, "--output", "json", check=False)
    assert done.returncode == 3 and "1 of 3" in done.stderr, done.stderr
    first, empty, last = json.loads(done.stdout)
    assert "empty" in empty["refused"] and not first["refused"] and not last["refused"]
    assert mill.count("logs") == 2


def test_each_otlp_port_takes_grpc_and_http(mill: Tidemill) -> None:
    mill.start()
    headers = {"content-type": "application/x-protobuf", **mill.headers}
    assert requests.post(mill.url("grpc", "/v1/logs"), data=otlp.logs([1]), headers=headers, timeout=30).status_code == 200
    with grpc.insecure_channel(f"127.0.0.1:{mill.ports['http']}", [("grpc.enable_http_proxy", 0)]) as channel:
        request = otlp.REQUESTS["logs"].FromString(otlp.logs([2]))
        LogsServiceStub(channel).Export(request, timeout=30, metadata=list(mill.headers.items()))
    lost = requests.get(mill.url("http", "/"), timeout=30)
    assert lost.status_code == 404 and "/v1/logs" in lost.text
    mill.drain()
    lake.assert_each_once(mill, "logs", {1, 2})


def test_redrive_says_what_is_no_dead_letter(mill: Tidemill) -> None:
    mill.start()
    done = mill.cli("queue", "redrive", "4711", check=False)
    assert done.returncode == 4 and "dead letter" in done.stderr
    assert mill.cli("queue", "redrive", "--all").returncode == 0


def test_doctor_looks_at_what_profiles_name(mill: Tidemill) -> None:
    mill.start()
    mill.stop()
    profile = {"organization_id": mill.organization, "cloud_provider": "aws", "region": "us-east-1", "use_path_style": True}
    path = mill.folder / "profiles.yaml"
    path.write_text(json.dumps([{**profile, "bucket": "nowhere", "endpoint": "http://127.0.0.1:9"}]))
    mill.configure(storage__profiles=path)
    mill.environment |= {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    done = mill.cli("doctor", "--output", "json", check=False)
    bad = [check for check in json.loads(done.stdout) if not check["is_good"]]
    assert done.returncode == 7 and len(bad) == 1, done.stdout
    assert "nowhere" in bad[0]["found"] and "endpoint" in bad[0]["fix"]
    path.write_text(json.dumps([{**profile, "buckte": "nowhere"}]))
    done = mill.cli("doctor", check=False)
    assert done.returncode == 7 and "profiles.yaml:1:" in done.stdout and "buckte" in done.stdout


def test_a_query_is_cancelled_when_its_client_goes(mill: Tidemill) -> None:
    mill.start()
    assert mill.push("logs", otlp.logs(list(range(2000)))).status_code == 200
    mill.drain()
    product = "SELECT count(*) FROM logs a, logs b, logs c WHERE a.body <> b.body AND b.body <> c.body"
    with pytest.raises(requests.RequestException):
        mill.session.post(mill.url("api", "/api/v1/sql"), json={"query": product}, timeout=1)
    # Afterwards the process comes to rest: its CPU time stands still.
    ticks = lambda: sum(int(field) for field in open(f"/proc/{mill.process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13])

    def rests() -> bool:
        before = ticks()
        time.sleep(0.5)
        return ticks() - before < 15

    wait_until(rests, at_most_s=20, what="the query to end", alive=mill.process, log=mill.log)


def test_it_ends_within_its_grace(mill: Tidemill) -> None:
    """Also with a reader that takes its time, a connection that says nothing, and pushes that never stop."""
    mill.configure(shutdown__grace="2s")
    mill.start()
    assert mill.push("logs", otlp.logs(list(range(5000)))).status_code == 200
    mill.drain()
    slow = mill.session.post(mill.url("api", "/api/v1/sql"), data="SELECT a.body FROM logs a, logs b", stream=True, timeout=30)
    chunks = slow.iter_content(1)
    next(chunks)
    with socket.create_connection(("127.0.0.1", mill.ports["http"])), Load(mill, records=500, pause_s=0) as load:
        wait_until(lambda: all(load.acknowledged.values()), at_most_s=30, what="pushes", alive=mill.process, log=mill.log)
        asked = time.monotonic()
        mill.process.terminate()
        assert mill.process.wait(30) == 0
        assert 1 < time.monotonic() - asked < 2, "it waits for the reader, but not longer than it may"
        # What was acknowledged is there, and no lease is left to run out.
        with sqlite3.connect(mill.data / "metastore.sqlite") as metastore:
            assert metastore.execute("SELECT count(*) FROM leases").fetchone() == (0,)
        with pytest.raises(requests.RequestException):
            # Cut, so that nobody takes a part for the whole.
            collections.deque(slow.iter_content(1 << 20), maxlen=0)
        mill.start()
    mill.drain()
    for signal_name, numbers in load.acknowledged.items():
        expected = numbers | set(range(5000)) if signal_name == "logs" else numbers
        stored = lake.numbers(mill, signal_name)
        assert stored.keys() >= expected, signal_name


@pytest.mark.slow
def test_what_it_tells_of_itself_is_not_told_of_again(mill: Tidemill) -> None:
    """A server that exports everything to itself does not trace its own exports, nor their ingestion."""
    mill.start().stop()
    key = mill.headers["x-api-key"]
    port = free_port()
    mill.configure(
        listen__http_port=port, telemetry__otlp_export=f"http://127.0.0.1:{port}", telemetry__otlp_headers=f"x-api-key={key}", telemetry__sample=1
    )  # fmt: skip
    mill.start()
    for number in range(5):
        assert mill.push("logs", otlp.logs([number])).status_code == 200
    told = lambda table: {row["name"]: row["n"] for row in mill.sql(f"SELECT name, count(*) AS n FROM {table} WHERE service_name = 'tidemill' GROUP BY 1")}
    wait_until(lambda: told("spans").get("POST /v1/logs") == 5, at_most_s=30, what="the traces of the pushes", every_s=0.2)
    # Two rounds of exports later.
    wait_until(lambda: told("metrics").get("tidemill.receive.requests", 0) >= 2, at_most_s=60, what="metrics", every_s=0.2)
    spans = told("spans")
    assert spans["POST /v1/logs"] == 5 and spans["commit pushes"] <= 5
    assert not {"POST /v1/traces", "POST /v1/metrics", "ingest traces", "ingest metrics"} & spans.keys(), spans
