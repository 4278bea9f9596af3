"""TFX's handle on ML Metadata, made to work with PostgreSQL.

ML Metadata 1.16 puts a string that holds a backslash between two pairs of quotes, which PostgreSQL refuses as a syntax
error. TFX writes such strings for every Evaluator: JSON that holds JSON. What ML Metadata keeps of them is for people
who read the lineage (nodes are handed their properties directly), so backslashes are written as slashes.

Imports TFX.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tfx.orchestration import metadata


class PostgresqlMetadata(metadata.Metadata):
    """As `tfx.orchestration.metadata.Metadata`, for a PostgreSQL server."""

    def __enter__(self) -> PostgresqlMetadata:
        """Opens the store; every request to it goes out without backslashes."""
        super().__enter__()
        call = self._store._call

        def call_without(method: str, request: Message, response: Message, extra_options: Any = None) -> Any:
            replace_backslashes(request)
            return call(method, request, response, extra_options)

        self._store._call = call_without
        return self


def replace_backslashes(message: Message) -> None:
    """Turns the backslashes in all strings of a message into slashes, in place."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            if field.label == FieldDescriptor.LABEL_REPEATED:
                value[:] = [text.replace("\\", "/") for text in value]
            else:
                setattr(message, field.name, value.replace("\\", "/"))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in _messages(field, value):
                replace_backslashes(inner)


def _messages(field: FieldDescriptor, value: Any) -> list[Message]:
    if field.label != FieldDescriptor.LABEL_REPEATED:
        return [value]
    inner = list(value.values()) if field.message_type.GetOptions().map_entry else list(value)
    return [each for each in inner if isinstance(each, Message)]
