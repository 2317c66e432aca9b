"""The real binary: started on free ports over a folder of its own, asked through its command line and its HTTP doors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.parse
from pathlib import Path

import requests

from .otlp import PATHS
from .processes import start, stop, tail, wait_until


def binary() -> Path:
    """The binary that `./test` built; `TIDEMILL_TEST_BINARY` names another."""
    target = os.environ.get("CARGO_TARGET_DIR", str(Path(__file__).parents[2] / "target"))
    return Path(os.environ.get("TIDEMILL_TEST_BINARY", f"{target}/debug/tidemill"))


class Tidemill:
    """One installation: a data folder, and at most one `tidemill up` over it."""

    def __init__(self, folder: Path, *, data: Path | None = None, **settings: object):
        """`settings` are configuration keys with `__` for the dot, as `worker__lease="2s"`."""
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = data or folder / "data"
        self.log = folder / "tidemill.log"
        self.process: subprocess.Popen | None = None
        # As in `ports.json`: the number of each door, and whether they are `http` or `https`.
        self.ports: dict[str, int | str] = {}
        self.session = requests.Session()
        self.session.trust_env = False
        # The key, as the header that the first start prints.
        self.headers: dict[str, str] = {}
        # Nothing of the outside reaches it but what is set here.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "OTEL_"))}
        self.configure(data_dir=self.data, listen__grpc_port=0, listen__http_port=0, listen__api_port=0, **settings)

    def configure(self, **settings: object) -> None:
        """Sets configuration keys for the next start."""
        for key, value in settings.items():
            name = "TIDEMILL_" + key.replace("__", "_").upper()
            self.environment[name] = str(value).lower() if isinstance(value, bool) else str(value)

    def start(self, *arguments: str, crash_at: str | None = None, stop_at: str | None = None, until_ready: bool = True) -> Tidemill:
        """Starts `tidemill up`, and waits until it takes requests."""
        environment = dict(self.environment)
        if crash_at:
            environment["TIDEMILL_CRASH_AT"] = crash_at
        if stop_at:
            environment["TIDEMILL_STOP_AT"] = stop_at
        (self.data / "ports.json").unlink(missing_ok=True)
        self.process = start([str(binary()), "up", *arguments], self.log, env=environment, cwd=self.folder)
        if until_ready:
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        """Waits for `ports.json` and the key that the first start prints."""
        wait_until(self.read_ports, at_most_s=30, what="tidemill up", alive=self.process, log=self.log, every_s=0.01)
        if not self.headers:
            self.headers = wait_until(
                self._printed_headers, at_most_s=10, what="the key of the first start", alive=self.process, log=self.log
            )
            self.session.headers.update(self.headers)

    def read_ports(self) -> bool:
        """Whether the server has written where it listens."""
        path = self.data / "ports.json"
        if not path.exists():
            return False
        self.ports = json.loads(path.read_text())
        return True

    def _printed_headers(self) -> dict[str, str]:
        """From the line that a person would copy."""
        found = re.search(r"^export OTEL_EXPORTER_OTLP_HEADERS=([\w-]+)=(\S+)$", self.log.read_text(errors="replace"), re.M)
        return {found.group(1): urllib.parse.unquote(found.group(2))} if found else {}

    def exporter_environment(self) -> dict[str, str]:
        """The environment of a program whose SDK sends here by HTTP, without ours."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "OTEL_"))}
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = self.url("http")
        environment["OTEL_EXPORTER_OTLP_HEADERS"] = ",".join(f"{name}={urllib.parse.quote(value)}" for name, value in self.headers.items())
        return environment

    @property
    def organization(self) -> str:
        """The id of the organization that the first start created."""
        return self.cli_json("org", "list")[0]["id"]

    def url(self, door: str, path: str = "") -> str:
        """`door` is `http` (OTLP), `grpc` or `api`; https where the server has a certificate."""
        return f"{self.ports['scheme']}://127.0.0.1:{self.ports[door]}{path}"

    def push(self, signal_name: str, body: bytes, *, timeout: float = 30, **headers: str) -> requests.Response:
        """One OTLP/HTTP protobuf request."""
        headers = {"content-type": "application/x-protobuf", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.session.post(self.url("http", PATHS[signal_name]), data=body, headers=headers, timeout=timeout)

    def cli(self, *arguments: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess:
        """Runs a command of the binary beside the server, over the same data folder."""
        command = [str(binary()), *arguments]
        done = subprocess.run(command, env=self.environment, cwd=self.folder, capture_output=True, text=True, input=stdin, timeout=300)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{tail(self.log)}")
        return done

    def cli_json(self, *arguments: str):
        """What a command prints with `--output json`."""
        return json.loads(self.cli(*arguments, "--output", "json").stdout)

    def rows(self, table: str) -> list[dict]:
        """All rows of `tidemill inbox|queue|segments list`, which lists the newest hundred unless told otherwise."""
        most = 10_000
        found = self.cli_json(table, "list", "--limit", str(most))
        assert len(found) < most, f"more {table} than a list holds"
        return found

    def sql(self, query: str) -> list[dict]:
        """The rows of `POST /api/v1/sql`, as JSON lines."""
        answer = self.session.post(
            self.url("api", "/api/v1/sql"), json={"query": query}, headers={"accept": "application/x-ndjson"}, timeout=120
        )
        if answer.status_code != 200:
            raise AssertionError(f"{query}: {answer.status_code} {answer.text}")
        return [json.loads(line) for line in answer.text.splitlines() if line]

    def count(self, table: str) -> int:
        """`SELECT count(*)`."""
        return next(iter(self.sql(f"SELECT count(*) AS n FROM {table}")[0].values()))

    def waiting(self) -> list[dict]:
        """Inputs that are admitted and not yet published, refused or dead."""
        return [entry for entry in self.rows("inbox") if entry["state"] in ("waiting", "leased")]

    def drain(self, *, at_most_s: float = 120) -> None:
        """Waits until every admitted input is in a segment, refused or dead."""
        wait_until(lambda: not self.waiting(), at_most_s=at_most_s, what="draining the inbox", alive=self.process, log=self.log, every_s=0.2)

    def kill(self) -> None:
        """SIGKILL, as a power cut takes it."""
        if self.process:
            stop(self.process, with_signal=signal.SIGKILL)
            self.process = None

    def stop(self) -> int | None:
        """SIGTERM; returns the exit status."""
        if self.process is None:
            return None
        status = stop(self.process)
        self.process = None
        return status
