"""The OpenAPI document is true: schemathesis calls a running server by it, with good input and with wild."""

import asyncio
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from terrace import assembly
from terrace.settings import Settings

EXAMPLES = 6
PATHS = 2  # examples of operations that take nothing but their path: one wild name of a thing is like another
# A schema can't say that a cursor must be one of ours, or that bytes must be a document that can be read.
# Nobody has to log in here; test_roles.py calls each route without a login where one is needed.
BEYOND_A_SCHEMA = [positive_data_acceptance, ignored_auth]
ENDLESS = "GET /api/jobs/events"
TOKEN = (
    "the-token-of-whoever-owns-the-folder-0123456789"  # calls as an operator: one of them may make the first account
)
# An address that is too long never gets as far as the schema.
REFUSED = {"checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}}, "request-timeout": 60}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, shared_storage: dict[str, str]) -> Iterator[str]:
    """A server in a thread: what calls it here is synchronous."""
    data: Path = tmp_path_factory.mktemp("data")
    options = Settings(
        host="127.0.0.1",
        port=0,
        data=data,
        models={"discover": False},
        storage=shared_storage,
        jobs={"cpu_slots": 1},
    )
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    url: list[str] = []
    up = threading.Event()

    def run() -> None:
        try:
            loop.run_until_complete(
                assembly.serve(options, started=lambda it: (url.append(it), up.set()), stop=stop, token=TOKEN)
            )
        finally:
            up.set()

    thread = threading.Thread(target=run)
    thread.start()
    up.wait(30)
    yield url[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@cache
def operations() -> list[Any]:
    config = schemathesis.config.SchemathesisConfig.from_dict(REFUSED)
    document = schemathesis.openapi.from_dict(assembly.openapi(), config=config)
    return [each.ok() for each in document.get_all_operations() if each.ok().label != ENDLESS]


# The server's thread draws random numbers while a strategy runs, which Hypothesis takes for the strategy's own.
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_each_operation_keeps_its_word(address: str, method: str) -> None:
    """No 5xx, only what the document declares; nonsense is refused."""
    asked = [each for each in operations() if each.method.upper() == method]
    assert asked
    broken = []
    for operation in asked:
        try:
            holds(operation, address)
        except Exception as error:
            error.add_note(operation.label)
            broken.append(error)
    if broken:
        raise ExceptionGroup(f"{len(broken)} operations", broken)


def test_no_operation_goes_unasked() -> None:
    assert {each.method.upper() for each in operations()} == {"GET", "POST", "PUT", "PATCH", "DELETE"}


def holds(operation: Any, address: str) -> None:
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    wild = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    more = bool(operation.query or operation.body)
    examples = EXAMPLES if more else PATHS

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=good | wild if more else good)
    def call(case: Any) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        case.call_and_validate(base_url=address, excluded_checks=BEYOND_A_SCHEMA, headers=headers)

    call()
