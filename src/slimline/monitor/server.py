"""The monitor's own small HTTP server: /metrics, /standings, /livez, and Alertmanager's webhook."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple, Self

from prometheus_client import CONTENT_TYPE_LATEST

from slimline.errors import ParamsError

JSON = "application/json"
MOST_BYTES = 1 << 20
TIMEOUT = 10.0


class Reply(NamedTuple):
    """An answer: status, content type, body."""

    status: int
    kind: str
    body: bytes


Get = Callable[[], Reply]
Post = Callable[[bytes, str | None], Reply]


def as_json(status: int, document: Any) -> Reply:
    """Return a JSON answer."""
    return Reply(status, JSON, json.dumps(document, allow_nan=False, default=str).encode())


def text(body: bytes) -> Reply:
    """Return metrics."""
    return Reply(200, CONTENT_TYPE_LATEST, body)


class Server:
    """Serves ``gets`` {path: answer} and ``posts`` {path: answer(body, Authorization)} from threads of its own."""

    def __init__(self, host: str, port: int, gets: Mapping[str, Get], posts: Mapping[str, Post]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                found = gets.get(self.path.partition("?")[0])
                self._send(as_json(404, {"error": "no such path"}) if found is None else found())

            def do_POST(self) -> None:
                found = posts.get(self.path.partition("?")[0])
                size = self.headers.get("Content-Length", "")
                if found is None:
                    self.close_connection = True
                    self._send(as_json(404, {"error": "no such path"}))
                elif not size.isdigit() or int(size) > MOST_BYTES:
                    self.close_connection = True
                    self._send(as_json(413, {"error": f"a Content-Length of at most {MOST_BYTES} is needed"}))
                else:
                    self._send(found(self.rfile.read(int(size)), self.headers.get("Authorization")))

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.kind)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing: a line a scrape is noise."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise ParamsError(f"--host {host} --port {port}: {error.strerror or error}") from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
