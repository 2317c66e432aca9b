"""A job: every five seconds compares the stock of some products with the shelves, and restocks what runs low."""

import random
import sqlite3
import sys
import time

from opentelemetry import metrics, trace

import telemetry

FOLDER = sys.argv[1]
log = telemetry.set_up("warehouse", "1.0.7")
tracer = trace.get_tracer("shop.warehouse")
restocked = metrics.get_meter("shop.warehouse").create_counter("shop.warehouse.restocked", unit="{item}", description="Items put on shelves")

begin = 0
while True:
    with tracer.start_as_current_span("sync shelves", attributes={"shop.shelf": begin // 50}):
        with sqlite3.connect(f"{FOLDER}/catalog.db", timeout=10) as connection:
            rows = connection.cursor().execute("SELECT id, stock FROM products WHERE id BETWEEN ? AND ?", (begin, begin + 49)).fetchall()
            log.info("shelf %d: checking %d products", begin // 50, len(rows))
            for product, stock in rows:
                if stock < 360:
                    connection.execute("UPDATE products SET stock = 400 WHERE id = ?", (product,))
                    restocked.add(400 - stock, {"shop.shelf": begin // 50})
                    log.info("product %d restocked: %d -> 400", product, stock, extra={"shop.product.id": product})
                else:
                    log.info("product %d: %d in stock", product, stock, extra={"shop.product.id": product})
            if random.random() < 0.05:
                log.warning("shelf %d: scanner battery low (%d %%)", begin // 50, random.randint(3, 15))
    begin = (begin + 50) % 200
    time.sleep(5)
