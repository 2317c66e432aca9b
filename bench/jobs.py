"""Jobs that do nothing: burn-down and enqueue-to-start, against graphile-worker on the same PostgreSQL."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg

from measure import Report, bench, median
from support import services

HERE = Path(__file__).resolve().parent


def graphile(url: str, *arguments: object) -> dict:
    """One run of the peer in Node."""
    environment = {**os.environ, "NODE_PATH": str(services.node_modules())}
    done = subprocess.run(["node", str(HERE / "graphile.cjs"), url, *map(str, arguments)], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def durable_postgres(folder: Path):
    """A cluster that flushes every commit."""
    cluster = services.Postgres(folder)
    cluster.settings.remove("fsync=off")
    cluster.create()
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@contextlib.contextmanager
def database(cluster, name: str):
    """An empty database, gone afterwards, so that nothing of it is vacuumed while others are measured."""
    yield cluster.create_database(name)
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--dead", type=int, default=300_000)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    report = Report("jobs", "Jobs: the queue alone")
    # On a disk: where temporary files are kept in memory, a flush would cost nothing.
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-", dir="/var/tmp") as name, durable_postgres(Path(name) / "postgresql") as cluster:
        mine, other, started_mine, started_other = [], [], [], []
        for _ in range(options.pairs):
            with database(cluster, "mill") as url:
                mine.append(bench("queue", "--postgres", url, "--jobs", options.jobs)["jobs_per_s"])
            with database(cluster, "peer") as url:
                other.append(graphile(url, "burn", options.jobs)["jobs_per_s"])
            with database(cluster, "mill") as url:
                started_mine.append(bench("queue", "--postgres", url, "--rate", 500)["p50_ms"])
            with database(cluster, "peer") as url:
                started_other.append(graphile(url, "rate", 500, 20)["p50_ms"])
        report.table(
            ["what", "Tidemill", "graphile-worker 0.17.3", "ratio (median of pairs)"],
            [
                [f"burn-down of {options.jobs:,} jobs, jobs/s", median(mine), median(other), median([a / b for a, b in zip(mine, other)])],
                ["enqueue → start at 500/s, p50 ms", median(started_mine), median(started_other), median([a / b for a, b in zip(started_mine, started_other)])],
            ],
        )
        fresh, aged = [], []
        for _ in range(options.pairs):
            with database(cluster, "fresh") as url:
                fresh.append(bench("queue", "--postgres", url, "--jobs", options.jobs)["jobs_per_s"])
            with database(cluster, "aged") as url, psycopg.connect(url) as holder:
                # The rows of these jobs are dead in the table when the measured ones come: an old snapshot keeps vacuum from them.
                holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                holder.execute("SELECT 1")
                bench("queue", "--postgres", url, "--jobs", options.dead)
                aged.append(bench("queue", "--postgres", url, "--jobs", options.jobs)["jobs_per_s"])
        report.table(["burn-down", "jobs/s", "share"], [["fresh", median(fresh), 1.0], [f"after {options.dead:,} dead rows", median(aged), median([b / a for a, b in zip(fresh, aged)])]])
        report.say(
            "PostgreSQL 18 with its defaults, `fsync` and `synchronous_commit` on, the same for both, on a disk. Times to the start run from\n"
            "before the call that enqueues; 500 calls a second, none of which waits for another. Both answer that call when its commit is\n"
            "flushed. The peer's job starts after that and after the flush of its claim; ours may start before: its work is there, unflushed,\n"
            "and all that it commits is flushed after it (`store/src/postgres/mod.rs`). Dead rows are those of jobs that ran, kept by an old\n"
            "snapshot while the measured jobs are enqueued and burn down."
        )
    report.write()


main()
