"""Nothing lost, nothing twice: the real process is killed at every named step, and DuckDB counts what is stored."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import fresh_database
from support import lake, otlp
from support.load import Load
from support.processes import start, stop, wait_until
from support.server import Tidemill, binary

TREE = Path(__file__).resolve().parent.parent
HOUR_NS = 3_600_000_000_000
# What an hour's new points are rolled up after, and a little.
ROLLUP_DELAY_S = 65
SIGNALS = ("logs", "metrics", "traces")


def steps() -> list[str]:
    """The named steps, from the one place that defines them."""
    return re.findall(r'^    \w+ => "([a-z-]+)",$', (TREE / "store/src/step.rs").read_text(), re.M)


def kills_wanted() -> int:
    """How many kills each metastore gets."""
    default = 400 if os.environ.get("TIDEMILL_TEST_LONG") else 104
    return int(os.environ.get("TIDEMILL_TEST_KILLS", default))


def test_the_steps_are_known() -> None:
    assert {"raw-stored", "admitted", "publish-before-commit"} <= set(steps())


@pytest.mark.slow
@pytest.mark.parametrize("metastore", ["sqlite", "postgresql"])
def test_kills_at_every_step_lose_and_double_nothing(tmp_path: Path, metastore: str) -> None:
    seed = int(os.environ.get("TIDEMILL_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed} (TIDEMILL_TEST_SEED)")
    chance = random.Random(seed)
    # Raw objects are swept soon, so that the sweeper has something to do; replaced segments stay, DuckDB reads them late.
    mill = Tidemill(tmp_path / "mill", worker__lease="2s", sweep__interval="1s", sweep__raw_grace="1s")
    if metastore == "postgresql":
        mill.configure(metastore__url=fresh_database())
    plan = itertools.cycle(steps())
    killed: dict[str, int] = dict.fromkeys(steps(), 0)
    unreached: dict[str, int] = dict.fromkeys(steps(), 0)
    mill.start()
    began = time.monotonic()
    load = Load(mill, time_ns=lambda signal: None if signal == "logs" else closed_hour_ns(began))
    try:
        mill.kill()
        with load:
            while sum(killed.values()) < kills_wanted() or any(not killed[step] and unreached[step] < 3 for step in steps()):
                # Every step in turn; one that only background work reaches may need a few tries before there is such work.
                step = next(plan)
                too_early = step == "rollup-uploaded" and time.monotonic() < began + ROLLUP_DELAY_S
                if too_early or unreached[step] >= 3 + killed[step]:
                    continue
                if kill_at(mill, step, chance.randint(1, 3)):
                    killed[step] += 1
                else:
                    unreached[step] += 1
            mill.start()
            load.end()
        mill.drain(at_most_s=180)
        print(f"{metastore}: killed {killed}, resent {load.resent} requests")
        assert not load.refused, load.refused[:5]
        dead = [entry for entry in mill.rows("queue") if entry["state"] == "dead"]
        assert not dead, f"innocent work was given up: {dead[:3]}"
        for name in SIGNALS:
            lake.assert_each_once(mill, name, load.acknowledged[name])
            assert mill.count({"traces": "spans"}.get(name, name)) == len(load.acknowledged[name])
        mill.cli("catalog", "verify")
        never = [step for step in steps() if not killed[step]]
        assert not never, f"no kill ever happened at {never}: the step is not passed where it should be"
    finally:
        mill.kill()


def closed_hour_ns(began: float) -> int:
    """An hour that is over, another one every two seconds: so from the first delay on, a rollup is due at any time."""
    hours_ago = 3 + int((time.monotonic() - began) / 2) % 40
    return (time.time_ns() // HOUR_NS - hours_ago) * HOUR_NS


def kill_at(mill: Tidemill, step: str, count: int, *, at_most_s: float = 8) -> bool:
    """Starts the server with a trap at `step`; says whether the trap killed it."""
    mill.start(crash_at=f"{step}:{count}", until_ready=False)
    try:
        mill.wait_until_ready()
    except AssertionError:
        # It may die before it is ready: recovery passes steps too.
        if mill.process.poll() != -signal.SIGKILL:
            raise
    try:
        status = mill.process.wait(at_most_s)
    except subprocess.TimeoutExpired:
        mill.kill()
        return False
    assert status == -signal.SIGKILL, f"at {step} the server ended by itself with {status}"
    mill.kill()
    return True


def object_hashes(mill: Tidemill) -> dict[str, str]:
    """Every segment object in the folder store."""
    root = mill.data / "objects"
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.parquet")}


@pytest.mark.slow
def test_a_worker_that_slept_past_its_lease_changes_nothing(any_mill: Tidemill) -> None:
    mill = any_mill
    mill.configure(worker__lease="2s")
    mill.start(stop_at="ingest-uploaded:1")
    numbers = set(range(40))
    # It may stop between the admission and its answer, which then comes when it goes on.
    pushing = ThreadPoolExecutor(1).submit(mill.push, "logs", otlp.logs(sorted(numbers)), timeout=300)
    wait_until(lambda: state_of(mill.process) == "T", at_most_s=60, what="the stop", alive=mill.process, log=mill.log)
    uploaded = object_hashes(mill)
    assert uploaded, "it was to stop after its upload"

    # Commands would ask the server that sleeps.
    (mill.data / "ports.json").unlink()
    assert not lake.live_segments(mill, "logs"), "it was to stop before its publication"
    log = mill.folder / "second.log"
    second = start([str(binary()), "worker"], log, env=mill.environment, cwd=mill.folder)
    try:
        wait_until(lambda: lake.live_segments(mill, "logs"), at_most_s=60, what="the second worker", alive=second, log=log, every_s=0.2)
        lake.assert_each_once(mill, "logs", numbers)
        before = object_hashes(mill)
        assert uploaded.items() <= before.items()
        refusal = "the lease was lost"
        assert refusal not in mill.log.read_text(), "it was to sleep until now"
        mill.process.send_signal(signal.SIGCONT)
        wait_until(lambda: refusal in mill.log.read_text(),
                   at_most_s=60, what="the refusal of the first worker", alive=mill.process, log=mill.log)  # fmt: skip
        assert pushing.result(60).status_code == 200
        assert {key: digest for key, digest in object_hashes(mill).items() if key in before} == before
        lake.assert_each_once(mill, "logs", numbers)
    finally:
        stop(second)


def state_of(process: subprocess.Popen) -> str:
    """The kernel's letter for a process: `T` is stopped."""
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.slow
def test_the_database_restarts_under_load(own_postgres, tmp_path: Path) -> None:
    mill = Tidemill(tmp_path / "mill", metastore__url=own_postgres.create_database("mill"), worker__lease="5s")
    mill.start()
    try:
        with Load(mill) as load:
            for kind in (signal.SIGINT, signal.SIGQUIT, signal.SIGQUIT):
                already = sum(map(len, load.acknowledged.values()))
                wait_until(lambda: sum(map(len, load.acknowledged.values())) > already + 500,
                           at_most_s=60, what="500 more records", alive=mill.process, log=mill.log)  # fmt: skip
                own_postgres.stop(kind)
                own_postgres.start()
            load.end()
        mill.drain(at_most_s=120)
        for name in SIGNALS:
            lake.assert_each_once(mill, name, load.acknowledged[name])
        assert [entry for entry in mill.rows("queue") if entry["state"] == "dead"] == []
    finally:
        mill.kill()


