"""A disk of a few megabytes. Root mounts one; for anybody else a test is run once more, in a namespace that has one,
where the kernel lets them.

Run as a program (FOLDER MEGABYTES COMMAND...), it makes that namespace and becomes the command.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = "TERRACE_TEST_SMALL_DISK"  # where it is, inside of the namespace
NOT_MADE = 77  # exit code
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def may_have_one() -> bool:
    return os.geteuid() == 0 or HERE in os.environ


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Its folder. For whom `may_have_one`."""
    if HERE in os.environ:
        yield Path(os.environ[HERE])
        return
    with _folder() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", _options(megabytes), "tmpfs", str(folder)]
        made = subprocess.run(mount, capture_output=True, text=True)
        if made.returncode:
            pytest.fail(f"Root can't mount a small disk here: a container needs CAP_SYS_ADMIN. {made.stderr}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def again_with_one(test: str, megabytes: int) -> None:
    """Run a file of tests where there is one. Fails with what it says, or with what is missing for that."""
    with _folder() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", test]
        ran = subprocess.run(
            [sys.executable, __file__, str(folder), str(megabytes), *command],
            env={**os.environ, HERE: str(folder)}, cwd=Path(__file__).parents[2], capture_output=True, text=True,
        )  # fmt: skip
    if ran.returncode == NOT_MADE:
        pytest.fail(
            "A small disk takes root, or a kernel that lets everybody have user namespaces "
            f"(kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0): {ran.stderr}"
        )
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="terrace-full-"))
    try:
        yield folder
    finally:
        folder.rmdir()


def _options(megabytes: int) -> str:
    return f"size={megabytes}m,mode=755"


def _enter_a_namespace(folder: str, megabytes: int) -> None:
    """As who we are, with a disk that ends with us."""
    own = {"uid_map": os.geteuid(), "gid_map": os.getegid()}
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    for name, number in own.items():
        Path("/proc/self", name).write_text(f"{number} {number} 1")
    _call("mount", b"tmpfs", folder.encode(), b"tmpfs", 0, _options(megabytes).encode())


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    try:
        _enter_a_namespace(sys.argv[1], int(sys.argv[2]))
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        sys.exit(NOT_MADE)
    os.execvp(sys.argv[3], sys.argv[3:])
