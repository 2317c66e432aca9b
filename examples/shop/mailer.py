"""A worker: takes paid orders from their table and sends a mail for each, linked to the trace of the order."""

import json
import random
import sqlite3
import sys
import time

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, SpanContext, TraceFlags

import telemetry

FOLDER = sys.argv[1]
log = telemetry.set_up("mailer", "0.8.3")
tracer = trace.get_tracer("shop.mailer")
meter = metrics.get_meter("shop.mailer")
sent = meter.create_counter("shop.mails", unit="{mail}", description="Mails by result")
delays = meter.create_histogram("shop.mail.duration", unit="s", description="Time to hand a mail over")


def database() -> sqlite3.Connection:
    return sqlite3.connect(f"{FOLDER}/orders.db", timeout=10)


def take() -> list[tuple]:
    with database() as connection:
        rows = connection.execute("SELECT id, shopper, cents, context FROM orders WHERE state = 'paid' LIMIT 20").fetchall()
        connection.executemany("UPDATE orders SET state = 'mailed' WHERE id = ?", [(row[0],) for row in rows])
    return rows


def send(order: str, shopper: str, cents: int, context: str) -> None:
    origin = json.loads(context)
    link = Link(SpanContext(int(origin["trace"], 16), int(origin["span"], 16), is_remote=True, trace_flags=TraceFlags(1)))
    began = time.monotonic()
    with tracer.start_as_current_span("send mail", kind=trace.SpanKind.PRODUCER, links=[link], attributes={"shop.order": order}) as span:
        for attempt in range(1, 4):
            time.sleep(random.lognormvariate(-4.0, 0.6))
            if random.random() > 0.06:
                break
            span.add_event("bounced", {"attempt": attempt})
            log.warning("mail for order %s bounced, attempt %d: 451 4.7.1 greylisted", order, attempt, extra={"shop.order": order, "attempt": attempt})
        log.info("mail for order %s sent to %s@example.org (%.2f EUR)", order, shopper, cents / 100, extra={"shop.order": order, "shop.user": shopper})
        sent.add(1, {"shop.result": "sent"})
    delays.record(time.monotonic() - began)


idle = 0
while True:
    with tracer.start_as_current_span("poll orders") if idle % 10 == 0 else trace.use_span(trace.INVALID_SPAN):
        rows = take()
    for row in rows:
        send(*row)
    idle = 0 if rows else idle + 1
    if idle % 20 == 19:
        log.debug("no orders waiting")
    time.sleep(1)
