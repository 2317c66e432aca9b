"""Fixtures: an installation per test, or one per module; a PostgreSQL of its own where a test stops it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from support import services
from support.processes import tail
from support.server import Tidemill, binary

SAMPLES = Path(os.environ.get("TIDEMILL_SAMPLES", Path(__file__).resolve().parents[2] / "shared/samples"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds; left out by `./test -- -m 'not slow'`")
    if not binary().exists():
        raise pytest.UsageError(f"{binary()} is not built; run the tests by ./test")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """A failed test shows the end of its server's log."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Tidemill):
                report.sections.append(("tidemill's log", tail(value.log)))


@pytest.fixture
def mill(tmp_path: Path):
    """A fresh installation on embedded defaults, not yet started."""
    installation = Tidemill(tmp_path / "mill")
    yield installation
    installation.kill()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_mill(request: pytest.FixtureRequest, tmp_path: Path):
    """A fresh installation on each metastore, not yet started."""
    installation = Tidemill(tmp_path / "mill")
    if request.param == "postgresql":
        installation.configure(metastore__url=fresh_database())
    yield installation
    installation.kill()


def fresh_database() -> str:
    """An empty database on the PostgreSQL that `./test` runs."""
    import psycopg

    url = os.environ["TIDEMILL_TEST_POSTGRES"]
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return url.rsplit("/", 1)[0] + "/" + name


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory):
    """A PostgreSQL cluster that the test may stop and start."""
    with services.postgres(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def sample(name: str) -> Path:
    """A folder of real telemetry beside the tree; the test is skipped where it is missing."""
    folder = SAMPLES / name
    if not folder.exists():
        pytest.skip(f"{folder} is not there; TIDEMILL_SAMPLES names the folder of samples")
    return folder
