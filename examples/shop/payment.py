"""Charges cards. In the incident its bank is slow and drops connections."""

import os
import random
import sys
import time

from flask import Flask, jsonify, request
from opentelemetry import metrics, trace
from opentelemetry.trace import StatusCode

import telemetry

PORT = int(sys.argv[1])
log = telemetry.set_up("payment", "4.0.2")
tracer = trace.get_tracer("shop.payment")
meter = metrics.get_meter("shop.payment")
amounts = meter.create_histogram("shop.payment.amount", unit="EUR", description="Charged amounts")
attempts = meter.create_counter("shop.payment.attempts", unit="{attempt}", description="Attempts to charge a card")
app = Flask("payment")

BEGAN = time.monotonic()
RUNS_S = float(os.environ.get("SHOP_SECONDS", "60"))


class BankError(Exception):
    """The bank did not answer as it should."""


def is_incident() -> bool:
    """From 40 % to 65 % of the run."""
    return 0.40 < (time.monotonic() - BEGAN) / RUNS_S < 0.65


def ask_bank(card: str, cents: int) -> str:
    with tracer.start_as_current_span("bank.authorize", kind=trace.SpanKind.CLIENT, attributes={"peer.service": "bank", "shop.amount": cents / 100}) as span:
        delay = random.lognormvariate(-4.2, 0.5)
        if is_incident():
            delay += random.uniform(0.3, 1.6)
            span.add_event("waiting for the bank", {"queue.length": random.randint(20, 200)})
        time.sleep(delay)
        if random.random() < (0.25 if is_incident() else 0.004):
            error = BankError(f"connection reset by bank after {delay * 1000:.0f} ms")
            span.record_exception(error)
            span.set_status(StatusCode.ERROR, str(error))
            raise error
        if random.random() < 0.05:
            return "declined"
        return "approved"


@app.post("/charges")
def charge():
    order = request.get_json()
    number = order["card"][-4:]
    log.info("asking the bank for %.2f EUR on card *%s", order["cents"] / 100, number)
    for attempt in (1, 2):
        try:
            answer = ask_bank(order["card"], order["cents"])
        except BankError as error:
            attempts.add(1, {"shop.result": "error"})
            log.exception("charging card *%s failed, attempt %d: %s", number, attempt, error, extra={"shop.order": order["order"], "attempt": attempt})
            continue
        attempts.add(1, {"shop.result": answer})
        if answer == "declined":
            log.warning("card *%s declined for order %s", number, order["order"], extra={"shop.order": order["order"]})
            return jsonify(error="declined"), 402
        amounts.record(order["cents"] / 100, {"shop.currency": "EUR"})
        log.info("charged %.2f EUR to card *%s for order %s", order["cents"] / 100, number, order["order"],
                 extra={"shop.order": order["order"], "shop.amount": order["cents"] / 100})  # fmt: skip
        return jsonify(charged=True)
    return jsonify(error="the bank does not answer"), 502


telemetry.serve(app, PORT)
