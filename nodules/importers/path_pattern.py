"""Read a part of each image's path, such as its scan, with a regular expression of the user."""

import re
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nodules.errors import FileError, NodulesError
from nodules.system.streams import printable

# CPU time limit for matching all image paths; 100,000 paths normally take 0.1 s.
SECONDS = 5


class PathPattern:
    """A regular expression whose first group in parentheses is searched for in paths.

    Parameters
    ----------
    option
        Option of the command that set it, for error messages.
    pattern
        Regular expression.
    meaning
        What the group is, for error messages: `the scan or patient`.

    Raises
    ------
    NodulesError
        If it is not a regular expression, or has no group.
    """

    def __init__(self, option: str, pattern: str, meaning: str) -> None:
        self._option, self._meaning = option, meaning
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about syntax that later Python versions change
                self._pattern = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            problem = f"is not a regular expression ({printable(error)})"
            raise NodulesError(f"{option}: {_quoted(pattern)} {problem}") from None
        if not self._pattern.groups:
            problem = "has no group, expected one in parentheses"
            raise NodulesError(f"{option}: {_quoted(pattern)} {problem}")

    def search(self, folder: Path, names: Sequence[str], texts: Sequence[str]) -> list[str]:
        """Return the group in each text.

        Parameters
        ----------
        folder, names
            Images, for error messages: paths relative to the folder.
        texts
            What is searched, one per image.

        Raises
        ------
        FileError
            If a text has no match, or the group is empty or not printable.
        NodulesError
            If the search takes more than 5 s of processor time.
        """
        with self._processor_time():
            return [
                self._group(folder / name, text) for name, text in zip(names, texts, strict=True)
            ]

    def _group(self, image: Path, text: str) -> str:
        match = self._pattern.search(text)
        if match is None or not match[1]:
            place = f"'{printable(text, 200)}'" if "/" in text else "the file name"
            problem = f"found no match of {_quoted(self._pattern.pattern)} in {place}"
            raise FileError(image, f"{problem}, expected one whose first group is {self._meaning}")
        return printable_name(image, match[1], self._option)

    @contextmanager
    def _processor_time(self) -> Iterator[None]:
        """Limit the CPU time of a search; `re` handles signals while it is searching."""

        def stop(number: int, frame: FrameType | None) -> None:
            problem = f"takes more than {SECONDS} s of processor time on the image names"
            raise NodulesError(
                f"{self._option}: {_quoted(self._pattern.pattern)} {problem}, expected less "
                "backtracking"
            )

        before = signal.signal(signal.SIGVTALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)


def printable_name(place: Path, name: str, option: str) -> str:
    """Return the name of a scan or patient.

    Raises
    ------
    FileError
        If it is empty or not printable, or begins or ends with a space.
    """
    if not name or not name.isprintable() or name != name.strip():
        problem = f"{option} found {name!r}, expected a printable name"
        raise FileError(place, f"{problem} without leading or trailing spaces")
    return name


def _quoted(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 200 else f"{pattern[:200]}...")
