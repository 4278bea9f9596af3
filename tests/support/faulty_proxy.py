"""A network between the code under test and a server that answers late, refuses, and cuts connections."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import http.server
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

FAULTS = ("503", "429", "slow", "cut before", "cut after", "cut within")
"""What may befall a request: refused unseen, made to wait, its connection cut before the server has it, after the
server has done it, or in the middle of the answer."""


@dataclasses.dataclass
class Proxy:
    """One proxy; its fields may be changed while it runs.

    Attributes:
        target: HOST:PORT that requests go to; empty refuses every one with 503.
        share: Of requests that something befalls.
        requests: So far.
        befallen: How often each fault was made.
    """

    port: int = 0
    target: str = ""
    share: float = 0.0
    requests: int = 0
    befallen: Counter[str] = dataclasses.field(default_factory=Counter)
    draw: random.Random = dataclasses.field(default_factory=lambda: random.Random(1))
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def fault(self) -> str:
        """What befalls the next request; empty for nothing."""
        with self.lock:
            self.requests += 1
            chosen = self.draw.choice(FAULTS) if self.draw.random() < self.share else ""
            chosen = chosen if self.target else "503"
            self.befallen[chosen] += 1
            return chosen


@contextlib.contextmanager
def proxy(seed: int = 1) -> Iterator[Proxy]:
    """Runs a proxy on a free port of this machine."""
    facts = Proxy(draw=random.Random(seed))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = facts.fault()
            if fault in ("503", "429"):
                self.answer(int(fault), [], b"{}")
                return
            if fault == "slow":
                time.sleep(0.5)
            if fault != "cut before":
                status, headers, answer = self.pass_on(body)
                if fault == "cut within" and len(answer) > 1:
                    self.answer(status, headers, answer, len(answer) // 2)
                elif fault not in ("cut after", "cut within"):
                    self.answer(status, headers, answer)
                    return
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            server = http.client.HTTPConnection(facts.target, timeout=60)
            try:
                server.request(self.command, self.path, body, dict(self.headers))
                answer = server.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                server.close()

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, sent: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:sent])

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that was killed leaves broken pipes

    server = Server(("127.0.0.1", 0), Handler)
    facts.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield facts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
