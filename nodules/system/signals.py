"""Ctrl-C, SIGTERM and the death of DVC: a program unwinds and ends with one line."""

import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1  # of prctl(2)
# What packages import at their first use: what a signal raises meanwhile may be lost, in Cython or
# in a callback of the import system.
_IMPORTED_LATE = {
    "numpy": ("numpy.random", "numpy.fft"),
    "tqdm": ("multiprocessing.synchronize",),
}


class Interruption(KeyboardInterrupt):
    """A signal asks the program to end; whatever handles Ctrl-C handles this."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def signal_of(interruption: KeyboardInterrupt) -> signal.Signals:
    """Return the signal that caused an interruption: SIGINT for one of Python's own."""
    return signal.Signals(getattr(interruption, "number", signal.SIGINT))


def sentence_of(number: signal.Signals) -> str:
    """Return what a signal did, for messages."""
    return f"stopped by {'Ctrl-C' if number == signal.SIGINT else number.name}"


@contextmanager
def raised_interruptions() -> Iterator[None]:
    """Raise an `Interruption` at SIGINT and SIGTERM, so that temporary files are removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # The end of a process group may bring a second one, by way of `end_with_dvc`: it is
        # not to cut the unwinding short. A second Ctrl-C is meant to.
        if signal.SIGTERM in before:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Interruption(number)

    for package in _IMPORTED_LATE.keys() & sys.modules.keys():
        for module in _IMPORTED_LATE[package]:
            importlib.import_module(module)
    before = {number: signal.getsignal(number) for number in _heeded()}
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_on_signals() -> None:
    """End in one line, without a traceback, as long as there is nothing to unwind.

    Importing TensorFlow takes seconds. `raised_interruptions` takes over from here.
    """

    def end(number: int, frame: FrameType | None) -> None:
        # `print` may be what the signal interrupts, and is not reentrant.
        with suppress(OSError):
            os.write(2, f"error: {sentence_of(signal.Signals(number))}\n".encode())
        os._exit(128 + number)

    for number in _heeded():
        signal.signal(number, end)


def end_with_dvc() -> None:
    """Have the system send SIGTERM when DVC dies, if DVC runs this stage (Linux).

    A stage that outlives its `dvc repro` would write its outputs while the next one runs.
    """
    if sys.platform == "linux" and "DVC_STAGE" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _heeded() -> list[signal.Signals]:
    """Leave out signals that are ignored, as under `nohup`, or not handled by Python."""
    return [s for s in _ENDING if signal.getsignal(s) not in (signal.SIG_IGN, None)]
