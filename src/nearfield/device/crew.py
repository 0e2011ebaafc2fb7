"""Threads that wait for work: started once, woken for each call, ended with the process."""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

from .interruption import Uninterrupted

__all__ = ["Crew"]

_Order = tuple[Callable[[], None], list[BaseException | None], SimpleQueue[None]]  # a task; where to tell of its end


class Crew:
    """Threads that run functions beside the caller's own thread."""

    def __init__(self) -> None:
        self._inboxes: list[SimpleQueue[_Order | None]] = []

    def run(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run all tasks at the same time, the first in the caller's thread; returns when all have ended.

        Tasks may wait for each other, so that all are begun if one is: an interruption is heard when all have ended.

        errors   what a task raised, the caller's own first
        """
        others = tasks[1:]
        while len(self._inboxes) < len(others):
            self._hire()
        ended: SimpleQueue[None] = SimpleQueue()
        errors: list[BaseException | None] = []
        with Uninterrupted():
            for inbox, task in zip(self._inboxes, others, strict=False):
                inbox.put((task, errors, ended))
            try:
                tasks[0]()
            finally:
                for _ in others:
                    ended.get()
        for failure in errors:
            if failure is not None:
                raise failure

    def dismiss(self) -> None:
        """End the threads."""
        for inbox in self._inboxes:
            inbox.put(None)
        self._inboxes.clear()

    def _hire(self) -> None:
        inbox: SimpleQueue[_Order | None] = SimpleQueue()
        self._inboxes.append(inbox)
        # a daemon: an idle thread must not keep the process from ending
        Thread(target=_work, args=(inbox,), name="nearfield", daemon=True).start()


def _work(inbox: "SimpleQueue[_Order | None]") -> None:
    while (order := inbox.get()) is not None:
        task, errors, ended = order
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            errors.append(error)
        else:
            errors.append(None)
        ended.put(None)
        del order, task, errors, ended  # the next order may be long in coming
