"""Sources of triggers against the real servers: Redis, Kafka's protocol (librdkafka's own cluster), SQS (moto), external scalers over gRPC both ways,
prometheus-adapter's rules and published metrics over the lake, and this installation's own roles as workloads."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import boto3
import confluent_kafka
import grpc
import pytest
import yaml

from support import otlp, services
from support.externalscaler import Keda, Scaler
from support.processes import free_port, start, stop, wait_until
from test_fleet import MANIFESTS, Fleet, fleet  # noqa: F401

SLEEP = {"name": "main", "image": "busybox", "command": ["sleep", "100000"]}


def deployment(name: str, replicas: int = 0) -> dict:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [SLEEP]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def scaled(name: str, trigger: dict, **spec) -> dict:
    spec = {"scaleTargetRef": {"name": name}, "pollingInterval": 1, "cooldownPeriod": 1, "maxReplicaCount": 5, "triggers": [trigger], **spec}
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name}, "spec": spec}


def size(fleet: Fleet, name: str) -> int:
    return fleet.object("deployment", name)["spec"]["replicas"]


def seen(fleet: Fleet, name: str, kind: str = "so") -> dict:
    """The last observation of an object's first trigger."""
    records = fleet.records(kind, name, 1)
    return records[-1]["observation"]["triggers"][0] if records else {}


def follows(fleet: Fleet, name: str, replicas: int) -> None:
    fleet.until(lambda: size(fleet, name) == replicas, f"{replicas} replicas of {name}")


@pytest.fixture
def redis_port(tmp_path: Path):
    """A Redis that asks for a password."""
    port, log = free_port(), tmp_path / "redis.log"
    process = start(["redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path), "--requirepass", "a b@c"], log)
    wait_until(lambda: services.accepts(port), at_most_s=20, what="Redis", alive=process, log=log)
    yield port
    stop(process)


def redis(port: int, *words: str) -> str:
    environment = {**os.environ, "REDISCLI_AUTH": "a b@c"}
    return subprocess.run(["redis-cli", "-p", str(port), *words], check=True, capture_output=True, text=True, env=environment).stdout.strip()


def test_redis_lists_and_streams(fleet: Fleet, redis_port: int) -> None:
    """Its length, by a password out of a Secret; a server that goes away is no empty list."""
    redis(redis_port, "RPUSH", "work", *"abcdefg")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "stringData": {"password": "a b@c"}}
    reference = {"parameter": "password", "name": "redis", "key": "password"}
    authentication = {"apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "redis"}, "spec": {"secretTargetRef": [reference]}}
    trigger = {"type": "redis", "metadata": {"address": f"127.0.0.1:{redis_port}", "listName": "work", "listLength": "2"}, "authenticationRef": {"name": "redis"}}
    stream = {**trigger, "type": "redis-streams", "metadata": {"address": f"127.0.0.1:{redis_port}", "stream": "events", "streamLength": "1"}}
    fleet.apply(secret, authentication, deployment("list"), scaled("list", trigger), deployment("stream"), scaled("stream", stream))
    follows(fleet, "list", 4)
    redis(redis_port, "XADD", "events", "*", "a", "1")
    follows(fleet, "stream", 1)
    redis(redis_port, "XADD", "events", "*", "a", "2")
    follows(fleet, "stream", 2)
    redis(redis_port, "SET", "text", "x")
    wrong = scaled("list", {**trigger, "metadata": {**trigger["metadata"], "listName": "text"}})
    fleet.apply(wrong)
    fleet.until(lambda: "WRONGTYPE" in json.dumps(seen(fleet, "list")), "a key of another type is told")
    assert size(fleet, "list") == 4
    fleet.apply(scaled("list", trigger))
    redis(redis_port, "DEL", "work")
    follows(fleet, "list", 0)


def test_the_lag_of_a_consumer_group(fleet: Fleet) -> None:
    """Three brokers, four partitions: committed and not, capped by partitions, and back to nothing."""
    producer = confluent_kafka.Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 3, "topic.metadata.refresh.interval.ms": 100})
    brokers = [f"{broker.host}:{broker.port}" for broker in producer.list_topics(timeout=10).brokers.values()]
    for number in range(40):
        producer.produce("orders", f"{number}", partition=number % 4)
    assert producer.flush(20) == 0
    trigger = {
        "type": "kafka",
        "metadata": {"bootstrapServers": ",".join(["127.0.0.1:1", *brokers]), "consumerGroup": "shop", "topic": "orders", "lagThreshold": "5", "offsetResetPolicy": "earliest"},
    }
    fleet.apply(deployment("shop"), scaled("shop", trigger))
    # 40 behind, at most one consumer for each partition.
    follows(fleet, "shop", 4)
    consumer = confluent_kafka.Consumer({"bootstrap.servers": brokers[0], "group.id": "shop", "enable.auto.commit": False})
    def commit(*offsets: int) -> None:
        consumer.commit(offsets=[confluent_kafka.TopicPartition("orders", index, offset) for index, offset in enumerate(offsets)], asynchronous=False)
    commit(10, 10, 8, 3)
    fleet.until(lambda: seen(fleet, "shop")["value"]["value"] == 9, "what is left")
    commit(10, 10, 10, 10)
    follows(fleet, "shop", 0)
    consumer.close()
    fleet.apply(scaled("shop", {**trigger, "metadata": {**trigger["metadata"], "topic": "gone"}}))
    fleet.until(lambda: "gone" in json.dumps(seen(fleet, "shop").get("failed", {})), "a topic that is not there is told")


