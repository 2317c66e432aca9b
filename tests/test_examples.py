"""The examples do what they say."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml

from support import otlp, services
from support.processes import free_port, start, stop, tail, wait_until
from support.server import Tidemill

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_the_sdk_program_arrives(mill: Tidemill) -> None:
    mill.start()
    # Just what a person would paste.
    lines = re.findall(r"^export OTEL_.*$", mill.log.read_text(), re.M)
    assert len(lines) == 3
    script = "\n".join([*lines, shlex.join([sys.executable, str(EXAMPLES / "sdk.py")])])
    environment = {name: value for name, value in mill.environment.items() if not name.startswith("TIDEMILL_")}
    done = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    mill.drain()
    mine = "WHERE service_name = 'example'"
    assert mill.sql(f"SELECT count(*) AS n FROM logs {mine}") == [{"n": 10}]
    assert mill.sql(f"SELECT count(*) AS n FROM spans {mine} AND name = 'grind'") == [{"n": 10}]
    weights = mill.sql(f"SELECT sum(attr('weight')) AS kg FROM logs {mine}")[0]["kg"]
    counted = mill.sql(f"SELECT value AS kg FROM metrics {mine} AND name = 'flour.ground'")[-1]["kg"]
    assert weights == counted


@pytest.mark.slow
def test_the_shop_runs_and_its_traces_join_its_logs(mill: Tidemill) -> None:
    mill.start()
    command = [sys.executable, str(EXAMPLES / "shop/run.py"), "--seconds", "20", "--rate", "4"]
    done = subprocess.run(command, env=mill.exporter_environment(), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    mill.drain()
    services = {row["service_name"] for row in mill.sql("SELECT DISTINCT service_name FROM spans")}
    assert {"frontend", "catalog", "cart", "payment"} <= services
    joined = mill.sql("SELECT count(*) AS n FROM logs JOIN spans ON logs.trace_id = spans.trace_id AND logs.span_id = spans.span_id")
    assert joined[0]["n"] > 0
    assert mill.sql("SELECT count(*) AS n FROM metrics WHERE name = 'http.server.duration'")[0]["n"] > 0


def test_the_collector_s_configuration_fits_together() -> None:
    config = yaml.safe_load((EXAMPLES / "collector.yaml").read_text())
    exporter = config["exporters"]["otlp/tidemill"]
    assert exporter["compression"] in ("gzip", "zstd")
    assert exporter["headers"] == {"x-api-key": "${env:TIDEMILL_API_KEY}"}
    for name, pipeline in config["service"]["pipelines"].items():
        assert pipeline["exporters"] == ["otlp/tidemill"]
        for kind in ("receivers", "processors"):
            assert set(pipeline[kind]) <= set(config[kind]), f"{name} names {kind} that are not configured"


@pytest.mark.slow
def test_a_real_collector_sends_by_it(mill: Tidemill, tmp_path: Path) -> None:
    program = services.collector()
    if program is None:
        pytest.skip("there is no Go to build a collector with")
    mill.start()
    lines, ports = tmp_path / "mill.log", {door: free_port() for door in ("grpc", "http")}
    lines.touch()
    # Other ports and another file than on a machine of its own; everything else is as it stands there.
    changes = {
        "receivers": {
            "otlp": {"protocols": {door: {"endpoint": f"127.0.0.1:{port}"} for door, port in ports.items()}},
            "filelog": {"include": [str(lines)]},
        },
        "service": {"telemetry": {"metrics": {"level": "none"}}},
    }
    (tmp_path / "changes.yaml").write_text(yaml.safe_dump(changes))
    environment = {
        **{name: value for name, value in mill.environment.items() if not name.startswith(("TIDEMILL_", "OTEL_"))},
        "HOSTNAME": "mill-1",
        "TIDEMILL_ENDPOINT": f"127.0.0.1:{mill.ports['grpc']}",
        "TIDEMILL_API_KEY": mill.headers["x-api-key"],
    }
    configs = [f"--config=file:{path}" for path in (EXAMPLES / "collector.yaml", tmp_path / "changes.yaml")]
    log = tmp_path / "collector.log"
    process = start([str(program), *configs], log, env=environment)
    try:
        wait_until(lambda: "Everything is ready" in log.read_text(), at_most_s=60, what="the collector", alive=process, log=log)
        machine = lambda: mill.sql("SELECT DISTINCT resource('host.name') AS host FROM metrics WHERE name = 'system.memory.usage'")
        wait_until(lambda: machine() == [{"host": "mill-1"}], at_most_s=60, what="the machine's metrics", alive=process, log=log, every_s=0.2)
        with lines.open("a") as file:
            file.write("ground a sack\n")
        for signal_name in ("logs", "metrics", "traces"):
            answer = requests.post(
                f"http://127.0.0.1:{ports['http']}{otlp.PATHS[signal_name]}", data=otlp.ENCODE[signal_name]([1, 2, 3]),
                headers={"content-type": "application/x-protobuf"}, timeout=30,
            )  # fmt: skip
            assert answer.status_code == 200, answer.text
        bodies = lambda: {row["body"] for row in mill.sql("SELECT body FROM logs")}
        wait_until(lambda: bodies() == {"ground a sack", "1", "2", "3"}, at_most_s=60, what="the logs", alive=process, log=log, every_s=0.2)
        counted = lambda table: mill.sql(f"SELECT count(*) AS n FROM {table} WHERE service_name = 'mill'")[0]["n"]
        wait_until(lambda: (counted("metrics"), counted("spans")) == (3, 3), at_most_s=60, what="points and spans", alive=process, log=log, every_s=0.2)
    finally:
        stop(process)
    assert "error" not in log.read_text(), tail(log)
