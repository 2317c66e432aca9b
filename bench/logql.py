"""LogQL over compacted logs, through Loki's API; DuckDB the same in SQL over zstd Parquet sorted by time. Warm and cold, per CPU second."""

from __future__ import annotations

from logdata import HEAD, Logs, arguments, beside_duckdb, generated
from measure import Report

SERVICES = '{service_name=~".+"}'


def numbers(logs: Logs, query: str) -> list[list[str]]:
    """The answer to an instant query after the end: labels and value."""
    answer = logs.mill.session.get(logs.mill.url("api", "/loki/api/v1/query"), params={"query": query, "time": str(logs.end + 60)}, timeout=600)
    assert answer.status_code == 200, answer.text
    return [[*entry["metric"].values(), entry["value"][1]] for entry in answer.json()["data"]["result"]]


def lines(logs: Logs, query: str) -> list[list[str]]:
    """The lines of a range query over all of the time."""
    asked = {"query": query, "start": f"{logs.start}000000000", "end": f"{logs.end + 60}000000000", "limit": 100}
    answer = logs.mill.session.get(logs.mill.url("api", "/loki/api/v1/query_range"), params=asked, timeout=600)
    assert answer.status_code == 200, answer.text
    return [[line] for stream in answer.json()["data"]["result"] for _, line, *_ in stream["values"]]


def main() -> None:
    options = arguments().parse_args()
    report = Report("logql", "LogQL over logs")
    with generated(options, report) as logs:
        others = logs.others()
        # A range is open on the left, and a record may stand at the very start, or a little behind the end.
        window = f"[{logs.end - logs.start + 61}s]"
        phrase, needle = "connection reset by peer", logs.needle()
        questions = {
            "count": (numbers, f"sum(count_over_time({SERVICES} {window}))", "SELECT count(*) FROM {}"),
            "phrase by service": (
                numbers,
                f'sum by (service_name) (count_over_time({SERVICES} |= "{phrase}" {window}))',
                f"SELECT service_name, count(*) FROM {{}} WHERE body LIKE '%{phrase}%' GROUP BY 1",
            ),
            "level by service": (
                numbers,
                f'sum by (service_name) (count_over_time({SERVICES} | detected_level=~"error|fatal" {window}))',
                "SELECT service_name, count(*) FROM {} WHERE severity_number >= 17 GROUP BY 1",
            ),
            "needle": (lines, f'{SERVICES} |= "{needle}"', f"SELECT body FROM {{}} WHERE body LIKE '%{needle}%'"),
            "absent id": (
                numbers,
                f'sum(count_over_time({SERVICES} |= "4f0c9be2a77d41d0b6f3" {window}))',
                "SELECT count(*) FROM {} WHERE body LIKE '%4f0c9be2a77d41d0b6f3%' HAVING count(*) > 0",
            ),
            "json + unwrap quantile": (
                numbers,
                f'quantile_over_time(0.9, {SERVICES} |= "\\"currency\\":" | json amount="amount" | unwrap amount {window}) by (service_name)',
                "SELECT service_name, quantile_cont(CAST(body ->> '$.amount' AS DOUBLE), 0.9) FROM {} WHERE body LIKE '%\"currency\":%' GROUP BY 1",
            ),
        }
        rows = []
        for label, (ask, query, statement) in questions.items():
            for temperature in ("cold", "warm"):
                theirs = statement.format(f"'{logs.parquet}'")
                found = beside_duckdb(logs, options.pairs, lambda: ask(logs, query), theirs, temperature, label, lambda: ask(others, query))
                rows.append([label, temperature, *found])
                print(rows[-1], flush=True)
        report.table(HEAD, rows)
        report.say("\nCold: the programs were asked the same of a thousand other records before, and nothing of these is in memory.\n")
    report.write()


main()
