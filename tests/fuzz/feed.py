"""Gives a target bytes for some seconds: by atheris, which follows what they reach, or where it is not there at random.

``python -m fuzz.feed TARGET SECONDS FOLDER``: begins with the corpus, keeps in the folder what reached anything new,
and ends with 1 and the bytes in a file where the target raised.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

#: Seconds after which a new process goes on: atheris keeps some tens of kilobytes of each input.
TURN = 120


def mutated(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the seeds with up to four changes: a bit, a byte, bytes put in, cut out or doubled, or another's end."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randrange(1, 5)):
        at, size = rng.randrange(len(data) + 1), rng.randrange(1, 17)
        change = rng.randrange(6)
        if change == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            data[at : at + 1] = rng.randbytes(1)
        elif change == 2:
            data[at:at] = rng.randbytes(size)
        elif change == 3:
            del data[at : at + size]
        elif change == 4:
            data[at:at] = data[at : at + size]
        else:
            data[at:] = rng.choice(seeds)[at:]
    return bytes(data)


def at_random(name: str, seconds: float, folder: Path) -> int:
    """Without atheris: the corpus with changes, by a seed that is told."""
    from fuzz.targets import CORPUS, TARGETS

    seed, end, count = time.time_ns(), time.monotonic() + seconds, 0
    rng = random.Random(seed)
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    while time.monotonic() < end:
        data = mutated(seeds, rng)
        count += 1
        try:
            TARGETS[name](data)
        except Exception:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "crash").write_bytes(data)
            print(f"{name}: raised by {folder / 'crash'}, the input {count} of seed {seed}")
            raise
    print(f"{name}: {count} inputs of seed {seed}, nothing found")
    return 0


def by_coverage(name: str, seconds: int, folder: Path) -> int:
    """With atheris, in processes one after the other; what they found goes on from one to the next."""
    end = time.monotonic() + seconds
    while (left := int(end - time.monotonic())) > 0:
        command = [sys.executable, "-m", "fuzz.feed", name, str(min(left, TURN)), str(folder), "one turn"]
        if code := subprocess.run(command, check=False).returncode:
            return code
    return 0


def one_turn(name: str, seconds: int, folder: Path) -> None:
    """With atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["virnucpro"]):
        from fuzz.targets import CORPUS, TARGETS
    folder.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={seconds}", "-timeout=120", "-rss_limit_mb=4096", "-max_len=20000"]
    options = [*limits, f"-artifact_prefix={folder}/crash-", "-print_final_stats=1", "-verbosity=1"]
    atheris.Setup([sys.argv[0], str(folder), str(CORPUS / name), *options], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    name, seconds, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    try:
        import atheris  # noqa: F401
    except ImportError:
        return at_random(name, seconds, folder)
    if sys.argv[4:]:
        one_turn(name, seconds, folder)
    return by_coverage(name, seconds, folder)


if __name__ == "__main__":
    sys.exit(main())