@pytest.mark.slow
def test_a_lost_database_is_rebuilt_from_the_bucket(mill: Tidemill) -> None:
    mill.start()
    for name in SIGNALS:
        for first in range(0, 1000, 100):
            assert mill.push(name, otlp.ENCODE[name](list(range(first, first + 100)))).status_code == 200
    mill.drain()
    before = {name: sorted(segment["object_key"] for segment in lake.live_segments(mill, name)) for name in SIGNALS}
    assert mill.stop() == 0
    for path in mill.data.glob("metastore.sqlite*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    mill.cli("catalog", "rebuild")
    mill.cli("catalog", "verify")
    after = {name: sorted(segment["object_key"] for segment in lake.live_segments(mill, name)) for name in SIGNALS}
    assert after == before
    for name in SIGNALS:
        lake.assert_each_once(mill, name, set(range(1000)))


@pytest.mark.slow
def test_what_was_acknowledged_and_not_ingested_outlives_the_database(any_mill: Tidemill) -> None:
    mill = any_mill
    mill.start()
    for name in SIGNALS:
        assert mill.push(name, otlp.ENCODE[name](list(range(100)))).status_code == 200
    mill.drain()
    mill.kill()
    # A receiver alone leaves all that comes now in the inbox.
    (mill.data / "ports.json").unlink(missing_ok=True)
    log = mill.folder / "receiver.log"
    receiver = start([str(binary()), "receive"], log, env=mill.environment, cwd=mill.folder)
    try:
        wait_until(mill.read_ports, at_most_s=30, what="the receiver", alive=receiver, log=log)
        for name in SIGNALS:
            for first in (100, 150):
                assert mill.push(name, otlp.ENCODE[name](list(range(first, first + 50)))).status_code == 200
        table = mill.folder / "logs_table.csv"
        table.write_text("data\n" + "".join(f"{number}\n" for number in range(1000, 1050)))
        mill.cli("load", "--no-wait", str(table))
    finally:
        stop(receiver, with_signal=signal.SIGKILL)
    lose_the_database(mill)
    mill.cli("catalog", "rebuild")
    mill.start()
    mill.drain()
    for name in SIGNALS:
        more = set(range(1000, 1050)) if name == "logs" else set()
        lake.assert_each_once(mill, name, set(range(200)) | more)
    # What is loaded once more is known.
    assert "loaded before" in mill.cli("load", str(table)).stdout
    mill.drain()
    lake.assert_each_once(mill, "logs", set(range(200)) | set(range(1000, 1050)))


def lose_the_database(mill: Tidemill) -> None:
    """Nothing is left of the metastore; on PostgreSQL the database is dropped and an empty one takes its place."""
    url = mill.environment.get("TIDEMILL_METASTORE_URL")
    if url is None:
        for path in mill.data.glob("metastore.sqlite*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    import psycopg

    base, name = url.rsplit("/", 1)
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')


# What an announced object passes on its way.
OBJECT_STEPS = ("admitted", "ingest-claimed", "ingest-encoded", "ingest-uploaded", "publish-before-commit", "publish-committed")


@pytest.mark.slow
def test_files_in_a_watched_folder_survive_kills(any_mill: Tidemill) -> None:
    mill = any_mill
    folder = mill.folder / "inbox"
    folder.mkdir()
    mill.configure(worker__lease="2s", notify__watch=folder)
    mill.start()
    prefix = folder / "otel-raw" / mill.organization / "farm"
    mill.kill()
    prefix.mkdir(parents=True)
    dropped, killed = 0, dict.fromkeys(OBJECT_STEPS, 0)
    for step in OBJECT_STEPS * 3:
        for _ in range(3):
            aside = folder / ".aside"
            aside.write_bytes(otlp.logs(list(range(dropped, dropped + 10))))
            aside.rename(prefix / f"logs_{dropped}.binpb")
            dropped += 10
        killed[step] += kill_at(mill, step, 1, at_most_s=15)
    assert all(killed.values()), killed
    mill.start()
    wait_until(lambda: len(lake.numbers(mill, "logs")) == dropped, at_most_s=120, what="every file", alive=mill.process, log=mill.log, every_s=0.5)
    mill.drain()
    lake.assert_each_once(mill, "logs", set(range(dropped)))
    assert [entry for entry in mill.rows("inbox") if entry["state"] in ("dead", "refused")] == []


@pytest.mark.slow
def test_a_load_that_is_killed_is_repeated_and_stored_once(any_mill: Tidemill) -> None:
    mill = any_mill
    mill.configure(worker__lease="2s")
    mill.start()
    mill.kill()
    numbers: set[int] = set()
    for place, step in enumerate(["raw-stored", *OBJECT_STEPS]):
        table = mill.folder / f"logs_{place}.csv"
        fresh = range(place * 100, place * 100 + 100)
        table.write_text("data\n" + "".join(f"{number}\n" for number in fresh))
        numbers.update(fresh)
        mill.start(crash_at=step)
        process = mill.process
        # Its server goes away; whether the file was stored by then is the next load's to find out.
        mill.cli("load", str(table), check=False)
        assert process.wait(20) == -signal.SIGKILL, f"nothing passed {step}"
        mill.kill()
        mill.start()
        mill.cli("load", str(table))
        mill.drain()
        lake.assert_each_once(mill, "logs", numbers)
        mill.kill()


@pytest.mark.slow
def test_one_input_that_is_killed_again_and_again_is_innocent(any_mill: Tidemill) -> None:
    mill = any_mill
    mill.configure(worker__lease="500ms")
    mill.start()
    mill.kill()
    mill.start(crash_at="ingest-claimed:1")
    pushing = ThreadPoolExecutor(1).submit(mill.push, "logs", otlp.logs([1]))
    assert mill.process.wait(20) == -signal.SIGKILL
    mill.kill()
    # Thrice alone would be enough for a dead letter where processes do not die. Each try waits twice as long as the one before.
    for step in ("ingest-encoded", "ingest-uploaded", "publish-before-commit", "ingest-encoded"):
        assert kill_at(mill, step, 1, at_most_s=30), step
    mill.start()
    if pushing.exception() is not None:
        # Its answer went with the first server.
        assert mill.push("logs", otlp.logs([1])).status_code == 200
    mill.drain()
    assert [entry for entry in mill.rows("queue") if entry["state"] == "dead"] == []
    lake.assert_each_once(mill, "logs", {1})


@pytest.mark.slow
def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(volume)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root: " + mounted.stderr.decode().strip())
    mill = Tidemill(tmp_path / "mill", data=volume / "data")
    try:
        mill.start()
        kept, refused = set(), None
        for first in range(0, 2_000_000, 2000):
            numbers = list(range(first, first + 2000))
            answer = mill.push("logs", otlp.logs(numbers, service=os.urandom(200).hex()))
            if answer.status_code != 200:
                refused = answer
                break
            kept.update(numbers)
        assert refused is not None, "24 MiB never filled"
        assert refused.status_code in (429, 503), refused.text
        assert mill.process.poll() is None
        subprocess.run(["mount", "-o", "remount,size=512m", str(volume)], check=True)
        mill.drain(at_most_s=120)
        numbers = [3_000_000]
        wait_until(lambda: mill.push("logs", otlp.logs(numbers)).status_code == 200,
                   at_most_s=60, what="room again", alive=mill.process, log=mill.log, every_s=0.5)  # fmt: skip
        mill.drain(at_most_s=60)
        lake.assert_each_once(mill, "logs", kept | set(numbers))
    finally:
        mill.kill()
        subprocess.run(["umount", "-l", str(volume)], check=False)
