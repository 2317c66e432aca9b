"""Processes that a test starts and surely ends: each in a group of its own, killed by its id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path


def free_port() -> int:
    """A port that was free a moment ago, for servers that cannot bind port 0 and tell."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command: list[str], log: Path, *, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.Popen:
    """Starts `command` with its output appended to `log`. It dies with us if `stop` is called in a finalizer."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=cwd, start_new_session=True
        )


def stop(process: subprocess.Popen, *, grace_s: float = 20.0, with_signal: int = signal.SIGTERM) -> int:
    """Asks the process to end, insists after `grace_s`, and returns its exit status."""
    if process.poll() is None:
        process.send_signal(with_signal)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    return process.wait()


def tail(log: Path, lines: int = 40) -> str:
    """The end of a log, for messages of failed tests."""
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def wait_until(condition, *, at_most_s: float, what: str, alive: subprocess.Popen | None = None, log: Path | None = None, every_s=0.02):
    """Polls another process's state until `condition` returns something true, and returns that.

    Fails at once, with the log, when the process it waits for has ended.
    """
    deadline = time.monotonic() + at_most_s
    while True:
        found = condition()
        if found:
            return found
        if alive is not None and alive.poll() is not None:
            raise AssertionError(f"{what}: the process ended with {alive.returncode}\n{tail(log) if log else ''}")
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {at_most_s} s\n{tail(log) if log else ''}")
        time.sleep(every_s)
