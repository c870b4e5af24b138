"""Clients that leave before their answer is there: their work is cancelled, upstream call included."""

import asyncio
from collections.abc import Callable
from typing import Any

from terrace.web.openai.base import Receive

LOOK = 0.05  # seconds; an answer that is quicker is never watched: that would cost a sixth of the whole hot path


class Attended:
    """The work for one client: its task, and how the server says that the client left."""

    __slots__ = ("_receive", "_task", "_watch")

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._receive = receive
        self._watch: Watch | None = None

    def watch(self) -> None:
        self._watch = Watch(self._receive, self._task.cancel)

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def abandoned(self) -> bool:
        """Whether the cancellation that was just caught is the client's doing."""
        if self._watch is None or not self._watch.left:
            return False
        self._task.uncancel()
        return True


class Attendance:
    """Begins to watch whatever is still being answered at the next look."""

    def __init__(self) -> None:
        self._unwatched: set[Attended] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, receive: Receive) -> Attended:
        """The request's body must have been read."""
        attended = Attended(receive)
        self._unwatched.add(attended)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK, self._look)
        return attended

    def end(self, attended: Attended) -> None:
        self._unwatched.discard(attended)
        attended.stop()

    def _look(self) -> None:
        self._timer = None
        unwatched, self._unwatched = self._unwatched, set()
        for attended in unwatched:
            attended.watch()


class Watch:
    """Waits for the client to leave without a task of its own: `receive` is stepped by hand, a callback on the future
    it waits for takes the next step. Thousands of streams are spared as many tasks."""

    __slots__ = ("_gone", "_steps", "left")

    def __init__(self, receive: Receive, gone: Callable[[], object]) -> None:
        self._gone = gone
        self.left = False
        self._steps: Any = _until_gone(receive)
        self._step()

    def _step(self, _done: object = None) -> None:
        if self._steps is None:
            return
        try:
            waiting = self._steps.send(None)
        except StopIteration:
            self._steps = None
            self.left = True
            self._gone()
        else:
            if waiting is None:  # a bare yield, as in sleep(0)
                asyncio.get_running_loop().call_soon(self._step)
            else:
                waiting._asyncio_future_blocking = False
                waiting.add_done_callback(self._step)

    def stop(self) -> None:
        if self._steps is not None:
            self._steps.close()
            self._steps = None


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
