"""The alert rules and the dashboard of `examples/fleet`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "fleet"


def promtool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs promtool, which comes with Prometheus."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    return subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)


def test_alert_rules_fire_on_what_they_are_for(tmp_path: Path) -> None:
    found = promtool("check", "rules", "alerts.yaml", cwd=EXAMPLES)
    assert found.returncode == 0, found.stdout + found.stderr
    found = promtool("test", "rules", "alerts-test.yaml", cwd=EXAMPLES)
    assert found.returncode == 0, found.stdout + found.stderr
    # The same tests fail where an expectation is another, so they do look.
    shutil.copy(EXAMPLES / "alerts.yaml", tmp_path)
    tests = (EXAMPLES / "alerts-test.yaml").read_text()
    (tmp_path / "alerts-test.yaml").write_text(tests.replace("uses 95% of", "uses 94% of"))
    assert promtool("test", "rules", "alerts-test.yaml", cwd=tmp_path).returncode != 0


def test_dashboard_expressions_are_promql(tmp_path: Path) -> None:
    dashboard = json.loads((EXAMPLES / "dashboard.json").read_text())
    targets = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(targets) > 10 and len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    rules = [{"record": f"panel:{index}", "expr": expression} for index, (_, expression) in enumerate(targets)]
    # JSON is YAML.
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    found = promtool("check", "rules", "rules.yaml", cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
