"""Tempo's HTTP API over data that was sent by OTLP: recorded answers, what Grafana sends, what the SDK sent, hostile input."""

from __future__ import annotations

import json
import random

import pytest
import requests

from support import lake, tempo
from support.processes import wait_until
from support.server import Tidemill

START, END = 1795175700, 1795179000


def ask(mill: Tidemill, path: str, params: dict | None = None, headers: dict | None = None) -> requests.Response:
    return mill.session.get(mill.url("api", path), params=params or {}, headers=headers or {}, timeout=120)


def send(mill: Tidemill, bodies: list[bytes]) -> None:
    for body in bodies:
        answer = mill.session.post(mill.url("http", "/v1/traces"), data=body, headers={"content-type": "application/json"}, timeout=60)
        assert answer.status_code == 200, answer.text
    mill.drain()


def split(body: bytes, parts: int) -> list[bytes]:
    """The same spans in requests of their own, so that traces lie in several segments."""
    whole = json.loads(body)["resourceSpans"]
    return [json.dumps({"resourceSpans": whole[part::parts]}).encode() for part in range(parts)]


def check_recorded(mill: Tidemill, prefix: str) -> None:
    failures, compared = [], 0
    for case in tempo.cases():
        # What it is that answers `/ready` is not the API's.
        if case["path"] == "/ready":
            continue
        params = dict(case["params"])
        if case.get("query") is not None:
            params["q"] = case["query"]
        answer = ask(mill, prefix + case["path"], params, case.get("headers"))
        problem = None
        if answer.status_code != case["status"]:
            problem = f"status {answer.status_code}, expected {case['status']}: {answer.text[:300]}"
        elif answer.headers["content-type"].split(";")[0] != case["contentType"]:
            problem = f"content type {answer.headers['content-type']}"
        elif case["status"] < 400 and case["contentType"] == "application/json":
            problem = tempo.compare(case["kind"], answer.json(), case["expect"], not case.get("unordered", False))
        elif case["kind"] == "http" and case["status"] == 200 and answer.text != case["expect"]["text"]:
            problem = answer.text
        if "quirk" in case or case["id"] in tempo.OTHERWISE | tempo.SEVERAL_ROOTS:
            continue
        compared += 1
        if problem:
            failures.append(f"{case['id']} {case['path']} {params}\n    {problem[:1500]}")
    assert compared > 300, compared
    assert not failures, f"{len(failures)} of {compared} differ:\n" + "\n".join(failures)


@pytest.mark.slow
def test_recorded_answers_before_and_after_compaction(mill: Tidemill) -> None:
    mill.configure(worker__actions="ingest")
    mill.start()
    send(mill, split(tempo.data(), 4))
    assert mill.count("spans") == 2560
    check_recorded(mill, "")
    mill.stop()
    mill.configure(worker__actions="ingest,compact,rollup")
    mill.start()
    wait_until(
        lambda: all(segment["level"] > 0 for segment in lake.live_segments(mill, "traces")),
        at_most_s=240, what="compaction of traces", alive=mill.process, log=mill.log, every_s=1,
    )
    check_recorded(mill, "/tempo")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory):
    """A server with the recorded data."""
    installation = Tidemill(tmp_path_factory.mktemp("recorded") / "mill")
    installation.start()
    send(installation, split(tempo.data(), 3))
    yield installation
    installation.kill()


