"""Answers of Tempo's API compared with recorded ones, field by field; see `eval/tests/traceql/README.md`."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

RECORDED = Path(__file__).resolve().parents[2] / "eval/tests/traceql"
# Where the recorded server is wrong; `eval/tests/traceql_cases.rs` says why of each.
OTHERWISE = {"select-007", "compare-002", "compare-004", "topk-005", "tags-v2-011", "tag-values-v2-031"}


# Traces with several roots: the last one names the trace, and which is the last follows the order of arrival, which data sent in several requests has not.
SEVERAL_ROOTS = {"structural-014", "structural-union-004", "aggregate-count-004", "pipeline-005"}

PATHS = {"search": "/api/search", "query_range": "/api/metrics/query_range", "query": "/api/metrics/query"}


def cases() -> list[dict]:
    """The recorded requests with their answers: those of the language, and those of the API alone."""
    of_language = json.loads((RECORDED / "cases.json").read_text())
    for case in of_language:
        case.setdefault("path", PATHS.get(case["kind"]))
        case.setdefault("contentType", "application/json" if case["status"] < 400 else "text/plain")
    return of_language + json.loads((Path(__file__).resolve().parents[1] / "samples/tempo-http-cases.json").read_text())


def data() -> bytes:
    """The OTLP/JSON request over which they were recorded."""
    return gzip.decompress((RECORDED / "data.json.gz").read_bytes())


def close(left: object, right: object) -> bool:
    """Numbers may differ by what the order of addition makes of them."""
    if isinstance(left, (int, float)) and isinstance(right, (int, float)) and not isinstance(left, bool):
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-300)
    return left == right


def by_text(items: list) -> list:
    """In an order that does not depend on the sender."""
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def number(value: object) -> object:
    """Whole numbers are one, with a point or not."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    if isinstance(value, list):
        return [number(item) for item in value]
    if isinstance(value, dict):
        return {key: number(item) for key, item in value.items()}
    return value


def spanset(own: dict, counts_only: bool) -> str:
    """What two spansets have in common when they are equal."""
    spans = own.get("spans", [])
    told = own.get("spanCount", len(spans)) if counts_only else by_text([{**span, "attributes": by_text(number(span.get("attributes", [])))} for span in spans])
    return json.dumps(number([own["matched"], by_text(own.get("attributes", [])), told]), sort_keys=True)


def compare_search(got: dict, expected: dict, ordered: bool) -> str | None:
    """What differs first."""
    ids = [trace["traceID"] for trace in got["traces"]]
    wanted = [trace["traceID"] for trace in expected["traces"]]
    if (ids if ordered else sorted(ids)) != (wanted if ordered else sorted(wanted)):
        return f"{len(ids)} of {len(wanted)} traces; surplus {sorted(set(ids) - set(wanted))[:3]}; missing {sorted(set(wanted) - set(ids))[:3]}"
    own = {trace["traceID"]: trace for trace in got["traces"]}
    for trace in expected["traces"]:
        mine = own[trace["traceID"]]
        for key in ("rootServiceName", "rootTraceName", "startTimeUnixNano", "durationMs", "serviceStats"):
            if mine.get(key) != trace.get(key):
                return f"{trace['traceID']}: {key} {mine.get(key)}, expected {trace.get(key)}"
        counts_only = any("spanCount" in spans for spans in trace.get("spanSets", []))
        sets = [sorted(spanset(spans, counts_only) for spans in side.get("spanSets", [])) for side in (mine, trace)]
        if sets[0] != sets[1]:
            return f"{trace['traceID']}: {sets[0]}, expected {sets[1]}"
        if "spanSets" in mine and mine["spanSet"] != mine["spanSets"][0]:
            return f"{trace['traceID']}: spanSet is not the first of spanSets"
    return None


