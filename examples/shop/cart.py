"""Carts."""

import sqlite3
import sys

from flask import Flask, jsonify, request
from opentelemetry import metrics

import telemetry

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
log = telemetry.set_up("cart", "1.9.1")
items = metrics.get_meter("shop.cart").create_up_down_counter("shop.cart.items", unit="{item}", description="Items in open carts")
app = Flask("cart")


def database() -> sqlite3.Connection:
    return sqlite3.connect(f"{FOLDER}/cart.db", timeout=10)


with database() as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS items (shopper TEXT, product INTEGER, cents INTEGER)")


@app.post("/carts/<shopper>")
def add(shopper: str):
    item = request.get_json()
    with database() as connection:
        connection.cursor().execute("INSERT INTO items VALUES (?, ?, ?)", (shopper, item["id"], item["cents"]))
    items.add(1)
    log.info("added product %d to the cart of %s", item["id"], shopper, extra={"shop.product.id": item["id"], "shop.user": shopper})
    return jsonify(added=True)


@app.post("/carts/<shopper>/empty")
def empty(shopper: str):
    with database() as connection:
        rows = connection.cursor().execute("SELECT product, cents FROM items WHERE shopper = ?", (shopper,)).fetchall()
        connection.execute("DELETE FROM items WHERE shopper = ?", (shopper,))
    items.add(-len(rows))
    log.info("emptied the cart of %s: %d items", shopper, len(rows), extra={"shop.user": shopper})
    return jsonify(items=[{"id": product, "cents": cents} for product, cents in rows])


telemetry.serve(app, PORT)
