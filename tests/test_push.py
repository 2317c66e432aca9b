"""Pushed OTLP: the OpenTelemetry Python SDK as client, by gRPC and HTTP, and what SQL and DuckDB find of it."""

from __future__ import annotations

import gzip
import http.client
import logging
import select

import pytest
import requests
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from support import lake, otlp
from support.server import Tidemill


def exporters(mill: Tidemill, protocol: str):
    """The SDK's exporters as a user configures them."""
    headers = mill.headers
    if protocol == "grpc":
        options = {"endpoint": mill.url("grpc"), "insecure": True, "headers": headers}
        return GrpcLogs(**options), GrpcMetrics(**options), GrpcSpans(**options)
    return (
        HttpLogs(endpoint=mill.url("http", "/v1/logs"), headers=headers),
        HttpMetrics(endpoint=mill.url("http", "/v1/metrics"), headers=headers),
        HttpSpans(endpoint=mill.url("http", "/v1/traces"), headers=headers),
    )


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_python_sdk_is_understood(mill: Tidemill, protocol: str) -> None:
    mill.start()
    log_exporter, metric_exporter, span_exporter = exporters(mill, protocol)
    resource = Resource.create({"service.name": "baker", "k8s.pod.name": "baker-0"})

    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(log_exporter))
    logger = logging.getLogger(f"baker.{protocol}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(LoggingHandler(logger_provider=loggers))
    logger.info("baked %d loaves", 12, extra={"oven": 3})
    logger.error("burnt")

    meters = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(metric_exporter, 3_600_000)])
    meter = meters.get_meter("bakery")
    loaves = meter.create_counter("loaves", unit="1")
    loaves.add(5, {"kind": "rye"})
    loaves.add(7, {"kind": "rye"})
    meter.create_histogram("bake.duration", unit="s").record(0.25)

    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(span_exporter))
    with tracers.get_tracer("bakery").start_as_current_span("bake") as parent:
        parent.add_event("dough rises", {"minutes": 40})
        with tracers.get_tracer("bakery").start_as_current_span("knead"):
            pass
        trace_id = f"{parent.get_span_context().trace_id:032x}"

    for provider in (loggers, meters, tracers):
        provider.shutdown()
    mill.drain()

    rows = mill.sql("SELECT body, severity_number, service_name, attr('oven') AS oven FROM logs ORDER BY severity_number")
    assert rows == [
        {"body": "baked 12 loaves", "severity_number": 9, "service_name": "baker", "oven": 3},
        {"body": "burnt", "severity_number": 17, "service_name": "baker", "oven": None},
    ] or rows == [
        {"body": "baked 12 loaves", "severity_number": 9, "service_name": "baker", "oven": 3},
        {"body": "burnt", "severity_number": 17, "service_name": "baker"},
    ]
    loaf = mill.sql("SELECT value, temporality, is_monotonic, kind, attr('kind') AS flour FROM metrics WHERE name = 'loaves'")
    assert loaf == [{"value": 12.0, "temporality": "cumulative", "is_monotonic": True, "kind": "sum", "flour": "rye"}]
    assert mill.sql("SELECT count, sum FROM metrics WHERE name = 'bake.duration'") == [{"count": 1, "sum": 0.25}]
    spans = mill.sql(f"SELECT name, parent_span_id, span_id FROM spans WHERE trace_id = '{trace_id}' ORDER BY time")
    assert [span["name"] for span in spans] == ["bake", "knead"]
    assert spans[1]["parent_span_id"] == spans[0]["span_id"]
    assert mill.sql("SELECT resource('k8s.pod.name') AS pod, count(*) AS n FROM spans GROUP BY 1") == [{"pod": "baker-0", "n": 2}]


def test_duckdb_reads_every_column_of_every_segment(mill: Tidemill) -> None:
    mill.start()
    for signal in ("logs", "metrics", "traces"):
        assert mill.push(signal, otlp.ENCODE[signal](list(range(50)))).status_code == 200
    mill.drain()
    for signal in ("logs", "metrics", "traces"):
        segments = lake.live_segments(mill, signal)
        assert segments
        for segment in segments:
            path = str(lake.local_path(mill, segment))
            rows = lake.ask(f"SELECT * FROM read_parquet('{path}')")
            assert len(rows) == segment["rows"]
        lake.assert_each_once(mill, signal, set(range(50)))


