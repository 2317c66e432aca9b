"""What a newcomer does first: the demo, and the commands that it prints."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest

from support.processes import start, stop, wait_until
from support.server import Tidemill, binary


@pytest.mark.slow
def test_the_demo_shows_the_shop_and_its_commands_can_be_pasted(mill: Tidemill) -> None:
    done = mill.cli("demo", "--exit-after-load")
    assert "is ready after" in done.stderr and re.search(r"(\S+ \S+) of \1$", done.stderr, re.M)
    for service in ("frontend", "catalog", "cart", "payment", "mailer", "warehouse"):
        assert service in done.stdout
    # Every question has its command on the next line; what queries answer follows as a table with rows.
    told = re.findall(r"^# (.+)\n(\S+ .+)$", done.stdout, re.M)
    assert len(told) >= 6, done.stdout
    # The key that the first start printed is there, for those who look for it.
    mill.log.write_text(done.stdout)
    mill.start()
    for question, command in told:
        pasted = subprocess.run(command, shell=True, env=mill.environment, cwd=mill.folder, capture_output=True, text=True, timeout=60)
        assert pasted.returncode == 0, f"{question}\n{command}\n{pasted.stderr}"
        assert len(pasted.stdout.splitlines()) > 3, f"{question}\n{command}\n{pasted.stdout}"
    # The capture's times are moved to now, and traces join logs.
    recent = "time > now() - INTERVAL '1 hour'"
    assert mill.count("logs") == mill.sql(f"SELECT count(*) AS n FROM logs WHERE {recent}")[0]["n"] > 10_000
    joined = mill.sql("SELECT count(*) AS n FROM logs JOIN spans ON logs.trace_id = spans.trace_id AND logs.span_id = spans.span_id")
    assert joined[0]["n"] > 1000


@pytest.mark.slow
def test_a_demo_that_is_killed_while_it_loads_loads_nothing_twice(mill: Tidemill) -> None:
    mill.log.touch()
    process = start([str(binary()), "demo"], mill.log, env=mill.environment, cwd=mill.folder)
    wait_until(lambda: "loading the capture:" in mill.log.read_text(), at_most_s=60, what="the capture", alive=process, log=mill.log)
    stop(process, with_signal=signal.SIGKILL)
    (mill.data / "ports.json").unlink()
    mill.cli("demo", "--exit-after-load")
    whole = Tidemill(mill.folder / "whole")
    whole.cli("demo", "--exit-after-load")
    shop = "service_name IN ('frontend', 'catalog', 'cart', 'payment', 'mailer', 'warehouse')"
    for table in ("logs", "spans", "metrics"):
        query = f"SELECT count(*) AS n FROM {table} WHERE {shop}"
        assert mill.cli_json("sql", query) == whole.cli_json("sql", query), table
