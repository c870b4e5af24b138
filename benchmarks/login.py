"""What hashing passwords does to everybody else: `python -m benchmarks.login`.

`/health` is asked all the time, first on a quiet server, then while people log in as quickly as it lets them, then
while strangers guess. Budget: hashing delays other requests by no more than 20 ms (p99 over p99 of the quiet server).
The reference is one bare argon2id hash with the same parameters. Ends with 1 if the budget is missed.
"""

import json
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from argon2 import PasswordHasher

from benchmarks.start import Server, percentile
from terrace.accounts.passwords import LANES, MEMORY, PASSES

SECONDS = 5.0
PEOPLE = 4  # who log in at a time, again and again
BUDGET_MS = 20.0
PASSWORD = "a quay seven metres deep"


def asked(server: Server, seconds: float) -> list[float]:
    """How long `/health` took each time, in milliseconds, sorted."""
    taken = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        server.get("/health")
        taken.append((time.perf_counter() - began) * 1000)
        time.sleep(0.002)
    return sorted(taken)


def while_busy(server: Server, work: Callable[[], object]) -> tuple[list[float], int]:
    """`/health` while PEOPLE do `work`, and how often they did it."""
    stop = threading.Event()
    done = [0] * PEOPLE

    def busy(person: int) -> None:
        while not stop.is_set():
            work()
            done[person] += 1

    threads = [threading.Thread(target=busy, args=(person,)) for person in range(PEOPLE)]
    for thread in threads:
        thread.start()
    taken = asked(server, SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    return taken, sum(done)


def login(server: Server, email: str, password: str) -> int:
    body = json.dumps({"email": email, "password": password}).encode()
    try:
        server.post("/api/auth/login", body, "application/json")
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return 200


def main() -> int:
    hasher = PasswordHasher(PASSES, MEMORY, LANES)
    began = time.process_time()
    for _ in range(10):
        hasher.hash(PASSWORD)
    bare = (time.process_time() - began) * 100
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        try:
            person = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
            server.post("/api/users", json.dumps(person).encode(), "application/json")
            quiet = asked(server, SECONDS)
            logging_in, logins = while_busy(server, lambda: login(server, "ada@example.org", PASSWORD))
            guessing, guesses = while_busy(server, lambda: login(server, "nobody@example.org", "wrong one"))
        finally:
            server.process.terminate()
            server.process.wait()
    print(f"one hash: {bare:.0f} ms of CPU (argon2id, {MEMORY // 1024} MiB, {PASSES} passes)\n")
    print(f"{'/health':34}{'p50 ms':>8}{'p99 ms':>8}{'worst':>8}")
    for name, taken in (
        ("quiet", quiet),
        (f"{logins / SECONDS:.0f} logins a second", logging_in),
        (f"{guesses / SECONDS:.0f} guesses a second, most refused", guessing),
    ):
        print(f"{name:34}{percentile(taken, 0.5):8.1f}{percentile(taken, 0.99):8.1f}{taken[-1]:8.1f}")
    added = max(percentile(each, 0.99) for each in (logging_in, guessing)) - percentile(quiet, 0.99)
    print(f"\nadded at p99: {added:.1f} ms (at most {BUDGET_MS:.0f})")
    return 1 if added > BUDGET_MS else 0


if __name__ == "__main__":
    sys.exit(main())
