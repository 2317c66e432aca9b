"""What plain DuckDB finds in the segments: the independent witness of what is stored."""

from __future__ import annotations

from pathlib import Path

import duckdb

from .server import Tidemill

NUMBER = {"logs": "body::BIGINT", "metrics": "value::BIGINT", "traces": "name::BIGINT"}


def ask(query: str) -> list[tuple]:
    """The rows that DuckDB answers."""
    with duckdb.connect() as connection:
        return connection.execute(query).fetchall()


def live_segments(mill: Tidemill, signal: str, *, tier: str | int | None = None) -> list[dict]:
    """The live segments of one signal; raw records only unless a tier is named."""
    wanted = 0 if tier is None else tier
    return [row for row in mill.rows("segments") if row["signal"] == signal and row["tier"] in (wanted, str(wanted), "raw")]


def local_path(mill: Tidemill, segment: dict) -> Path:
    """Where the folder store keeps a segment."""
    if "path" in segment and segment["path"]:
        return Path(segment["path"])
    return mill.data / "objects" / segment["object_key"]


def scan(mill: Tidemill, signal: str) -> str:
    """A DuckDB table expression over the live segments of a signal."""
    paths = [str(local_path(mill, segment)) for segment in live_segments(mill, signal)]
    assert paths, f"no live segment of {signal}"
    return f"read_parquet({paths!r}, union_by_name=true)"


def numbers(mill: Tidemill, signal: str) -> dict[int, int]:
    """How often each number is stored."""
    if not live_segments(mill, signal):
        return {}
    return dict(ask(f"SELECT {NUMBER[signal]} AS number, count(*) FROM {scan(mill, signal)} GROUP BY 1"))


def assert_each_once(mill: Tidemill, signal: str, expected: set[int]) -> None:
    """Every acknowledged number is stored once; gaps and duplicates are listed."""
    stored = numbers(mill, signal)
    gaps = sorted(expected - stored.keys())
    twice = {number: times for number, times in stored.items() if times > 1}
    strangers = sorted(stored.keys() - expected)
    assert not gaps and not twice and not strangers, (
        f"{signal}: {len(expected)} acknowledged; {len(gaps)} lost {gaps[:30]}; "
        f"{len(twice)} stored more than once {dict(list(twice.items())[:30])}; {len(strangers)} never acknowledged {strangers[:30]}"
    )
