"""TLS on every listener: who knows the authority comes in, everybody else and plain text stay outside, a new certificate is shown."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import grpc
import pytest
import requests
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from support import lake, otlp
from support.certificates import Authority, put, shown_serial
from support.processes import wait_until
from support.server import Tidemill

DOORS = ["grpc", "http", "api"]
COUNT = "SELECT count(*) AS n FROM logs"
# The first bytes of a client without TLS, and of a TLS record that tells why a connection ends.
PLAIN = {
    "HTTP/1.1": b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
}
ALERT = b"\x15\x03"


@pytest.fixture(autouse=True)
def nothing_else_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """These change whom clients trust, even against what they are told."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The one that signs the server's certificate."""
    return Authority(tmp_path, "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """One that signed nothing of the server."""
    return Authority(tmp_path, "stranger")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the server's certificate lies."""
    return tmp_path / "certificates"


@pytest.fixture
def safe_mill(mill: Tidemill, authority: Authority, folder: Path) -> Tidemill:
    """An installation with a certificate of the authority, started; its session and its commands trust the authority."""
    issued = authority.issue(folder, "127.0.0.1", "localhost")
    mill.configure(tls__cert=issued.certificate, tls__key=issued.key)
    mill.session.verify = mill.environment["SSL_CERT_FILE"] = str(authority.path)
    return mill.start()


def push_by_grpc(mill: Tidemill, number: int, credentials: grpc.ChannelCredentials | None) -> None:
    """One log record by gRPC; in plain text without credentials."""
    target, options = f"127.0.0.1:{mill.ports['grpc']}", [("grpc.enable_http_proxy", 0)]
    channel = grpc.secure_channel(target, credentials, options) if credentials else grpc.insecure_channel(target, options)
    with channel:
        request = otlp.REQUESTS["logs"].FromString(otlp.logs([number]))
        LogsServiceStub(channel).Export(request, timeout=30, metadata=list(mill.headers.items()))


def trusting(authority: Authority) -> grpc.ChannelCredentials:
    """A gRPC client that trusts only this authority."""
    return grpc.ssl_channel_credentials(authority.path.read_bytes())


def answer_to(port: int, said: bytes) -> bytes:
    """All that a server answers to `said` until it closes the connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(said)
        try:
            while chunk := connection.recv(4096):
                answer += chunk
        except ConnectionResetError:
            pass
    return answer


def test_every_listener_serves_who_knows_the_authority(safe_mill: Tidemill, authority: Authority) -> None:
    mill = safe_mill
    assert mill.ports["scheme"] == "https"
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT={mill.url('grpc')}" in mill.log.read_text()
    exporters = [
        GrpcSpans(endpoint=mill.url("grpc"), credentials=trusting(authority), headers=mill.headers),
        HttpSpans(endpoint=mill.url("http", "/v1/traces"), certificate_file=str(authority.path), headers=mill.headers),
    ]
    for name, exporter in zip(["grpc", "http"], exporters, strict=True):
        tracers = TracerProvider(resource=Resource.create({"service.name": name}))
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        tracers.get_tracer("bakery").start_span("bake").end()
        tracers.shutdown()
    push_by_grpc(mill, 1, trusting(authority))
    assert mill.push("logs", otlp.logs([2])).status_code == 200
    mill.drain()
    assert mill.session.get(mill.url("api", "/healthz"), timeout=30).status_code == 200
    assert mill.sql("SELECT service_name FROM spans ORDER BY 1") == [{"service_name": "grpc"}, {"service_name": "http"}]
    lake.assert_each_once(mill, "logs", {1, 2})


def test_who_does_not_know_the_authority_refuses_the_server(safe_mill: Tidemill, stranger: Authority) -> None:
    mill = safe_mill
    for door, path in [("http", "/v1/logs"), ("api", "/healthz"), ("api", "/api/v1/sql")]:
        for trusted in (True, str(stranger.path)):
            with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
                requests.get(mill.url(door, path), verify=trusted, timeout=30)
    for credentials in (grpc.ssl_channel_credentials(), trusting(stranger)):
        with pytest.raises(grpc.RpcError) as refused:
            push_by_grpc(mill, 1, credentials)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "CERTIFICATE_VERIFY_FAILED" in refused.value.details()


def test_a_name_that_the_certificate_does_not_have_is_refused(safe_mill: Tidemill, authority: Authority, folder: Path) -> None:
    mill = safe_mill
    mill.stop()
    authority.issue(folder, "telemetry.example")
    mill.start()
    for door in ("http", "api"):
        with pytest.raises(requests.exceptions.SSLError, match="IP address mismatch"):
            mill.session.get(mill.url(door, "/healthz"), timeout=30)


@pytest.mark.parametrize("door", DOORS)
def test_plain_text_gets_no_answer(safe_mill: Tidemill, door: str) -> None:
    mill = safe_mill
    port = mill.ports[door]
    for said in PLAIN.values():
        answer = answer_to(port, said)
        assert answer == b"" or answer.startswith(ALERT), answer
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/healthz", timeout=30)
    # Who only connects and says nothing holds nobody up.
    with socket.create_connection(("127.0.0.1", port), timeout=30):
        assert shown_serial(port)


def test_a_push_in_plain_text_does_not_enter(safe_mill: Tidemill) -> None:
    mill = safe_mill
    with pytest.raises(grpc.RpcError) as refused:
        push_by_grpc(mill, 1, None)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(requests.exceptions.ConnectionError):
        plain = mill.url("http", "/v1/logs").replace("https://", "http://")
        requests.post(plain, data=otlp.logs([2]), headers={"content-type": "application/x-protobuf", **mill.headers}, timeout=30)
    assert mill.rows("inbox") == []


@pytest.mark.slow
def test_a_replaced_certificate_is_shown_without_a_restart(safe_mill: Tidemill, authority: Authority, stranger: Authority, folder: Path) -> None:
    mill = safe_mill
    shown = {shown_serial(mill.ports[door]) for door in DOORS}
    assert len(shown) == 1
    # Held open across the change.
    assert mill.session.get(mill.url("api", "/healthz"), timeout=30).status_code == 200

    # By another authority, so that a client can tell by what it trusts.
    replaced = stranger.issue(folder, "127.0.0.1")
    assert replaced.serial not in shown
    for door in DOORS:
        wait_until(lambda: shown_serial(mill.ports[door]) == replaced.serial,
                   at_most_s=60, what=f"the new certificate ({door})", alive=mill.process, log=mill.log, every_s=0.2)  # fmt: skip
    push_by_grpc(mill, 1, trusting(stranger))
    assert requests.get(mill.url("api", "/healthz"), verify=str(stranger.path), timeout=30).status_code == 200
    with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        requests.get(mill.url("api", "/healthz"), verify=str(authority.path), timeout=30)
    assert mill.session.get(mill.url("api", "/healthz"), timeout=30).status_code == 200, "the old connection goes on"

    # One that cannot be used, and one whose key is another's, leave that in use.
    for broken in (b"no certificate", authority.issue(folder.parent / "other", "127.0.0.1").certificate.read_bytes()):
        refusals = mill.log.read_text().count("the changed TLS certificate is not used")
        put(replaced.certificate, broken)
        wait_until(lambda: mill.log.read_text().count("the changed TLS certificate is not used") > refusals,
                   at_most_s=60, what="the refusal of a broken certificate", alive=mill.process, log=mill.log)  # fmt: skip
        assert {shown_serial(mill.ports[door]) for door in DOORS} == {replaced.serial}


def test_commands_reach_it(safe_mill: Tidemill, tmp_path: Path) -> None:
    mill = safe_mill
    assert mill.push("logs", otlp.logs([1, 2, 3])).status_code == 200
    mill.drain()
    assert mill.cli_json("sql", COUNT) == [{"n": 3}]
    assert mill.cli_json("status")

    # From elsewhere, by its name and a key.
    key = json.loads(mill.cli("key", "create", "--organization", "default", "--output", "json").stdout)["key"]
    mill.environment["TIDEMILL_DATA_DIR"] = str(tmp_path / "elsewhere")
    there = ["--url", f"https://localhost:{mill.ports['api']}", "--api-key", key]
    assert mill.cli_json("sql", COUNT, *there) == [{"n": 3}]
    del mill.environment["SSL_CERT_FILE"]
    refused = mill.cli("sql", COUNT, *there, check=False)
    assert refused.returncode == 7 and "certificate" in refused.stderr and "SSL_CERT_FILE" in refused.stderr, refused.stderr
    plain = mill.cli("sql", COUNT, "--url", f"http://localhost:{mill.ports['api']}", "--api-key", key, check=False)
    assert plain.returncode == 7, plain.stderr


def test_commands_on_the_same_machine_trust_the_certificate_in_the_file(mill: Tidemill, authority: Authority, folder: Path) -> None:
    # Nobody here knows who signed it, and it is not for the address that commands use.
    issued = authority.issue(folder, "elsewhere.example")
    mill.configure(tls__cert=issued.certificate, tls__key=issued.key)
    mill.start()
    assert mill.cli_json("sql", COUNT) == [{"n": 0}]
    assert mill.cli_json("status")


def test_a_certificate_that_cannot_be_used_stops_the_start(mill: Tidemill, authority: Authority, folder: Path) -> None:
    issued = authority.issue(folder, "127.0.0.1")
    other = authority.issue(folder / "other", "127.0.0.1")
    garbage = folder / "garbage.pem"
    garbage.write_text("no certificate")
    for certificate, key, word in [
        (garbage, issued.key, "garbage.pem"),
        (issued.certificate, garbage, "garbage.pem"),
        (issued.certificate, folder / "missing.pem", "missing.pem"),
        (issued.certificate, other.key, "do not belong together"),
        (issued.certificate, "", "tls.key"),
    ]:
        mill.configure(tls__cert=certificate, tls__key=key)
        refused = mill.cli("up", check=False)
        assert refused.returncode == 3 and word in refused.stderr, refused.stderr
        assert not (mill.data / "ports.json").exists()
