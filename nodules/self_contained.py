"""HDF5 data sets that lie wholly in their own file, and what is raised where a file is damaged.

An HDF5 file can say that its data is in any other file of the machine, or that a few bytes are a
terabyte. Data that somebody else made is read only where it does neither.
"""

import h5py

from nodules.hdf5_storage import StorageError, check_pieces, check_sizes, stored_pieces

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
    """Say whether there is a link of this name, without following it as `name in group` does."""
    return group.id.links.exists(name.encode())


def link_problem(group: h5py.Group, name: str) -> str:
    """Say why a link should not be followed; empty if what it names lies right there."""
    if group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD:
        return ""
    return "found a link, expected the data itself in this file"


def storage_problem(data: h5py.Dataset) -> str:
    """Say what a file does not store of a data set, or that it unfolds to an absurd size.

    Reads nothing of the data and allocates nothing for it. What a chunk inflates to is not known
    before it is read: `hdf5_storage.StoredArray` bounds that.

    Parameters
    ----------
    data
        A data set with a shape.

    Returns
    -------
    str
        What was found and what was expected; empty if all is there.
    """
    try:
        check_sizes(data)
        check_pieces([stored_pieces(data)], data.file.id.get_filesize())
    except StorageError as error:
        return str(error)
    return ""


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
