"""One namespace of a cluster with one node: its pods, jobs, volume claims, registry, GPUs and accounts."""

from __future__ import annotations

import random
import string
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kube_faults import Faults
from kube_node import Container, Image
from kube_objects import Json, Refused, checked_pod
from kube_pods import Pod, now

GPU = "nvidia.com/gpu"
#: What Nextflow needs of its service account's role, as docs/clouds.md has it.
RIGHTS = frozenset(
    {("create", "pods"), ("delete", "pods"), ("list", "pods"), ("get", "pods/status"), ("get", "pods/log")}
    | {("create", "jobs"), ("delete", "jobs"), ("get", "jobs/status")}
)
#: Seconds from a pod's SIGTERM to its SIGKILL; Kubernetes gives 30.
GRACE = 5.0
UNTIL_PULLED = 4.0


@dataclass
class Cluster:
    """The state that the API server shows.

    ``claims`` and ``images`` are known by their names; ``devices`` are the names of its GPUs; ``rights`` are the pairs
    of verb and resource that the account ``account`` has.
    """

    folder: Path
    claims: dict[str, Path] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    rights: frozenset[tuple[str, str]] = RIGHTS
    account: str = "nextflow"
    namespace: str = "lab"
    lock: threading.RLock = field(default_factory=threading.RLock)
    #: Every pod that was ever created, in that order.
    pods: list[Pod] = field(default_factory=list)
    jobs: dict[str, Json] = field(default_factory=dict)
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    peak_devices: int = 0

    def alive(self) -> list[Pod]:
        """Pods that run, or still may."""
        return [pod for pod in self.pods if not pod.removed and not pod.ended]

    def of_task(self, task: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.task.startswith(task)]

    def create_pod(self, manifest: Json) -> Pod:
        with self.lock:
            pod = checked_pod(manifest)
            name = pod["metadata"]["name"]
            account = pod["spec"].get("serviceAccountName", "default")
            if account not in ("default", self.account):
                message = f"error looking up service account {self.namespace}/{account}: not found"
                raise Refused(403, f'pods "{name}" is forbidden: {message}', "pods", name)
            if any(each.name == name and not each.removed for each in self.pods):
                raise Refused(409, f'pods "{name}" already exists', "pods", name)
            task = pod["metadata"].get("labels", {}).get("nextflow.io/taskName", "")
            attempt = 1 + len([each for each in self.pods if each.task == task])
            folder = self.folder / "pods" / f"{len(self.pods):05}"
            created = Pod(pod, attempt, self.faults.of_pod(task, attempt), folder)
            self.pods.append(created)
            self.schedule()
            return created

    def schedule(self) -> None:
        """Place what can be placed, the oldest first."""
        with self.lock:
            for pod in [each for each in self.alive() if not each.placed and not each.deleted]:
                pod.message = self._unplaceable(pod)
                if not pod.message:
                    free = self.free_devices()
                    pod.devices = free[: pod.limit(GPU)]
                    pod.placed = True
                    self.peak_devices = max(self.peak_devices, len(self.devices) - len(self.free_devices()))
                    pod.wait_for("ContainerCreating", "")
                    threading.Thread(target=self._run, args=(pod,), daemon=True).start()

    def _unplaceable(self, pod: Pod) -> str:
        for volume in pod.spec.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim is not None and claim not in self.claims:
                return f'persistentvolumeclaim "{claim}" not found'
        if pod.fault and pod.fault.what == "pending":
            return "0/1 nodes are available: 1 node(s) had untolerated taint {nvidia.com/gpu: present}."
        if pod.limit(GPU) > len(self.free_devices()):
            return f"0/1 nodes are available: 1 Insufficient {GPU}."
        return ""

    def free_devices(self) -> list[str]:
        held = {device for pod in self.pods if not pod.ended and not pod.removed for device in pod.devices}
        return [device for device in self.devices if device not in held]

    def _run(self, pod: Pod) -> None:
        if pod.fault and pod.fault.what == "refused":
            pod.state = None
            pod.failed("UnexpectedAdmissionError", "Allocate failed due to rpc error: no healthy devices present")
            self.schedule()
            return
        image = self.images.get(pod.only["image"])
        lost = pod.fault is not None and pod.fault.what == "lost-image"
        if image is None or lost:
            pod.wait_for("ErrImagePull", f'failed to pull and unpack image "{pod.only["image"]}": not found')
            if image is None:
                return
            # A node asks again, until the registry answers.
            time.sleep(UNTIL_PULLED)
        context = pod.spec.get("securityContext", {})
        if context.get("runAsNonRoot") and context.get("runAsUser", 0) == 0:
            pod.wait_for("CreateContainerConfigError", "container's runAsUser breaks non-root policy")
            return
        variables = {"HOSTNAME": pod.name, "KUBERNETES_SERVICE_HOST": "127.0.0.1"}
        if pod.devices:
            variables["NVIDIA_VISIBLE_DEVICES"] = ",".join(pod.devices)
        with self.lock:
            if pod.deleted:
                return
            container = Container(pod.manifest, image, pod.folder, self.claims, variables)
            pod.container, pod.phase, started = container, "Running", now()
            pod.state = {"running": {"startedAt": started}}
        done = threading.Event()
        if pod.fault:
            threading.Thread(target=self._befall, args=(pod, done), daemon=True).start()
        if "activeDeadlineSeconds" in pod.spec:
            threading.Thread(target=self._time_limit, args=(pod, done), daemon=True).start()
        code = container.wait()
        with self.lock:
            done.set()
            out_of_memory = code == 137 and (pod.reason == "OOMKilled" or container.over_memory())
            pod.terminated(code, "OOMKilled" if out_of_memory else "Completed" if code == 0 else "Error", started)
            pod.gone.set()
        container.remove()
        self.schedule()

    def _befall(self, pod: Pod, done: threading.Event) -> None:
        fault, container = pod.fault, pod.container
        assert fault is not None and container is not None
        while fault.begun and not (pod.folder / "log").stat().st_size and not done.wait(0.02):
            pass
        if done.wait(fault.after):
            return
        if fault.what == "evicted":
            self._fail(pod, "Evicted", "The node was low on resource: memory.", GRACE)
        elif fault.what == "evicted-at-once":
            self._fail(pod, "Evicted", "The node was low on resource: ephemeral-storage.", 0)
        elif fault.what == "node-shutdown":
            self._fail(pod, "Terminated", "Pod was terminated in response to imminent node shutdown.", GRACE)
        elif fault.what == "node-gone":
            with self.lock:
                pod.deleted = pod.removed = True
            container.kill()
        elif fault.what == "oom":
            self._fail(pod, "OOMKilled", "", 0)

    def _time_limit(self, pod: Pod, done: threading.Event) -> None:
        if not done.wait(pod.spec["activeDeadlineSeconds"]):
            self._fail(pod, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline", GRACE)

    def _fail(self, pod: Pod, reason: str, message: str, grace: float) -> None:
        assert pod.container is not None
        pod.reason, pod.message = reason, message
        if grace:
            pod.container.stop(grace)
        else:
            pod.container.kill()

    def find(self, name: str) -> Pod:
        for pod in self.pods:
            if pod.name == name and not pod.removed:
                return pod
        raise Refused(404, f'pods "{name}" not found', "pods", name)

    def delete_pod(self, name: str) -> Pod:
        """Mark it for its end, as DELETE does; it is gone once its processes are."""
        with self.lock:
            pod = self.find(name)
            pod.deleted = True
            if pod.container is None or pod.ended:
                pod.removed = True
                self.schedule()
                return pod
        threading.Thread(target=self._end, args=(pod,), daemon=True).start()
        return pod

    def _end(self, pod: Pod) -> None:
        assert pod.container is not None
        pod.container.stop(GRACE)
        pod.gone.wait()
        pod.removed = True

    def select(self, labels: dict[str, str]) -> list[Pod]:
        return [pod for pod in self.pods if not pod.removed and labels.items() <= pod.labels.items()]

    def create_job(self, manifest: Json) -> Json:
        """A job, and the one pod that its controller makes of it."""
        name = manifest["metadata"]["name"]
        with self.lock:
            if name in self.jobs:
                raise Refused(409, f'jobs.batch "{name}" already exists', "jobs", name)
            template = manifest["spec"]["template"]
            suffix = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
            labels = {**template["metadata"].get("labels", {}), "job-name": name}
            metadata = {**template["metadata"], "name": f"{name}-{suffix}", "labels": labels}
            self.create_pod({**template, "metadata": metadata})
            self.jobs[name] = {"kind": "Job", "apiVersion": "batch/v1", **manifest}
            return self.jobs[name]

    def job(self, name: str) -> Json:
        if name not in self.jobs:
            raise Refused(404, f'jobs.batch "{name}" not found', "jobs", name)
        (pod,) = [each for each in self.pods if each.labels.get("job-name") == name]
        status: Json = {}
        if pod.phase == "Succeeded":
            status = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
        elif pod.phase == "Failed" or pod.removed:
            message = "Job has reached the specified backoff limit"
            status = {"failed": 1, "conditions": [{"type": "Failed", "status": "True", "message": message}]}
        return {**self.jobs[name], "status": status}

    def delete_job(self, name: str) -> Json:
        job = self.job(name)
        del self.jobs[name]
        for pod in self.select({"job-name": name}):
            self.delete_pod(pod.name)
        return job

    def stop(self, pods: Iterable[Pod] | None = None) -> None:
        """End whatever still runs."""
        for pod in self.alive() if pods is None else pods:
            pod.deleted = True
            if pod.container is not None:
                pod.container.kill()
                pod.gone.wait(10)

    def wait_until_idle(self, seconds: float = 40) -> list[Pod]:
        """Pods that still run or may, once none does or the time is over."""
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.alive()
