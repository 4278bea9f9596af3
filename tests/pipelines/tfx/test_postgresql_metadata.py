"""No backslash reaches PostgreSQL through ML Metadata; whole runs on a server are in test_shared_metadata.py."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.integration


def test_backslashes_in_every_string_of_a_request_become_slashes() -> None:
    from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

    from pipelines.tfx.postgresql_metadata import replace_backslashes

    proto: Any = metadata_store_pb2
    execution = proto.Execution(type_id=1, name="a\\b")
    execution.properties["config"].string_value = '{"inner": "{\\"a\\": 1}"}'
    execution.custom_properties["number"].int_value = 92
    request = metadata_store_service_pb2.PutExecutionsRequest(executions=[execution])
    replace_backslashes(request)
    (sent,) = request.executions
    assert sent.name == "a/b" and sent.properties["config"].string_value == '{"inner": "{/"a/": 1}"}'
    assert sent.custom_properties["number"].int_value == 92 and execution.name == "a\\b"
