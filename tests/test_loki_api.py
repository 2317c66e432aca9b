"""Loki's API over the lake: recorded answers of a real Loki, what Grafana sends, pushes, live tails, and what must be refused."""

from __future__ import annotations

import gzip
import json
import random
import time
import zlib
from pathlib import Path

import pytest

from support import loki
from support.processes import wait_until
from support.server import Tidemill

SECOND = 1_000_000_000
# Recorded statuses that are not ours, with why.
OTHER_STATUS = {
    # What patterns there are is not kept.
    "api-055",
    "api-057",
    "push-047",
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory):
    """A server with the recorded push, in several requests, so that several segments overlap in time."""
    mill = Tidemill(tmp_path_factory.mktemp("loki") / "mill")
    mill.start()
    chance = random.Random(7)
    parts = [{"streams": []} for _ in range(4)]
    for stream in loki.recorded_data()["streams"]:
        shares: list[list] = [[] for _ in parts]
        for value in stream["values"]:
            chance.choice(shares).append(value)
        for part, values in zip(parts, shares):
            if values:
                part["streams"].append({"stream": stream["stream"], "values": values})
    for part in parts:
        answer = loki.push(mill, part)
        assert answer.status_code == 204, answer.text
    mill.drain()
    yield mill
    mill.kill()


def failures(mill: Tidemill) -> tuple[list[str], int]:
    """Recorded queries whose answer differs, and how many were compared."""
    wrong, compared = [], 0
    for case in loki.recorded_cases():
        if case["kind"] == "api" or case["group"] == "server_quirk":
            continue
        compared += 1
        answer = loki.ask(mill, case)
        if case["status"] >= 400:
            if answer.status_code < 400 or answer.status_code >= 500:
                wrong.append(f"{case['id']} {case['query']}: {answer.status_code}, must be refused")
            continue
        if answer.status_code != 200:
            wrong.append(f"{case['id']} {case['query']}: {answer.status_code} {answer.text[:300]}")
            continue
        told = loki.difference(answer.json()["data"], case["expect"], case)
        if told:
            wrong.append(f"{case['id']} {case['query']}: {told[:600]}")
    return wrong, compared


def test_recorded_answers_come_before_and_after_compaction(recorded: Tidemill) -> None:
    wrong, compared = failures(recorded)
    assert compared > 480
    assert not wrong, f"{len(wrong)} of {compared}:\n" + "\n".join(wrong[:20])

    def compacted() -> bool:
        segments = [segment for segment in recorded.rows("segments") if segment["signal"] == "logs"]
        return bool(segments) and all(segment["level"] > 0 for segment in segments)

    wait_until(compacted, at_most_s=240, what="compaction", alive=recorded.process, log=recorded.log, every_s=1)
    wrong, compared = failures(recorded)
    assert not wrong, f"{len(wrong)} of {compared} after compaction:\n" + "\n".join(wrong[:20])


def shape(value: object) -> object:
    """Keys and types, of lists the shape of the first member."""
    if isinstance(value, dict):
        return {name: shape(own) for name, own in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) else type(value).__name__


