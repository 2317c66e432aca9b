"""LogQL over compacted logs, through Loki's API; DuckDB the same in SQL over zstd Parquet sorted by time. Warm and cold, per CPU second."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from columns import NDJSON
from measure import Report, bench, cpu_s, drop_page_cache, duckdb, header, median, wait_until_idle
from support.server import Tidemill

SERVICES = '{service_name=~".+"}'


def numbers(mill: Tidemill, query: str, at_s: int) -> list[list[str]]:
    """The answer to an instant query: service and value."""
    answer = mill.session.get(mill.url("api", "/loki/api/v1/query"), params={"query": query, "time": str(at_s)}, timeout=600)
    assert answer.status_code == 200, answer.text
    found = answer.json()["data"]["result"]
    return sorted([*entry["metric"].values(), entry["value"][1]] for entry in found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=24, help="over which the records are spread; a day has a segment at least")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    report = Report("logql", "LogQL over logs")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        start = int(time.time()) // 86400 * 86400 - (options.days + 2) * 86400
        end = start + options.days * 86400
        bench("generate", "--signal", "logs", "--records", options.records, "--start", start, "--hours", 24 * options.days, "--out", folder / "data")
        mill = Tidemill(folder / "mill")
        mill.start()
        bench("push", "--url", mill.url("http", "/v1/logs"), "--header", header(mill), "--file", folder / "data/logs.otlp")
        wait_until_idle(mill)
        segments = [row for row in mill.rows("segments") if row["signal"] == "logs"]
        levels = sorted({row["level"] for row in segments})
        report.say(f"{options.records:,} logs in {len(segments)} segments of levels {levels}, {sum(row['bytes'] for row in segments):,} bytes\n")
        lines, parquet = folder / "data/logs.ndjson", folder / "peer.parquet"
        source = f"read_json('{lines}', format='newline_delimited', columns={{{NDJSON['logs']}}})"
        duckdb([f"COPY (SELECT * FROM {source} ORDER BY time) TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)"])
        # A range is open on the left, and a record may stand at the very start.
        window = f"[{end - start + 1}s]"
        phrase = "connection reset by peer"
        questions = {
            "count": (f"sum(count_over_time({SERVICES} {window}))", "SELECT count(*) FROM {}"),
            "phrase by service": (
                f'sum by (service_name) (count_over_time({SERVICES} |= "{phrase}" {window}))',
                f"SELECT service_name, count(*) FROM {{}} WHERE body LIKE '%{phrase}%' GROUP BY 1",
            ),
            "level by service": (
                f'sum by (service_name) (count_over_time({SERVICES} | detected_level=~"error|fatal" {window}))',
                "SELECT service_name, count(*) FROM {} WHERE severity_number >= 17 GROUP BY 1",
            ),
            "absent id": (
                f'sum(count_over_time({SERVICES} |= "4f0c9be2a77d41d0b6f3" {window}))',
                "SELECT count(*) FROM {} WHERE body LIKE '%4f0c9be2a77d41d0b6f3%' HAVING count(*) > 0",
            ),
        }
        rows = []
        for label, (query, statement) in questions.items():
            statement = statement.format(f"'{parquet}'")
            for temperature in ("cold", "warm"):
                mine_s, other_s = [], []
                for _ in range(options.pairs):
                    if temperature == "cold":
                        mill.stop()
                        mill.start()
                        drop_page_cache()
                    else:
                        numbers(mill, query, end)
                    before = cpu_s(mill)
                    answer = numbers(mill, query, end)
                    mine_s.append(cpu_s(mill) - before)
                    if temperature == "cold":
                        drop_page_cache()
                    other = duckdb([statement], before=[statement] if temperature == "warm" else [])
                    other_s.append(other["cpu_s"])
                    expected = sorted([str(value) for value in row] for row in other["rows"][0])
                    assert answer == expected, f"{label}: {answer[:3]} is not {expected[:3]}"
                ratio = median([other / mine for mine, other in zip(mine_s, other_s)])
                rows.append([label, temperature, median(mine_s), median(other_s), ratio])
        report.table(["query", "", "Tidemill CPU s", "DuckDB CPU s", "ratio (median of pairs)"], rows)
        mill.stop()
    report.write()


main()