def test_the_length_of_an_sqs_queue(fleet: Fleet, tmp_path: Path) -> None:
    """By its name and keys; what is received and not deleted counts, unless it shall not."""
    with services.moto(tmp_path) as endpoint:
        sqs = boto3.client("sqs", endpoint_url=endpoint, region_name="eu-west-3", aws_access_key_id="key", aws_secret_access_key="secret")
        url = sqs.create_queue(QueueName="mail")["QueueUrl"]
        for number in range(6):
            sqs.send_message(QueueUrl=url, MessageBody=str(number))
        sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2, VisibilityTimeout=600)
        keys = {"awsAccessKeyID": "key", "awsSecretAccessKey": "secret"}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws"}, "stringData": keys}
        references = [{"parameter": name, "name": "aws", "key": name} for name in keys]
        authentication = {"apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "aws"}, "spec": {"secretTargetRef": references}}
        metadata = {"queueURL": "mail", "awsRegion": "eu-west-3", "awsEndpoint": endpoint, "queueLength": "2"}
        trigger = {"type": "aws-sqs-queue", "metadata": metadata, "authenticationRef": {"name": "aws"}}
        visible = {**trigger, "metadata": {**metadata, "scaleOnInFlight": "false", "queueURL": url}}
        fleet.apply(secret, authentication, deployment("all"), scaled("all", trigger), deployment("visible"), scaled("visible", visible))
        follows(fleet, "all", 3)
        follows(fleet, "visible", 2)
        fleet.apply(scaled("all", {**trigger, "metadata": {**metadata, "queueURL": "nothing"}}))
        fleet.until(lambda: "QueueDoesNotExist" in json.dumps(seen(fleet, "all")), "a queue that is not there is told")
        assert size(fleet, "all") == 3


def test_an_external_scaler_is_asked_as_keda_asks_it(fleet: Fleet) -> None:
    """Value over target, the metadata and who asks; one that is down is no zero."""
    scaler = Scaler()
    scaler.value, scaler.target = 11, 4
    trigger = {"type": "external", "metadata": {"scalerAddress": f"127.0.0.1:{scaler.port}", "shard": "7"}}
    fleet.apply(deployment("asked"), scaled("asked", trigger))
    follows(fleet, "asked", 3)
    name, namespace, metadata = scaler.asked[-1]
    assert (name, namespace, metadata["shard"]) == ("asked", "default", "7") and "tidemill.dev/name" not in metadata
    scaler.active = False
    follows(fleet, "asked", 0)
    scaler.active = True
    follows(fleet, "asked", 3)
    scaler.server.stop(0)
    fleet.until(lambda: "external scaler" in json.dumps(seen(fleet, "asked").get("failed", {})), "a scaler that is down is told")
    assert size(fleet, "asked") == 3


def test_it_is_an_external_scaler_for_keda(fleet: Fleet, redis_port: int) -> None:
    """All five calls over its own backlog and published metrics; an error is never inactive, a specification never fails with its source."""
    address = f"127.0.0.1:{fleet.mill.ports['api']}"
    key = (fleet.mill.data / "operator.key").read_text().strip()
    own = Keda(address, queue="logs/ingest", itemsPerReplica="2.5", apiKeyFromEnv=key)
    spec = own.call("GetMetricSpec").metricSpecs[0]
    assert (spec.metricName, spec.targetSizeFloat) == ("tidemill-logs-ingest", 2.5)
    assert own.call("IsActive").result is False
    assert own.call("GetMetrics", "tidemill-logs-ingest").metricValues[0].metricValueFloat == 0
    assert next(iter(own.call("StreamMetricSpec"))).metricSpecs[0].metricName == spec.metricName
    pushed = own.call("StreamIsActive")
    assert next(pushed).result is False
    pushed.cancel()

    def refused(keda: Keda, method: str = "IsActive") -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            answer = keda.call(method)
            next(iter(answer)) if method.startswith("Stream") else answer
        return caught.value.code()

    assert refused(Keda(address, queue="logs/ingest")) == grpc.StatusCode.UNAUTHENTICATED
    assert refused(Keda(address, apiKey=key), "GetMetricSpec") == grpc.StatusCode.INVALID_ARGUMENT
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "redis"}, "stringData": {"password": "a b@c"}}
    reference = {"parameter": "password", "name": "redis", "key": "password"}
    authentication = {"apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "redis"}, "spec": {"secretTargetRef": [reference]}}
    source = {"type": "redis", "metadata": {"address": f"127.0.0.1:{redis_port}", "listName": "celery"}, "authenticationRef": {"name": "redis"}}
    published = {
        "apiVersion": "tidemill.dev/v1", "kind": "ExternalMetric", "metadata": {"name": "celery"},
        "spec": {"metric": {"name": "celery_queue_depth", "labels": {"queue": "default"}}, "source": source},
    }  # fmt: skip
    fleet.apply(secret, authentication, published)
    celery = Keda(address, metric="celery_queue_depth", labels="queue=default", activationItems="3", apiKey=key)
    redis(redis_port, "RPUSH", "celery", *"abc")
    assert celery.call("IsActive").result is False
    redis(redis_port, "RPUSH", "celery", "d")
    assert celery.call("IsActive").result is True
    assert celery.call("GetMetrics", "celery_queue_depth").metricValues[0].metricValueFloat == 4
    redis(redis_port, "SHUTDOWN", "NOSAVE")
    for method in ("IsActive", "StreamIsActive"):
        assert refused(celery, method) == grpc.StatusCode.UNAVAILABLE
    assert celery.call("GetMetricSpec").metricSpecs[0].metricName == "celery_queue_depth"
    other = Keda(address, metric="celery_queue_depth", labels="queue=other", apiKey=key)
    assert refused(other) == grpc.StatusCode.UNAVAILABLE


def requests_per_second(fleet: Fleet, pods: list[str], rate: float, seconds: int = 150) -> None:
    """Counters of the last while of each pod, into the lake."""
    now = time.time()
    points = [
        {
            "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in (("namespace", "neurolake"), ("pod", pod), ("code", "200"))],
            "startTimeUnixNano": str(int((now - seconds) * 1e9)), "timeUnixNano": str(int((now - age) * 1e9)), "asDouble": rate * (seconds - age),
        }
        for pod in pods for age in range(seconds, -1, -10)
    ]  # fmt: skip
    metric = {"name": "http_requests_total", "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": points}}
    body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    assert fleet.mill.push("metrics", json.dumps(body).encode(), content_type="application/json").ok


