"""Checks of HDF5 links, and the exceptions that damaged files raise."""

import h5py

# Exceptions that h5py raises, or may raise, on damaged files. Their types carry no information.
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
    """Return whether a group has a link of this name, without following it as `in` does."""
    return group.id.links.exists(name.encode())


def link_problem(group: h5py.Group, name: str) -> str:
    """Return the problem with a link; empty for a hard link to data in the same file."""
    if group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD:
        return ""
    return "found a link, expected the data itself in this file"
