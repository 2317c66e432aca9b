"""Products and stock."""

import random
import sqlite3
import sys

from flask import Flask, jsonify
from opentelemetry import metrics

import telemetry

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
log = telemetry.set_up("catalog", "2.3.0")
meter = metrics.get_meter("shop.catalog")
lookups = meter.create_counter("shop.catalog.lookups", unit="{lookup}", description="Products looked up")
app = Flask("catalog")

NAMES = ["oak table", "rye flour", "millstone", "linen sack", "water wheel", "brass bell", "copper kettle", "sieve", "hand quern", "tide clock"]


def database() -> sqlite3.Connection:
    return sqlite3.connect(f"{FOLDER}/catalog.db", timeout=10)


def fill() -> None:
    with database() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS products (id INTEGER PRIMARY KEY, name TEXT, cents INTEGER, stock INTEGER)")
        rows = [(n, f"{NAMES[n % 10]} No. {n}", 100 + n * 37 % 9000, 400) for n in range(200)]
        connection.executemany("INSERT OR IGNORE INTO products VALUES (?, ?, ?, ?)", rows)
    log.info("catalog ready with %d products", len(rows))


@app.get("/products/<int:product>")
def show(product: int):
    with database() as connection:
        row = connection.execute("SELECT id, name, cents, stock FROM products WHERE id = ?", (product,)).fetchone()
    log.info("SELECT product %d: %d row", product, int(row is not None))
    lookups.add(1, {"shop.found": row is not None})
    if row is None:
        log.warning("product %d does not exist", product, extra={"shop.product.id": product})
        return jsonify(error="no such product"), 404
    return jsonify(id=row[0], name=row[1], cents=row[2], stock=row[3])


@app.post("/products/<int:product>/reserve")
def reserve(product: int):
    with database() as connection:
        changed = connection.cursor().execute("UPDATE products SET stock = stock - 1 WHERE id = ? AND stock > 0", (product,)).rowcount
    if not changed:
        log.error("product %d is sold out", product, extra={"shop.product.id": product})
        return jsonify(error="sold out"), 409
    if random.random() < 0.02:
        log.warning("stock of product %d is not in step with the warehouse, recounting", product, extra={"shop.product.id": product})
        with database() as connection:
            connection.execute("UPDATE products SET stock = max(stock, 50) WHERE id = ?", (product,))
    return jsonify(reserved=True)


fill()
telemetry.serve(app, PORT)