def test_requests_of_grafana(recorded: Tidemill) -> None:
    """What the data source and Explore send, and what they read of the answers."""
    window = {"start": START, "end": END}
    assert ask(recorded, "/api/echo").text == "echo"
    assert ask(recorded, "/api/status/buildinfo").json()["version"]
    # Search by TraceQL.
    query = {"q": '{resource.service.name="checkout" && status=error}', "limit": 20, "spss": 3, **window}
    answer = ask(recorded, "/api/search", query).json()
    assert answer["traces"] and int(answer["metrics"]["inspectedBytes"]) > 0
    starts = [int(trace["startTimeUnixNano"]) for trace in answer["traces"]]
    assert starts == sorted(starts, reverse=True)
    for trace in answer["traces"]:
        assert {"traceID", "rootServiceName", "rootTraceName", "startTimeUnixNano", "spanSet", "spanSets"} <= trace.keys()
        assert all(span.keys() >= {"spanID", "startTimeUnixNano", "durationNanos"} for span in trace["spanSet"]["spans"])
        assert {attribute["key"] for span in trace["spanSet"]["spans"] for attribute in span["attributes"]} >= {"status", "service.name"}
    # A trace of it, as the data source decodes it: protobuf.
    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

    one = answer["traces"][0]
    for path, tag in ((f"/api/traces/{one['traceID']}", None), (f"/api/v2/traces/{one['traceID']}", 1)):
        reply = ask(recorded, path, window, {"accept": "application/protobuf"})
        assert reply.headers["content-type"] == "application/protobuf"
        body = reply.content
        if tag:
            # The trace is the first field of the second version's answer.
            assert body[0] == 0x0A
            shift = length = 0
            for at, byte in enumerate(body[1:], 2):
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            body = body[at : at + length]
        trace = TracesData.FromString(body)
        spans = [span for resource in trace.resource_spans for scope in resource.scope_spans for span in scope.spans]
        assert {span.trace_id.hex() for span in spans} == {one["traceID"].zfill(32)}
        assert len(spans) == sum(own["spanCount"] for own in one["serviceStats"].values())
    # What completes queries.
    names = {scope["name"]: scope["tags"] for scope in ask(recorded, "/api/v2/search/tags", {**window, "limit": 5000}).json()["scopes"]}
    assert "http.method" in names["span"] and "service.name" in names["resource"] and "duration" in names["intrinsic"]
    values = ask(recorded, "/api/v2/search/tag/resource.service.name/values", {**window, "q": "{span.db.system=`mysql`}"}).json()
    assert {"type": "string", "value": "payment"} in values["tagValues"]
    # While somebody writes, and as many as fit on a page.
    writing = ask(recorded, "/api/v2/search/tag/resource.service.name/values", {**window, "q": "{span.db.system=`mysql` && span.http.method = }"})
    assert writing.json()["tagValues"] == values["tagValues"]
    assert len(ask(recorded, "/api/v2/search/tag/name/values", {**window, "limit": 2}).json()["tagValues"]) == 2
    few = ask(recorded, "/api/v2/search/tags", {**window, "limit": 2, "scope": "span"}).json()
    assert [len(scope["tags"]) for scope in few["scopes"]] == [2]
    # Tags as the older clients write them: parts of values, in capitals or not.
    assert ask(recorded, "/api/search", {"tags": "service.name=CHECK", **window}).json()["traces"]
    # The tree of Traces Drilldown, and its panels, which allow samples.
    structure = "({nestedSetParent<0}) | select(name, nestedSetParent, nestedSetLeft, nestedSetRight)"
    for trace in ask(recorded, "/api/search", {"q": structure, **window}).json()["traces"]:
        for span in trace["spanSet"]["spans"]:
            shown = {attribute["key"]: attribute["value"] for attribute in span["attributes"]}
            assert shown["nestedSetParent"] == {"intValue": "-1"} and {"nestedSetLeft", "nestedSetRight"} <= shown.keys()
    assert ask(recorded, "/api/metrics/query_range", {"q": "{} | rate() with (sample=true)", "step": "60s", **window}).json()["series"]
    # The columns of Explore's "Traces drilldown".
    series = ask(recorded, "/api/metrics/query_range", {"q": "{nestedSetParent<0} | rate() by(resource.service.name)", "step": "60s", **window}).json()["series"]
    assert len(series) > 3 and all({"labels", "samples"} <= own.keys() for own in series)
    histogram = ask(recorded, "/api/metrics/query_range", {"q": "{} | histogram_over_time(duration)", "step": "60s", **window}).json()["series"]
    assert {label["key"] for own in histogram for label in own["labels"]} == {"__bucket"}
    assert any(exemplar["labels"][0]["key"] == "trace:id" for own in histogram for exemplar in own.get("exemplars", []))
    by_name = {"q": "{} | rate() by (name)", "step": "60s", **window}
    for asked, most in (({}, 100), ({"exemplars": 7}, 7), ({"exemplars": 0}, 100), ({"exemplars": 1000}, 100)):
        series = ask(recorded, "/api/metrics/query_range", {**by_name, **asked}).json()["series"]
        assert sum(len(own.get("exemplars", [])) for own in series) == most, asked


