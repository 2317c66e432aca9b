"""Object events: S3 through SQS, and the webhook in the shapes that clouds send."""

from __future__ import annotations

import base64
import json
import os
import urllib.parse
import uuid

import boto3
import pytest

from support import otlp
from support.processes import wait_until
from support.server import Tidemill
from test_stores import on_s3, s3_client


@pytest.fixture
def bucket() -> str:
    name = f"mill-{uuid.uuid4().hex[:12]}"
    s3_client().create_bucket(Bucket=name)
    return name


def sqs_client():
    return boto3.client("sqs", endpoint_url=os.environ["TIDEMILL_TEST_S3"])


def s3_event(bucket: str, key: str, size: int) -> dict:
    """What S3 sends when an object was created."""
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": "us-east-1",
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": size}},
            }
        ]
    }


def put(bucket: str, key: str, body: bytes) -> None:
    s3_client().put_object(Bucket=bucket, Key=key, Body=body)


def wait_for(mill: Tidemill, count: int) -> None:
    wait_until(lambda: mill.count("logs") == count, at_most_s=30, what=f"{count} records", alive=mill.process, log=mill.log, every_s=0.2)


def test_objects_announced_by_sqs_arrive_once(mill: Tidemill, bucket: str) -> None:
    queue = sqs_client().create_queue(QueueName=f"mill-{uuid.uuid4().hex[:12]}")["QueueUrl"]
    on_s3(mill, bucket).configure(notify__sqs_queue_url=queue, notify__sqs_region="us-east-1")
    mill.start()
    key = f"otel-raw/{mill.organization}/farm/logs_one.binpb"
    body = otlp.logs([1, 2, 3])
    put(bucket, key, body)
    event = json.dumps(s3_event(bucket, key, len(body)))
    for _ in range(2):
        sqs_client().send_message(QueueUrl=queue, MessageBody=event)
    wait_for(mill, 3)
    # A key outside of any profile leaves a reason, and the queue is emptied all the same.
    sqs_client().send_message(QueueUrl=queue, MessageBody=json.dumps(s3_event(bucket, "nowhere/file.json", 1)))
    wait_until(lambda: [entry for entry in mill.rows("inbox") if entry["object_key"] == "nowhere/file.json"],
               at_most_s=30, what="a reason", alive=mill.process, log=mill.log, every_s=0.2)  # fmt: skip
    attributes = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    wait_until(lambda: set(sqs_client().get_queue_attributes(QueueUrl=queue, AttributeNames=attributes)["Attributes"].values()) == {"0"},
               at_most_s=30, what="an empty queue", alive=mill.process, log=mill.log, every_s=0.2)  # fmt: skip
    mill.drain()
    assert mill.count("logs") == 3


def event_of(shape: str, bucket: str, key: str, size: int) -> object:
    """The event of one object, as each cloud tells it."""
    s3 = s3_event(bucket, urllib.parse.quote(key), size)
    gcs = {"kind": "storage#object", "bucket": bucket, "name": key, "generation": "17", "size": str(size), "etag": "CJ7="}
    match shape:
        case "s3":
            # S3 alone encodes its keys.
            return s3
        case "sns":
            return {"Type": "Notification", "MessageId": str(uuid.uuid4()), "TopicArn": "arn:aws:sns:us-east-1:1:t", "Message": json.dumps(s3)}
        case "eventbridge":
            detail = {"bucket": {"name": bucket}, "object": {"key": key, "size": size}}
            return {"version": "0", "source": "aws.s3", "detail-type": "Object Created", "detail": detail}
        case "gcs":
            return gcs
        case "pubsub":
            attributes = {"eventType": "OBJECT_FINALIZE", "payloadFormat": "JSON_API_V1", "bucketId": bucket, "objectId": key}
            data = base64.b64encode(json.dumps(gcs).encode()).decode()
            return {"message": {"attributes": attributes, "data": data, "messageId": "1"}, "subscription": "projects/p/subscriptions/s"}
    etag = s3_client().head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
    subject = f"/blobServices/default/containers/{bucket}/blobs/{key}"
    data = {"api": "PutBlob", "eTag": etag, "contentLength": size}
    if shape == "cloudevents":
        return {"specversion": "1.0", "type": "Microsoft.Storage.BlobCreated", "source": "/s", "id": "1", "subject": subject, "data": data}
    return [{"eventType": "Microsoft.Storage.BlobCreated", "subject": subject, "eventTime": "2026-01-31T10:00:00.123Z", "data": data}]


@pytest.mark.parametrize("shape", ["s3", "sns", "eventbridge", "gcs", "pubsub", "event_grid", "cloudevents"])
def test_the_webhook_knows_the_shapes(mill: Tidemill, bucket: str, shape: str) -> None:
    on_s3(mill, bucket).start()
    key = f"otel-raw/{mill.organization}/farm/2026/logs_a+b c.binpb"
    body = otlp.logs([1, 2])
    put(bucket, key, body)
    event = event_of(shape, bucket, key, len(body))
    for _ in range(2):
        answer = mill.session.post(mill.url("api", "/api/v1/notifications"), json=event, timeout=10)
        assert answer.status_code in (200, 202), answer.text
    wait_for(mill, 2)
    mill.drain()
    assert mill.count("logs") == 2
    assert mill.rows("inbox") == []


def test_what_is_unchanged_in_the_bucket_is_what_is_read(mill: Tidemill, bucket: str) -> None:
    on_s3(mill, bucket).start()
    key = f"otel-raw/{mill.organization}/farm/logs_one.binpb"
    bodies = [otlp.logs([1]), otlp.logs([2, 3])]
    events = []
    for body in bodies:
        put(bucket, key, body)
        event = s3_event(bucket, key, len(body))
        event["Records"][0]["s3"]["object"]["eTag"] = s3_client().head_object(Bucket=bucket, Key=key)["ETag"].strip('"')
        events.append(event)
    # The first content is gone when its event comes.
    for event in events:
        answer = mill.session.post(mill.url("api", "/api/v1/notifications"), json=event, timeout=10)
        assert answer.json()["admitted"] == 1, answer.text
    wait_for(mill, 2)
    mill.drain()
    assert {row["body"] for row in mill.sql("SELECT body FROM logs")} == {"2", "3"}
    [refused] = mill.rows("inbox")
    assert refused["state"] == "refused" and "replaced after it was announced" in refused["reason"]


def test_the_webhook_asks_for_a_key(mill: Tidemill, bucket: str) -> None:
    on_s3(mill, bucket).start()
    key = f"otel-raw/{mill.organization}/farm/logs_one.binpb"
    mill.session.headers.clear()
    answer = mill.session.post(mill.url("api", "/api/v1/notifications"), json=s3_event(bucket, key, 1), timeout=10)
    assert answer.status_code == 401
