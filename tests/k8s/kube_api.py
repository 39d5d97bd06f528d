"""The API server: HTTPS on loopback, over a Cluster."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from kube_cluster import Cluster
from kube_faults import CallFault
from kube_objects import Json, Refused

TOKEN = "the-token-of-the-account"
VERBS = {"GET": "get", "POST": "create", "DELETE": "delete"}
PATH = re.compile(r"/(?:api/(v1)|apis/batch/v1)/namespaces/([\w-]+)/(\w+)(?:/([\w.-]+)(?:/(status|log))?)?")
#: A silent server says nothing for so long.
SILENCE = 30.0


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *_arguments: object) -> None:
        """Calls are kept by the cluster."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.cluster.faults.of_call(self.command, self.path)
        code, answer = 0, ""
        if fault is None or fault.done or fault.answer == "broken off":
            code, answer = self._answer(body)
        if fault is not None and isinstance(fault.answer, int):
            code, answer = error(Refused(fault.answer, "the server is not able to do this now, please try again later"))
        self.cluster.calls.append((self.command, self.path, code))
        if fault is not None and isinstance(fault.answer, str):
            self._break(fault, answer)
        else:
            self._send(code, answer.encode())

    def _answer(self, body: bytes) -> tuple[int, str]:
        try:
            return self._call(json.loads(body) if body else {})
        except Refused as refused:
            return error(refused)

    def _call(self, body: Json) -> tuple[int, str]:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Unauthorized")
        url = urlsplit(self.path)
        found = PATH.fullmatch(url.path)
        if not found:
            raise Refused(404, "the server could not find the requested resource")
        core, namespace, kind, name, part = found.groups()
        self._authorize(namespace, kind, name or "", part or "", "" if core else "batch")
        cluster = self.cluster
        if self.command == "POST":
            created = cluster.create_pod(body).to_json() if kind == "pods" else cluster.create_job(body)
            return 201, json.dumps(created)
        if kind == "jobs":
            return 200, json.dumps(cluster.delete_job(name) if self.command == "DELETE" else cluster.job(name))
        if self.command == "DELETE":
            return 200, json.dumps(cluster.delete_pod(name).to_json())
        if name is None:
            wanted = dict(pair.split("=", 1) for pair in parse_qs(url.query).get("labelSelector", []))
            items = [pod.to_json() for pod in cluster.select(wanted)]
            return 200, json.dumps({"kind": "PodList", "apiVersion": "v1", "items": items})
        pod = cluster.find(name)
        if part == "log":
            log = pod.folder / "log"
            return 200, log.read_text() if log.exists() else ""
        return 200, json.dumps(pod.to_json())

    def _authorize(self, namespace: str, kind: str, name: str, part: str, group: str) -> None:
        verb = "list" if self.command == "GET" and not name else VERBS[self.command]
        resource = f"{kind}/{part}" if part else kind
        if namespace == self.cluster.namespace and (verb, resource) in self.cluster.rights:
            return
        user = f"system:serviceaccount:{self.cluster.namespace}:{self.cluster.account}"
        what = f"{kind}{'.' + group if group else ''}{f' {json.dumps(name)}' if name else ''} is forbidden"
        where = f'in API group "{group}" in the namespace "{namespace}"'
        raise Refused(403, f'{what}: User "{user}" cannot {verb} resource "{resource}" {where}', kind, name)

    def _send(self, code: int, content: bytes, size: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) if size is None else size))
        self.end_headers()
        self.wfile.write(content)

    def _break(self, fault: CallFault, answer: str) -> None:
        if fault.answer == "silence":
            time.sleep(SILENCE)
        if fault.answer == "broken off":
            self._send(200, answer.encode()[: len(answer) // 2], len(answer))
        # Closed so, a connection is reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


def error(refused: Refused) -> tuple[int, str]:
    return refused.code, json.dumps(refused.status())


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate of its own for 127.0.0.1."""
    key, made = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return key, made


def kubeconfig(path: Path, server: str, authority: bytes, namespace: str, token: str = TOKEN) -> Path:
    """What tells a client where the server is and who calls; JSON, which is YAML too."""
    cluster = {"server": server, "certificate-authority-data": b64encode(authority).decode()}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "stand-in", "cluster": cluster}],
        "users": [{"name": "caller", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "stand-in", "user": "caller", "namespace": namespace}}],
        "current-context": "here",
    }
    path.write_text(json.dumps(content))
    path.chmod(0o644)
    return path


@contextmanager
def served(cluster: Cluster) -> Iterator[Path]:
    """Serve a cluster; gives its kubeconfig. Every pod is gone in the end."""
    cluster.folder.mkdir(parents=True, exist_ok=True)
    key, made = certificate(cluster.folder)
    handler = type("ClusterHandler", (Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"https://127.0.0.1:{server.server_address[1]}"
    try:
        yield kubeconfig(cluster.folder / "kubeconfig", address, made.read_bytes(), cluster.namespace)
    finally:
        server.shutdown()
        server.server_close()
        cluster.stop()