def test_other_organizations_and_callers_without_a_key_see_nothing(recorded: Tidemill) -> None:
    bare = requests.get(recorded.url("api", "/api/search"), params={"q": "{}"}, timeout=30)
    assert bare.status_code == 401
    created = recorded.cli_json("org", "create", "stranger")
    key = recorded.cli_json("key", "create", "--organization", "stranger")["key"]
    assert created
    strange = {"authorization": f"Bearer {key}"}
    found = requests.get(recorded.url("api", "/api/search"), params={"q": "{}"}, headers=strange, timeout=30).json()
    assert found["traces"] == []
    lost = requests.get(recorded.url("api", "/api/traces/4bf92f3577b34da6a3ce929d0e0e4736"), headers=strange, timeout=30)
    assert lost.status_code == 404


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("/api/traces/" + "f" * 5000, {}, 400),
        ("/api/traces/%00", {}, 400),
        ("/api/traces/..%2f..%2fetc", {}, 400),
        ("/api/search", {"q": "{" * 20000}, 400),
        ("/api/search", {"q": "{ " + "(" * 500 + "true" + ")" * 500 + " }"}, 400),
        ("/api/search", {"q": "{ span.a =~ `" + "(a{1000}){1000}" + "` }"}, 400),
        ("/api/search", {"q": "x" * 60000}, 400),
        ("/api/search", {"q": "{}", "limit": 10**30}, 400),
        ("/api/search", {"q": "{}", "limit": 1_000_000}, 400),
        ("/api/search", {"q": "{}", "start": "9" * 30}, 400),
        ("/api/search", {"q": "{}", "start": 10, "end": 5}, 400),
        ("/api/search", {"q": "{} | rate()"}, 400),
        ("/api/metrics/query_range", {"q": "{} | rate()", "step": "1ns", "start": START, "end": END}, 400),
        ("/api/metrics/query_range", {"q": "{} | rate()", "step": "0"}, 400),
        ("/api/metrics/query_range", {"q": "{}"}, 400),
        ("/api/metrics/query_range", {"q": "{} | rate() by (span:id)", "step": "1s", "start": START, "end": END}, 400),
        ("/api/v2/search/tag/" + "a" * 5000 + "/values", {}, 400),
        ("/api/v2/search/tags", {"scope": "x" * 1000}, 400),
    ],
)  # fmt: skip
def test_hostile_input_is_refused(recorded: Tidemill, path: str, params: dict, status: int) -> None:
    answer = ask(recorded, path, params)
    assert answer.status_code == status, answer.text[:300]
    assert answer.text and len(answer.text) < 100_000


def found(mill: Tidemill, query: str, **params: object) -> dict[str, list[int]]:
    answer = ask(mill, "/api/search", {"q": query, "limit": 1000, "spss": 0, "start": START, "end": END, **params})
    assert answer.status_code == 200, f"{query}: {answer.text}"
    return {trace["traceID"]: sorted(own["matched"] for own in trace["spanSets"]) for trace in answer.json()["traces"]}


def test_queries_that_mean_the_same_are_answered_the_same(recorded: Tidemill) -> None:
    conditions = [
        "status = error", "kind = server", "duration > 50ms", "span.http.status_code >= 400", "resource.service.name = `checkout`",
        "name =~ `.*a.*`", ".region != nil", "span.http.method = `GET`", "rootServiceName = `frontend`", "span.arr.i = 2",
    ]  # fmt: skip
    dice = random.Random(11)
    answered = 0
    for _ in range(25):
        one, other = dice.sample(conditions, 2)
        for sign in ("&&", "||"):
            both = found(recorded, f"{{ ({one}) {sign} ({other}) }}")
            assert both == found(recorded, f"{{ ({other}) {sign} ({one}) }}"), (one, sign, other)
            answered += len(both)
        assert found(recorded, f"{{ ({one}) && ({other}) }}") == found(recorded, f"{{ {one} }} | {{ {other} }}")
        assert found(recorded, f"{{ {one} }} >> {{ {other} }}").keys() == found(recorded, f"{{ {other} }} << {{ {one} }}").keys()
    assert answered > 500


def test_a_range_split_in_two_counts_the_same(recorded: Tidemill) -> None:
    for query in ("{ } | count_over_time()", "{ status = error } | count_over_time() by (resource.service.name)", "{ } >> { kind = client } | count_over_time()"):

        def counted(start: int, end: int, query: str = query) -> dict[str, float]:
            answer = ask(recorded, "/api/metrics/query", {"q": query, "start": start, "end": end}).json()
            return {json.dumps(own["labels"]): own.get("value", 0) for own in answer["series"]}

        whole = counted(START, END)
        for middle in (START + 400, START + 1111, START + 2000):
            first, second = counted(START, middle), counted(middle, END)
            assert whole == {key: first.get(key, 0) + second.get(key, 0) for key in first.keys() | second.keys()}, query
        assert sum(whole.values()) > 100


def test_a_limit_takes_the_newest(recorded: Tidemill) -> None:
    window = {"q": "{ kind = server }", "start": START, "end": END, "spss": 1}
    every = [trace["traceID"] for trace in ask(recorded, "/api/search", {**window, "limit": 1000}).json()["traces"]]
    for limit in (1, 3, 20, 100):
        few = ask(recorded, "/api/search", {**window, "limit": limit}).json()["traces"]
        assert [trace["traceID"] for trace in few] == every[:limit]


