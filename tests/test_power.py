"""Power cuts: the real process over a disk that forgets what was not synced, folder store and SQLite alike."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from support import lake
from support.load import Load
from support.processes import wait_until
from support.server import Tidemill

SHIM = Path(__file__).parent / "power/forgetful.c"
SIGNALS = ("logs", "metrics", "traces")
CUTS = 8


class ForgetfulDisk:
    """What would survive, as `forgetful.c` keeps it."""

    def __init__(self, folder: Path, memory: Path, scratch: Path):
        self.folder, self.memory = folder, memory
        self.shim = scratch / "forgetful.so"
        subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(self.shim), str(SHIM), "-ldl"], check=True)
        for part in ("bytes", "names"):
            (memory / part).mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        """Puts the disk below a process."""
        return {"LD_PRELOAD": str(self.shim), "FORGETFUL_FOLDER": str(self.folder), "FORGETFUL_MEMORY": str(self.memory)}

    def cut_power(self) -> int:
        """Leaves what was synced in the folder; returns how many bytes that were written are gone."""
        before = size_of(self.folder)
        kept = self.folder.with_name(self.folder.name + ".kept")
        names = {listing.read_text().split("\n", 1)[0]: listing.read_text().splitlines()[1:] for listing in (self.memory / "names").iterdir()}
        copied: dict[str, Path] = {}
        kept.mkdir()
        open_folders = [(self.folder, kept)]
        while open_folders:
            source, target = open_folders.pop()
            for line in names.get(str(source), []):
                kind, file, name = line.split(" ", 2)
                if kind == "d":
                    (target / name).mkdir()
                    open_folders.append((source / name, target / name))
                elif file in copied:
                    os.link(copied[file], target / name)
                elif (self.memory / "bytes" / file).exists():
                    copied[file] = Path(shutil.copyfile(self.memory / "bytes" / file, target / name))
                else:
                    (target / name).touch()
        shutil.rmtree(self.folder)
        kept.rename(self.folder)
        self.remember_all()
        return before - size_of(self.folder)

    def remember_all(self) -> None:
        """What is there after a start was there before the next cut."""
        for part in ("bytes", "names"):
            shutil.rmtree(self.memory / part)
            (self.memory / part).mkdir()
        script = "import os, sys\nfor at, _, files in os.walk(sys.argv[1]):\n    for path in [os.path.join(at, name) for name in files] + [at]:\n        os.fsync(os.open(path, os.O_RDONLY))"
        subprocess.run(["python3", "-c", script, str(self.folder)], check=True, env={**os.environ, **self.environment()})


def size_of(folder: Path) -> int:
    """Bytes in all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_what_was_acknowledged_survives_power_cuts(tmp_path: Path) -> None:
    seed = int(os.environ.get("TIDEMILL_TEST_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed} (TIDEMILL_TEST_SEED)")
    chance = random.Random(seed)
    mill = Tidemill(tmp_path / "mill", worker__lease="2s", sweep__interval="1s", sweep__raw_grace="1s")
    mill.start()
    assert mill.stop() == 0
    disk = ForgetfulDisk(mill.data, tmp_path / "memory", tmp_path)
    disk.remember_all()
    mill.environment.update(disk.environment())
    load = Load(mill, signals=SIGNALS)
    forgotten = 0
    try:
        mill.start()
        with load:
            for _ in range(CUTS):
                already = len(load.acknowledged["logs"])
                more = chance.randint(200, 1200)
                wait_until(lambda: len(load.acknowledged["logs"]) > already + more, at_most_s=60, what="more", alive=mill.process, log=mill.log)  # noqa: B023
                mill.kill()
                forgotten += disk.cut_power()
                mill.start()
            load.end()
        mill.drain()
        assert not load.refused, load.refused[:5]
        # A disk that forgets nothing would prove nothing.
        assert forgotten > 0
        assert [entry for entry in mill.rows("queue") if entry["state"] == "dead"] == []
        for name in SIGNALS:
            lake.assert_each_once(mill, name, load.acknowledged[name])
        mill.cli("catalog", "verify")
    finally:
        mill.kill()