def test_published_rules_and_autoscalers_run_unedited(fleet: Fleet, redis_port: int) -> None:
    """prometheus-adapter's ConfigMap feeds Pods metrics out of the lake; a queue is published under the name that an HPA asks for."""
    mill = fleet.mill
    fleet = Fleet(mill, "neurolake")
    folder = MANIFESTS / "neurolake"
    api = next(document for document in yaml.safe_load_all((folder / "workloads.yaml").read_text()) if document["metadata"]["name"] == "neurolake-api")
    worker = json.loads(json.dumps(api).replace("api", "worker").replace("workerVersion", "apiVersion"))
    for one in (api, worker):
        container = one["spec"]["template"]["spec"]["containers"][0]
        for probe in ("livenessProbe", "readinessProbe", "ports"):
            container.pop(probe)
        one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
    images = ("--image", "neurolake/api=sleep 100000", "--image", "neurolake/worker=sleep 100000")
    fleet.apply(api, worker, options=images)
    mill.cli("apply", "-f", str(folder / "adapter-config.yaml"))
    fleet("apply", "-f", str(folder / "hpa-custom-metrics.yaml"))
    fleet.until(lambda: len(fleet.pods("app.kubernetes.io/component=api")) == 3, "three replicas")
    # Nothing is measured yet: the reason says so.
    fleet.until(lambda: "http_requests_per_second" in fleet("describe", "hpa", "neurolake-api-requests"), "the metric is told")
    pods = list(fleet.pods("app.kubernetes.io/component=api"))
    requests_per_second(fleet, pods, 1500.0)
    fleet.until(lambda: size(fleet, "neurolake-api") >= 5, "five replicas for 4500 requests a second")
    current = fleet.object("hpa", "neurolake-api-requests")["status"]["currentMetrics"][0]
    assert current["type"] == "Pods" and current["pods"]["metric"]["name"] == "http_requests_per_second"
    assert "celery_queue_depth" in fleet("describe", "hpa", "neurolake-worker-queue")
    redis(redis_port, "CONFIG", "SET", "requirepass", "")
    source = {"type": "redis", "metadata": {"address": f"127.0.0.1:{redis_port}", "listName": "celery"}}
    published = {
        "apiVersion": "tidemill.dev/v1", "kind": "ExternalMetric", "metadata": {"name": "celery"},
        "spec": {"metric": {"name": "celery_queue_depth", "labels": {"queue": "default"}}, "source": source},
    }  # fmt: skip
    subprocess.run(["redis-cli", "-p", str(redis_port), "RPUSH", "celery", *map(str, range(240))], check=True, capture_output=True)
    fleet.apply(published)
    fleet.until(lambda: size(fleet, "neurolake-worker") == 5, "five workers for 240 messages")
    wrong = {**published, "spec": {"metric": {}, "source": {"type": "nothing", "metadata": {"a": 1}}}}
    _, said = fleet.fails("apply", "-f", "-", stdin=yaml.safe_dump(wrong))
    assert all(field in said for field in ("spec.metric.name", "spec.source.type", "spec.source.metadata")), said


