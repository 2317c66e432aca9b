"""OTLP → durable L0, and → L2 with full indexes, per CPU second of the server; DuckDB turns the same records from NDJSON into Parquet."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from columns import NDJSON
from measure import Report, bench, cpu_s, duckdb, header, median, memory_mib, wait_until_idle
from support.server import Tidemill

TABLES = {"logs": "logs", "metrics": "metrics", "traces": "spans"}


def ours(folder: Path, data: Path, signal: str, actions: str) -> tuple[dict, list]:
    """One run over a fresh installation; the clock runs until nothing is left to do."""
    mill = Tidemill(folder, worker__actions=actions)
    mill.start()
    try:
        before, began = cpu_s(mill), time.monotonic()
        sent = bench("push", "--url", mill.url("http", f"/v1/{signal}"), "--header", header(mill), "--file", data / f"{signal}.otlp")
        if actions == "ingest":
            mill.drain(at_most_s=3600)
        else:
            wait_until_idle(mill)
        result = {"cpu_s": cpu_s(mill) - before, "wall_s": time.monotonic() - began, "push_s": sent["seconds"], "rss_mib": memory_mib(mill, "VmHWM")}
        segments = [row for row in mill.rows("segments") if row["signal"] == signal]
        result["segments"], result["bytes"] = len(segments), sum(row["bytes"] for row in segments)
        answer = mill.sql(f"SELECT service_name, count(*) AS n FROM {TABLES[signal]} GROUP BY 1 ORDER BY 1")
        return result, [[row["service_name"], row["n"]] for row in answer]
    finally:
        mill.stop()
        shutil.rmtree(folder, ignore_errors=True)


def peer(folder: Path, data: Path, signal: str) -> tuple[dict, list]:
    """DuckDB, from the same records as NDJSON."""
    out = folder / "peer.parquet"
    source = f"read_json('{data}/{signal}.ndjson', format='newline_delimited', columns={{{NDJSON[signal]}}})"
    result = duckdb([f"COPY (SELECT * FROM {source}) TO '{out}' (FORMAT parquet, COMPRESSION zstd)"])
    answer = duckdb([f"SELECT service_name, count(*) AS n FROM '{out}' GROUP BY 1 ORDER BY 1"])["rows"][0]
    result["bytes"] = out.stat().st_size
    out.unlink()
    return result, answer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--signals", nargs="+", default=["logs", "metrics", "traces"])
    parser.add_argument("--full", action="store_true", help="also logs → L2 with full indexes")
    options = parser.parse_args()
    report = Report("ingest", "Ingest")
    rows = []
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        start = int(time.time()) // 86400 * 86400 - 2 * 86400
        for signal in options.signals:
            made = bench("generate", "--signal", signal, "--records", options.records, "--start", start, "--out", folder / "data")
            report.say(f"{signal}: {made['records']:,} records, {made['otlp_bytes']:,} bytes of OTLP, {made['ndjson_bytes']:,} of NDJSON\n")
            runs: list[tuple[dict, dict]] = []
            for pair in range(options.pairs):
                mine, answer = ours(folder / f"mill-{pair}", folder / "data", signal, "ingest")
                other, expected = peer(folder, folder / "data", signal)
                assert answer == expected, f"{signal}: {answer} is not {expected}"
                runs.append((mine, other))
            mine_cpu, other_cpu = median([mine["cpu_s"] for mine, _ in runs]), median([other["cpu_s"] for _, other in runs])
            ratio = median([other["cpu_s"] / mine["cpu_s"] for mine, other in runs])
            rows.append([f"{signal} → L0", options.records / mine_cpu, options.records / other_cpu, ratio, runs[-1][0]["wall_s"], runs[-1][0]["rss_mib"]])
            if options.full and signal == "logs":
                mine, answer = ours(folder / "mill-full", folder / "data", signal, "ingest,compact,rollup")
                assert answer == expected
                rows.append(["logs → L2 with indexes", options.records / mine["cpu_s"], "", "", mine["wall_s"], mine["rss_mib"]])
                report.say(f"logs at L2: {mine['segments']} segments, {mine['bytes'] / options.records:.1f} bytes a record; DuckDB's file {runs[-1][1]['bytes'] / options.records:.1f}\n")
            shutil.rmtree(folder / "data")
    report.table(["what", "Tidemill, records/CPU-s", "DuckDB, records/CPU-s", "ratio (median of pairs)", "wall s", "peak RSS MiB"], rows)
    report.write()


main()
