"""Start to ready, memory at rest and under ingest, bytes on disk."""

from __future__ import annotations

import argparse
import gzip
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from measure import Report, bench, header, median, memory_mib, wait_until_idle
from support.server import Tidemill


def start_times(folder: Path, times: int) -> list[float]:
    """Seconds from the start of the process to a 200 of /readyz, over an existing data folder."""
    mill = Tidemill(folder)
    mill.start()
    mill.stop()
    seconds = []
    for _ in range(times):
        began = time.monotonic()
        mill.start()
        assert mill.session.get(mill.url("api", "/readyz"), timeout=5).status_code == 200
        seconds.append(time.monotonic() - began)
        mill.stop()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle-s", type=float, default=60)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--object-gib", type=float, default=2.0, help="size of the gzip object; 0 leaves it out")
    options = parser.parse_args()
    report = Report("footprint", "Footprint")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        seconds = start_times(folder / "start", 10)
        mill = Tidemill(folder / "idle")
        mill.start()
        time.sleep(options.idle_s)
        idle = memory_mib(mill, "VmRSS")
        mill.stop()
        report.table(["start to ready, median of 10, s", f"RSS after {options.idle_s:.0f} s idle, MiB"], [[median(seconds), idle]])

        start = int(time.time()) // 86400 * 86400 - 2 * 86400
        rows = []
        for signal in ("logs", "metrics", "traces"):
            bench("generate", "--signal", signal, "--records", options.records, "--start", start, "--out", folder / "data")
            mill = Tidemill(folder / signal)
            mill.start()
            bench("push", "--url", mill.url("http", f"/v1/{signal}"), "--header", header(mill), "--file", folder / f"data/{signal}.otlp")
            wait_until_idle(mill)
            raw = [row for row in mill.rows("segments") if row["signal"] == signal and row["tier"] in (0, "0", "raw")]
            stored, peak = sum(row["bytes"] for row in raw), memory_mib(mill, "VmHWM")
            mill.stop()
            with open(folder / f"data/{signal}.otlp", "rb") as source:
                compressed = int(subprocess.run(["sh", "-c", "gzip -6 | wc -c"], stdin=source, capture_output=True, check=True).stdout)
            rows.append([signal, options.records, len(raw), stored / options.records, compressed / options.records, stored / compressed, peak])
            if signal != "logs" or not options.object_gib:
                (folder / f"data/{signal}.otlp").unlink()
            shutil.rmtree(folder / signal)
        report.table(["signal", "records", "segments", "bytes a record, compacted, with indexes", "gzip -6 of the OTLP, bytes a record", "ratio", "peak RSS MiB"], rows)

        if options.object_gib:
            target = folder / "data/logs_large.binpb.gz"
            write_large(folder / "data/logs.otlp", target, int(options.object_gib * 2**30))
            mill = Tidemill(folder / "large")
            mill.start()
            began = time.monotonic()
            mill.cli("load", "--signal", "logs", str(target))
            mill.drain(at_most_s=3600)
            report.table(["gzip object, bytes", "seconds", "peak RSS MiB"], [[target.stat().st_size, time.monotonic() - began, memory_mib(mill, "VmHWM")]])
            mill.stop()
    report.write()


def write_large(source: Path, target: Path, size: int) -> None:
    """Concatenated requests, gzip, until the object has its size."""
    with target.open("wb") as raw:
        while raw.tell() < size:
            with source.open("rb") as requests, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1) as packed:
                while (length := requests.read(4)) and raw.tell() < size:
                    packed.write(requests.read(int.from_bytes(length, "little")))


main()
