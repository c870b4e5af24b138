"""The words of batches, and what they need of the rooms around them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

from terrace.types import Scope

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)
Purpose = Literal["batch", "batch_output"]
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]  # fmt: skip
FINAL: frozenset[Status] = frozenset({"failed", "completed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class File:
    """Times are seconds since the epoch, here and below."""

    id: str  # file_...
    name: str
    purpose: Purpose
    bytes: int
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class LineError:
    """Why a batch was not begun. `line` counts from 1; None where it is about the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int = 0
    cached_tokens: int = 0  # of the input
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """`times` holds when it came to each state it went through, by the state's name."""

    id: str  # batch_...
    endpoint: Endpoint
    input_file_id: str
    completion_window: str
    status: Status
    metadata: Mapping[str, str] | None
    model: str | None  # when all requests name the same
    errors: tuple[LineError, ...]
    total: int
    completed: int
    failed: int
    usage: Usage
    output_file_id: str | None
    error_file_id: str | None
    job_id: str | None
    created_at: float
    expires_at: float
    times: Mapping[Status, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request came to: a status and JSON, as if it had been sent by itself."""

    status: int
    request_id: str
    body: bytes


class RunLine(Protocol):
    async def __call__(self, scope: Scope, endpoint: str, body: bytes) -> Answer:
        """Whatever goes wrong is an `Answer`, but for room under the caller's limits that comes later: Limited, with
        `retry_after`."""
