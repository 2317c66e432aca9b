"""Phrase, needle, level + GROUP BY over compacted logs; DuckDB on zstd Parquet sorted by time. Cold and warm, per CPU second."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from columns import NDJSON
from measure import Report, bench, cpu_s, drop_page_cache, duckdb, header, median, wait_until_idle
from support.server import Tidemill


def needle(path: Path) -> str:
    """An identifier that occurs once, from the middle of the file."""
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        file.readline()
        for line in file:
            body = json.loads(line)["body"]
            if body.startswith("request ") and " accepted " in body:
                return body.split()[1]
    raise AssertionError("no record holds a request id")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=24, help="over which the records are spread; a day has a segment at least")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    report = Report("query", "Queries over logs")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        start = int(time.time()) // 86400 * 86400 - (options.days + 2) * 86400
        spread = ["--start", start, "--hours", 24 * options.days]
        bench("generate", "--signal", "logs", "--records", options.records, *spread, "--out", folder / "data")
        mill = Tidemill(folder / "mill")
        mill.start()
        bench("push", "--url", mill.url("http", "/v1/logs"), "--header", header(mill), "--file", folder / "data/logs.otlp")
        (folder / "data/logs.otlp").unlink()
        # Something else to ask, so that a program whose data is cold need not be cold itself.
        bench("generate", "--signal", "metrics", "--records", 1_000, *spread, "--out", folder / "data")
        bench("push", "--url", mill.url("http", "/v1/metrics"), "--header", header(mill), "--file", folder / "data/metrics.otlp")
        wait_until_idle(mill)
        segments = [row for row in mill.rows("segments") if row["signal"] == "logs"]
        levels = sorted({row["level"] for row in segments})
        report.say(f"{options.records:,} logs in {len(segments)} segments of levels {levels}, {sum(row['bytes'] for row in segments):,} bytes\n")

        lines, parquet = folder / "data/logs.ndjson", folder / "peer.parquet"
        columns = NDJSON["logs"]
        source = f"read_json('{lines}', format='newline_delimited', columns={{{columns}}})"
        duckdb([f"COPY (SELECT * FROM {source} ORDER BY time) TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)"])
        unique = needle(lines)
        report.say(f"DuckDB's file: {parquet.stat().st_size:,} bytes, sorted by time\n")
        questions = {
            "phrase": "SELECT count(*) AS n FROM {} WHERE body LIKE '%connection reset by peer%'",
            "needle": f"SELECT body AS n FROM {{}} WHERE body LIKE '%{unique}%'",
            "level + GROUP BY": "SELECT service_name, count(*) AS n FROM {} WHERE severity_number >= 17 GROUP BY 1 ORDER BY 1",
        }
        rows = []
        for label, question in questions.items():
            for temperature in ("cold", "warm"):
                mine_s, other_s, mine_wall, other_wall = [], [], [], []
                for _ in range(options.pairs):
                    if temperature == "cold":
                        # The program is warm, as the peer's is; nothing of the data is.
                        mill.stop()
                        mill.start()
                        mill.sql("SELECT service_name, count(*) AS n FROM metrics WHERE name LIKE '%e%' GROUP BY 1 ORDER BY 1")
                        drop_page_cache()
                    else:
                        mill.sql(question.format("logs"))
                    before, began = cpu_s(mill), time.monotonic()
                    answer = mill.sql(question.format("logs"))
                    mine_s.append(cpu_s(mill) - before)
                    mine_wall.append(time.monotonic() - began)
                    statement = question.format(f"'{parquet}'")
                    if temperature == "cold":
                        drop_page_cache()
                    other = duckdb([statement], before=[statement] if temperature == "warm" else [])
                    other_s.append(other["cpu_s"])
                    other_wall.append(other["wall_s"])
                    expected = [[str(value) for value in row] for row in other["rows"][0]]
                    assert [[str(value) for value in row.values()] for row in answer] == expected, f"{label}: {answer[:3]} is not {expected[:3]}"
                ratio = median([other / mine for mine, other in zip(mine_s, other_s)])
                rows.append([label, temperature, median(mine_s), median(other_s), ratio, median(mine_wall), median(other_wall)])
        report.table(["query", "", "Tidemill CPU s", "DuckDB CPU s", "ratio (median of pairs)", "Tidemill wall s", "DuckDB wall s"], rows)
        mill.stop()
    report.write()


main()
