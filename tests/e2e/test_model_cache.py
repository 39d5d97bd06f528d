"""Where models are kept: runs at once, a run that was killed, no network, folders that are not what they should be."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from launch import PROJECT, Launch, launch, launch_command, launch_environment, nextflow_command, once
from model.hub_server import Hub, serve
from model.official_models import save_official

NAME = "esm2_t6_8M_UR50D"
WEIGHTS = "model.safetensors"
ODD = 'two words & o\'clock "quoted" [x] {y} *?'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_official(NAME, tmp_path_factory.mktemp("official") / NAME, dense=True)


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    with serve(f"facebook/{NAME}", model) as running:
        yield running


@pytest.fixture(autouse=True)
def proteins(tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text(">a\nMKVLAT\n>b\nMKV\n")


def options(tmp_path: Path, name: str = NAME, cache: str | Path = "models") -> list[str | Path]:
    return ["--input", tmp_path / "in.fasta", f"--model={name}", "--model_cache", cache, "--report", "false"]


def online(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0"}


def nobody() -> dict[str, str]:
    """A hub that no longer runs."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return {"HF_ENDPOINT": f"http://127.0.0.1:{unused.getsockname()[1]}", "HF_HUB_OFFLINE": "0"}


def wait_until(condition: Callable[[], object], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


@contextmanager
def started(folder: Path, *arguments: str | Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a session of its own, so that it can be killed with all its tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output").open("wb") as output:
        run = subprocess.Popen(
            launch_command(*arguments),
            cwd=folder,
            env=launch_environment(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield run
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


def assert_refused(run: Launch, code: int, *parts: str) -> None:
    """The run ends with ``code``, and its last word is one line that holds ``parts``."""
    assert run.code == code, run.output
    (last,) = [line for line in run.output.splitlines() if line.startswith("No results: ")]
    assert all(part in last for part in parts), last
    assert run.published() == []


@pytest.mark.one_engine
def test_two_runs_at_once_fetch_once(tmp_path: Path, model: Path, hub: Hub) -> None:
    hub.hold_after[WEIGHTS] = 1_000_000
    folders = [tmp_path / name for name in ("first", "second")]
    cache = tmp_path / ODD
    with (
        started(folders[0], *options(tmp_path, cache=cache), environment=online(hub)) as first,
        started(folders[1], *options(tmp_path, cache=cache), environment=online(hub)) as second,
    ):
        for folder in folders:
            wait_until(lambda at=folder: list(at.glob("work/*/*/.command.begin")), f"a task in {folder}")  # type: ignore[misc]
        wait_until(lambda: WEIGHTS in hub.fetched() or None not in (first.poll(), second.poll()), "a download")
        hub.released.set()
        codes = [run.wait(timeout=240) for run in (first, second)]
    finished = [
        Launch(code, (folder / "output").read_text(), folder) for code, folder in zip(codes, folders, strict=True)
    ]
    assert codes == [0, 0], [run.output for run in finished]
    assert [run.statuses()["FETCH_MODEL"] for run in finished] == [{"COMPLETED"}] * 2
    assert hub.fetched() == ["config.json", WEIGHTS]
    assert (cache / NAME / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


@pytest.mark.one_engine
def test_a_killed_run_leaves_no_model_and_the_next_fetches_what_was_not_complete(
    tmp_path: Path, model: Path, hub: Hub
) -> None:
    hub.hold_after[WEIGHTS] = 12_000_000
    partial = tmp_path / "models" / f".{NAME}.partial"

    def arrived() -> int:
        return sum(file.stat().st_size for file in partial.rglob("*.incomplete"))

    with started(tmp_path, *options(tmp_path), environment=online(hub)) as run:
        wait_until(lambda: arrived() >= 10_000_000, "10 MB of the weights")
        (task,) = tmp_path.glob("work/*/*/.command.begin")
        os.killpg(run.pid, signal.SIGKILL)
        # Each task of Nextflow's is a session of its own.
        while running := list_processes(task.parent):
            for process in running:
                with suppress(ProcessLookupError):  # the death of one ends others
                    os.kill(process, signal.SIGKILL)
    assert not (tmp_path / "models" / NAME).exists()
    hub.hold_after.clear()
    hub.released.set()
    hub.requests.clear()

    again = launch(tmp_path / "again", *options(tmp_path, cache=tmp_path / "models"), environment=online(hub))
    assert again.code == 0, again.output
    assert WEIGHTS in hub.fetched()
    assert not partial.exists()
    assert (tmp_path / "models" / NAME / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def list_processes(folder: Path) -> list[int]:
    """The processes that work in ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve(strict=True) == folder.resolve():
                found.append(int(entry.name))
        except OSError:  # gone meanwhile, or not ours
            continue
    return found


@pytest.mark.one_engine
def test_a_kept_model_needs_neither_network_nor_hub(tmp_path: Path, model: Path) -> None:
    shutil.copytree(model, tmp_path / ODD / NAME)
    run = launch(tmp_path, *options(tmp_path, cache=ODD), environment=nobody() | {"HF_HUB_OFFLINE": "1"})
    assert run.code == 0, run.output
    assert "FETCH_MODEL" not in run.statuses()


@pytest.mark.one_engine
def test_a_model_removed_from_the_cache_is_fetched_anew_on_resume(tmp_path: Path, hub: Hub) -> None:
    for again, fetched in (
        ([], ["config.json", WEIGHTS]),
        (["-resume"], ["config.json", "config.json", WEIGHTS, WEIGHTS]),
    ):
        run = launch(tmp_path, *options(tmp_path), *again, environment=online(hub))
        assert run.code == 0, run.output
        assert run.statuses()["FETCH_MODEL"] == {"COMPLETED"}
        assert hub.fetched() == fetched
        shutil.rmtree(tmp_path / "models" / NAME)


@pytest.mark.one_engine
def test_offline_without_the_model(tmp_path: Path) -> None:
    run = launch(tmp_path, *options(tmp_path), environment=nobody() | {"HF_HUB_OFFLINE": "1"})
    instead = "HF_HUB_OFFLINE is set; unset it, or download it elsewhere and give its path"
    assert_refused(run, 69, f"fetch_model.py: error: {NAME} cannot be had from http://127.0.0.1:", instead)
    assert not (tmp_path / "models" / NAME).exists()


@pytest.mark.one_engine
def test_no_network_at_all(tmp_path: Path) -> None:
    """In a network namespace of its own a run has no interface, loopback included."""
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no network namespaces")
    environment = launch_environment({"HF_HUB_OFFLINE": "0"})
    environment.pop("HF_ENDPOINT", None)
    done = subprocess.run(
        [*alone, *launch_command(*options(tmp_path))],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    run = Launch(done.returncode, done.stdout + done.stderr, tmp_path)
    assert_refused(run, 69, f"{NAME} cannot be had from https://huggingface.co", "check the network, or download it")
    assert run.statuses() == {"FETCH_MODEL": {"FAILED"}}


@pytest.mark.one_engine
def test_an_older_layout_is_named_and_left_alone(tmp_path: Path, model: Path) -> None:
    shutil.copytree(model, tmp_path / "models" / NAME / "weights")
    run = launch(tmp_path, *options(tmp_path), environment=nobody())
    assert_refused(run, 69, f"{tmp_path}/models/{NAME} is not a whole {NAME} (", "remove it, and the next run fetches")
    assert (tmp_path / "models" / NAME / "weights" / WEIGHTS).exists()


@pytest.mark.one_engine
def test_a_kept_model_cut_short_is_named_by_its_path(tmp_path: Path, model: Path) -> None:
    shutil.copytree(model, tmp_path / "models" / NAME)
    os.truncate(tmp_path / "models" / NAME / WEIGHTS, 1_000_000)
    run = launch(tmp_path, *options(tmp_path), environment=nobody())
    assert_refused(run, 69, f"fetch_model.py: error: {tmp_path}/models/{NAME}/{WEIGHTS}: ")


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """``folder`` without the right to write, for root too."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    mount = subprocess.run(["mount", "--bind", folder, folder], capture_output=True)
    closed = subprocess.run(["mount", "-o", "remount,bind,ro", folder], capture_output=True)
    if mount.returncode or closed.returncode:
        pytest.skip("root may write anywhere, and mounting is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.one_engine
def test_a_cache_that_cannot_be_written(tmp_path: Path, model: Path) -> None:
    shutil.copytree(model, tmp_path / "models" / NAME)
    with read_only(tmp_path / "models"):
        kept = launch(tmp_path, *options(tmp_path))
        lacking = launch(tmp_path / "lacking", *options(tmp_path, "esm2_t12_35M_UR50D", tmp_path / "models"))
    assert kept.code == 0, kept.output
    assert lacking.code == 74, lacking.output
    assert f"--model_cache {tmp_path}/models cannot be written; check its permissions" in lacking.last_lines


@pytest.mark.one_engine
@pytest.mark.parametrize("cache", ["c$HOME", "file/models"])
def test_a_cache_that_no_task_can_use(cache: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = launch(tmp_path, *options(tmp_path, cache=cache))
    message = "Nextflow cannot stage a path with a dollar sign" if "$" in cache else "cannot be written"
    assert run.code == (66 if "$" in cache else 74), run.output
    assert message in run.last_lines
    assert not (tmp_path / "c$HOME").exists()


@pytest.mark.parametrize("name", ['o\'clock "x" $(touch made) `touch made`;touch made;', once("-rf")])
def test_a_name_is_never_part_of_the_script(name: str, tmp_path: Path) -> None:
    """What is no file is asked for by its name, which then is unknown."""
    run = launch(tmp_path, *options(tmp_path, name))
    assert_refused(run, 69, "fetch_model.py: error: ")
    assert not list(tmp_path.rglob("made"))


@pytest.mark.one_engine
def test_tasks_that_share_no_folder_hand_the_model_on(tmp_path: Path, model: Path, hub: Hub) -> None:
    """As with a work folder in a bucket: the download is an output like any other."""
    script = f"include {{ FETCH_MODEL }} from '{PROJECT}/modules/fetch_model/main.nf'\n"
    script += f"workflow {{ FETCH_MODEL('{NAME}', '', '{NAME}', []).view {{ made -> \"fetched ${{made}}\" }} }}\n"
    (tmp_path / "one.nf").write_text(script)
    (tmp_path / "bin").symlink_to(PROJECT / "bin")
    environment = launch_environment(online(hub))
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [*nextflow_command(), "run", "one.nf", "-ansi-log", "false", "-resume"]
    for expected in ("Submitted", "Cached"):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{expected} process > FETCH_MODEL" in done.stdout
        assert hub.fetched() == ["config.json", WEIGHTS]
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("fetched ")]
        made = Path(line.removeprefix("fetched "))
        assert made.name == NAME
        assert (made / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
