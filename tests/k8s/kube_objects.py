"""What the API server of Kubernetes refuses, and in which words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
QUANTITY = re.compile(r"(\d+)(m|Ki|Mi|Gi|Ti|k|M|G|T)?")
UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
UNITS |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGT", start=1)}
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 422: "Invalid"}
REASONS |= {429: "TooManyRequests", 500: "InternalError"}


class Refused(Exception):  # noqa: N818
    """An answer of the API server that is an error."""

    def __init__(self, code: int, message: str, kind: str = "", name: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = {"kind": kind, "name": name} if kind else {}

    def status(self) -> Json:
        facts = {"status": "Failure", "message": str(self), "reason": REASONS[self.code], "code": self.code}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "details": self.details, **facts}


def quantity(text: str | int) -> float:
    """The number that stands for an amount, such as 16384Mi."""
    found = QUANTITY.fullmatch(str(text))
    if not found:
        raise ValueError(f"quantities must match the regular expression {QUANTITY.pattern!r}: {text!r}")
    return int(found[1]) * UNITS[found[2] or ""]


def is_label(key: str, value: str) -> bool:
    prefix, _, name = key.rpartition("/")
    named = LABEL.fullmatch(name) and (not prefix or LABEL_PREFIX.fullmatch(prefix))
    return bool(named) and (value == "" or LABEL.fullmatch(value) is not None)


def faults_of_resources(resources: Json) -> Iterator[str]:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for where, amounts in (("requests", requests), ("limits", limits)):
        for name, amount in amounts.items():
            if not QUANTITY.fullmatch(str(amount)):
                yield f"resources.{where}[{name}]: Invalid value: {amount!r}"
    for name in {**requests, **limits}:
        if "/" in name and name not in limits:
            yield f"resources.limits: Required value: Limit must be set for non overcommitable resources ({name})"
        elif name in requests and name in limits:
            asked, allowed = quantity(requests[name]), quantity(limits[name])
            if asked > allowed or ("/" in name and asked != allowed):
                yield f"resources.requests: Invalid value: {requests[name]!r}: must fit {name} limit of {limits[name]}"


def faults_of_pod(pod: Json) -> Iterator[str]:
    """What of a pod no API server would take. Pods are those that Nextflow makes, with one container."""
    metadata, spec = pod["metadata"], pod["spec"]
    if not NAME.fullmatch(metadata["name"]) or len(metadata["name"]) > 63:
        yield f"metadata.name: Invalid value: {metadata['name']!r}"
    for key, value in metadata.get("labels", {}).items():
        if not is_label(key, value):
            yield f"metadata.labels: Invalid value: {key!r}: {value!r}"
    if spec["restartPolicy"] not in ("Always", "OnFailure", "Never"):
        yield f"spec.restartPolicy: Unsupported value: {spec['restartPolicy']!r}"
    (container,) = spec["containers"]
    if not container.get("image"):
        yield "spec.containers[0].image: Required value"
    for fault in faults_of_resources(container.get("resources", {})):
        yield f"spec.containers[0].{fault}"
    known = {volume["name"] for volume in spec.get("volumes", [])}
    seen: set[str] = set()
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in known:
            yield f"spec.containers[0].volumeMounts: Not found: {mount['name']!r}"
        if mount["mountPath"] in seen:
            yield f"spec.containers[0].volumeMounts: Invalid value: {mount['mountPath']!r}: must be unique"
        seen.add(mount["mountPath"])


def checked_pod(pod: Json) -> Json:
    """The pod, as it came.

    Raises:
        Refused: it is no valid pod, or reaches for its node's own files, which namespaces forbid as a rule.
    """
    if any("hostPath" in volume for volume in pod["spec"].get("volumes", [])):
        message = 'violates PodSecurity "baseline:latest": hostPath volumes'
        raise Refused(403, f'pods "{pod["metadata"]["name"]}" is forbidden: {message}', "pods")
    faults = list(faults_of_pod(pod))
    if faults:
        name = pod["metadata"]["name"]
        raise Refused(422, f'Pod "{name}" is invalid: {", ".join(faults)}', "Pod", name)
    return pod
