#!/usr/bin/env python3
"""A batch run: takes a row of `make_it_clap` that nobody has taken, claps for as long as the row says, and writes down that it did.

The claim is a row of `clap`, so two runs never take the same row, and what waits is what has no such row:

    SELECT COUNT(1) FROM make_it_clap LEFT JOIN clap ON make_it_clap.id = clap.id WHERE clap.status IS NULL

A run that is asked to stop gives its row back; one that is killed leaves it RUNNING, for whoever watches to see. A negative duration fails.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading

import psycopg

# The row of `make_it_clap` is locked while it is looked at, so that runs that start together look at different rows. The key of `clap` decides.
CLAIM = """
INSERT INTO clap (id, status, session_id, creation_date, creation_time)
SELECT waiting.id, 'RUNNING', pg_backend_pid(), current_date, localtime FROM (
    SELECT id FROM make_it_clap WHERE NOT EXISTS (SELECT 1 FROM clap WHERE clap.id = make_it_clap.id)
    ORDER BY id FOR UPDATE SKIP LOCKED LIMIT 1
) AS waiting
ON CONFLICT (id) DO NOTHING
RETURNING id, (SELECT duration_seconds FROM make_it_clap WHERE make_it_clap.id = clap.id)
"""
WAITING = "SELECT EXISTS (SELECT 1 FROM make_it_clap LEFT JOIN clap ON make_it_clap.id = clap.id WHERE clap.status IS NULL)"
# So many looks at rows that others take at the same moment are enough.
TRIES = 100


def connect() -> psycopg.Connection:
    """By the variables of the manifest; each statement is a transaction of its own."""
    return psycopg.connect(
        host=os.environ["PG_HOST"], port=os.environ.get("PG_PORT", "5432"), user=os.environ["PG_USERNAME"],
        password=os.environ.get("PGPASSWORD"), dbname=os.environ.get("PG_DATABASE", "postgres"), connect_timeout=10, autocommit=True,
    )  # fmt: skip


def claim(connection: psycopg.Connection) -> tuple[int, int] | None:
    """Takes a row: its id and how long it claps. `None` when no row waits."""
    for _ in range(TRIES):
        if row := connection.execute(CLAIM).fetchone():
            return row
        if not connection.execute(WAITING).fetchone()[0]:
            return None
    sys.exit(f"others took {TRIES} rows first")


def run_one(connection: psycopg.Connection, stopped: threading.Event) -> bool:
    """Claps for one row; whether there was one."""
    taken = claim(connection)
    if taken is None:
        return False
    number, seconds = taken
    print(f"row {number}: clapping for {seconds} s", flush=True)
    if seconds < 0:
        connection.execute("UPDATE clap SET status = 'FAILED' WHERE id = %s", [number])
        sys.exit(f"row {number}: {seconds} s is no duration")
    if stopped.wait(seconds):
        connection.execute("DELETE FROM clap WHERE id = %s AND status = 'RUNNING'", [number])
        print(f"row {number}: given back", flush=True)
        sys.exit(128 + signal.SIGTERM)
    connection.execute("UPDATE clap SET status = 'SUCCESS' WHERE id = %s", [number])
    print(f"row {number}: done", flush=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1, help="most rows of one run; it ends when none waits (default: 1)")
    arguments = parser.parse_args()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with connect() as connection:
        done = 0
        while done < arguments.rows and run_one(connection, stopped):
            done += 1
    if done == 0:
        print("no row waits", flush=True)


if __name__ == "__main__":
    main()
