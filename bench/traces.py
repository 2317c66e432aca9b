"""A trace by its id, no time given: the requests to the object store with warm footers and cold data, over many segments of many days."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from measure import Report, bench, header, median, wait_until_idle
from support.server import Tidemill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=100, help="over which the spans are spread; a day has a segment at least")
    parser.add_argument("--lookups", type=int, default=50)
    options = parser.parse_args()
    report = Report("traces", "Traces by id")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        start = int(time.time()) // 86400 * 86400 - (options.days + 2) * 86400
        bench("generate", "--signal", "traces", "--records", options.spans, "--start", start, "--hours", 24 * options.days, "--out", folder / "data")
        mill = Tidemill(folder / "mill")
        mill.start()
        bench("push", "--url", mill.url("http", "/v1/traces"), "--header", header(mill), "--file", folder / "data/traces.otlp")
        (folder / "data/traces.otlp").unlink()
        wait_until_idle(mill)
        dice = random.Random(7)
        lines = folder / "data/traces.ndjson"
        wanted = []
        with lines.open("rb") as file:
            for _ in range(options.lookups + 1):
                file.seek(dice.randrange(lines.stat().st_size - 4096))
                file.readline()
                wanted.append(json.loads(file.readline())["trace_id"])

        def look(trace: str) -> tuple[dict, float, int]:
            began = time.perf_counter()
            answer = mill.session.get(mill.url("api", f"/api/traces/{trace}"), headers={"accept": "application/json"}, timeout=600)
            took = (time.perf_counter() - began) * 1000
            assert answer.ok, answer.text
            spans = sum(len(scope["spans"]) for batch in answer.json()["batches"] for scope in batch["scopeSpans"])
            return json.loads(answer.headers["x-tidemill-stats"]), took, spans

        # A day is indexed once it has rested.
        deadline = time.monotonic() + 1800
        while look(wanted[0])[0]["segments_pruned"] < 1:
            assert time.monotonic() < deadline, "the days are not indexed"
            time.sleep(5)
        while any(entry["state"] != "done" for entry in mill.rows("queue")) and time.monotonic() < deadline:
            time.sleep(5)
        segments = [row for row in mill.rows("segments") if row["signal"] == "traces"]
        report.say(f"{options.spans:,} spans over {options.days} days in {len(segments)} segments of levels {sorted({row['level'] for row in segments})}, {sum(row['bytes'] for row in segments):,} bytes\n")
        mill.stop()
        mill.start()
        # Warm footers: something is asked of every segment, and the tails of the day indexes are read.
        mill.sql("SELECT count(*) AS n FROM spans WHERE attr('user') = 'nobody'")
        look(wanted[0])
        requests, blocks, spent, counted = [], [], [], []
        for trace in wanted[1:]:
            stats, took, spans = look(trace)
            requests.append(stats["requests"])
            blocks.append(stats["requests"] - 2 * (stats["segments_considered"] - stats["segments_pruned"]))
            spent.append(took)
            counted.append((stats["segments_considered"], stats["segments_considered"] - stats["segments_pruned"], stats["bytes_read"], spans))
        report.table(
            ["", "median", "most"],
            [
                ["segments considered", median([row[0] for row in counted]), max(row[0] for row in counted)],
                ["segments read", median([row[1] for row in counted]), max(row[1] for row in counted)],
                ["requests", median(requests), max(requests)],
                ["requests beyond two a segment read, a block of each day's index", median(blocks), max(blocks)],
                ["bytes read", median([row[2] for row in counted]), max(row[2] for row in counted)],
                ["spans found", median([row[3] for row in counted]), max(row[3] for row in counted)],
                ["ms", median(spent), max(spent)],
            ],
        )
        mill.stop()
    report.write()


main()
