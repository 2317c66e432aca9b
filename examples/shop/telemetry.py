"""Sets up the OpenTelemetry SDK as any program would: exporters from the environment, instrumentation of the libraries."""

import atexit
import logging
import os
import signal
import sys

from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.instrumentation.system_metrics import SystemMetricsInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

PROCESS_METRICS = {
    "process.cpu.time": ["user", "system"],
    "process.memory.usage": None,
    "process.thread.count": None,
    "process.open_file_descriptor.count": None,
}


def set_up(service: str, version: str) -> logging.Logger:
    """Providers for the three signals; returns the service's logger."""
    resource = Resource.create(
        {
            "service.name": service,
            "service.namespace": "shop",
            "service.version": version,
            "service.instance.id": f"{service}-1",
            "deployment.environment.name": "demo",
        }
    )
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)

    interval_ms = int(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "15000"))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=interval_ms)
    meters = MeterProvider(resource=resource, metric_readers=[reader])
    metrics.set_meter_provider(meters)

    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    set_logger_provider(loggers)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[LoggingHandler(logger_provider=loggers)])
    logging.getLogger("werkzeug").setLevel(logging.WARNING)

    RequestsInstrumentor().instrument()
    SQLite3Instrumentor().instrument()
    SystemMetricsInstrumentor(config=PROCESS_METRICS).instrument()

    # The SDKs flush when they are shut down, and a TERM must get there.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for provider in (tracers, meters, loggers):
        atexit.register(provider.shutdown)
    return logging.getLogger(f"shop.{service}")


def serve(app, port: int) -> None:
    """Serves a Flask application with its requests traced."""
    from opentelemetry.instrumentation.flask import FlaskInstrumentor

    FlaskInstrumentor().instrument_app(app)
    app.run(host="127.0.0.1", port=port, threaded=True, use_reloader=False)