@pytest.mark.parametrize("case", [case for case in loki.recorded_cases() if case["group"] == "api"], ids=lambda case: case["id"])
def test_recorded_requests_have_their_answers(recorded: Tidemill, case: dict) -> None:
    if case["id"] in OTHER_STATUS:
        pytest.skip("kept out on purpose, see OTHER_STATUS")
    answer = loki.ask(recorded, case)
    assert answer.status_code == case["status"], answer.text
    if case["status"] >= 400:
        if case["path"].endswith("format_query"):
            assert answer.json()["status"] == "invalid-query" and answer.json()["error"]
        elif case.get("content_type") and case["compare"] != "status":
            assert answer.headers["content-type"].startswith(case["content_type"]) and answer.text.strip()
        return
    expected = case["expect"]
    if isinstance(expected, str):
        assert answer.text.strip() == expected
        return
    got = answer.json()
    if case["compare"] == "exact":
        if case["path"].endswith(("/query", "/query_range")):
            assert loki.difference(got["data"], expected["data"], case) is None
        elif case.get("unordered"):
            assert loki.plain(got) == loki.plain(expected)
        else:
            assert got == expected
        return
    if "entries" in expected:
        assert {name: got[name] for name in ("streams", "entries")} == {name: expected[name] for name in ("streams", "entries")}
        assert set(got) == set(expected) and (got["bytes"] > 0) == (expected["bytes"] > 0)
    elif "fields" in expected:
        names = {field["label"]: field["type"] for field in expected["fields"] if field["parsers"] != ["json"]}
        ours = {field["label"]: field["type"] for field in got["fields"]}
        assert set(names) - set(ours) == set(), f"missing {set(names) - set(ours)}"
        assert {name: ours[name] for name in names} == names
    else:
        assert shape(got) == shape(expected)
        key = [json.dumps(entry["metric"], sort_keys=True) for entry in expected["data"]["result"]]
        ours = [json.dumps(entry["metric"], sort_keys=True) for entry in got["data"]["result"]]
        assert sorted(ours) == sorted(key)
        if expected["data"]["resultType"] == "matrix":
            times = {json.dumps(entry["metric"]): [at for at, _ in entry["values"]] for entry in expected["data"]["result"]}
            assert {json.dumps(entry["metric"]): [at for at, _ in entry["values"]] for entry in got["data"]["result"]} == times


def test_grafanas_requests(recorded: Tidemill) -> None:
    """Health check, label browser, Explore with its log volume, and Logs Drilldown, as Grafana sends them."""
    flags = {"x_loki_response_encoding_flags": "categorize-labels"}
    health = loki.data_of(loki.get(recorded, "query", {"query": "vector(1)+vector(1)", "time": "4000000000"}, **flags))
    assert health["resultType"] == "vector" and health["result"] == [{"metric": {}, "value": [4000000000, "2"]}]
    build = loki.get(recorded, "status/buildinfo").json()
    assert build["version"] and build["revision"].startswith("tidemill")
    span = {"start": loki.START, "end": loki.END}
    assert loki.data_of(loki.get(recorded, "labels", span))
    assert loki.data_of(loki.get(recorded, "label/service_name/values", span))
    assert loki.data_of(loki.get(recorded, "series", {**span, "match[]": '{service_name="edge"}'}))
    query = '{service_name="edge"} |= ``'
    lines = loki.get(recorded, "query_range", {**span, "query": query, "direction": "backward", "limit": 1000, "step": "5000ms"}, **flags)
    data = loki.data_of(lines)
    assert data["encodingFlags"] == ["categorize-labels"]
    assert sum(len(stream["values"]) for stream in data["result"]) == 310
    assert all(len(value) == 3 and isinstance(value[2], dict) for stream in data["result"] for value in stream["values"])
    assert set(data["stats"]) >= {"summary", "querier", "ingester"} and data["stats"]["summary"]["totalLinesProcessed"] > 0
    volume = 'sum by (level, detected_level) (count_over_time({service_name="edge"} |= `` | drop __error__[1m]))'
    counted = loki.data_of(loki.get(recorded, "query_range", {**span, "query": volume, "step": "60000ms"}, **flags))
    assert counted["resultType"] == "matrix" and sum(float(value[1]) for one in counted["result"] for value in one["values"]) == 310
    drilldown = loki.get(recorded, "index/volume", {**span, "query": '{service_name=~`.+`}', "limit": 5000, "targetLabels": "service_name"})
    assert {entry["metric"]["service_name"] for entry in loki.data_of(drilldown)["result"]} >= {"edge", "cart"}


