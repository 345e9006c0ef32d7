"""HDF5 links that lead out of their file, and what is raised where a file is damaged."""

import h5py

# What h5py was seen to raise on damaged files, or may; which one it is says nothing more.
DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    SystemError,
    MemoryError,
)


def holds(group: h5py.Group, name: str) -> bool:
    """Return whether there is a link of this name; `name in group` would follow it."""
    return group.id.links.exists(name.encode())


def link_problem(group: h5py.Group, name: str) -> str:
    """Say why a link should not be followed; empty if what it names lies right there."""
    if group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD:
        return ""
    return "found a link, expected the data itself in this file"


def reason(error: BaseException) -> str:
    """Give an error's text without the line ends that HDF5 puts in the middle of sentences."""
    # A KeyError prints its sentence in quotes.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return shown(str(text), 200) or type(error).__name__


def shown(text: str, most: int = 60) -> str:
    r"""Make text from a file fit to print: one line, no control characters, not too long.

    Examples
    --------
    >>> shown("a scan\n\x1b[31mof mine")
    'a scan ?[31mof mine'
    """
    text = " ".join(text[: 10 * most].split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= most else f"{text[:most]}..."
