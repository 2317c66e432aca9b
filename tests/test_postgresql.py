"""PostgreSQL as metastore: which versions are served, and how its certificate is checked."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import psycopg
import pytest

from support import lake, otlp, services
from support.certificates import Authority
from support.server import Tidemill

# Everything in a database that did not come with it.
OURS = """
    SELECT kind, name FROM (
      SELECT 'relation' AS kind, relname::text AS name, relnamespace AS space FROM pg_class
      UNION ALL SELECT 'function', proname::text, pronamespace FROM pg_proc
      UNION ALL SELECT 'type', typname::text, typnamespace FROM pg_type
      UNION ALL SELECT 'schema', nspname::text, oid FROM pg_namespace WHERE nspname <> 'public') AS everything
    JOIN pg_namespace ON pg_namespace.oid = space
    WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
"""


# Files that hold no certificate; None is not there.
NO_CERTIFICATES = {
    "missing": None,
    "empty": "",
    "other": "no certificate",
    "broken": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
}


@pytest.fixture(scope="module")
def too_old(tmp_path_factory: pytest.TempPathFactory):
    """The newest PostgreSQL that is refused."""
    with services.postgres(tmp_path_factory.mktemp("postgresql-15"), services.older_postgres(15)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory):
    """The oldest PostgreSQL that is served."""
    with services.postgres(tmp_path_factory.mktemp("postgresql-16"), services.older_postgres(16)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that signs the database's certificate."""
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def tls_only(tmp_path_factory: pytest.TempPathFactory, authority: Authority):
    """A PostgreSQL 18 that takes TLS connections only; its certificate is for `localhost`, not for an address."""
    issued = authority.issue(tmp_path_factory.mktemp("certificates"), "localhost")
    cluster = services.Postgres(tmp_path_factory.mktemp("postgresql-tls"))
    cluster.create()
    cluster.require_tls(issued.certificate, issued.key)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def database(tls_only: services.Postgres) -> str:
    """The URL of an empty database there, by the name that the certificate has."""
    return tls_only.create_database(f"test_{uuid.uuid4().hex}").replace("127.0.0.1", "localhost")


def found_in(url: str) -> list[tuple]:
    """What was made in a database."""
    with psycopg.connect(url) as connection:
        return connection.execute(OURS).fetchall()


def refusal(mill: Tidemill, *command: str) -> str:
    """Why a command ends at once, in its own words."""
    refused = mill.cli(*command, check=False)
    assert 0 < refused.returncode < 100 and "error: " in refused.stderr, refused.stderr
    assert not (mill.data / "ports.json").exists()
    return refused.stdout + refused.stderr


def assert_it_works(mill: Tidemill) -> None:
    """In, through the queue, and out again."""
    mill.start()
    for signal in ("logs", "metrics", "traces"):
        assert mill.push(signal, otlp.ENCODE[signal]([1, 2, 3])).status_code == 200
    mill.drain()
    for signal in ("logs", "metrics", "traces"):
        lake.assert_each_once(mill, signal, {1, 2, 3})
    assert mill.count("logs") == 3


@pytest.mark.parametrize("command", ["up", "worker", "doctor", "status"])
def test_a_server_older_than_16_is_refused_by_its_version(too_old: services.Postgres, mill: Tidemill, command: str) -> None:
    url = too_old.create_database(f"refused_by_{command}")
    with psycopg.connect(url) as connection:
        version = connection.execute("SHOW server_version").fetchone()[0]
    assert version.startswith("15.")
    mill.configure(metastore__url=url)
    told = refusal(mill, command)
    assert f"PostgreSQL {version}" in told and "16 or later" in told, told
    assert found_in(url) == []


def test_the_oldest_server_that_is_promised_is_served(oldest: services.Postgres, mill: Tidemill) -> None:
    url = oldest.create_database("mill")
    mill.configure(metastore__url=url)
    assert_it_works(mill)
    assert "postgresql 16." in mill.cli("doctor").stdout
    assert found_in(url) != [], "this is how the tests of refusals see what was made"
    assert mill.stop() == 0
    mill.start()
    assert mill.count("logs") == 3


