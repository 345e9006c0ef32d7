"""Handle Ctrl-C, SIGTERM and the death of DVC: clean up and exit with a one-line message."""

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
# Modules that packages import on first use. An exception raised by a signal during the import may
# be lost in Cython or in a callback of the import system.
_IMPORTED_LATE = {
    "numpy": ("numpy.random", "numpy.fft"),
    "tqdm": ("multiprocessing.synchronize",),
}


class Interruption(KeyboardInterrupt):
    """A signal requested the program to end; handlers of KeyboardInterrupt handle it, too."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def signal_of(interruption: KeyboardInterrupt) -> signal.Signals:
    """Return the signal that caused an interruption; SIGINT for Python's own interruptions."""
    return signal.Signals(getattr(interruption, "number", signal.SIGINT))


def sentence_of(number: signal.Signals) -> str:
    """Return a description of a signal's effect, for error messages."""
    return f"stopped by {'Ctrl-C' if number == signal.SIGINT else number.name}"


@contextmanager
def raised_interruptions() -> Iterator[None]:
    """Raise an `Interruption` on SIGINT and SIGTERM, so that temporary files are removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # When a process group ends, `end_with_dvc` may cause a second SIGTERM, which must not
        # interrupt the clean-up. A second Ctrl-C may.
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
    """Exit on signals with one line and no traceback, while there is nothing to clean up.

    This covers the import of TensorFlow, which takes seconds, until `raised_interruptions` takes
    over.
    """

    def end(number: int, frame: FrameType | None) -> None:
        # The signal may have interrupted `print`, which is not reentrant.
        with suppress(OSError):
            os.write(2, f"error: {sentence_of(signal.Signals(number))}\n".encode())
        os._exit(128 + number)

    for number in _heeded():
        signal.signal(number, end)


def end_with_dvc() -> None:
    """If DVC runs this stage, let the system send SIGTERM when DVC dies (Linux only).

    A stage that outlived its `dvc repro` would write its outputs while the next one runs.
    """
    if sys.platform == "linux" and "DVC_STAGE" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _heeded() -> list[signal.Signals]:
    """Return the signals to handle, without those ignored (`nohup`) or not set by Python."""
    return [s for s in _ENDING if signal.getsignal(s) not in (signal.SIG_IGN, None)]
