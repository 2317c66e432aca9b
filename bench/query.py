"""Phrase, needle, level + GROUP BY over compacted logs; DuckDB on zstd Parquet sorted by time. Cold and warm, per CPU second."""

from __future__ import annotations

from logdata import HEAD, arguments, beside_duckdb, generated
from measure import Report


def main() -> None:
    options = arguments().parse_args()
    report = Report("query", "Queries over logs")
    with generated(options, report) as logs:
        questions = {
            "phrase": "SELECT count(*) AS n FROM {} WHERE body LIKE '%connection reset by peer%'",
            "needle": f"SELECT body AS n FROM {{}} WHERE body LIKE '%{logs.needle()}%'",
            "level + GROUP BY": "SELECT service_name, count(*) AS n FROM {} WHERE severity_number >= 17 GROUP BY 1 ORDER BY 1",
        }
        rows = []
        for label, question in questions.items():
            def ask(statement: str = question.format("logs")) -> list[list[str]]:
                return [list(row.values()) for row in logs.mill.sql(statement)]
            for temperature in ("cold", "warm"):
                rows.append([label, temperature, *beside_duckdb(logs, options.pairs, ask, question.format(f"'{logs.parquet}'"), temperature, label)])
        report.table(HEAD, rows)
    report.write()


main()
