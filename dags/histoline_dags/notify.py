"""One webhook for what a person wants to hear of: a failed run, a refused or promoted model, drift; never for skips."""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseNotifier

log = logging.getLogger(__name__)
SECONDS = 10


class WebhookNotifier(BaseNotifier):
    """Posts {event, dag_id, run_id, task_id, reason, text} as JSON to HISTOLINE_WEBHOOK_URL, if that is set.

    It never fails a run: what goes wrong is a line of the log, without the address, which is a secret.

    Args:
        event: `failed`, `refused`, `promoted` or `drift`.
    """

    def __init__(self, event: str) -> None:
        super().__init__()
        self.event = event

    def notify(self, context: Mapping[str, Any]) -> None:
        """Sends the message, if there is one to send.

        Args:
            context: Of the task that ended.
        """
        try:
            url = os.environ.get("HISTOLINE_WEBHOOK_URL", "")
            message = build_message(self.event, context) if url else None
            if message is not None:
                send(url, message)
        except Exception as error:  # a webhook that is down is no reason to fail a run
            log.warning("The webhook was not told of %s: %s.", self.event, type(error).__name__)


def build_message(event: str, context: Mapping[str, Any]) -> dict[str, Any] | None:
    """The message; None where the task was skipped for want of work instead of by the gate.

    Args:
        event: `failed`, `refused`, `promoted` or `drift`.
        context: Of the task.
    """
    ti = context["ti"]
    result = ti.xcom_pull(task_ids=ti.task_id, key="return_value") or {}
    if event != "failed" and result.get("decision") != event:
        return None
    reason = result.get("reason") or str(context.get("exception") or "")
    return {
        "event": event,
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "reason": reason,
        "text": f"histoline: {ti.dag_id} {event} ({ti.task_id}). {reason}".strip(),
    }


def send(url: str, message: Mapping[str, Any]) -> None:
    """Posts one message.

    Args:
        url: Of the webhook, http or https.
        message: A JSON object.

    Raises:
        ValueError: Another scheme.
        OSError: The webhook does not answer, or with an error.
    """
    if not url.startswith(("https://", "http://")):
        raise ValueError("HISTOLINE_WEBHOOK_URL must begin with https:// or http://")
    request = urllib.request.Request(  # the scheme was checked
        url, json.dumps(message).encode(), {"Content-Type": "application/json", "User-Agent": "histoline"}
    )
    with urllib.request.urlopen(request, timeout=SECONDS):
        pass
