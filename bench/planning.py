"""Planning one hour over a catalog of a million live segments."""

from __future__ import annotations

import argparse

from measure import Report, bench


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--segments", type=int, default=1_000_000)
    options = parser.parse_args()
    report = Report("planning", "Planning")
    found = bench("planning", "--segments", options.segments)
    report.table(
        ["live segments", "plans", "chosen by a plan", "median ms", "p99 ms", "max ms", "building the snapshot s"],
        [[found["segments"], found["plans"], found["segments_chosen"] // found["plans"], found["median_ms"], found["p99_ms"], found["max_ms"], found["apply_s"]]],
    )
    report.say("Synthetic catalog rows of one organization and signal over 30 days; every second plan also names a service.")
    report.write()


main()
