"""A pod's container on this machine: a process in namespaces of its own, with what its specification says alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kube_objects import Json, quantity

HERE = Path(__file__).parent
#: Parts of this machine that stand for an image's: programs, libraries, and Python with what it runs.
SYSTEM = tuple(Path(name) for name in ("/usr", "/etc/alternatives", "/etc/ld.so.cache"))
PYTHON = tuple({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), Path(sys.prefix)})
MEMORY_CGROUPS = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Image:
    """What a name in a registry stands for: ``programs`` come first in its PATH, ``environment`` is its own."""

    programs: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    content: tuple[Path, ...] = ()

    def variables(self) -> dict[str, str]:
        path = [str(self.programs), f"{sys.prefix}/bin", "/usr/local/bin", "/usr/bin"]
        return {"PATH": ":".join(path), "HOME": "/", **self.environment}

    def folders(self) -> list[Path]:
        return [*SYSTEM, *PYTHON, self.programs, *self.content]


def why_not() -> str | None:
    """Why no pod can run on this machine, or None."""
    if os.geteuid() != 0:
        return "a pod's namespaces take root"
    missing = [name for name in ("unshare", "setpriv", "chroot", "openssl") if shutil.which(name) is None]
    if missing:
        return f"{missing[0]} is not installed"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"], capture_output=True)
    return None if tried.returncode == 0 else "this machine gives no namespaces"


def limits_memory() -> bool:
    """Whether a memory limit can be set here: by cgroups of version 1."""
    return os.access(MEMORY_CGROUPS / "memory.limit_in_bytes", os.R_OK) and os.access(MEMORY_CGROUPS, os.W_OK)


class Container:
    """A started container. Its log, root folder and table of mounts lie in ``folder``."""

    def __init__(
        self, pod: Json, image: Image, folder: Path, claims: dict[str, Path], variables: dict[str, str]
    ) -> None:
        spec = pod["spec"]
        (container,) = spec["containers"]
        self.folder = folder
        root = folder / pod["metadata"]["name"]
        root.mkdir(parents=True)
        table = folder / "mounts"
        rows = [("ro", str(path), str(path)) for path in image.folders()]
        rows += mounts(spec, container, claims, folder)
        table.write_text("".join("\t".join(row) + "\n" for row in rows))
        self.cgroup = self._limited(container.get("resources", {}).get("limits", {}))
        stated = {entry["name"]: str(entry["value"]) for entry in container.get("env", [])}
        environment = {**image.variables(), **variables, **stated}
        command = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child=SIGKILL"]
        command += [str(HERE / "pod_root.sh"), str(root), str(table), str(self.cgroup or "")]
        command += identity(spec.get("securityContext", {}))
        command += ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, *container.get("command", []), *container.get("args", [])],
                **{"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": "/", "start_new_session": True},
            )

    def _limited(self, limits: Json) -> Path | None:
        if "memory" not in limits or not limits_memory():
            return None
        cgroup = Path(tempfile.mkdtemp(prefix="virnucpro-k8s-", dir=MEMORY_CGROUPS))
        (cgroup / "memory.limit_in_bytes").write_text(str(int(quantity(limits["memory"]))))
        return cgroup

    def over_memory(self) -> bool:
        """Whether the kernel killed something of it for want of memory."""
        if self.cgroup is None or not self.cgroup.exists():
            return False
        return re.search(r"^oom_kill [1-9]", (self.cgroup / "memory.oom_control").read_text(), re.MULTILINE) is not None

    def stop(self, grace: float) -> None:
        """End it as a node does: SIGTERM to its first process, and SIGKILL to all after ``grace`` seconds."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGTERM)
            self.process.wait(grace)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all of it: nothing of it can write an exit code."""
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        """The exit code of its first process; 128 and the signal if that was killed."""
        code = self.process.wait()
        return code if code >= 0 else 128 - code

    def remove(self, seconds: float = 10) -> None:
        """Give its cgroup back, once the kernel is done with what was killed in it."""
        deadline = time.monotonic() + seconds
        while self.cgroup is not None and time.monotonic() < deadline:
            try:
                self.cgroup.rmdir()
                return
            except OSError:
                time.sleep(0.05)


def identity(context: Json) -> list[str]:
    """The command that makes a process a user's; root, who is the images' user, keeps what containers let it."""
    user, group = context.get("runAsUser", 0), context.get("runAsGroup", 0)
    if user == 0:
        return []
    groups = f"--groups={context['fsGroup']}" if "fsGroup" in context else "--clear-groups"
    return ["setpriv", f"--reuid={user}", f"--regid={group}", groups, "--no-new-privs", "--bounding-set=-all"]


def mounts(spec: Json, container: Json, claims: dict[str, Path], folder: Path) -> list[tuple[str, str, str]]:
    """KIND, SOURCE and TARGET of each volume that a container mounts."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    rows = []
    for mount in container.get("volumeMounts", []):
        volume, target = volumes[mount["name"]], mount["mountPath"]
        kind = "ro" if mount.get("readOnly") else "rw"
        if "persistentVolumeClaim" in volume:
            source = claims[volume["persistentVolumeClaim"]["claimName"]] / mount.get("subPath", "")
            rows.append((kind, str(source), target))
        elif volume["emptyDir"].get("medium") == "Memory":
            rows.append(("memory", "-", target))
        else:
            source = folder / "volumes" / mount["name"]
            source.mkdir(parents=True)
            source.chmod(0o777)
            rows.append((kind, str(source), target))
    return rows
