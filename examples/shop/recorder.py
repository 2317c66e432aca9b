"""A server that keeps what an OTLP/HTTP exporter sends: bodies one behind the other are one valid request."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import zstandard

SIGNALS = {"/v1/logs": "logs", "/v1/metrics": "metrics", "/v1/traces": "traces"}


class Recorder:
    """Listens on a free port until `close`, which writes `<signal>.binpb.zst`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bodies: dict[str, bytearray] = {signal: bytearray() for signal in SIGNALS.values()}
        recorder, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                with lock:
                    recorder.bodies[SIGNALS[self.path]] += body
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.folder.mkdir(parents=True, exist_ok=True)
        # A window over the whole file: ids of one trace lie far apart in it.
        parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=24, enable_ldm=True)
        for signal, body in self.bodies.items():
            path = self.folder / f"{signal}.binpb.zst"
            path.write_bytes(zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(body)))
            print(f"{path}: {len(body)} bytes, {path.stat().st_size} compressed")