def test_compressed_bodies_are_one_input_with_plain_ones(mill: Tidemill) -> None:
    mill.start()
    body = otlp.logs([1, 2, 3])
    assert mill.push("logs", body).status_code == 200
    assert mill.push("logs", gzip.compress(body), content_encoding="gzip").status_code == 200
    mill.drain()
    lake.assert_each_once(mill, "logs", {1, 2, 3})


def test_an_idempotency_key_outranks_the_body(mill: Tidemill) -> None:
    mill.start()
    assert mill.push("logs", otlp.logs([1]), idempotency_key="first").status_code == 200
    assert mill.push("logs", otlp.logs([2]), idempotency_key="first").status_code == 200
    assert mill.push("logs", otlp.logs([3]), idempotency_key="second").status_code == 200
    mill.drain()
    lake.assert_each_once(mill, "logs", {1, 3})


def test_without_a_key_nothing_enters(mill: Tidemill) -> None:
    mill.start()
    for key in ({}, {"authorization": "Bearer nonsense"}, {"x-api-key": "tm_nonsense"}):
        headers = {"content-type": "application/x-protobuf", **key}
        answer = requests.post(mill.url("http", "/v1/logs"), data=otlp.logs([1]), headers=headers, timeout=10)
        assert answer.status_code == 401
    assert mill.sql("SELECT count(*) AS n FROM logs") == [{"n": 0}]


def test_a_malformed_push_is_refused_with_its_place(mill: Tidemill) -> None:
    mill.start()
    answer = mill.push("logs", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7fnonsense")
    assert answer.status_code == 400
    answer = mill.push("logs", otlp.logs([1, 2])[:-3])
    assert answer.status_code == 400
    answer = mill.push("logs", b"not gzip", content_encoding="gzip")
    assert answer.status_code == 400
    answer = mill.push("logs", otlp.logs([1]), content_type="text/plain")
    assert answer.status_code == 415


def test_senders_together_hold_no_more_than_the_memory(mill: Tidemill) -> None:
    mill.configure(receive__memory="16MiB", receive__max_request="16MiB")
    mill.start()
    bodies = [otlp.logs([number], service="x" * (4 << 20)) for number in range(6)]
    doors = []
    for body in bodies:
        door = http.client.HTTPConnection("127.0.0.1", int(mill.ports["http"]), timeout=30)
        door.putrequest("POST", "/v1/logs")
        for name, value in {"content-type": "application/x-protobuf", "content-length": str(len(body)), **mill.headers}.items():
            door.putheader(name, value)
        door.endheaders(body[: 3 << 20])
        doors.append(door)
    # Five parts of three MiB fit; whose comes last is told, while the others stand still.
    answered, _, _ = select.select([door.sock for door in doors], [], [], 30)
    refused = [door for door in doors if door.sock in answered]
    assert refused
    answer = refused[0].getresponse()
    assert answer.status == 429 and int(answer.getheader("retry-after")) >= 1
    assert b"memory" in answer.read()
    # The rest of all five is too much at once; what is turned away may come again.
    kept = set()
    for number, (door, body) in enumerate(zip(doors, bodies, strict=True)):
        if door not in refused:
            door.send(body[3 << 20 :])
            answer = door.getresponse()
            assert answer.status in (200, 429), answer.read()
            kept |= {number} if answer.status == 200 else set()
        door.close()
    assert kept
    for number in set(range(6)) - kept:
        assert mill.push("logs", bodies[number]).status_code == 200
    mill.drain()
    lake.assert_each_once(mill, "logs", set(range(6)))


def test_term_hands_leases_back_and_a_restart_finds_everything(mill: Tidemill) -> None:
    mill.start()
    for number in range(30):
        assert mill.push("logs", otlp.logs([number])).status_code == 200
    assert mill.stop() == 0
    mill.start()
    mill.drain(at_most_s=30)
    lake.assert_each_once(mill, "logs", set(range(30)))
