"""Generated logs in a server, compacted, and the same in zstd Parquet for DuckDB, sorted by time."""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from columns import NDJSON
from measure import Report, bench, cpu_s, drop_page_cache, duckdb, header, median, wait_until_idle
from support.server import Tidemill


@dataclass
class Logs:
    """Where they are, and the time they cover, in seconds since 1970."""

    mill: Tidemill
    parquet: Path
    lines: Path
    folder: Path
    start: int
    end: int
    #: A thousand of them, for DuckDB to be asked of before its data is cold.
    sample: Path

    def needle(self) -> str:
        """An identifier that occurs once, from the middle of the file."""
        with self.lines.open("rb") as file:
            file.seek(self.lines.stat().st_size // 2)
            file.readline()
            for line in file:
                body = json.loads(line)["body"]
                if body.startswith("request ") and " accepted " in body:
                    return body.split()[1]
        raise AssertionError("no record holds a request id")

    def others(self) -> Logs:
        """Pushes a thousand records of another day; they and their time."""
        start = self.start - 4 * 86400
        bench("generate", "--signal", "logs", "--records", 1_000, "--start", start, "--hours", 24, "--out", self.folder / "others")
        bench("push", "--url", self.mill.url("http", "/v1/logs"), "--header", header(self.mill), "--file", self.folder / "others/logs.otlp")
        wait_until_idle(self.mill)
        return replace(self, start=start, end=start + 86400)

    def forget(self, warm_up: Callable[[], object] | None = None) -> None:
        """The program is warm, nothing of the data is."""
        self.mill.stop()
        self.mill.start()
        if warm_up is not None:
            warm_up()
        self.mill.sql("SELECT service_name, count(*) AS n FROM metrics WHERE name LIKE '%e%' GROUP BY 1 ORDER BY 1")
        drop_page_cache()


def arguments(days: int = 24) -> argparse.ArgumentParser:
    """What all of these benchmarks can be told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=days, help="over which the records are spread; a day has a segment at least")
    parser.add_argument("--pairs", type=int, default=5)
    return parser


@contextlib.contextmanager
def generated(options: argparse.Namespace, report: Report) -> Iterator[Logs]:
    """The logs, told of in the report."""
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
        lines, parquet = folder / "data/logs.ndjson", folder / "peer.parquet"
        source = f"read_json('{lines}', format='newline_delimited', columns={{{NDJSON['logs']}}})"
        duckdb([f"COPY (SELECT * FROM {source} ORDER BY time) TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)"])
        report.say(
            f"{options.records:,} logs over {options.days} days in {len(segments)} segments of levels {levels}, {sum(row['bytes'] for row in segments):,} bytes; "
            f"DuckDB's file: {parquet.stat().st_size:,} bytes, sorted by time\n"
        )
        sample = folder / "sample.parquet"
        duckdb([f"COPY (SELECT * FROM '{parquet}' LIMIT 1000) TO '{sample}' (FORMAT parquet, COMPRESSION zstd)"])
        try:
            yield Logs(mill, parquet, lines, folder, start, start + options.days * 86400, sample)
        finally:
            mill.stop()


def beside_duckdb(
    logs: Logs,
    pairs: int,
    ask: Callable[[], list[list[str]]],
    statement: str,
    temperature: str,
    label: str,
    warm_up: Callable[[], object] | None = None,
) -> list[float]:
    """Asks both in turn, compares the answers; CPU s of both, the median of their ratios, wall s of both. Where data is cold, the programs are
    not: DuckDB has answered the question of a thousand of the records, and `warm_up` asks us something like it of other data."""
    of_sample = statement.replace(str(logs.parquet), str(logs.sample))
    mine_s, other_s, mine_wall, other_wall = [], [], [], []
    for _ in range(pairs):
        if temperature == "cold":
            logs.forget(warm_up)
        else:
            ask()
        before, began = cpu_s(logs.mill), time.monotonic()
        answer = ask()
        mine_s.append(cpu_s(logs.mill) - before)
        mine_wall.append(time.monotonic() - began)
        if temperature == "cold":
            drop_page_cache()
        other = duckdb([statement], before=[statement if temperature == "warm" else of_sample])
        other_s.append(other["cpu_s"])
        other_wall.append(other["wall_s"])
        compare(label, answer, other["rows"][0])
    ratio = median([other / mine for mine, other in zip(mine_s, other_s)])
    return [median(mine_s), median(other_s), ratio, median(mine_wall), median(other_wall)]


def compare(label: str, mine: list[list[str]], theirs: list[list]) -> None:
    """Equal rows in any order, numbers but for their last digits."""
    def plain(rows: list[list]) -> list[list[str]]:
        def text(value: object) -> str:
            try:
                return f"{float(value):.9g}"
            except (TypeError, ValueError):
                return str(value)
        return sorted([text(value) for value in row] for row in rows)
    left, right = plain(mine), plain(theirs)
    assert left == right, f"{label}: {left[:3]} ({len(left)}) is not {right[:3]} ({len(right)})"


HEAD = ["query", "", "Tidemill CPU s", "DuckDB CPU s", "ratio (median of pairs)", "Tidemill wall s", "DuckDB wall s"]