def test_a_range_split_in_two_gives_the_sum_and_matchers_commute(recorded: Tidemill) -> None:
    chance = random.Random(11)

    def total(selector: str, start: int, end: int) -> float:
        query = f"sum(count_over_time({selector}[{end - start}ns]))"
        found = loki.data_of(loki.get(recorded, "query", {"query": query, "time": str(end)}))["result"]
        return float(found[0]["value"][1]) if found else 0.0

    whole = int(loki.START), int(loki.END)
    seen = 0.0
    for selector in ['{env="prod"}', '{service_name=~"c.*", env!="dev"} |= "a"', '{env=~".+"} | json | __error__=""']:
        all_of_it = total(selector, *whole)
        seen += all_of_it
        for _ in range(5):
            middle = chance.randint(*whole)
            assert total(selector, whole[0], middle) + total(selector, middle, whole[1]) == all_of_it, (selector, middle)
    assert seen > 1000
    one = loki.get(recorded, "query_range", {"query": '{env="prod", region=~"eu.*"}', "start": loki.START, "end": loki.END, "limit": 5000})
    other = loki.get(recorded, "query_range", {"query": '{region=~"eu.*", env="prod"}', "start": loki.START, "end": loki.END, "limit": 5000})
    one_data, other_data = loki.data_of(one), loki.data_of(other)
    assert one_data["result"] == other_data["result"] and one_data["result"]


def test_pages_of_lines_make_the_whole(recorded: Tidemill) -> None:
    """Small pages, each from where the last ended, in both directions: nothing twice, nothing left out."""
    for direction in ("forward", "backward"):
        start, end, seen = int(loki.START), int(loki.END), []
        while True:
            page = loki.data_of(
                loki.get(recorded, "query_range", {"query": '{env="prod"}', "start": start, "end": end, "limit": 97, "direction": direction})
            )["result"]
            times = sorted(int(value[0]) for stream in page for value in stream["values"])
            if not times:
                break
            seen += times
            start, end = (times[-1] + 1, end) if direction == "forward" else (start, times[0])
        assert len(seen) == len(set(seen)) == 1334


def test_hostile_requests_are_refused_in_words(recorded: Tidemill) -> None:
    span = {"start": loki.START, "end": loki.END}
    selector = '{env="prod"}'
    for params in [
        {"query": selector, "limit": "1000000000"},
        {"query": selector, "limit": "-1"},
        {"query": selector, "direction": "sideways"},
        {"query": selector, "step": "-1"},
        {"query": selector, "start": "2", "end": "1"},
        {"query": f'{selector} |~ "(((("'},
        {"query": f'{selector} |~ "(a{{1000}}){{1000}}"'},
        {"query": "(" * 5000 + "1" + ")" * 5000},
        {"query": f"sum({'sum(' * 2000}rate({selector}[5m]){')' * 2000})"},
        {"query": f"rate({selector}[5m])", "step": "0.001"},
        {"query": f'{selector} | line_format "{{{{ repeat 1000000 `a` }}}}"', "limit": "1000"},
        {"query": f'sum by (a) (count_over_time({selector} | label_format a=`{{{{ __timestamp__ }}}}{{{{ repeat 900000 "a" }}}}` [1d]))'},
        {"query": "{}"},
        {"query": ""},
    ]:
        answer = loki.get(recorded, "query_range", {**span, **params})
        assert 400 <= answer.status_code < 500 and len(answer.text) > 5, (params, answer.status_code, answer.text[:200])
        assert answer.headers["content-type"].startswith("text/plain")
    assert recorded.session.get(recorded.url("api", "/loki/api/v1/labels"), headers={"api-key": "wrong"}, timeout=10).status_code == 401


