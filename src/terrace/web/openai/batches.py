"""/v1/batches: what OpenAI's SDKs do with `client.batches`."""

from dataclasses import asdict
from typing import Any

from terrace.batches.base import Batch, Status, Usage
from terrace.batches.service import Batches, Wanted
from terrace.errors import Invalid
from terrace.web.openai.kept import Routes, query, say, say_list, whole
from terrace.web.openai.request import Request, text_field, typed_field

TIMES: tuple[Status, ...] = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
KNOWN = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"})


class BatchesDoor:
    def __init__(self, batches: Batches, max_body: int) -> None:
        self._batches = batches
        self._max_body = max_body
        self.routes = Routes(
            "batches",
            {"GET": self._list, "POST": self._create},
            {"GET": self._get},
            {("POST", "cancel"): self._cancel},
        )

    async def _create(self, request: Request, _id: str) -> None:
        fields = await request.fields(self._max_body)
        if unknown := sorted(fields.keys() - KNOWN):
            raise Invalid(f"Unknown parameter: `{unknown[0][:100]}`.", code="unknown_parameter", param=unknown[0][:100])
        expiry = typed_field(fields, "output_expires_after", dict[str, int | str], "an object") or {}
        seconds = expiry.get("seconds")
        if expiry and (expiry.get("anchor") != "created_at" or not isinstance(seconds, int)):
            raise Invalid(
                "`output_expires_after` is an anchor, `created_at`, and seconds.",
                code="invalid_parameter",
                param="output_expires_after",
            )
        wanted = Wanted(
            input_file_id=text_field(fields, "input_file_id"),
            endpoint=text_field(fields, "endpoint"),
            completion_window=text_field(fields, "completion_window"),
            metadata=typed_field(fields, "metadata", dict[str, str], "an object whose values are strings"),
            output_seconds=seconds if isinstance(seconds, int) else None,
        )
        await say(request, shown(await self._batches.create(request.owner, wanted)))

    async def _list(self, request: Request, _id: str) -> None:
        asked = query(request)
        found, more = await self._batches.list(request.owner, after=asked.get("after"), limit=whole(asked, "limit", 20))
        await say_list(request, [shown(each) for each in found], more)

    async def _get(self, request: Request, batch_id: str) -> None:
        await say(request, shown(await self._batches.get(request.owner, batch_id)))

    async def _cancel(self, request: Request, batch_id: str) -> None:
        await say(request, shown(await self._batches.cancel(request.owner, batch_id)))


def shown(batch: Batch) -> dict[str, Any]:
    times = {f"{status}_at": int(batch.times[status]) if status in batch.times else None for status in TIMES}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": [asdict(each) for each in batch.errors]} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        **times,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": _usage(batch.usage),
        "metadata": batch.metadata,
        "job_id": batch.job_id,  # ours: its progress can be followed at /api/jobs
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
