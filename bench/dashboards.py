"""Thirty dashboards' queries at once over logs, metrics and traces: the server's resident memory, before and at its highest."""

from __future__ import annotations

import argparse
import concurrent.futures
import tempfile
import time
from pathlib import Path

from measure import Report, bench, header, median, memory_mib, wait_until_idle
from support.server import Tidemill


def panels(number: int) -> list[tuple[str, dict[str, str]]]:
    """A dashboard of one service: the path and parameters of each panel's request, as Grafana sends them."""
    service = ["frontend", "catalog", "cart", "payment", "shipping", "search", "recommend", "account", "mailer", "inventory", "pricing", "review", "gateway", "billing", "audit"][number % 15]
    metric = ["http_requests_total", "temperature"][number % 2]
    prometheus = [
        'sum by (job) (rate({name}[5m]))', 'topk(10, increase({name}[1h]))', 'avg by (job) (avg_over_time({name}[30m]))',
        'max by (instance) ({name})', 'quantile by (job) (0.95, rate({name}[5m]))', 'count({name})',
    ]
    loki = [
        f'{{service_name="{service}"}}', f'sum by (detected_level) (count_over_time({{service_name="{service}"}}[5m]))',
        f'{{service_name=~".+"}} |= "connection reset"', f'sum by (service_name) (rate({{service_name=~".+"}} | detected_level=~"error|fatal" [10m]))',
        f'quantile_over_time(0.9, {{service_name="{service}"}} |= "\\"currency\\":" | json amount="amount" | unwrap amount [30m]) by (service_name)',
    ]
    tempo = [f'{{ resource.service.name = "{service}" && duration > 500ms }}', '{ status = error } | count() > 1']
    asked = [("/api/v1/query_range", {"query": text.replace("{name}", metric)}) for text in prometheus]
    asked += [("/loki/api/v1/query_range", {"query": text, "limit": "1000"}) for text in loki]
    return asked + [("/api/search", {"q": text, "limit": "20"}) for text in tempo]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=2_000_000, help="of each signal")
    parser.add_argument("--dashboards", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report = Report("dashboards", "Thirty dashboards at once")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        hours = 12
        start = int(time.time()) // 3600 * 3600 - (hours + 1) * 3600
        mill = Tidemill(folder / "mill")
        mill.start()
        for signal in ("logs", "metrics", "traces"):
            bench("generate", "--signal", signal, "--records", options.records, "--start", start, "--hours", hours, "--out", folder / "data")
            bench("push", "--url", mill.url("http", f"/v1/{signal}"), "--header", header(mill), "--file", folder / f"data/{signal}.otlp")
            (folder / f"data/{signal}.otlp").unlink()
            (folder / f"data/{signal}.ndjson").unlink()
        wait_until_idle(mill)
        names = [metric for metric in mill.session.get(mill.url("api", "/api/v1/label/__name__/values"), params={"start": start, "end": start + hours * 3600}).json()["data"] if metric != "target_info"]
        mill.stop()
        mill.start()
        idle = memory_mib(mill, "VmRSS")
        end = start + hours * 3600
        took: list[float] = []
        refused = 0

        def show(number: int) -> int:
            """One dashboard: its panels in pairs, as a browser asks them."""
            empty = 0
            for path, parameters in panels(number):
                window = {"start": str(end - 3600 * (1 + number % hours)), "end": str(end), "step": "60"}
                if path.startswith("/loki"):
                    window = {key: value + "000000000" if key != "step" else value for key, value in window.items()}
                parameters = {key: value.replace("http_requests_total", names[number % len(names)]).replace("temperature", names[(number + 3) % len(names)]) for key, value in parameters.items()}
                began = time.perf_counter()
                while True:
                    answer = mill.session.get(mill.url("api", path), params={**parameters, **window}, timeout=600)
                    if answer.status_code != 429:
                        break
                    # A client that is asked to wait does.
                    nonlocal refused
                    refused += 1
                    time.sleep(0.2)
                assert answer.ok, f"{path} {parameters}: {answer.text}"
                took.append((time.perf_counter() - began) * 1000)
                empty += len(answer.content) < 200
            return empty

        empty = 0
        Path(f"/proc/{mill.process.pid}/clear_refs").write_text("5")
        for _ in range(options.rounds):
            with concurrent.futures.ThreadPoolExecutor(options.dashboards) as pool:
                empty += sum(pool.map(show, range(options.dashboards)))
        asked = len(took)
        assert empty < asked / 2, f"{empty} of {asked} answers have nothing in them"
        report.say(f"{options.records:,} records of each signal over {hours} hours; {options.dashboards} dashboards of {len(panels(0))} panels at once, {options.rounds} times; {asked} requests, {refused} times asked to wait.\n")
        took.sort()
        report.table(
            ["", "value"],
            [
                ["resident before, MiB", idle],
                ["resident at its highest, MiB", memory_mib(mill, "VmHWM")],
                ["resident afterwards, MiB", memory_mib(mill, "VmRSS")],
                ["a panel, median ms", median(took)],
                ["a panel, p99 ms", took[int(len(took) * 0.99)]],
            ],
        )
        mill.stop()
    report.write()


main()
