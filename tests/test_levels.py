"""What background work makes of segments: compaction drops nothing, rollups agree with DuckDB, pruning reads little."""

from __future__ import annotations

import json
import random
import re
import time

import pytest

from support import lake, otlp
from support.processes import wait_until
from support.server import Tidemill

HOUR_NS = 3_600_000_000_000


def closed_hour_ns(hours_ago: int) -> int:
    """The start of an hour that is over."""
    return (time.time_ns() // HOUR_NS - hours_ago) * HOUR_NS


def until_compacted(mill: Tidemill, signal: str, *, at_most: int) -> list[dict]:
    """Waits until no segment of level 0 is left and at most so many live."""

    def compacted():
        segments = lake.live_segments(mill, signal)
        return segments if segments and len(segments) <= at_most and all(segment["level"] > 0 for segment in segments) else None

    return wait_until(compacted, at_most_s=240, what=f"compaction of {signal}", alive=mill.process, log=mill.log, every_s=1)


TABLES = {"logs": "logs", "traces": "spans", "metrics": "metrics"}


@pytest.mark.slow
def test_compaction_keeps_every_record(any_mill: Tidemill) -> None:
    mill = any_mill
    mill.start()
    start = closed_hour_ns(30)
    for first in range(0, 8000, 200):
        for signal in TABLES:
            assert mill.push(signal, otlp.ENCODE[signal](list(range(first, first + 200)), time_ns=start)).status_code == 200
    mill.drain()
    before = {row["object_key"] for signal in TABLES for row in lake.live_segments(mill, signal)}
    for signal, table in TABLES.items():
        segments = until_compacted(mill, signal, at_most=2)
        lake.assert_each_once(mill, signal, set(range(8000)))
        assert sum(segment["rows"] for segment in segments) == 8000
        assert mill.count(table) == 8000
    # Running queries may still read what was replaced.
    assert all((mill.data / "objects" / key).exists() for key in before)


@pytest.mark.slow
def test_late_records_are_compacted_too(mill: Tidemill) -> None:
    mill.start()
    start = closed_hour_ns(5)
    for first in range(0, 2000, 100):
        assert mill.push("logs", otlp.logs(list(range(first, first + 100)), time_ns=start)).status_code == 200
    until_compacted(mill, "logs", at_most=2)
    assert mill.push("logs", otlp.logs(list(range(2000, 2100)), time_ns=start)).status_code == 200
    mill.drain()
    assert mill.count("logs") == 2100
    until_compacted(mill, "logs", at_most=3)
    lake.assert_each_once(mill, "logs", set(range(2100)))


@pytest.mark.slow
def test_rollups_count_and_add_up_as_duckdb_does(mill: Tidemill) -> None:
    mill.start()
    start = closed_hour_ns(3)
    for first in range(0, 2000, 100):
        # One point a second, over 34 minutes.
        for part in range(first, first + 100, 20):
            body = otlp.metrics(list(range(part, part + 20)), time_ns=start + part * 1_000_000_000)
            assert mill.push("metrics", body).status_code == 200
    mill.drain()
    tiers = lambda: {row["tier"] for row in mill.rows("segments") if row["signal"] == "metrics"} - {0}
    wait_until(lambda: len(tiers()) == 5, at_most_s=300, what="five tiers of rollups", alive=mill.process, log=mill.log, every_s=1)
    raw = lake.ask(f"SELECT count(*), sum(value), min(value), max(value) FROM {lake.scan(mill, 'metrics')}")[0]
    for tier in sorted(tiers()):
        paths = [str(lake.local_path(mill, row)) for row in lake.live_segments(mill, "metrics", tier=tier)]
        found = lake.ask(f"SELECT sum(samples), sum(value_sum), min(value_min), max(value_max) FROM read_parquet({paths!r})")[0]
        assert found[0] == raw[0] and found[2:] == raw[2:], f"tier {tier}: {found} is not {raw}"
        assert abs(found[1] - raw[1]) <= 1e-9 * abs(raw[1])


@pytest.mark.slow
def test_a_needle_reads_little(mill: Tidemill) -> None:
    mill.start()
    start = closed_hour_ns(30)
    chance = random.Random(5)
    needle = "needle5f3a9c17"
    request = otlp.REQUESTS["logs"]()
    for first in range(0, 60_000, 2000):
        request.ParseFromString(otlp.logs(list(range(first, first + 2000)), time_ns=start, service=f"service-{first // 2000 % 6}"))
        records = request.resource_logs[0].scope_logs[0].log_records
        for record in records:
            record.body.string_value = f"order {chance.randbytes(8).hex()} shipped to {chance.randbytes(20).hex()}"
        if first == 30_000:
            records[1234].body.string_value = f"lost and found: {needle}"
        assert mill.push("logs", request.SerializeToString()).status_code == 200
    mill.drain()
    segments = until_compacted(mill, "logs", at_most=4)
    total = sum(segment["bytes"] for segment in segments)
    done = mill.cli("sql", f"SELECT body FROM logs WHERE body LIKE '%{needle}%'", "--stats", "--output", "json")
    assert json.loads(done.stdout) == [{"body": f"lost and found: {needle}"}]
    read = int(re.search(r"bytes read\D*([\d,_]+)", done.stderr, re.I).group(1).replace(",", "").replace("_", ""))
    # One block of rows is an eighth of the small lake of this test.
    assert read < total / 5, f"{read} of {total} bytes"
