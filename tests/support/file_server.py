"""An HTTP server on this machine that sends a file, whole or in parts, and cuts connections."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class FileServer:
    """What the server sends, and what it was asked for.

    Attributes
    ----------
    content
        Bytes of the only file.
    cut_after
        Bytes after which each answer is cut; 0 for never.
    parts
        Whether it sends parts of the file.
    status
        Status of all answers, if not 200.
    headers
        Headers of all answers, in place of the usual ones.
    asked
        The header `Range` of each request.
    url
        Address of the file.
    """

    content: bytes
    cut_after: int = 0
    parts: bool = True
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """Serve in a thread until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            server.asked.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.parts else 0
            body = server.content[start:]
            if server.headers:
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                return
            if server.status != 200:
                self.send_error(server.status)
                return
            if start and not body:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # the client has heard enough
                self.wfile.write(body[: server.cut_after or None])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}/candidates.csv"
        thread = Thread(target=http.serve_forever, args=[0.01], daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
