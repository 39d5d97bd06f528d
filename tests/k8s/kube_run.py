"""The pipeline started as on a cluster: by a user without a name, beside a volume that pods mount too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kube_api import served
from kube_cluster import Cluster
from kube_node import Image
from runtimes.pipeline_run import (
    EMBED_IMAGE,
    PROJECT,
    TOOLS_IMAGE,
    Run,
    copy_project,
    pipeline_command,
    pipeline_environment,
    public_folder,
    run_pipeline,
)

USER, GROUP = 4321, 4322
REGISTRY = "registry.example/lab"
NAMES = (TOOLS_IMAGE, EMBED_IMAGE)
HERE = Path(__file__).parent
#: Without a GPU's driver: what a pod is told to compute on its GPU it computes on the CPU.
ON_CPU = Image(HERE / "image")
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups")
#: What a site fills in. The head polls more often than a real one should.
SITE = """
k8s {{
    namespace = 'lab'
    serviceAccount = 'nextflow'
    storageClaimName = 'work'
    storageMountPath = '{volume}'
}}
params.container_registry = '{registry}'
executor.pollInterval = '1 sec'
"""


@dataclass
class Site:
    """A cluster and what its user has: ``volume`` is mounted here and in pods, ``head`` is only here."""

    cluster: Cluster
    volume: Path
    head: Path
    kubeconfig: Path

    def run(
        self,
        *arguments: str,
        name: str = "run",
        config: str = "",
        environment: Mapping[str, str] | None = None,
        inputs: Path | None = None,
        project: Path | None = None,
        prefix: tuple[str, ...] = AS_USER,
        seconds: float = 300,
    ) -> Run:
        """`nextflow run -profile k8s` to its end, with ``config`` over the site's own."""
        return run_pipeline(
            self.launch_folder(name),
            *self.arguments(*arguments),
            inputs=inputs or self.volume / "inputs",
            environment={**self.environment(), **(environment or {})},
            configs=(self.site_config(config),),
            python_env=None,
            project=project or self.volume / "project",
            prefix=prefix,
            seconds=seconds,
        )

    def command(self, *arguments: str, config: str = "") -> list[str]:
        """What `run` starts, for a test that does so itself, as `started` says."""
        configs = (self.site_config(config),)
        inputs, project = self.volume / "inputs", self.volume / "project"
        words = self.arguments(*arguments)
        return [*AS_USER, *pipeline_command(*words, inputs=inputs, configs=configs, python_env=None, project=project)]

    def started(self) -> dict[str, Any]:
        return {"cwd": self.launch_folder(), "env": pipeline_environment(self.environment())}

    def arguments(self, *arguments: str) -> tuple[str, ...]:
        return ("-profile", "k8s", "-work-dir", str(self.volume / "work"), "--precision", "fp32", *arguments)

    def launch_folder(self, name: str = "run") -> Path:
        folder = self.head / name
        folder.mkdir(exist_ok=True)
        os.chown(folder, USER, GROUP)
        return folder

    def environment(self) -> dict[str, str]:
        home = str(self.head)
        return {"HOME": home, "NXF_HOME": f"{home}/.nextflow", "KUBECONFIG": str(self.kubeconfig)}

    def site_config(self, more: str = "") -> Path:
        path = self.head / "site.config"
        path.write_text(SITE.format(volume=self.volume, registry=REGISTRY) + more)
        return path


def recorded(folder: Path, seconds: float = 1, faults: str = "") -> Image:
    """An image that hands out what record_shards.py left in ``folder``; ``faults`` are words SHARD:TRY:CODE."""
    environment = {"RECORDED": str(folder), "SECONDS": str(seconds), "FAULTS": faults}
    named = {f"VIRNUCPRO_TEST_{name}": value for name, value in environment.items()}
    return Image(HERE / "recorded_image", named, (folder,))


def record(inputs: Path, residues: int, folder: Path) -> Path:
    """Embed ``inputs`` in shards of so many residues, for `recorded`."""
    script = str(HERE / "record_shards.py")
    command = [sys.executable, script, str(inputs / "few.fasta"), str(inputs / "model.pt"), str(residues), str(folder)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(PROJECT / "bin")})
    return folder


@contextmanager
def site(inputs: Path, image: Image = ON_CPU, devices: int = 3, **settings: object) -> Iterator[Site]:
    """A cluster with so many GPUs, whose volume holds the pipeline and ``inputs``, and whose images are this one."""
    with public_folder() as folder:
        for name in ("volume", "head"):
            (folder / name).mkdir()
            os.chown(folder / name, USER, GROUP)
        (folder / "volume" / "inputs").mkdir()
        for file in inputs.iterdir():
            shutil.copy(file, folder / "volume" / "inputs")
        copy_project(folder / "volume" / "project")
        cluster = Cluster(
            folder / "cluster",
            claims={"work": folder / "volume"},
            images={f"{REGISTRY}/{name}": image for name in NAMES},
            devices=[f"GPU-{number}" for number in range(devices)],
            **settings,  # type: ignore[arg-type]
        )
        with served(cluster) as kubeconfig:
            yield Site(cluster, folder / "volume", folder / "head", kubeconfig)
