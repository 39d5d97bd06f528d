"""A hub on the loopback interface: the few routes that huggingface_hub uses, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository, what was asked of it, and the faults it has: each is used up by one request."""

    repository: str
    files: dict[str, bytes]
    address: str = ""
    #: What branches and tags mean, and the files of other commits than ``COMMIT``.
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    others: dict[str, dict[str, bytes]] = field(default_factory=dict)
    #: The error code, as the hub sends it, that everything is refused with.
    closed: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    #: File to the number of bytes after which the connection is cut.
    cut_after: dict[str, int] = field(default_factory=dict)
    #: File to the status that it is refused with.
    refuse: dict[str, int] = field(default_factory=dict)
    #: File to the bytes sent in place of its own.
    damage: dict[str, bytes] = field(default_factory=dict)
    #: File to the number of bytes after which nothing comes until ``released`` is set.
    hold_after: dict[str, int] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)

    def fetched(self) -> list[str]:
        return sorted(
            path.rsplit("/", 1)[1] for method, path, _ in self.requests if method == "GET" and "resolve" in path
        )


@contextmanager
def serve(repository: str, folder: Path, extra: dict[str, bytes] | None = None) -> Iterator[Hub]:
    hub = Hub(repository, {file.name: file.read_bytes() for file in folder.iterdir()} | (extra or {}))
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    commit = COMMIT
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # of a client that was killed
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        repository = self.hub.repository
        if self.hub.closed:
            self._json({"error": "refused"}, status=403, headers={"X-Error-Code": self.hub.closed})
            return
        found = re.fullmatch(f"(?:/api/models)?/{repository}(?:/(revision|tree|resolve)/([^/]+))?(?:/(.+))?", path)
        revision = unquote(found[2] or "main") if found else ""
        self.commit = self.hub.revisions.get(revision, revision)
        if found is None:
            self._json({"error": "Repository not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        elif self.commit not in (COMMIT, *self.hub.others):
            self._json({"error": "Revision not found"}, status=404, headers={"X-Error-Code": "RevisionNotFound"})
        elif found[1] == "resolve" and found[3] in self.files:
            self._file(found[3], body)
        elif found[1] == "tree":
            self._json([self._entry(name) for name in self.files])
        else:
            self._json({"id": repository, "sha": self.commit, "siblings": list(self._siblings())})

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the commit that is asked for."""
        return self.hub.others.get(self.commit, self.hub.files)

    def _siblings(self) -> Iterator[dict[str, object]]:
        for name in self.files:
            entry = self._entry(name)
            sibling: dict[str, object] = {"rfilename": name, "size": entry["size"], "blobId": entry["oid"]}
            if "lfs" in entry:
                sibling["lfs"] = {"sha256": self._digest(name), "size": entry["size"], "pointerSize": 130}
            yield sibling

    def _entry(self, name: str) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(self.files[name])}
        entry["oid"] = self._digest(name)[:40]
        if not name.endswith(".json"):
            entry["lfs"] = {"oid": self._digest(name), "size": entry["size"], "pointerSize": 130}
        return entry

    def _digest(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()

    def _json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _file(self, name: str, body: bool) -> None:
        if body and name in self.hub.refuse:
            self._json({"error": "refused"}, status=self.hub.refuse.pop(name))
            return
        data = self.hub.damage.get(name, self.files[name])
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        begin = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{self._digest(name)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - begin))
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return
        if name in self.hub.hold_after and not self.hub.released.is_set():
            end = begin + self.hub.hold_after[name]
            self.wfile.write(data[begin:end])
            self.wfile.flush()
            self.hub.released.wait(240)
            begin = end
        end = self.hub.cut_after.pop(name, len(data))
        self.wfile.write(data[begin:end])
        if end < len(data):
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
