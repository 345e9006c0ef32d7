"""How Sphinx builds the documentation: `make docs`."""

import logging
import sys
import tomllib
from pathlib import Path

# Autodoc imports libraries that log.
logging.getLogger("faiss.loader").setLevel(logging.WARNING)

DOCS = Path(__file__).parent
REPOSITORY = DOCS.parent
# Autodoc imports the packages; `generate` is next to this file.
sys.path[:0] = [str(REPOSITORY), str(DOCS)]

from nodules.runtime import be_deterministic  # noqa: E402  # from the path above

be_deterministic()  # imports TensorFlow without its notices

project = "nodules"
author = "The nodules developers"
copyright = f"2026, {author}"  # noqa: A001  # Sphinx reads this name
version = release = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]["version"]

extensions = [
    "generate",
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "generated/*.md", "generated/api/modules.rst"]
myst_heading_anchors = 3

apidoc_modules = [
    {
        "path": REPOSITORY / "nodules",
        "destination": "generated/api",
        "exclude_patterns": [f"{REPOSITORY}/nodules/{name}*" for name in ("__main__", "commands")],
        "automodule_options": {"members", "show-inheritance"},
        "separate_modules": True,
        "module_first": True,
        "max_depth": 1,
    }
]
autodoc_inherit_docstrings = False  # those of Keras's callbacks are not ours
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"exclude-members": "model_config"}
napoleon_google_docstring = False
napoleon_use_ivar = True
# In docstrings, single backticks mark code, as in Markdown.
default_role = "code"
python_maximum_signature_line_length = 88

# Without a network there is no inventory of other projects, so only our own names are checked.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!nodules\.).*"),
    ("py:.*", r".*\._.*"),  # private
    ("py:class", r".*\.Result"),  # a type variable
]
# An attribute called `shape` in two classes makes the type `shape` of a parameter ambiguous.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "nodules"
html_copy_source = False
# Sphinx prints the name `numpy.object_` of a type as text, where the underscore marks a link.
rst_epilog = ".. _numpy.object: https://numpy.org/doc/stable/reference/arrays.scalars.html"