def test_its_own_lake_answers_prometheus_triggers(fleet: Fleet) -> None:
    """`serverAddress: tidemill` needs no address and no key."""
    trigger = {"type": "prometheus", "metadata": {"serverAddress": "tidemill", "query": "sum(rate(http_requests_total[2m]))", "threshold": "1000", "ignoreNullValues": "false"}}
    fleet.apply(deployment("web", 1), scaled("web", trigger, minReplicaCount=1))
    fleet.until(lambda: "ignoreNullValues" in json.dumps(seen(fleet, "web")), "a gap is told")
    requests_per_second(fleet, ["a", "b"], 1500.0)
    follows(fleet, "web", 3)


def test_a_vertical_autoscaler_knows_what_was_before_it(fleet: Fleet) -> None:
    """Two days of usage in the lake are its history, so it recommends at its first look."""
    now = time.time()
    ages = range(48 * 3600, -1, -120)
    def attributes(**labels: str) -> list[dict]:
        return [{"key": key, "value": {"stringValue": value}} for key, value in labels.items()]
    labels = attributes(namespace="default", pod="old-5d4f-x2x9p", container="main")
    first = str(int((now - 48 * 3600) * 1e9))
    def point(age: int, value: float, start: bool) -> dict:
        at = {"attributes": labels, "timeUnixNano": str(int((now - age) * 1e9)), "asDouble": value}
        return {**at, "startTimeUnixNano": first} if start else at
    cpu = {"name": "container_cpu_usage_seconds_total", "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [point(age, 0.5 * (48 * 3600 - age), True) for age in ages]}}
    memory = {"name": "container_memory_working_set_bytes", "gauge": {"dataPoints": [point(age, 300 << 20, False) for age in ages]}}
    for metric in (cpu, memory):
        body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
        assert fleet.mill.push("metrics", json.dumps(body).encode(), content_type="application/json").ok
    fleet.mill.drain()
    vpa = {"apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler", "metadata": {"name": "old"},
           "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "old"}, "updatePolicy": {"updateMode": "Off"}}}  # fmt: skip
    fleet.apply(deployment("old", 0), vpa)
    def recommended() -> dict:
        found = fleet.object("vpa", "old").get("status", {}).get("recommendation", {}).get("containerRecommendations", [])
        return found[0]["target"] if found else {}
    fleet.until(recommended, "a recommendation")
    milli, memory_bytes = int(recommended()["cpu"].removesuffix("m")), int(recommended()["memory"])
    assert 500 <= milli <= 700 and 300 << 20 <= memory_bytes <= 450 << 20


def test_roles_are_workloads_that_start_with_the_backlog(mill) -> None:
    """With an empty queue only the front door runs; a push starts a worker at once, and it ends when nothing waits."""
    values = mill.folder / "values.yaml"
    values.write_text("global: {autoscaling: {mode: native}}\ningestLogs:\n  terminationGracePeriodSeconds: 5\n  autoscaling: {native: {cooldownPeriod: 1}}\ncompactLogs: {enabled: false}\n")
    mill.configure(roles__values=str(values))
    mill.start()
    fleet = Fleet(mill, "tidemill")
    names = {item["metadata"]["name"] for item in fleet.items("deployments")}
    assert names == {"ingest-logs", "ingest-metrics", "ingest-traces", "compact-metrics", "compact-traces", "rollup-metrics"}
    assert not fleet.pods()
    mill.push("logs", otlp.logs([7]))
    fleet.until(lambda: [name for name in fleet.items("pods", "-l", "app.kubernetes.io/component=ingest-logs")], "a worker starts")
    fleet.until(lambda: mill.sql("SELECT count(*) AS n FROM logs WHERE body = '7'")[0]["n"] == 1, "the line is there")
    scale = next(record for record in fleet.records("so", "ingest-logs") if any(action["action"] == "scale" for action in record["actions"]))
    waited_ms = scale["now"] - scale["observation"]["triggers"][0]["value"]["observed_at"]
    assert waited_ms < 300
    # Nothing of what the workers themselves print and use is work again.
    fleet.until(lambda: not fleet.pods(), "all workers end")
    sizes = [len(fleet.records(kind, name)) for kind, name in (("so", "ingest-logs"), ("so", "ingest-metrics"))]
    time.sleep(25)
    later = [fleet.records("so", name) for name in ("ingest-logs", "ingest-metrics")]
    woken = [action for records, before in zip(later, sizes, strict=True) for record in records[before:] for action in record["actions"] if action["action"] == "scale"]
    assert not woken and not fleet.pods()
    mill.stop()
    # Without the values its objects are gone and it works itself.
    mill.configure(roles__values="")
    mill.start()
    assert fleet.items("deployments") == []
    mill.push("logs", otlp.logs([8]))
    fleet.until(lambda: mill.sql("SELECT count(*) AS n FROM logs WHERE body = '8'")[0]["n"] == 1, "the line is there")
