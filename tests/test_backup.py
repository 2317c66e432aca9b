"""Backup and restore, in the order and with the commands of docs/backup.md."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sqlite3
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from conftest import fresh_database
from support import lake, otlp, services
from support.load import Load
from support.processes import wait_until
from support.server import Tidemill

PAGE = Path(__file__).resolve().parents[1] / "docs/backup.md"
SAMPLE = Path(__file__).parent / "samples/data-folder-v1.tar.gz"
SIGNALS = ("logs", "metrics", "traces")


def documented(word: str) -> str:
    """The one command of the page that begins with a word."""
    (command,) = {command for command in re.findall(r"`([^`]+)`", PAGE.read_text()) if command.startswith(word + " ")}
    return command


def run(command: str, dsn: str, folder: Path) -> None:
    """Runs a documented command of PostgreSQL's client programs."""
    words = [dsn if word == "$DSN" else word.replace("$DSN", dsn) for word in shlex.split(command)]
    done = subprocess.run([services.postgres_client(words[0]), *words[1:]], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stderr}"


def copy_metastore(mill: Tidemill, dsn: str | None, to: Path) -> None:
    """Step 2 of a backup."""
    if dsn:
        return run(documented("pg_dump"), dsn, to)
    program, file, statement = shlex.split(documented("sqlite3"))
    assert (program, file) == ("sqlite3", "tidemill-data/metastore.sqlite")
    with contextlib.closing(sqlite3.connect(mill.data / "metastore.sqlite")) as connection:
        connection.execute(statement.replace("backup.sqlite", str(to / "backup.sqlite")))


def restore_metastore(mill: Tidemill, dsn: str | None, copy: Path) -> None:
    """Step 3 of a restore, where nothing is left of the old one."""
    if dsn:
        return run(documented("pg_restore"), dsn, copy)
    shutil.copyfile(copy / "backup.sqlite", mill.data / "metastore.sqlite")


def acknowledged(load: Load) -> dict[str, set[int]]:
    return {signal: set(numbers) for signal, numbers in load.acknowledged.items()}


@pytest.mark.slow
@pytest.mark.parametrize("metastore", ["sqlite", "postgresql"])
def test_a_backup_taken_under_load_is_restored_in_its_order(tmp_path: Path, metastore: str) -> None:
    dsn = fresh_database() if metastore == "postgresql" else None
    mill = Tidemill(tmp_path / "mill", **({"metastore__url": dsn} if dsn else {}))
    copy = tmp_path / "copy"
    copy.mkdir()
    mill.start()
    try:
        with Load(mill) as load:
            wait_until(lambda: all(len(numbers) >= 500 for numbers in load.acknowledged.values()), at_most_s=60, what="500 records of each signal", alive=mill.process, log=mill.log)
            promised = acknowledged(load)
            copy_metastore(mill, dsn, copy)
            between = acknowledged(load)
            # What comes and goes meanwhile is named by no state that is restored.
            subprocess.run(["cp", "--archive", str(mill.data / "objects"), str(copy / "objects")], capture_output=True)
            shutil.rmtree(copy / "objects/.tidemill-unfinished", ignore_errors=True)

            def goes_on() -> bool:
                return all(promised[signal] < now for signal, now in acknowledged(load).items())

            wait_until(goes_on, at_most_s=60, what="the load goes on", alive=mill.process, log=mill.log)
            load.end()
        after = acknowledged(load)
        mill.kill()

        # The disaster.
        shutil.rmtree(mill.data)
        mill.data.mkdir()
        if dsn:
            dsn = fresh_database()
            mill.configure(metastore__url=dsn)

        shutil.copytree(copy / "objects", mill.data / "objects")
        restore_metastore(mill, dsn, copy)
        mill.cli("catalog", "rebuild")
        mill.start()
        mill.drain(at_most_s=120)
        mill.cli("catalog", "verify")
        for signal in SIGNALS:
            stored = lake.numbers(mill, signal)
            twice = {number: times for number, times in stored.items() if times > 1}
            lost = promised[signal] - stored.keys()
            # Raw objects were copied after they were acknowledged.
            lost |= between[signal] - stored.keys()
            assert not twice and not lost and stored.keys() <= after[signal], (signal, sorted(lost)[:30], list(twice.items())[:30])
            assert mill.count({"traces": "spans"}.get(signal, signal)) == len(stored)
        # It is the same installation: its keys hold, and it takes more.
        assert mill.push("logs", otlp.ENCODE["logs"]([10_000_000])).status_code == 200
        mill.drain()
        assert lake.numbers(mill, "logs")[10_000_000] == 1
        assert [entry for entry in mill.rows("queue") if entry["state"] == "dead"] == []
    finally:
        mill.kill()


def test_a_data_folder_of_the_previous_format_opens(mill: Tidemill) -> None:
    """Written under schema 1: published segments, one input that waits, one that is refused, a key."""
    mill.data.mkdir()
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(mill.data, filter="data")
    mill.headers = {"x-api-key": (mill.data / "key").read_text().strip()}
    mill.session.headers.update(mill.headers)
    with contextlib.closing(sqlite3.connect(mill.data / "metastore.sqlite")) as connection:
        assert connection.execute("SELECT max(version) FROM schema_migrations").fetchone() == (1,)
        # The sample may be older than the memory of refusals.
        connection.execute("UPDATE refusals SET at = ?", (time.time_ns(),))
        connection.commit()
        waiting = connection.execute("SELECT count(*) FROM work WHERE queue / 16 = 1").fetchone()[0]
    assert waiting == 1
    mill.start()
    mill.drain()
    for signal in SIGNALS:
        lake.assert_each_once(mill, signal, set(range(60)))
    assert mill.count("logs") == 60
    states = [entry["state"] for entry in mill.rows("inbox")]
    assert states == ["refused"], states
    for signal in SIGNALS:
        assert mill.push(signal, otlp.ENCODE[signal](list(range(60, 80)))).status_code == 200
    mill.drain()
    for signal in SIGNALS:
        lake.assert_each_once(mill, signal, set(range(80)))
    mill.cli("catalog", "verify")
