"""Faults on demand: of single calls to the API server, and of single pods."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

#: What can befall a pod.
#: evicted, evicted-at-once: its node is short of something, and ends it with or without notice;
#: node-shutdown: its node is switched off, with notice; node-gone: without, and the pod is removed;
#: refused: its node, asked to run it, cannot; oom: the kernel kills all of it; pending: no node ever takes it;
#: lost-image: the registry does not answer for some seconds.
POD_FAULTS = (
    *("evicted", "evicted-at-once", "node-shutdown", "node-gone"),
    *("refused", "oom", "pending", "lost-image"),
)


@dataclass
class CallFault:
    """The next ``times`` calls of this method and path go wrong.

    ``answer`` is an HTTP status; `reset`, where the connection ends unanswered; `broken off`, where it ends within the
    answer; or `silence`, where it stays open. With ``done`` what was asked for is done all the same.
    """

    method: str
    path: str
    answer: int | str
    times: int = 1
    done: bool = False

    def meets(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and re.search(self.path, path) is not None


@dataclass
class PodFault:
    """What befalls these tries of the task whose label begins so.

    It does ``after`` seconds after its program has begun and printed something, or after the pod's start if not ``begun``:
    Nextflow's script around the program may then not be ready to be told to end.
    """

    task: str
    what: str
    tries: Sequence[int] = (1,)
    after: float = 0.1
    begun: bool = True


@dataclass
class Faults:
    """Those asked for; and, with a seed, a random one for a share of all pods and calls."""

    calls: list[CallFault] = field(default_factory=list)
    pods: list[PodFault] = field(default_factory=list)

    def of_call(self, method: str, path: str) -> CallFault | None:
        found = next((fault for fault in self.calls if fault.meets(method, path)), None)
        if found:
            found.times -= 1
        return found

    def of_pod(self, task: str, attempt: int) -> PodFault | None:
        return next((fault for fault in self.pods if task.startswith(fault.task) and attempt in fault.tries), None)


@dataclass
class RandomFaults(Faults):
    """A random fault for ``share`` of the first two tries of each shard and, by turns, of every so many calls.

    The same seed gives the same pods the same faults, in whichever order they come.
    """

    seed: int = 0
    share: float = 0.25
    every: int = 50
    met: list[str] = field(default_factory=list)
    counted: int = 0

    def of_call(self, method: str, path: str) -> CallFault | None:
        self.counted += 1
        if method != "GET" or self.counted % self.every:
            return super().of_call(method, path)
        answer: int | str = (500, "reset")[self.counted // self.every % 2]
        self.met.append(str(answer))
        return CallFault(method, path, answer)

    def of_pod(self, task: str, attempt: int) -> PodFault | None:
        draw = random.Random(f"{self.seed} {task} {attempt}")
        if not task.startswith("EMBED_SHARD") or attempt > 2 or draw.random() >= self.share:
            return super().of_pod(task, attempt)
        what = draw.choice([name for name in POD_FAULTS if name != "pending"])
        self.met.append(what)
        return PodFault(task, what, (attempt,), draw.random(), begun=False)
