"""Many documents at once: sent a few at a time, then followed together."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from terrace.cli.client import Client, path
from terrace.errors import TerraceError

SENDERS = 4  # uploads at a time: the server hashes and stores while others arrive
POLL = 0.3  # seconds between two looks; longer while much is left
UNFINISHED = ("queued", "parsing", "embedding")
FINAL = ("ready", "failed")


@dataclass(slots=True)
class Result:
    """What became of one file."""

    path: str
    document: dict[str, Any] | None = None
    error: dict[str, str] | None = None
    duplicate: bool = False

    def told(self) -> dict[str, Any]:
        return {"path": self.path, "document": self.document, "error": self.error}


def send(client: Client, files: list[Path], fields: dict[str, str], bars: Progress) -> list[Result]:
    """In the order of the files; a zip gives a result for each file in it."""
    bar = bars.add_task("Sending", total=len(files))
    results: list[Result] = []
    with ThreadPoolExecutor(SENDERS) as senders:
        try:
            for sent in senders.map(lambda file: _send(client, file, fields), files):
                results += sent
                bars.advance(bar)
        except BaseException:
            senders.shutdown(cancel_futures=True)
            raise
    return results


def _send(client: Client, file: Path, fields: dict[str, str]) -> list[Result]:
    try:
        if file.suffix.lower() == ".zip":
            return [_of(f"{file}/{each['name']}", each) for each in client.upload_zip(file, fields)["documents"]]
        return [_of(str(file), client.upload(file, fields))]
    except TerraceError as error:
        return [Result(str(file), error={"code": error.code, "message": error.message})]
    except OSError as error:
        message = f"It cannot be read: {error.strerror or error}."
        return [Result(str(file), error={"code": "unreadable", "message": message})]


def _of(path: str, answer: dict[str, Any]) -> Result:
    document = answer["document"]
    return Result(path, document, answer.get("error"), bool(document and document["duplicate"]))


def follow(client: Client, results: list[Result], bars: Progress) -> None:
    """Until each document is ready or failed: a page of the unfinished at a time, then each once."""
    waiting = [result for result in results if result.document and not result.error]
    bar = bars.add_task("Reading", total=len(waiting))
    while waiting:
        unfinished = set(_unfinished(client))
        left = []
        for result in waiting:
            assert result.document is not None
            if result.document["id"] in unfinished or not _settle(client, result):
                left.append(result)
            else:
                bars.advance(bar)
        waiting = left
        time.sleep(POLL * (1 + len(waiting) / 500) if waiting else 0)


def _unfinished(client: Client) -> Iterator[str]:
    for state in UNFINISHED:
        cursor = ""
        while True:
            page = client.get(f"/api/documents?state={state}&limit=200{cursor}")
            yield from (document["id"] for document in page["items"])
            if not page["next"]:
                break
            cursor = f"&cursor={page['next']}"


def _settle(client: Client, result: Result) -> bool:
    """Whether it is over; one that was deleted meanwhile is."""
    assert result.document is not None
    try:
        document = client.get(path("documents", result.document["id"]))
    except TerraceError as error:
        if error.kind != "missing":
            raise
        result.error = {"code": error.code, "message": "It was deleted before it was read."}
        return True
    result.document, result.error = document, document["error"]
    return document["state"] in FINAL
