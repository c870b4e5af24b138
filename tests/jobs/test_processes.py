"""Real processes, really killed."""

import asyncio
import builtins
import ctypes
import operator
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from terrace.errors import Internal, Invalid, Missing, Unavailable
from terrace.jobs import processes as module
from terrace.jobs.processes import Processes

MB = 1024**2
FUNCTIONS = '''
import os, time
from dataclasses import dataclass
from terrace.errors import Missing

@dataclass
class Point:
    x: int
    tags: tuple[str, ...]

def point(x: int) -> Point:
    return Point(x, ("a", "b"))

def missing() -> None:
    raise Missing("No such page.", code="page_missing", page=7)

def counting(n: int, *, progress) -> int:
    for i in range(n):
        progress(i + 1, n, "counted")
        time.sleep(0.02)
    return n

def chatter() -> str:
    print("on stdout")
    os.system("echo from a child of the child")
    return "fine"

def hold(path: str) -> None:
    """Start a process of its own, say both pids, and stay."""
    import subprocess
    grandchild = subprocess.Popen(["sleep", "300"])
    with open(path + ".tmp", "w") as file:
        file.write(f"{os.getpid()} {grandchild.pid}")
    os.rename(path + ".tmp", path)
    time.sleep(300)

def busy() -> None:
    while True:
        pass

def environment() -> dict[str, str]:
    return dict(os.environ)

def niceness() -> int:
    return os.nice(0)
'''


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    pool = Processes(limit=2)
    yield pool
    await pool.close()


@pytest.fixture(scope="session")
def functions(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A module both sides can import."""
    folder = tmp_path_factory.mktemp("functions")
    name = f"functions_{os.getpid()}"
    (folder / f"{name}.py").write_text(FUNCTIONS)
    sys.path.insert(0, str(folder))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    yield __import__(name)
    sys.path.remove(str(folder))
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


async def eventually(holds, seconds: float = 60.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds  # the processes come after all others: on a busy machine they begin late
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def running(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


BOUNDS = {"timeout": 30.0, "memory": 512 * MB}


async def test_a_result_comes_back_as_the_annotated_type(processes: Processes, functions) -> None:
    point = await processes.run(functions.point, 3, **BOUNDS)
    assert point == functions.Point(3, ("a", "b"))


async def test_a_process_is_used_again(processes: Processes) -> None:
    first = await processes.run(os.getpid, **BOUNDS)
    assert first != os.getpid()
    assert await processes.run(os.getpid, **BOUNDS) == first
    assert processes.alive == 1


async def test_calls_beyond_the_limit_wait(processes: Processes) -> None:
    pids = await asyncio.gather(*(processes.run(os.getpid, **BOUNDS) for _ in range(8)))
    assert len(set(pids)) <= 2


async def test_an_error_with_a_kind_arrives_whole(processes: Processes, functions) -> None:
    with pytest.raises(Missing) as raised:
        await processes.run(functions.missing, **BOUNDS)
    assert (raised.value.message, raised.value.code, raised.value.extra) == (
        "No such page.",
        "page_missing",
        {"page": 7},
    )


async def test_any_other_error_is_ours(processes: Processes) -> None:
    with pytest.raises(Internal) as raised:
        await processes.run(operator.truediv, 1, 0, **BOUNDS)
    assert raised.value.code == "process_failed"
    assert await processes.run(operator.add, 1, 1, **BOUNDS) == 2


async def test_progress_arrives_in_order_and_ends_complete(processes: Processes, functions) -> None:
    seen: list[tuple[float, float, str]] = []
    assert await processes.run(functions.counting, 10, progress=lambda *each: seen.append(each), **BOUNDS) == 10
    assert seen == sorted(seen)
    assert seen[-1] == (10, 10, "counted")


async def test_what_a_function_prints_does_not_disturb(processes: Processes, functions) -> None:
    assert await processes.run(functions.chatter, **BOUNDS) == "fine"


async def test_too_slow_is_killed(processes: Processes) -> None:
    with pytest.raises(Invalid) as raised:
        await processes.run(time.sleep, 60, timeout=0.3, memory=512 * MB)
    assert raised.value.code == "parse_timeout"
    assert await processes.run(operator.add, 1, 1, **BOUNDS) == 2


async def test_too_much_memory_is_refused(processes: Processes) -> None:
    with pytest.raises(Invalid) as raised:
        await processes.run(builtins.bytearray, 600 * MB, **BOUNDS)
    assert raised.value.code == "parse_memory"


@pytest.mark.parametrize(
    "crash", [(os._exit, 3), (os.abort,), (ctypes.string_at, 0)], ids=["exit", "abort", "segfault"]
)
async def test_a_crash_is_told_and_survived(processes: Processes, crash) -> None:
    with pytest.raises(Invalid) as raised:
        await processes.run(*crash, **BOUNDS)
    assert raised.value.code == "parse_crashed"
    assert await processes.run(operator.add, 1, 1, **BOUNDS) == 2


async def test_cancelling_the_caller_kills_the_process_and_what_it_started(
    processes: Processes, functions, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    task = asyncio.create_task(processes.run(functions.hold, str(note), timeout=300, memory=512 * MB))
    await eventually(note.exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pids = [int(each) for each in note.read_text().split()]
    await eventually(lambda: not any(running(pid) for pid in pids))


async def test_killed_from_outside_between_calls(processes: Processes) -> None:
    os.kill(await processes.run(os.getpid, **BOUNDS), signal.SIGKILL)
    assert await processes.run(operator.add, 1, 1, **BOUNDS) == 2


async def test_idle_processes_leave() -> None:
    processes = Processes(limit=1, idle=0.05)
    pid = await processes.run(os.getpid, **BOUNDS)
    await eventually(lambda: processes.alive == 0 and not running(pid))
    await processes.close()


async def test_a_process_is_replaced_after_its_share_of_calls() -> None:
    processes = Processes(limit=1, max_calls=2)
    pids = [await processes.run(os.getpid, **BOUNDS) for _ in range(3)]
    assert pids[0] == pids[1] != pids[2]
    await processes.close()


async def test_close_kills_what_runs(functions, tmp_path: Path) -> None:
    processes = Processes(limit=1)
    task = asyncio.create_task(processes.run(time.sleep, 60, timeout=60, memory=512 * MB))
    await eventually(lambda: processes.alive == 1)
    await asyncio.sleep(0)
    await processes.close()
    with pytest.raises(Unavailable):
        await task
    with pytest.raises(Unavailable):
        await processes.run(os.getpid, **BOUNDS)


async def test_secrets_stay_out_and_the_server_comes_first(processes: Processes, functions) -> None:
    seen = await processes.run(functions.environment, **BOUNDS)
    assert set(seen) <= {*module.ENVIRONMENT, "PYTHONUTF8", "LC_CTYPE"}
    assert await processes.run(functions.niceness, **BOUNDS) >= 10


SERVER = """
import asyncio, sys
sys.path.insert(0, {folder!r})
import {name} as functions
from terrace.jobs.processes import Processes
asyncio.run(Processes(limit=1).run(functions.{function}, *{arguments!r}, timeout=300, memory=2**29))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's")
async def test_children_die_with_a_server_killed_without_warning(functions, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    folder = str(Path(functions.__file__).parent)
    code = SERVER.format(folder=folder, name=functions.__name__, function="hold", arguments=(str(note),))
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    await eventually(note.exists)
    child, grandchild = (int(each) for each in note.read_text().split())
    server.kill()
    await server.wait()
    await eventually(lambda: not running(child))
    os.kill(grandchild, signal.SIGKILL)