@pytest.mark.parametrize("case", [case for case in loki.recorded_cases() if case["group"] == "push"], ids=lambda case: case["id"])
def test_recorded_pushes_have_their_status(recorded: Tidemill, case: dict) -> None:
    if case["id"] in OTHER_STATUS:
        pytest.skip("kept out on purpose, see OTHER_STATUS")
    now = time.time_ns()
    sent = dict(case, body=case["body"].replace("{{NOW_NS}}", str(now)))
    answer = loki.ask(recorded, sent)
    assert answer.status_code == case["status"], answer.text
    assert case["status"] < 400 or len(answer.text.strip()) > 5


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def message(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def snappy(body: bytes) -> bytes:
    """Snappy's block format, of literals alone."""
    out = varint(len(body))
    for start in range(0, len(body), 60):
        part = body[start : start + 60]
        out += bytes([(len(part) - 1) << 2]) + part
    return out


def test_promtail_and_alloy_push_protobuf(mill: Tidemill) -> None:
    mill.start()
    now = time.time_ns() // SECOND * SECOND + 7
    entry = message(1, varint(1 << 3) + varint(now // SECOND) + varint(2 << 3) + varint(now % SECOND)) + message(2, "grüße".encode())
    entry += message(3, message(1, b"trace_id") + message(2, b"abc"))
    body = message(1, message(1, b'{job="app", service_name="api"}') + message(2, entry))
    answer = loki.push(mill, snappy(body), content_type="application/x-protobuf")
    assert answer.status_code == 204, answer.text
    # The same push again is the same lines once.
    assert loki.push(mill, snappy(body), content_type="application/x-protobuf").status_code == 204
    zipped = gzip.compress(json.dumps({"streams": [{"stream": {"job": "zip"}, "values": [[str(now), "zipped"]]}]}).encode())
    assert loki.push(mill, zipped, content_encoding="gzip").status_code == 204
    for broken in (snappy(body)[:-3], b"\xff\xff\xff\xff\x0f" + body, b""):
        refused = loki.push(mill, broken, content_type="application/x-protobuf")
        assert 400 <= refused.status_code < 500, refused.text
    mill.drain()
    data = loki.data_of(loki.get(mill, "query_range", {"query": '{job="app"}', "since": "1h"}, x_loki_response_encoding_flags="categorize-labels"))
    assert len(data["result"]) == 1 and data["result"][0]["values"] == [[str(now), "grüße", {"structuredMetadata": {"trace_id": "abc"}}]]
    assert loki.data_of(loki.get(mill, "query_range", {"query": '{job="zip"}', "since": "1h"}))["result"]
    # SQL sees the same records.
    assert mill.sql("SELECT body FROM logs WHERE service_name = 'api'") == [{"body": "grüße"}]


def test_a_wrong_entry_is_told_and_the_others_are_kept(mill: Tidemill) -> None:
    mill.start()
    now = time.time_ns()
    values = [[str(now), "kept"], [str(now + 90_000 * SECOND), "tomorrow's morrow"]]
    answer = loki.push(mill, {"streams": [{"stream": {"job": "a"}, "values": values}, {"stream": {"b-c": "x"}, "values": [[str(now), "x"]]}]})
    assert answer.status_code == 400
    assert "too new" in answer.text and '"b-c"' in answer.text and "2 entries refused, 1 stored" in answer.text
    mill.drain()
    assert mill.sql("SELECT body FROM logs") == [{"body": "kept"}]


def test_what_was_acknowledged_survives_kill_9(mill: Tidemill) -> None:
    """Whatever happens right after the answer; and what is sent again because no answer came is there once."""
    mill.start()
    now = time.time_ns()
    sent = []
    for number in range(3):
        bodies = [
            {"streams": [{"stream": {"job": "kill"}, "values": [[str(now + number * 1000 + place), f"line {number} {place}"]]}]}
            for place in range(20)
        ]
        for body in bodies:
            assert loki.push(mill, body).status_code == 204
            sent.append(body["streams"][0]["values"][0])
        mill.kill()
        mill.start()
        assert loki.push(mill, bodies[-1]).status_code == 204
    mill.drain()
    data = loki.data_of(loki.get(mill, "query_range", {"query": '{job="kill"}', "since": "1h", "limit": 5000, "direction": "forward"}))
    found = [value for stream in data["result"] for value in stream["values"]]
    assert sorted(found) == sorted(sent)


def test_the_most_lines_of_a_query_are_configured(mill: Tidemill) -> None:
    now = time.time_ns()
    values = [[str(now + place), f"line {place}"] for place in range(12)]
    asked = {"query": '{job="most"}', "since": "1h"}
    for configured, most in (("10", 10), ("0", 1)):
        mill.configure(logql__max_lines=configured)
        mill.start()
        assert loki.push(mill, {"streams": [{"stream": {"job": "most"}, "values": values}]}).status_code == 204
        mill.drain()
        # Without a limit there are not more either.
        for limit in ({}, {"limit": most}):
            data = loki.data_of(loki.get(mill, "query_range", {**asked, **limit}))
            assert sum(len(stream["values"]) for stream in data["result"]) == most
        refused = loki.get(mill, "query_range", {**asked, "limit": most + 1})
        assert refused.status_code == 400 and "logql.max_lines" in refused.text
        # Queries of numbers have no lines.
        numbers = {"query": 'count_over_time({job="most"}[1h])', "limit": most + 1}
        assert loki.data_of(loki.get(mill, "query", numbers))["result"][0]["value"][1] == "12"
        mill.stop()


def test_requests_that_real_clients_send(mill: Tidemill) -> None:
    """Expressions as Go reads them, lines as nginx escapes them, forms as `curl -d` leaves them, pushes by OTLP and deflate."""
    mill.start()
    now = time.time_ns()
    lines = [r'{"ua":"Moz \x22x\x22","status":"200","path":"/a"}', "GET /user{id} from a-b.example_1", "plain"]
    values = [[str(now + place), line] for place, line in enumerate(lines)]
    body = json.dumps({"streams": [{"stream": {"app": "real"}, "values": values}]}).encode()
    packed = zlib.compress(body)
    for encoded in (packed, packed[2:-4]):
        answer = mill.session.post(
            mill.url("api", "/loki/api/v1/push"), data=encoded, headers={"content-type": "application/json", "content-encoding": "deflate"}, timeout=30
        )
        assert answer.status_code == 204, answer.text
    otlp = otlp_logs(now)
    sent = mill.session.post(mill.url("api", "/otlp/v1/logs"), data=otlp, headers={"content-type": "application/x-protobuf"}, timeout=30)
    assert sent.status_code == 200, sent.text
    mill.drain()

    def found(query: str) -> list[str]:
        data = loki.data_of(loki.get(mill, "query_range", {"query": query, "since": "1h", "end": str(now + SECOND)}))
        return sorted(value[1] for stream in data["result"] for value in stream["values"])

    assert found('{app="real"} |~ `user{id}`') == [lines[1]] == found('{app=~"real|{.*"} |~ `[\\w-.]+_1$`')
    assert found('{app="real"} |~ `^{"ua`') == [lines[0]] == found('{app="real"} | json | status="200" | ua="" | __error__=""')
    assert len(found('{service_name="baker"}')) == 10
    # A form that is not encoded, and one with a long query.
    url = mill.url("api", "/loki/api/v1/query_range")
    form = {"content-type": "application/x-www-form-urlencoded"}
    plain = mill.session.post(url, data=f'query={{app="real"}} |= "plain"&since=1h&end={now + SECOND}', headers=form, timeout=30)
    assert [value[1] for stream in loki.data_of(plain)["result"] for value in stream["values"]] == ["plain"]
    names = "|".join(f"some-service-of-many-{place:05}" for place in range(4000))
    long = mill.session.post(url, data={"query": f'{{app=~"real|{names}"}}', "since": "1h", "end": str(now + SECOND)}, timeout=30)
    assert len(loki.data_of(long)["result"]) == 1


def test_pushes_are_turned_away_at_the_disk_limit(tmp_path: Path) -> None:
    mill = Tidemill(tmp_path / "mill", storage__disk_budget="1B")
    try:
        mill.start()
        body = {"streams": [{"stream": {"job": "full"}, "values": [[str(time.time_ns()), "x"]]}]}
        refused = wait_until(
            lambda: (answer := loki.push(mill, body)).status_code == 429 and [answer], at_most_s=30, what="a full disk", alive=mill.process, log=mill.log
        )
        assert refused[0].headers["retry-after"] and refused[0].text
    finally:
        mill.kill()


def otlp_logs(now: int) -> bytes:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    for key, value in {"service.name": "baker", "k8s.pod.name": "baker-0", "host.arch": "arm64"}.items():
        resource.resource.attributes.add(key=key).value.string_value = value
    scope = resource.scope_logs.add()
    scope.scope.name = "oven"
    for place in range(10):
        record = scope.log_records.add(time_unix_nano=now + place, severity_number=17 if place % 5 == 0 else 9, severity_text="")
        record.body.string_value = f"loaf {place} took={place}ms"
        record.attributes.add(key="http.status").value.int_value = 200 + place
        record.attributes.add(key="k8s.pod.name").value.string_value = "other"
    record.trace_id = bytes(range(16))
    unnamed = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=now)
    unnamed.body.string_value = "nobody's"
    return request.SerializeToString()


def test_otlp_records_have_the_labels_that_a_user_of_loki_expects(mill: Tidemill) -> None:
    mill.start()
    now = time.time_ns()
    assert mill.push("logs", otlp_logs(now)).status_code == 200
    mill.drain()
    assert loki.data_of(loki.get(mill, "labels")) == ["k8s_pod_name", "service_name"]
    assert loki.data_of(loki.get(mill, "label/service_name/values")) == ["baker", "unknown_service"]

    def ask(query: str, **params: str) -> list[dict]:
        return loki.data_of(loki.get(mill, "query_range", {"query": query, "since": "1h", "end": str(now + 10 * SECOND), "limit": "100", **params}))["result"]

    newest = loki.data_of(
        loki.get(mill, "query_range", {"query": '{k8s_pod_name="baker-0"}', "limit": 1, "end": str(now + 10 * SECOND)}, x_loki_response_encoding_flags="categorize-labels")
    )["result"]
    assert len(newest) == 1
    time_ns, line, categories = newest[0]["values"][0]
    assert (int(time_ns), line) == (now + 9, "loaf 9 took=9ms")
    assert categories["structuredMetadata"] == {
        "trace_id": bytes(range(16)).hex(),
        "severity_number": "9",
        "scope_name": "oven",
        "detected_level": "info",
        "http_status": "209",
        "k8s_pod_name_extracted": "other",
        "host_arch": "arm64",
    }
    assert sum(len(stream["values"]) for stream in ask('{service_name="baker"} | detected_level="error"')) == 2
    assert sum(len(stream["values"]) for stream in ask('{service_name="baker"} | http_status>=207')) == 3
    assert [value[1] for stream in ask('{service_name="unknown_service"}') for value in stream["values"]] == ["nobody's"]
    by_level = loki.data_of(
        loki.get(mill, "query", {"query": 'sum by (detected_level) (count_over_time({service_name="baker"}[1h]))', "time": str(now + SECOND)})
    )["result"]
    assert {entry["metric"]["detected_level"]: entry["value"][1] for entry in by_level} == {"error": "2", "info": "8"}
    quantile = 'quantile_over_time(0.5, {service_name="baker"} | logfmt | unwrap duration(took) [1h]) by (service_name)'
    [median] = loki.data_of(loki.get(mill, "query", {"query": quantile, "time": str(now + SECOND)}))["result"]
    assert float(median["value"][1]) == pytest.approx(0.0045)


def test_a_tail_sends_lines_as_they_come(mill: Tidemill) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    mill.start()

    def push(lines: list[str]) -> None:
        values = [[str(time.time_ns()), line] for line in lines]
        assert loki.push(mill, {"streams": [{"stream": {"job": "tail"}, "values": values}]}).status_code == 204

    push(["before"])
    mill.drain()
    address = mill.url("api", "/loki/api/v1/tail").replace("http", "ws", 1)

    def read(socket, until: int) -> list[str]:
        lines: list[str] = []
        while len(lines) < until:
            frame = json.loads(socket.recv(timeout=30))
            lines += [value[1] for stream in frame["streams"] for value in stream["values"]]
        return lines

    with connect(f"{address}?query=%7Bjob%3D%22tail%22%7D%20%21%3D%20%22no%22", additional_headers=mill.headers) as socket:
        assert read(socket, 1) == ["before"]
        push(["one", "no", "two"])
        assert read(socket, 2) == ["one", "two"]
        # Nothing comes twice.
        push(["three"])
        assert read(socket, 1) == ["three"]
    for query in ("%7Bbad", "count_over_time(%7Bjob%3D%22tail%22%7D%5B1m%5D)"):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{address}?query={query}", additional_headers=mill.headers)
        assert refused.value.response.status_code == 400
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{address}?query=%7Bjob%3D%22tail%22%7D")
    assert refused.value.response.status_code == 401