def compare_metrics(got: dict, expected: dict) -> str | None:
    """What differs first."""

    def series(answer: dict) -> dict:
        return {json.dumps(number(by_text(own["labels"])), sort_keys=True): own for own in answer.get("series", [])}

    mine, wanted = series(got), series(expected)
    if mine.keys() != wanted.keys():
        return f"{len(mine)} of {len(wanted)} series; surplus {list(mine.keys() - wanted.keys())[:2]}; missing {list(wanted.keys() - mine.keys())[:2]}"
    for labels, own in wanted.items():
        if not close(mine[labels].get("value", 0), own.get("value", 0)):
            return f"{labels}: {mine[labels].get('value')}, expected {own.get('value')}"
        samples = [[(sample["timestampMs"], sample.get("value", 0)) for sample in side.get("samples", [])] for side in (mine[labels], own)]
        if len(samples[0]) != len(samples[1]) or any(one[0] != other[0] or not close(one[1], other[1]) for one, other in zip(*samples)):
            return f"{labels}: {samples[0]}, expected {samples[1]}"
    if "hasExemplars" in expected and any("exemplars" in own for own in mine.values()) != expected["hasExemplars"]:
        return f"exemplars, expected {expected['hasExemplars']}"
    return None


def scopes(answer: dict) -> dict:
    """Names by scope."""
    return {scope["name"]: sorted(scope["tags"]) for scope in answer["scopes"]}


def flat_spans(resources: list[dict]) -> list[str]:
    """Each span with its resource and scope, in an order of its own, without what is at its default."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if item not in ({}, [], None)}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return number(value)

    def keyed(owner: dict) -> dict:
        if "attributes" in owner:
            owner = {**owner, "attributes": sorted(map(plain, owner["attributes"]), key=lambda own: own["key"])}
        for part in ("events", "links"):
            if part in owner:
                # We give them back as they were sent, Tempo in an order of its own.
                owner = {**owner, part: by_text([keyed(own) for own in owner[part]])}
        return plain(owner)

    spans = []
    for resource in resources:
        for scope in resource["scopeSpans"]:
            spans += [json.dumps([keyed(resource["resource"]), keyed(scope.get("scope", {})), keyed(span)], sort_keys=True) for span in scope["spans"]]
    return sorted(spans)


def compare_traces(got: list[dict], expected: list[dict]) -> str | None:
    """What differs first."""
    mine, wanted = flat_spans(got), flat_spans(expected)
    if mine == wanted:
        return None
    surplus, missing = [[json.loads(span) for span in one if span not in other] for one, other in ((mine, wanted), (wanted, mine))]
    for got_span in surplus:
        same = [span for span in missing if span[2].get("spanId") == got_span[2].get("spanId")]
        for got_part, part in zip(got_span, same[0] if same else []):
            keys = [key for key in got_part.keys() | part.keys() if got_part.get(key) != part.get(key)]
            if keys:
                return f"span {got_span[2].get('spanId')}: {keys[0]} {got_part.get(keys[0])}, expected {part.get(keys[0])}"
    return f"{len(mine)} of {len(wanted)} spans; surplus {surplus[:1]}; missing {missing[:1]}"


def compare(kind: str, got: dict, expected: dict, ordered: bool) -> str | None:
    """What differs first between an answer and the recorded one."""
    match kind:
        case "search":
            return compare_search(got, expected, ordered)
        case "query_range" | "query":
            return compare_metrics(got, expected)
        case "tags_v1":
            mine, wanted = sorted(got["tagNames"]), sorted(expected["tagNames"])
        case "tags_v2":
            mine, wanted = scopes(got), scopes(expected)
        case "tag_values_v1":
            mine, wanted = sorted(got["tagValues"]), sorted(expected["tagValues"])
        case "tag_values_v2":
            mine, wanted = by_text(got["tagValues"]), by_text(expected["tagValues"])
        case "trace_v1":
            return compare_traces(got["batches"], expected["batches"])
        case "trace_v2":
            same = compare_traces(got["trace"].get("resourceSpans", []), expected["trace"].get("resourceSpans", []))
            return same or (None if got.get("status") == expected.get("status") else f"status {got.get('status')}, expected {expected.get('status')}")
        case other:
            raise AssertionError(f"no such kind: {other}")
    return None if mine == wanted else f"{mine}, expected {wanted}"
