"""Starts the shop and its shoppers, and ends them after a while."""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def free_ports(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(port: str) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                return
        time.sleep(0.1)
    sys.exit(f"nothing listens on port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the shop. Telemetry goes where OTEL_EXPORTER_OTLP_* say, or to a recording.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=0.5, help="shoppers that arrive each second")
    parser.add_argument("--record", type=Path, help="write <signal>.binpb.zst into this folder instead of sending")
    arguments = parser.parse_args()

    environment = dict(os.environ, SHOP_SECONDS=str(arguments.seconds))
    recorder = None
    if arguments.record:
        from recorder import Recorder

        recorder = Recorder(arguments.record)
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = recorder.url
        environment.pop("OTEL_EXPORTER_OTLP_HEADERS", None)

    frontend, catalog, cart, payment = free_ports(4)
    with tempfile.TemporaryDirectory(prefix="shop-") as folder:
        programs = [
            ["catalog.py", catalog, folder],
            ["cart.py", cart, folder],
            ["payment.py", payment],
            ["frontend.py", frontend, folder, catalog, cart, payment],
            ["mailer.py", folder],
            ["warehouse.py", folder],
            ["shoppers.py", frontend, str(arguments.rate)],
        ]
        processes = []
        try:
            for program, *rest in programs:
                if program == "shoppers.py":
                    for port in (catalog, cart, payment, frontend):
                        wait_for(port)
                if program in ("mailer.py", "warehouse.py"):
                    wait_for(frontend)
                command = [sys.executable, str(HERE / program), *rest]
                # Flask's own greeting and the copies of log lines are no telemetry.
                processes.append(subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(arguments.seconds)
        finally:
            for process in reversed(processes):
                process.terminate()
            for process in processes:
                process.wait(30)
    if recorder:
        recorder.close()


if __name__ == "__main__":
    main()
