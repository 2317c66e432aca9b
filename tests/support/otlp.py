"""OTLP requests with numbered records, so that what comes out can be checked one by one."""

from __future__ import annotations

import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

PATHS = {"logs": "/v1/logs", "metrics": "/v1/metrics", "traces": "/v1/traces"}
REQUESTS = {"logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest, "traces": ExportTraceServiceRequest}


def attribute(key: str, value: object) -> KeyValue:
    """One attribute, typed as Python types it."""
    match value:
        case bool():
            typed = AnyValue(bool_value=value)
        case int():
            typed = AnyValue(int_value=value)
        case float():
            typed = AnyValue(double_value=value)
        case bytes():
            typed = AnyValue(bytes_value=value)
        case _:
            typed = AnyValue(string_value=str(value))
    return KeyValue(key=key, value=typed)


def logs(numbers: list[int], *, service: str = "mill", time_ns: int | None = None) -> bytes:
    """One request; the body of each record is its number."""
    now = time_ns or time.time_ns()
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.append(attribute("service.name", service))
    scope = resource.scope_logs.add()
    scope.scope.name = "numbers"
    for number in numbers:
        record = scope.log_records.add()
        record.time_unix_nano = now + number
        record.severity_number, record.severity_text = 9, "INFO"
        record.body.string_value = str(number)
        record.attributes.extend([attribute("number", number), attribute("parity", "odd" if number % 2 else "even")])
    return request.SerializeToString()


def metrics(numbers: list[int], *, service: str = "mill", time_ns: int | None = None) -> bytes:
    """One request; the value of each point of the gauge `number` is its number, and so is its series."""
    now = time_ns or time.time_ns()
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.append(attribute("service.name", service))
    metric = resource.scope_metrics.add().metrics.add()
    metric.name, metric.unit = "number", "1"
    for number in numbers:
        point = metric.gauge.data_points.add()
        point.time_unix_nano = now + number
        point.as_int = number
        point.attributes.append(attribute("parity", "odd" if number % 2 else "even"))
    return request.SerializeToString()


def traces(numbers: list[int], *, service: str = "mill", time_ns: int | None = None) -> bytes:
    """One request; the name of each span is its number, ten of them make a trace."""
    now = time_ns or time.time_ns()
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(attribute("service.name", service))
    scope = resource.scope_spans.add()
    for number in numbers:
        span = scope.spans.add()
        span.trace_id = (number // 10 + 1).to_bytes(16, "big")
        span.span_id = (number + 1).to_bytes(8, "big")
        span.name, span.kind = str(number), 2
        span.start_time_unix_nano, span.end_time_unix_nano = now + number, now + number + 1_000_000
    return request.SerializeToString()


ENCODE = {"logs": logs, "metrics": metrics, "traces": traces}
