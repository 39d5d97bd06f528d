"""A pod's life: waiting for a node, running, and how it ended."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kube_faults import PodFault
from kube_node import Container
from kube_objects import Json


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Pod:
    """One pod. ``attempt`` counts those of the same task; ``devices`` are the GPUs that it holds."""

    manifest: Json
    attempt: int
    fault: PodFault | None
    folder: Path
    identifier: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: str = field(default_factory=now)
    phase: str = "Pending"
    placed: bool = False
    deleted: bool = False
    removed: bool = False
    devices: list[str] = field(default_factory=list)
    state: Json | None = None
    reason: str = ""
    message: str = ""
    container: Container | None = None
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def spec(self) -> Json:
        spec: Json = self.manifest["spec"]
        return spec

    @property
    def only(self) -> Json:
        """Its one container's specification."""
        container: Json = self.spec["containers"][0]
        return container

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.manifest["metadata"].get("labels", {})
        return labels

    @property
    def task(self) -> str:
        return self.labels.get("nextflow.io/taskName", "")

    @property
    def ended(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    def limit(self, name: str) -> int:
        return int(self.only.get("resources", {}).get("limits", {}).get(name, 0))

    def wait_for(self, reason: str, message: str) -> None:
        """Placed on a node, but its container cannot start."""
        self.state = {"waiting": {"reason": reason, "message": message}}

    def terminated(self, code: int, reason: str, started: str) -> None:
        self.state = {
            "terminated": {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": now()},
        }
        self.phase = "Succeeded" if code == 0 else "Failed"

    def failed(self, reason: str, message: str) -> None:
        """Ended by its node."""
        self.phase, self.reason, self.message = "Failed", reason, message

    def to_json(self) -> Json:
        status: Json = {"phase": self.phase, "conditions": [self._scheduled()]}
        if self.reason and self.message:
            status |= {"reason": self.reason, "message": self.message}
        if self.state is not None:
            named = {"name": self.only["name"], "image": self.only["image"]}
            status["containerStatuses"] = [{**named, "state": self.state}]
        metadata = {**self.manifest["metadata"], "uid": self.identifier, "creationTimestamp": self.created}
        spec = {**self.spec, "nodeName": "node-0"} if self.placed else self.spec
        return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, "status": status}

    def _scheduled(self) -> Json:
        if self.placed:
            return {"type": "PodScheduled", "status": "True"}
        return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": self.message}
