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
