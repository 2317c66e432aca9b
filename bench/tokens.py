"""Nine questions of whole words (those of TextBench, with words of the generated logs) in SQL; DuckDB over zstd Parquet, and ClickHouse's engine
(`pip install chdb==4.4.0`) with a text index, merged. Warm: each question was asked before. Answers are compared first."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import dataclass

from logdata import arguments, compare, generated
from measure import Report, cpu_s, duckdb, exchange, median

FIVE = ["timed", "declined", "mismatch", "exhausted", "restarting"]
HALF_HOUR_NS = 1800 * 10**9

CLICKHOUSE = """
import json, resource, sys, time
from chdb import session
job = json.load(sys.stdin)
base = session.Session(job["folder"])
for statement in job["before"]:
    base.query(statement)
seconds = []
for statement in job["measured"]:
    base.query(statement, "JSONCompact")
    each = []
    for _ in range(job["runs"]):
        began, usage = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        answer = base.query(statement, "JSONCompact")
        after = resource.getrusage(resource.RUSAGE_SELF)
        each.append([time.perf_counter() - began, after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime])
    seconds.append([each, json.loads(answer.bytes())["data"]])
print(json.dumps(seconds))
"""


@dataclass
class Dialect:
    """How a system says what the questions need."""

    table: str
    #: Of `{word}`.
    one_word: str
    #: The number of the hour since 1970.
    hour: str
    #: The time in nanoseconds.
    time: str
    #: The time of so many nanoseconds `{ns}`, to compare with the column.
    instant: str = "{ns}"

    def word(self, word: str) -> str:
        return self.one_word.format(word=word)

    def all(self, *words: str) -> str:
        return " AND ".join(map(self.word, words))

    def any(self, *words: str) -> str:
        return "(" + " OR ".join(map(self.word, words)) + ")"

    def questions(self, start_ns: int) -> dict[str, str]:
        """The statements; rows that a limit cuts are told by their times."""
        from_, until = self.instant.format(ns=start_ns), self.instant.format(ns=start_ns + HALF_HOUR_NS)
        newest = "ORDER BY time DESC LIMIT 100"
        rows, count = f"SELECT {self.time} AS t, time FROM {self.table} WHERE", f"SELECT count(*) AS n FROM {self.table} WHERE"
        by_service = f"SELECT service_name, count(*) AS n FROM {self.table} WHERE"
        by_hour = f"SELECT {self.hour} AS h, count(*) AS n FROM {self.table} WHERE"
        return {
            "Q1 three words, half an hour, top 100": f"{rows} time >= {from_} AND time < {until} AND {self.all('payment', 'failed', 'declined')} {newest}",
            "Q2 service, words, level, top 100": f"{rows} service_name = 'frontend' AND (({self.all('connection', 'reset')}) OR {self.word('timed')}) AND severity_number >= 13 {newest}",
            "Q3 any of five, top 100": f"{rows} {self.any(*FIVE)} {newest}",
            "Q4 one word, count": f"{count} {self.word('timed')}",
            "Q5 any of five, count": f"{count} {self.any(*FIVE)}",
            "Q6 any of three by service": f"{by_service} {self.any(*FIVE[:3])} GROUP BY 1",
            "Q7 two words by service": f"{by_service} {self.all('connection', 'reset')} GROUP BY 1",
            "Q8 two words by hour": f"{by_hour} {self.all('checkout', 'POST')} GROUP BY 1",
            "Q9 rare words by hour": f"{by_hour} {self.all('connection', 'reset')} GROUP BY 1",
        }


def cut(label: str, rows: list[list]) -> list[list]:
    """Of the rows of a question the columns that all systems write alike."""
    return [row[:1] if label[1] in "123" else row for row in rows]


def main() -> None:
    options = arguments(days=4).parse_args()
    if importlib.util.find_spec("chdb") is None:
        sys.exit(f"chdb is missing: {sys.executable} -m pip install chdb==4.4.0")
    report = Report("tokens", "Whole words in logs")
    with generated(options, report) as logs:
        base = logs.folder / "chdb"
        columns = "time Int64, severity_number Int32, service_name LowCardinality(String), body String, INDEX words body TYPE text(tokenizer = 'splitByNonAlpha')"
        load = [
            f"CREATE TABLE logs ({columns}) ENGINE = MergeTree ORDER BY time",
            f"INSERT INTO logs SELECT time, severity_number, service_name, body FROM file('{logs.parquet}', Parquet)",
            "OPTIMIZE TABLE logs FINAL",
        ]
        start_ns = (logs.start + (logs.end - logs.start) // 2) * 10**9
        word = "(body LIKE '%{word}%' AND regexp_matches(body, '(^|[^A-Za-z0-9]){word}([^A-Za-z0-9]|$)'))"
        dialects = [
            Dialect("logs", "has_token(body, '{word}')", "CAST(date_trunc('hour', time) AS BIGINT) / 3600000000000", "CAST(time AS BIGINT)", "to_timestamp_nanos({ns})"),
            Dialect(f"'{logs.parquet}'", word, "time // 3600000000000", "time"),
            Dialect("logs", "hasToken(body, '{word}')", "intDiv(time, 3600000000000)", "time"),
        ]
        mine, peer, click = (dialect.questions(start_ns) for dialect in dialects)
        job = json.dumps({"folder": str(base), "before": load, "measured": list(click.values()), "runs": options.pairs})
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", CLICKHOUSE], input=job, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        clicked = dict(zip(click, json.loads(done.stdout.splitlines()[-1])))
        report.say(f"chdb loaded, merged and asked in {time.monotonic() - began:.0f} s\n")
        rows = []
        for label, statement in mine.items():
            def ask() -> bytes:
                headers = {**logs.mill.headers, "content-type": "application/json", "accept": "application/x-ndjson"}
                status, body = exchange(logs.mill.ports["api"], "POST", "/api/v1/sql", headers, json.dumps({"query": statement}).encode())
                assert status == 200, body[:500]
                return body
            each, theirs = clicked[label]
            mine_wall, mine_cpu, duck_wall, duck_cpu = [], [], [], []
            began = time.perf_counter()
            ask()
            first = (time.perf_counter() - began) * 1000
            # One after the other, as chdb is asked.
            for _ in range(options.pairs):
                before, start = cpu_s(logs.mill), time.perf_counter()
                answer = ask()
                mine_wall.append(time.perf_counter() - start)
                mine_cpu.append(cpu_s(logs.mill) - before)
            for _ in range(options.pairs):
                other = duckdb([peer[label]], before=[peer[label]])
                duck_wall.append(other["wall_s"])
                duck_cpu.append(other["cpu_s"])
            told = cut(label, [list(json.loads(line).values()) for line in answer.splitlines()])
            compare(label, told, cut(label, other["rows"][0]))
            compare(label, told, cut(label, theirs))
            ours, duck, chdb = (median(walls) * 1000 for walls in (mine_wall, duck_wall, [wall for wall, _ in each]))
            cpus = [median(cpu) * 1000 for cpu in (mine_cpu, duck_cpu, [cpu for _, cpu in each])]
            rows.append([label, first, ours, duck, chdb, duck / ours, chdb / ours, *cpus])
            print(rows[-1], flush=True)
        head = ["question, warm", "Tidemill ms at first", "Tidemill ms", "DuckDB ms", "chdb ms", "× DuckDB", "× chdb", "Tidemill CPU ms", "DuckDB CPU ms", "chdb CPU ms"]
        report.table(head, rows)
    report.write()


main()
