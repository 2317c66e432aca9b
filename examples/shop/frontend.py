"""The shop's door."""

import json
import sqlite3
import sys
import uuid

import requests
from flask import Flask, jsonify, request
from opentelemetry import metrics, trace

import telemetry

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
CATALOG, CART, PAYMENT = (f"http://127.0.0.1:{port}" for port in sys.argv[3:6])
log = telemetry.set_up("frontend", "7.1.0")
orders = metrics.get_meter("shop.frontend").create_counter("shop.orders", unit="{order}", description="Orders by result")
app = Flask("frontend")


def database() -> sqlite3.Connection:
    return sqlite3.connect(f"{FOLDER}/orders.db", timeout=10)


with database() as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, shopper TEXT, cents INTEGER, context TEXT, state TEXT)")


@app.get("/products/<int:product>")
def show(product: int):
    shopper = request.headers.get("x-shopper", "anonymous")
    log.info("looking up product %d for %s", product, shopper)
    answer = requests.get(f"{CATALOG}/products/{product}", timeout=5)
    if answer.status_code == 200:
        found = answer.json()
        log.info("showing %s at %.2f EUR, %d in stock", found["name"], found["cents"] / 100, found["stock"])
    log.info("GET /products/%d %d for %s", product, answer.status_code, shopper, extra={"http.response.status_code": answer.status_code, "shop.user": shopper})
    return answer.json(), answer.status_code


@app.post("/cart/<int:product>")
def add(product: int):
    shopper = request.headers.get("x-shopper", "anonymous")
    found = requests.get(f"{CATALOG}/products/{product}", timeout=5)
    if found.status_code != 200:
        return found.json(), found.status_code
    requests.post(f"{CART}/carts/{shopper}", json=found.json(), timeout=5)
    log.info("POST /cart/%d 200 for %s", product, shopper, extra={"http.response.status_code": 200, "shop.user": shopper})
    return jsonify(added=True)


@app.post("/checkout")
def checkout():
    shopper = request.headers.get("x-shopper", "anonymous")
    order = uuid.uuid4().hex[:12]
    span = trace.get_current_span()
    span.set_attributes({"shop.order": order, "shop.user": shopper})
    log.info("checkout of %s begins as order %s", shopper, order)
    items = requests.post(f"{CART}/carts/{shopper}/empty", timeout=5).json()["items"]
    if not items:
        return finish(order, shopper, "empty", 400)
    for item in items:
        if requests.post(f"{CATALOG}/products/{item['id']}/reserve", timeout=5).status_code != 200:
            return finish(order, shopper, "sold out", 409)
    log.info("order %s: %d items reserved", order, len(items))
    cents = sum(item["cents"] for item in items)
    card = f"4000{hash(shopper) % 10**12:012d}"
    answer = requests.post(f"{PAYMENT}/charges", json={"order": order, "card": card, "cents": cents}, timeout=10)
    if answer.status_code == 402:
        return finish(order, shopper, "declined", 402)
    if answer.status_code != 200:
        return finish(order, shopper, "failed", 502)
    context = span.get_span_context()
    link = json.dumps({"trace": f"{context.trace_id:032x}", "span": f"{context.span_id:016x}"})
    with database() as connection:
        connection.cursor().execute("INSERT INTO orders VALUES (?, ?, ?, ?, 'paid')", (order, shopper, cents, link))
    return finish(order, shopper, "paid", 200, cents)


def finish(order: str, shopper: str, result: str, status: int, cents: int = 0):
    orders.add(1, {"shop.result": result})
    level = {200: log.info, 400: log.info, 402: log.warning, 409: log.warning}.get(status, log.error)
    level("POST /checkout %d order %s of %s: %s", status, order, shopper, result,
          extra={"http.response.status_code": status, "shop.order": order, "shop.user": shopper, "shop.amount": cents / 100})  # fmt: skip
    return jsonify(order=order, result=result), status


telemetry.serve(app, PORT)
