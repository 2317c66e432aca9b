"""The load: people who look at products, hesitate, and sometimes buy. Has no telemetry of its own."""

import random
import sys
import threading
import time

import requests

URL, RATE = f"http://127.0.0.1:{sys.argv[1]}", float(sys.argv[2])


def visit(shopper: str) -> None:
    session = requests.Session()
    session.headers["x-shopper"] = shopper
    try:
        for _ in range(random.randint(1, 6)):
            # Now and then somebody follows an old link.
            product = random.randint(200, 220) if random.random() < 0.01 else min(int(random.expovariate(0.02)), 199)
            session.get(f"{URL}/products/{product}", timeout=15)
            time.sleep(random.expovariate(2))
            if random.random() < 0.35:
                session.post(f"{URL}/cart/{product}", timeout=15)
        if random.random() < 0.5:
            session.post(f"{URL}/checkout", timeout=15)
    except requests.RequestException as error:
        print(f"{shopper}: {error}", file=sys.stderr)


names = ["ada", "ben", "cleo", "dan", "eva", "finn", "greta", "hugo", "ida", "jon"]
while True:
    shopper = f"{random.choice(names)}{random.randint(1, 60)}"
    threading.Thread(target=visit, args=(shopper,), daemon=True).start()
    time.sleep(random.expovariate(RATE))
