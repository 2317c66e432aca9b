"""The examples do what they say."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


def test_the_collector_sends_what_tidemill_takes() -> None:
    config = yaml.safe_load((EXAMPLES / "collector.yaml").read_text())
    exporter = config["exporters"]["otlp/tidemill"]
    assert exporter["compression"] in ("gzip", "zstd")
    assert exporter["headers"] == {"x-api-key": "${env:TIDEMILL_API_KEY}"}
    for name, pipeline in config["service"]["pipelines"].items():
        assert pipeline["exporters"] == ["otlp/tidemill"]
        for kind in ("receivers", "processors"):
            assert set(pipeline[kind]) <= set(config[kind]), f"{name} names {kind} that are not configured"
