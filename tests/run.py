"""Runs the parts of the test suite, with the servers they need, and counts their results. Called by `./test`."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from support import services

TREE = Path(__file__).resolve().parent.parent
PARTS = ["lint", "rust", "python"]
# Python tests mostly wait for background work, so more run at once than there are cores to count on.
WORKERS = 3
# What the data folders, databases and buckets of a run may take together, with room to spare.
SCRATCH_BYTES = 8 << 30


@dataclass
class Count:
    """What ran, and what came of it."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    def check(self, name: str, ok: bool) -> None:
        """One check that either held or did not."""
        self.passed += ok
        self.failed += not ok
        if not ok:
            self.failures.append(name)


def title(text: str) -> None:
    print(f"\n\033[1m== {text}\033[0m", flush=True)


def run_lint(count: Count) -> None:
    """Formatting and lints, each one check."""
    for command in (
        ["cargo", "fmt", "--all", "--check"],
        ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
    ):
        title(" ".join(command))
        count.check(" ".join(command), subprocess.run(command, cwd=TREE).returncode == 0)


def run_rust(count: Count) -> None:
    """`cargo test`, its results counted as it prints them."""
    command = ["cargo", "test", "--workspace", "--locked", "--no-fail-fast"]
    title(" ".join(command))
    ran = 0
    with subprocess.Popen(command, cwd=TREE, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if found := re.match(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", line):
                passed, failed, ignored = map(int, found.groups())
                count.passed, count.failed, count.skipped = count.passed + passed, count.failed + failed, count.skipped + ignored
                ran += passed + failed
            elif found := re.match(r"test (.+) \.\.\. FAILED", line):
                count.failures.append(found.group(1))
    if process.returncode and not count.failures:
        count.check("cargo test (did not build, or a test process died)", False)
    elif ran == 0:
        count.check("cargo test ran no test", False)


def build_binary() -> bool:
    """The binary that the Python tests start."""
    command = ["cargo", "build", "--locked", "--package", "tidemill"]
    title(" ".join(command))
    return subprocess.run(command, cwd=TREE).returncode == 0


def run_python(count: Count, scratch: Path, arguments: list[str]) -> None:
    """pytest on `tests/`, its results read from the report it writes."""
    if not build_binary():
        count.check("cargo build (the Python tests need the binary)", False)
        return
    report = scratch / "pytest.xml"
    command = [sys.executable, "-m", "pytest", "tests", "-p", "no:cacheprovider", "-n", str(WORKERS), "--dist", "worksteal", f"--junitxml={report}", f"--basetemp={scratch / 'pytest'}", *arguments]
    title("pytest " + " ".join(command[3:]))
    status = subprocess.run(command, cwd=TREE).returncode
    if not report.exists():
        count.check(f"pytest ended with {status} and no report", False)
        return
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        failed = int(suite.get("failures")) + int(suite.get("errors"))
        skipped = int(suite.get("skipped"))
        count.passed += int(suite.get("tests")) - failed - skipped
        count.failed += failed
        count.skipped += skipped
        count.failures += [
            f"{case.get('classname')}::{case.get('name')}"
            for case in suite.iter("testcase")
            if case.find("failure") is not None or case.find("error") is not None
        ]
    if status not in (0, 1, 5) and count.failed == 0:
        count.check(f"pytest ended with {status}", False)


@contextlib.contextmanager
def world(scratch: Path, wanted: bool):
    """The servers, and the environment that tells the tests where they are. Without it they say that they did not run."""
    for name in [name for name in os.environ if name.startswith(("TIDEMILL_TEST_POSTGRES", "TIDEMILL_TEST_S3", "TIDEMILL_TEST_AZURE"))]:
        del os.environ[name]
    with contextlib.ExitStack() as stack:
        if wanted:
            title("starting PostgreSQL 18, moto, Azurite")
            cluster = stack.enter_context(services.postgres(scratch / "postgresql"))
            os.environ.update(services.AWS_ENVIRONMENT)
            os.environ["TIDEMILL_TEST_POSTGRES"] = cluster.create_database("tidemill")
            os.environ["TIDEMILL_TEST_S3"] = stack.enter_context(services.moto(scratch / "moto"))
            os.environ["TIDEMILL_TEST_AZURE"] = stack.enter_context(services.azurite(scratch / "azurite"))
            os.environ["TIDEMILL_TEST_AZURE_ACCOUNT"] = services.AZURE_ACCOUNT
            os.environ["TIDEMILL_TEST_AZURE_KEY"] = services.AZURE_KEY
        yield


def scratch_parent() -> str | None:
    """Memory, where there is plenty: the tests kill processes, not machines, so what they sync need not reach a disk."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= SCRATCH_BYTES:
        return str(memory)
    return None


def main() -> int:
    """Runs what was asked for; the exit status is 0 only if everything passed."""
    parser = argparse.ArgumentParser(prog="./test", description="Runs the tests.")
    parser.add_argument("--quick", action="store_true", help="format, lints and the Rust tests that need no server")
    parser.add_argument("--long", action="store_true", help="the kill test at its full length")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part (repeatable)")
    parser.add_argument("pytest", nargs="*", help="after --: arguments for pytest")
    arguments = parser.parse_args()
    if arguments.quick and "python" in (arguments.only or []):
        parser.error("--quick leaves the Python tests out: they need servers")
    parts = arguments.only or (["lint", "rust"] if arguments.quick else PARTS)
    needs_servers = not arguments.quick and parts != ["lint"]
    if arguments.long:
        os.environ["TIDEMILL_TEST_LONG"] = "1"

    # An interrupt or a TERM must unwind the context managers, which stop every server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    count = Count()
    scratch = Path(tempfile.mkdtemp(prefix="tidemill-test-", dir=scratch_parent()))
    os.environ["TMPDIR"] = str(scratch)
    try:
        with world(scratch, needs_servers):
            if "lint" in parts:
                run_lint(count)
            if "rust" in parts:
                run_rust(count)
            if "python" in parts:
                run_python(count, scratch, arguments.pytest)
    except AssertionError as error:
        # A server did not start: its log says why, and the last line counts it.
        print(error)
        count.check(f"starting the servers: {str(error).splitlines()[0]}", False)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

    for failure in count.failures:
        print(f"failed: {failure}")
    print(f"\n{time.monotonic() - began:.0f} s")
    skipped = f", {count.skipped} skipped" if count.skipped else ""
    print(f"{count.passed} passed, {count.failed} failed{skipped}", flush=True)
    return 0 if count.failed == 0 and count.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
