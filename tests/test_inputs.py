"""Files: formats, real data, and what becomes of bad ones."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from pathlib import Path

import pytest

from conftest import sample
from support import lake, otlp
from support.processes import wait_until
from support.server import Tidemill


def drop(folder: Path, key: str, content: bytes) -> None:
    """Puts a file into a watched folder as a careful program does: written aside, then renamed."""
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name("." + path.name)
    aside.write_bytes(content)
    aside.rename(path)


@pytest.fixture
def watching(mill: Tidemill):
    """A started installation with a watched folder; yields the installation, the folder, the organization."""
    folder = mill.folder / "inbox"
    folder.mkdir()
    mill.configure(notify__watch=folder)
    mill.start()
    return mill, folder, mill.organization


def reason_of(mill: Tidemill, name: str) -> dict:
    """The inbox entry that tells why an input was refused."""

    def refused():
        found = [entry for entry in mill.rows("inbox") if name in entry["object_key"] and entry["state"] in ("refused", "dead")]
        return found[0] if found else None

    return wait_until(refused, at_most_s=30, what=f"a reason for {name}", alive=mill.process, log=mill.log, every_s=0.2)


def test_bad_files_get_reasons_and_good_ones_go_on(watching) -> None:
    mill, folder, organization = watching
    prefix = f"otel-raw/{organization}/farm"
    good = otlp.logs([1, 2, 3])
    drop(folder, f"{prefix}/logs_truncated.binpb.gz", gzip.compress(otlp.logs(list(range(1000, 3000))))[:-200])
    drop(folder, f"{prefix}/logs_malformed.binpb", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7fnonsense")
    drop(folder, f"{prefix}/logs_empty.binpb", b"")
    drop(folder, f"otel-raw/{uuid.uuid4()}/farm/logs_stranger.binpb", good)
    drop(folder, f"{prefix}/traces_mislabelled.binpb", b"{not json")
    drop(folder, f"{prefix}/logs_good.binpb", good)

    assert reason_of(mill, "logs_truncated")["reason"]
    assert reason_of(mill, "logs_malformed")["reason"]
    assert reason_of(mill, "logs_empty")["reason"]
    assert "organization" in reason_of(mill, "logs_stranger")["reason"]
    assert reason_of(mill, "traces_mislabelled")["reason"]
    mill.drain()
    bodies = {row["body"] for row in mill.sql("SELECT body FROM logs WHERE body IN ('1', '2', '3')")}
    assert bodies == {"1", "2", "3"}
    # Nothing is retried for ever: the queue holds no ingest that waits for another attempt.
    assert [entry for entry in mill.rows("inbox") if entry["state"] in ("waiting", "leased")] == []


def test_absurd_times_are_replaced_and_counted(watching) -> None:
    mill, folder, organization = watching
    drop(folder, f"otel-raw/{organization}/farm/logs_absurd.binpb", otlp.logs([1], time_ns=2**63))
    drop(folder, f"otel-raw/{organization}/farm/logs_ancient.binpb", otlp.logs([2], time_ns=1))
    wait_until(lambda: mill.count("logs") == 2, at_most_s=30, what="two records", alive=mill.process, log=mill.log, every_s=0.2)
    day = time.time() - 86400
    for row in mill.sql("SELECT to_unixtime(time) AS at FROM logs"):
        assert row["at"] > day
    originals = lake.ask(f"SELECT count(*) FROM {lake.scan(mill, 'logs')} WHERE original_time IS NOT NULL")[0]
    assert originals == (2,)


def test_the_same_file_again_is_nothing_and_a_new_version_is_new(watching) -> None:
    mill, folder, organization = watching
    key = f"otel-raw/{organization}/farm/logs_again.binpb"
    drop(folder, key, otlp.logs([1]))
    wait_until(lambda: mill.count("logs") == 1, at_most_s=30, what="the first", alive=mill.process, log=mill.log, every_s=0.2)
    drop(folder, key, otlp.logs([2, 3]))
    wait_until(lambda: mill.count("logs") == 3, at_most_s=30, what="the second", alive=mill.process, log=mill.log, every_s=0.2)
    mill.stop()
    mill.start()
    drop(folder, f"otel-raw/{organization}/farm/logs_last.binpb", otlp.logs([4]))
    wait_until(lambda: mill.count("logs") >= 4, at_most_s=30, what="the last", alive=mill.process, log=mill.log, every_s=0.2)
    mill.drain()
    lake.assert_each_once(mill, "logs", {1, 2, 3, 4})


def test_load_reads_json_lines_csv_and_otlp_json(mill: Tidemill) -> None:
    mill.start()
    lines = mill.folder / "logs_app.jsonl"
    lines.write_text("".join(json.dumps({"timestamp": "2026-01-02T03:04:05Z", "message": f"line {n}", "level": "warn", "n": n}) + "\n" for n in range(5)))
    table = mill.folder / "logs_table.csv.gz"
    table.write_bytes(gzip.compress(b"timestamp,message,code\n2026-01-02T03:04:05Z,first,7\n2026-01-02T03:04:06Z,\"second, quoted\",8\n"))
    mill.cli("load", str(lines), str(table))
    mill.drain()
    assert {row["body"] for row in mill.sql("SELECT body FROM logs")} == {*(f"line {n}" for n in range(5)), "first", "second, quoted"}
    assert mill.sql("SELECT sum(attr('n')) AS n FROM logs")[0]["n"] == 10


def test_the_protocols_own_examples_load(mill: Tidemill) -> None:
    examples = sample("otlp-json")
    mill.start()
    for path in sorted(examples.glob("*.json")):
        signal = {"logs": "logs", "metrics": "metrics", "trace": "traces"}.get(path.stem.rstrip("s").replace("log", "logs").replace("metric", "metrics"))
        if signal:
            mill.cli("load", "--signal", signal, str(path))
    mill.drain()
    assert mill.count("logs") > 0 and mill.count("metrics") > 0 and mill.count("spans") > 0


@pytest.mark.slow
def test_a_day_of_microservices_loads_completely(mill: Tidemill) -> None:
    folder = sample("nezha-otlp")
    mill.start()
    mill.cli("load", *[str(path) for path in sorted(folder.glob("*.binpb.gz"))])
    mill.drain(at_most_s=600)
    assert mill.count("logs") == 94_703
    assert mill.count("spans") == 179_170
    assert mill.count("metrics") == 651_339
    for signal, expected in (("logs", 94_703), ("traces", 179_170), ("metrics", 651_339)):
        assert lake.ask(f"SELECT count(*) FROM {lake.scan(mill, signal)}")[0] == (expected,)


@pytest.mark.slow
def test_files_of_the_older_system_load(mill: Tidemill) -> None:
    folder = sample("lakerunner-v0.0.4")
    mill.start()
    logs, points = sorted(folder.glob("logs_*.parquet")), sorted(folder.glob("s3-*.parquet"))
    mill.cli("load", "--signal", "logs", *map(str, logs))
    mill.cli("load", "--signal", "metrics", *map(str, points))
    mill.drain()
    for table, files in (("logs", logs), ("metrics", points)):
        expected = lake.ask(f"SELECT count(*) FROM read_parquet({[str(path) for path in files]!r}, union_by_name=true)")[0][0]
        assert mill.count(table) == expected > 0
    assert mill.rows("inbox") == []
