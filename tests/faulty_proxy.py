"""A proxy before an S3 server that answers some requests with 500 or 503, or cuts their connection."""

import http.client
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit

FAULTS = ("500", "503", "cut", "cut in the middle")
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Faulty:
    """What the proxy does: `counts` of each kind of answer, `fine` included."""

    def __init__(self, share: float, seed: int = 7):
        self.counts: Counter[str] = Counter()
        self._share, self._random, self._lock = share, random.Random(seed), Lock()

    def faults(self) -> int:
        """How many requests have failed."""
        return self.counts.total() - self.counts["fine"]

    def next(self) -> str:
        """What becomes of the next request."""
        with self._lock:
            bad = self._random.random() < self._share
            kind = self._random.choice(FAULTS) if bad else "fine"
            self.counts[kind] += 1
            return kind


@contextmanager
def faulty_proxy(target: str, share: float) -> Iterator[tuple[str, Faulty]]:
    """The address of a proxy to `target` that fails `share` of all requests, until the block ends."""
    faulty = Faulty(share)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kind = faulty.next()
            if kind in ("500", "503"):
                self.send_response(int(kind))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if kind == "cut":
                self.close_connection = True
                self.connection.close()
                return
            place = urlsplit(target)
            upstream = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # the host too: it is signed
                if name.lower() not in _HOP - {"content-length"}:
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            reply = upstream.getresponse()
            content = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            length = reply.getheader("Content-Length") if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length or 0))
            self.end_headers()
            if kind == "cut in the middle" and content:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

        def log_message(self, *_) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", faulty
    finally:
        server.shutdown()
        server.server_close()
