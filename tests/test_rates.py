"""The ingest rate of an organization: what is above it waits at the sender, and nobody else does."""

from __future__ import annotations

import json

from support import lake, otlp
from support.processes import wait_until
from support.server import Tidemill


def test_an_ingest_rate_holds_for_its_organization_alone(any_mill: Tidemill) -> None:
    mill = any_mill
    mill.start()
    mill.cli("org", "create", "other")
    stranger = {"x-api-key": json.loads(mill.cli("key", "create", "--organization", "other", "--output", "json").stdout)["key"]}
    owner = next(organization for organization in mill.cli_json("org", "list") if organization["name"] != "other")
    accepted, sent = set(), iter(range(0, 1_000_000, 50))

    def push() -> int:
        numbers = list(range(first := next(sent), first + 50))
        answer = mill.push("logs", otlp.logs(numbers))
        if answer.status_code == 200:
            accepted.update(numbers)
        else:
            assert int(answer.headers["retry-after"]) >= 1 and "ingest rate of 500 bytes a second" in answer.text
        return answer.status_code

    assert push() == 200
    mill.cli("org", "set-rate", owner["id"], "500")
    # Each request is some kilobytes: let in while anything is left, and paid for by waiting.
    wait_until(lambda: push() == 429, at_most_s=30, what="a refusal", alive=mill.process, log=mill.log)
    for first in range(0, 500, 50):
        answer = mill.session.post(mill.url("http", "/v1/logs"), data=otlp.logs(list(range(first, first + 50))),
                                   headers={"authorization": None, "content-type": "application/x-protobuf", **stranger}, timeout=30)  # fmt: skip
        assert answer.status_code == 200, answer.text
    assert push() == 429
    mill.cli("org", "set-rate", owner["id"], "0")
    wait_until(lambda: push() == 200, at_most_s=30, what="an acknowledgement", alive=mill.process, log=mill.log)
    mill.drain()
    assert mill.count("logs") == len(accepted), "what was acknowledged, and nothing that was refused"
    mine = {segment["object_key"] for segment in lake.live_segments(mill, "logs") if owner["id"] in segment["object_key"]}
    assert mine, "the others' are apart"