@pytest.mark.parametrize("mode", ["", "?sslmode=prefer", "?sslmode=require", "?sslmode=verify-full"], ids=lambda mode: mode[9:] or "default")
def test_connections_are_encrypted(tls_only: services.Postgres, authority: Authority, database: str, mill: Tidemill, mode: str) -> None:
    mill.configure(metastore__url=database + mode)
    if "verify-full" in mode:
        mill.configure(metastore__root_certificates=authority.path)
    assert_it_works(mill)
    with psycopg.connect(database) as connection:
        sessions = connection.execute(
            "SELECT ssl, query LIKE 'LISTEN%' FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
            "WHERE datname = current_database() AND application_name = 'tidemill'"
        ).fetchall()
    assert {encrypted for encrypted, _ in sessions} == {True}
    assert any(listens for _, listens in sessions), "the connection that listens is among them"


def test_require_takes_any_certificate_and_any_name(database: str, mill: Tidemill) -> None:
    mill.configure(metastore__url=database.replace("localhost", "127.0.0.1") + "?sslmode=require")
    assert_it_works(mill)


@pytest.mark.parametrize("command", ["up", "doctor"])
def test_verify_full_refuses_another_authority(database: str, mill: Tidemill, tmp_path: Path, command: str) -> None:
    mill.configure(metastore__url=database + "?sslmode=verify-full", metastore__root_certificates=Authority(tmp_path, "stranger").path)
    told = refusal(mill, command)
    assert "certificate" in told and "UnknownIssuer" in told, told
    assert found_in(database) == []


def test_verify_full_refuses_another_name(database: str, authority: Authority, mill: Tidemill) -> None:
    url = database.replace("localhost", "127.0.0.1")
    mill.configure(metastore__url=url + "?sslmode=verify-full", metastore__root_certificates=authority.path)
    told = refusal(mill, "up")
    assert "certificate" in told and "127.0.0.1" in told and "localhost" in told, told
    assert found_in(database) == []


def test_verify_full_trusts_only_the_system_when_told_nothing_else(database: str, mill: Tidemill, authority: Authority) -> None:
    mill.configure(metastore__url=database + "?sslmode=verify-full")
    assert "certificate" in refusal(mill, "up")
    # Where the system's certificates are is said as to other programs.
    mill.environment["SSL_CERT_FILE"] = str(authority.path)
    mill.start()


@pytest.mark.parametrize("text", NO_CERTIFICATES.values(), ids=NO_CERTIFICATES)
def test_root_certificates_that_are_none_are_refused_by_name(database: str, mill: Tidemill, tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "roots.pem"
    if text is not None:
        path.write_text(text)
    mill.configure(metastore__url=database + "?sslmode=verify-full", metastore__root_certificates=path)
    assert path.name in refusal(mill, "up")


def test_plain_text_is_refused_by_a_server_that_wants_tls(database: str, mill: Tidemill) -> None:
    mill.configure(metastore__url=database + "?sslmode=disable")
    told = refusal(mill, "up")
    assert "pg_hba.conf" in told and "no encryption" in told, told
    assert found_in(database) == []


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_a_server_without_tls_is_refused_where_tls_is_wanted(mill: Tidemill, mode: str) -> None:
    mill.configure(metastore__url=f"{os.environ['TIDEMILL_TEST_POSTGRES']}?sslmode={mode}")
    assert "TLS" in refusal(mill, "up")


def test_a_mode_that_does_not_exist_is_refused_with_those_that_do(database: str, mill: Tidemill) -> None:
    mill.configure(metastore__url=database + "?sslmode=verify-ca")
    told = refusal(mill, "up")
    assert "disable, prefer, require, verify-full" in told and "tidemill:tidemill" not in told, told


def test_a_wrong_password_is_told_and_not_shown(database: str, mill: Tidemill) -> None:
    mill.configure(metastore__url=database.replace(":tidemill@", ":hunter2@") + "?sslmode=require")
    told = refusal(mill, "up")
    assert "password" in told and "hunter2" not in told, told
