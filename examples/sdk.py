"""Sends logs, a counter and spans with the OpenTelemetry SDK, to where OTEL_EXPORTER_OTLP_ENDPOINT and _HEADERS say."""

import logging
import random

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

resource = Resource.create({"service.name": "example", "service.version": "1.0"})

tracers = TracerProvider(resource=resource)
tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(tracers)

meters = MeterProvider(resource=resource, metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())])
metrics.set_meter_provider(meters)

loggers = LoggerProvider(resource=resource)
loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
logging.basicConfig(level=logging.INFO, handlers=[LoggingHandler(logger_provider=loggers)], format="%(message)s")

log = logging.getLogger("example")
tracer = trace.get_tracer("example")
ground = metrics.get_meter("example").create_counter("flour.ground", unit="kg")

for sack in range(10):
    with tracer.start_as_current_span("grind", attributes={"sack": sack}):
        weight = random.randint(20, 50)
        ground.add(weight, {"grain": "rye"})
        log.info("ground sack %d: %d kg", sack, weight, extra={"sack": sack, "weight": weight})

for provider in (tracers, meters, loggers):
    provider.shutdown()
print("sent 10 logs, 10 spans and a counter; ask for them: tidemill sql \"SELECT time, body FROM logs WHERE service_name = 'example'\"")
