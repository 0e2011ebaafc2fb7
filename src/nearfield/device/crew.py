"""Threads that wait for work: started once, woken for each call, ended with the process."""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

__all__ = ["Crew"]


class Crew:
    """Threads that run functions beside the caller's own thread."""

    def __init__(self) -> None:
        self._inboxes: list[SimpleQueue[Callable[[], None] | None]] = []
        self._outbox: SimpleQueue[BaseException | None] = SimpleQueue()

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run all tasks at the same time, the first in the caller's thread; returns when all have ended.

        errors   what a task raised, the caller's own first
        """
        others = tasks[1:]
        while len(self._inboxes) < len(others):
            self._hire()
        for inbox, task in zip(self._inboxes, others, strict=False):
            inbox.put(task)
        try:
            tasks[0]()
        finally:
            errors = [self._outbox.get() for _ in others]
        for error in errors:
            if error is not None:
                raise error

    def dismiss(self) -> None:
        """End the threads."""
        for inbox in self._inboxes:
            inbox.put(None)
        self._inboxes.clear()

    def _hire(self) -> None:
        inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._inboxes.append(inbox)
        # a daemon: an idle thread must not keep the process from ending
        Thread(target=_work, args=(inbox, self._outbox), name="nearfield", daemon=True).start()


def _work(inbox: "SimpleQueue[Callable[[], None] | None]", outbox: "SimpleQueue[BaseException | None]") -> None:
    while (task := inbox.get()) is not None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            outbox.put(error)
        else:
            outbox.put(None)
