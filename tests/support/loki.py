"""Loki's API: pushes, requests, and the comparison with recorded answers field by field."""

from __future__ import annotations

import json
import math
from pathlib import Path

import requests

from .server import Tidemill

CASES = Path(__file__).resolve().parents[2] / "eval/tests/logql"
START = "1748736000000000000"
END = "1748743200000000000"


def recorded_cases() -> list[dict]:
    """What a Loki server answered, see `eval/tests/logql/README.md`."""
    cases = json.loads((CASES / "cases.json").read_text())
    for case in cases:
        if case["kind"] == "api":
            # Those without a path are about the printing of queries.
            case.setdefault("path", "/loki/api/v1/format_query")
            case.setdefault("method", "GET")
            case.setdefault("compare", "exact")
    return cases


def recorded_data() -> dict:
    """The push that the answers are about."""
    return json.loads((CASES / "data.json").read_text())


def push(mill: Tidemill, body: dict | bytes | str, **headers: str) -> requests.Response:
    """One push as JSON, or as it is with other headers."""
    data = json.dumps(body) if isinstance(body, dict) else body
    headers = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if isinstance(data, str):
        data = data.encode()
    return mill.session.post(mill.url("api", "/loki/api/v1/push"), data=data, headers=headers, timeout=60)


def get(mill: Tidemill, path: str, params: dict | list | None = None, **headers: str) -> requests.Response:
    """One request as Grafana sends it."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return mill.session.get(mill.url("api", f"/loki/api/v1/{path}"), params=params or {}, headers=headers, timeout=120)


def data_of(response: requests.Response) -> dict:
    """`data` of an answer, which must be one."""
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["status"] == "success", body
    return body["data"]


def ask(mill: Tidemill, case: dict) -> requests.Response:
    """Sends a recorded case's request."""
    if case["kind"] == "api":
        url = mill.url("api", case["path"])
        headers = case.get("headers", {})
        return mill.session.request(
            case["method"], url, params=case.get("params", {}), data=case.get("body"), headers=headers, timeout=120
        )
    path = "query" if case["kind"] == "instant" else "query_range"
    params = dict(case["params"], query=case["query"])
    return mill.session.get(mill.url("api", f"/loki/api/v1/{path}"), params=params, headers=case.get("headers", {}), timeout=120)


def numbers_agree(left: str, right: str) -> bool:
    """Within 1e-9, NaN equal to itself."""
    one, other = float(left), float(right)
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return one == other or abs(one - other) <= 1e-9 * max(1.0, abs(one), abs(other))


def without_details(labels: dict) -> dict:
    return {name: value for name, value in labels.items() if name != "__error_details__"}


def line_of(value: list) -> list:
    """A line without the words of its error."""
    if len(value) > 2 and "parsed" in value[2]:
        return [*value[:2], {**value[2], "parsed": without_details(value[2]["parsed"])}]
    return value


def by_labels(data: dict, *, forward: bool) -> list[tuple[str, list]]:
    """Entries by their labels; streams that differ in the words of an error only are one."""
    found: dict[str, list] = {}
    order = []
    for entry in data["result"]:
        key = json.dumps(without_details(entry.get("stream", entry.get("metric", {}))), sort_keys=True)
        values = entry["values"] if "values" in entry else [entry["value"]]
        if key not in found:
            order.append(key)
        found.setdefault(key, []).extend(values)
    if data["resultType"] == "streams":
        for values in found.values():
            values.sort(key=lambda value: int(value[0]), reverse=not forward)
    return [(key, found[key]) for key in order]


def difference(got: dict, expected: dict, case: dict) -> str | None:
    """What an answer's `data` has other than it should; `None` where nothing."""
    if got["resultType"] != expected["resultType"]:
        return f"a {got['resultType']}, expected a {expected['resultType']}"
    if got.get("encodingFlags") != expected.get("encodingFlags"):
        return f"encoding flags {got.get('encodingFlags')}, expected {expected.get('encodingFlags')}"
    if got["resultType"] == "scalar":
        return None if numbers_agree(got["result"][1], expected["result"][1]) else f"{got['result']}, expected {expected['result']}"
    forward = case.get("params", {}).get("direction") == "forward"
    own, wanted = by_labels(got, forward=forward), by_labels(expected, forward=forward)
    if case.get("unordered"):
        own.sort(), wanted.sort()
    if [key for key, _ in own] != [key for key, _ in wanted]:
        surplus = sorted({key for key, _ in own} - {key for key, _ in wanted})[:2]
        missing = sorted({key for key, _ in wanted} - {key for key, _ in own})[:2]
        return f"{len(own)} of {len(wanted)} entries; surplus {surplus}; missing {missing}"
    for (key, values), (_, other) in zip(own, wanted):
        if len(values) != len(other):
            return f"{key}: {len(values)} values, expected {len(other)}"
        for left, right in zip(values, other):
            if got["resultType"] == "streams":
                same = line_of(left) == line_of(right)
            else:
                same = float(left[0]) == float(right[0]) and numbers_agree(left[1], right[1])
            if not same:
                return f"{key}: {left}, expected {right}"
    return None


def plain(value: object) -> object:
    """A JSON value whose lists are compared as sets."""
    if isinstance(value, dict):
        return {name: plain(own) for name, own in value.items()}
    if isinstance(value, list):
        return sorted((plain(own) for own in value), key=lambda own: json.dumps(own, sort_keys=True))
    return value
