"""From the push to the first query that sees it, while other records keep coming."""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

from measure import Report
from support import otlp
from support.load import Load
from support.server import Tidemill


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--background", type=int, default=100, help="records in each request of the background load")
    options = parser.parse_args()
    report = Report("latency", "From arrival to queryable")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        mill = Tidemill(Path(name) / "mill")
        mill.start()
        load = Load(mill, signals=("logs",), records=options.background, pause_s=0.1)
        delays_ms = []
        with load:
            time.sleep(5)
            for sample in range(options.samples):
                marker = 10**12 + sample
                began = time.monotonic()
                answer = mill.push("logs", otlp.logs([marker], service="latency", time_ns=time.time_ns() - marker))
                assert answer.status_code == 200, answer.text
                question = f"SELECT count(*) AS n FROM logs WHERE service_name = 'latency' AND time > now() - INTERVAL '1 minute' AND body = '{marker}'"
                while mill.sql(question) != [{"n": 1}]:
                    time.sleep(0.005)
                delays_ms.append((time.monotonic() - began) * 1000)
                threading.Event().wait(0.05)
        mill.stop()
    delays_ms.sort()
    pick = lambda share: delays_ms[int((len(delays_ms) - 1) * share)]
    report.table(["samples", "p50 ms", "p90 ms", "p99 ms", "max ms"], [[len(delays_ms), pick(0.5), pick(0.9), pick(0.99), pick(1.0)]])
    report.say(f"Measured from before the push to the first answer that holds the record, asked again every 5 ms after the last answer; background of {options.background} records every 100 ms.")
    report.write()


main()
