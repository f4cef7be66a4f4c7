"""A web server on the loopback interface: release zips, and what downloads ask of the Hugging Face Hub."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

COMMIT = "c0" * 20
OWNER = "clinic"


@contextlib.contextmanager
def serve(releases: Path, repositories: Path) -> Iterator[str]:  # noqa: C901 (a class in it)
    """Serve until the block ends; gives the address.

    Args:
        releases: its files are at ``/releases/``, and the first half of each at ``/half/``.
        repositories: its folders are the Hub's repositories ``clinic/<folder>``.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, kind, *rest = self.path.split("?")[0].split("/")
            if kind in ("releases", "half"):
                content = (releases / rest[-1]).read_bytes()
                self.reply(content, sent=len(content) // (2 if kind == "half" else 1))
            elif kind == "api" and len(rest) > 3:  # /api/models/OWNER/NAME/...
                self.answer(repositories / rest[2], rest[3])
            elif kind == OWNER:  # /OWNER/NAME/resolve/COMMIT/FILE
                content = repositories.joinpath(rest[0], *rest[3:]).read_bytes()
                tag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                self.reply(content, sent=0 if self.command == "HEAD" else len(content), **tag)
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 (http.server's name)

        def answer(self, repository: Path, question: str) -> None:
            files = [path for path in sorted(repository.rglob("*")) if path.is_file()]
            names = {path.relative_to(repository).as_posix(): path for path in files}
            if question == "refs":
                branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}
                reply: object = {"branches": [branch], "tags": [], "converts": []}
            elif question == "tree":
                reply = [
                    {
                        "type": "file",
                        "path": name,
                        "size": path.stat().st_size,
                        "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
                    }
                    for name, path in names.items()
                ]
            else:
                siblings = [{"rfilename": name} for name in names]
                reply = {"id": f"{OWNER}/{repository.name}", "sha": COMMIT, "siblings": siblings, "tags": []}
            self.reply(json.dumps(reply).encode())

        def reply(self, content: bytes, sent: int | None = None, **headers: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[:sent])

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
