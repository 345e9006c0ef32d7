"""Standard streams to which printing never causes a traceback, and text that is safe to print."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TextIO, cast

# Exit status of a program whose output is no longer read, as in shells: 128 + SIGPIPE.
CLOSED_PIPE = 141
STDIN, STDOUT, STDERR = range(3)


class StandardOutputError(Exception):
    """Standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: cannot be written: {os_error_text(error)}")
        self.pipe_closed = isinstance(error, BrokenPipeError)


class _OutputFile(io.FileIO):
    """Standard output that raises an error on the first failed write and drops later output.

    Otherwise Python would try again at exit and print a traceback.
    """

    _failed = False

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        """Write `data` or a part of it."""
        if self._failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            raise StandardOutputError(error) from None


class _MessageFile(io.FileIO):
    """Standard error that drops output that cannot be written."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        """Write `data` or a part of it."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def prepare_streams() -> None:
    """Make the standard streams safe to print to; repeated calls change nothing.

    A closed stream is replaced by the null device, since otherwise the next file to be opened would
    take its descriptor and receive the output of libraries. Characters that the encoding of
    standard output lacks are printed as backslash escapes, as on standard error. Output that cannot
    be written to standard error, such as a progress bar, is dropped, so that it does not stop the
    work. Output that cannot be written to standard output raises a `StandardOutputError`.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            # The system assigns the lowest free descriptor, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # If a stream has already been replaced, its output is being captured.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text_stream(_OutputFile(STDOUT, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text_stream(_MessageFile(STDERR, "w", closefd=False), sys.stderr)


def _text_stream(raw: io.FileIO, before: TextIO | None) -> TextIO:
    if before is not None:
        before.flush()
    unbuffered = getattr(before, "write_through", False)
    return io.TextIOWrapper(
        cast(BinaryIO, raw) if unbuffered else io.BufferedWriter(raw),
        getattr(before, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=getattr(before, "line_buffering", True),
        write_through=unbuffered,
    )


@contextmanager
def delivered_output() -> Iterator[None]:
    """Flush standard output when the block ends.

    Raises
    ------
    StandardOutputError
        If the output of the block cannot be written, for example because the reader has exited.
    """
    try:
        yield
    except SystemExit:  # argparse has printed help
        sys.stdout.flush()
        raise
    except BaseException:
        with suppress(StandardOutputError):
            sys.stdout.flush()
        raise
    else:
        sys.stdout.flush()


def printable(text: object, max_length: int | None = None) -> str:
    r"""Return text as one line that cannot control a terminal.

    Control characters, for example in file names, become backslash escapes, and so do bytes of a
    file name that are invalid in the file system's encoding.

    Parameters
    ----------
    text
        Text, or an object to convert to text.
    max_length
        Number of characters after which the line is truncated with an ellipsis; None for no limit.

    Examples
    --------
    >>> printable("a scan\n\x1b[31mof mine: M\udcfcller.png")
    'a scan\\n\\x1b[31mof mine: M\\xfcller.png'
    >>> printable("a scan of mine", 6)
    'a scan...'
    """
    whole = str(text)
    kept = whole if max_length is None else whole[: max_length + 1]
    line = "".join(letter if letter.isprintable() else _escaped(letter) for letter in kept)
    return line if max_length is None or len(line) <= max_length else f"{line[:max_length]}..."


def error_text(error: BaseException) -> str:
    """Return an error's message as one printable line of at most 200 characters, or its type."""
    # KeyError quotes its message, and HDF5 breaks lines within sentences.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return printable(" ".join(str(text).split()), 200) or type(error).__name__


def os_error_text(error: OSError) -> str:
    """Return the system's description of an error in lower case, for use within a sentence."""
    return (error.strerror or str(error)).lower()


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not decode
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()