def test_what_the_sdk_sent_comes_back_equal(mill: Tidemill) -> None:
    """Every type of attribute, events and links, through the SDK's own exporter."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode

    mill.start()
    exporter = OTLPSpanExporter(endpoint=mill.url("http", "/v1/traces"), headers=mill.headers)
    provider = TracerProvider(resource=Resource.create({"service.name": "größe", "cpus": 4, "load": 1.5, "spot": True, "zones": ["a", "b"]}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("scope", "1.2.3", attributes={"level": 7})
    given = {"text": "a \"b\" \\ \n ✓", "int": -(2**62), "float": 2.0, "tiny": 5e-324, "yes": True, "ints": [1, 2], "floats": [1.0, -0.5], "texts": ["", "x"], "empty": ""}
    spans = []
    with tracer.start_as_current_span("root", kind=SpanKind.SERVER, attributes=given) as root:
        root.add_event("started", {"n": 1, "ratio": 0.25, "ok": False, "list": ["q"]})
        root.set_status(Status(StatusCode.ERROR, "it broke"))
        with tracer.start_as_current_span("child", links=[Link(root.get_span_context(), {"why": "cause", "weight": 2})]) as child:
            child.record_exception(ValueError("no"))
        spans += [root, child]
    provider.shutdown()
    mill.drain()

    def plain(value: dict) -> object:
        ((kind, own),) = value.items()
        return {"intValue": int, "arrayValue": lambda own: [plain(item) for item in own.get("values", [])]}.get(kind, lambda own: own)(own)

    def attributes(owner: dict) -> dict:
        return {own["key"]: plain(own["value"]) for own in owner.get("attributes", [])}

    identity = f"{root.get_span_context().trace_id:032x}"
    answer = wait_until(lambda: ask(mill, f"/api/traces/{identity}").json().get("batches"), at_most_s=30, what="the trace", alive=mill.process, log=mill.log)
    (resource,) = answer
    (scope,) = resource["scopeSpans"]
    assert attributes(resource["resource"]) == {**provider.resource.attributes, "zones": ["a", "b"]}
    assert (scope["scope"]["name"], scope["scope"]["version"], attributes(scope["scope"])) == ("scope", "1.2.3", {"level": 7})
    got = {span["name"]: span for span in scope["spans"]}
    assert got.keys() == {"root", "child"}
    for span in spans:
        mine = got[span.name]
        sent = {key: list(value) if isinstance(value, tuple) else value for key, value in span.attributes.items()}
        assert attributes(mine) == sent and [type(value) for _, value in sorted(attributes(mine).items())] == [type(value) for _, value in sorted(sent.items())]
        assert (int(mine["startTimeUnixNano"]), int(mine["endTimeUnixNano"])) == (span.start_time, span.end_time)
        events = [{key: list(value) if isinstance(value, tuple) else value for key, value in event.attributes.items()} for event in span.events]
        assert [(event["name"], int(event["timeUnixNano"])) for event in mine.get("events", [])] == [(event.name, event.timestamp) for event in span.events]
        assert [attributes(event) for event in mine.get("events", [])] == events
        assert [attributes(link) for link in mine.get("links", [])] == [dict(link.attributes) for link in span.links]
    assert got["root"]["status"] == {"message": "it broke", "code": "STATUS_CODE_ERROR"} and got["root"]["kind"] == "SPAN_KIND_SERVER"
    assert got["child"]["parentSpanId"] == got["root"]["spanId"] == got["child"]["links"][0]["spanId"]


def test_commands_show_traces(recorded: Tidemill) -> None:
    known = "4bf92f3577b34da6a3ce929d0e0e4736"
    tree = recorded.cli("trace", known).stdout
    assert "fixed root" in tree and "fixed leaf" in tree and "ERROR fixed failure" in tree and "█" in tree and "\x1b" not in tree
    assert tree.index("fixed root") < tree.index("fixed child") < tree.index("fixed leaf")
    assert tempo.flat_spans(recorded.cli_json("trace", known)["resourceSpans"])
    listed = recorded.cli_json("traceql", '{ name = "fixed root" }', "--spans", "0")
    assert [trace["traceID"] for trace in listed] == [known]
    table = recorded.cli("traceql", '{ name = "fixed root" }', "--stats")
    assert known in table.stdout and "segments considered" in table.stderr
    assert recorded.cli("traceql", "{ } | rate()", "--since", "1h", check=False).returncode == 0
    explained = recorded.cli("traceql", "{ name = `a` } >> { status = error }", "--explain").stdout
    assert "status_code = 'error'" in explained or "name = 'a'" in explained
    refused = recorded.cli("traceql", "{ name = }", check=False)
    assert refused.returncode != 0 and "1:10" in refused.stderr
    assert recorded.cli("trace", "f" * 32, check=False).returncode != 0
    # The same without a server.
    recorded.stop()
    assert recorded.cli("trace", known).stdout == tree
    assert [trace["traceID"] for trace in recorded.cli_json("traceql", '{ name = "fixed root" }')] == [known]
    recorded.start()
