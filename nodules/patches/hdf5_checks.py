"""HDF5 links that lead out of their file, and what is raised where a file is damaged."""

import h5py

# What h5py raises on damaged files, or may raise; the type itself is no further information.
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
    """Return why a link should not be followed; empty for a hard link to data in the file."""
    if group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD:
        return ""
    return "found a link, expected the data itself in this file"
