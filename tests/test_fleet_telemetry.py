"""The alert rules and the dashboard of `examples/fleet`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from test_fleet import Fleet, fleet  # noqa: F401

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


def test_every_panel_of_the_dashboard_returns_data(fleet: Fleet) -> None:
    """A fleet with some of everything, asked through Prometheus's API as Grafana asks: no panel stays empty."""
    labels = {"app": "web"}
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    busy = {"name": "main", "image": "busybox", "command": ["sh", "-c", "while true; do echo a line; sleep 0.2; done"], "resources": resources}
    template = {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [busy]}}
    web = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}}
    crash = json.loads(json.dumps(web).replace('"web"', '"crash"').replace("while true; do echo a line; sleep 0.2; done", "exit 3"))
    always = {"type": "cron", "metadata": {"timezone": "UTC", "start": "0 0 * * *", "end": "59 23 * * *", "desiredReplicas": "2"}}
    so = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"}, "spec": {"scaleTargetRef": {"name": "web"}, "pollingInterval": 1, "minReplicaCount": 1, "triggers": [always]}}
    metric = {"type": "External", "external": {"metric": {"name": "nowhere"}, "target": {"type": "AverageValue", "averageValue": "1"}}}
    hpa = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "crash"}, "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "crash"}, "maxReplicas": 2, "metrics": [metric]}}
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox", "command": ["true"]}]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": {"spec": pod}}}
    fleet.apply(web, crash, so, hpa, job)
    dashboard = json.loads((EXAMPLES / "dashboard.json").read_text())
    left = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    assert len(left) > 15

    def filled() -> bool:
        for expression in sorted(left):
            answer = fleet.mill.session.get(fleet.mill.url("api", "/api/v1/query"), params={"query": expression}, timeout=60).json()
            assert answer["status"] == "success", (expression, answer)
            if answer["data"]["result"]:
                left.discard(expression)
        return not left

    try:
        fleet.until(filled, "data in every panel", at_most_s=150)
    except AssertionError as error:
        raise AssertionError(f"these return nothing: {sorted(left)}") from error
