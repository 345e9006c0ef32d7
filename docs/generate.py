"""Generate the reference pages that repeat the program: commands, parameters, stages.

A Sphinx extension. It writes `docs/generated/` before Sphinx reads the pages that include it, so
that nothing in the reference can differ from the code.
"""

import argparse
import inspect
import re
import shutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from sphinx.application import Sphinx

DOCS = Path(__file__).parent
REPOSITORY = DOCS.parent
GENERATED = DOCS / "generated"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}


def write_pages(_: Sphinx) -> None:
    """Write the generated pages."""
    from nodules.__main__ import _parser
    from nodules.params import Params

    yaml = YAML(typ="safe", pure=True)
    text = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    params = yaml.load(text)
    stages = yaml.load(REPOSITORY / "dvc.yaml")["stages"]
    shutil.rmtree(GENERATED, ignore_errors=True)  # it may hold pages of modules that are gone
    GENERATED.mkdir()
    for name, lines in (
        ("commands", commands(_parser(), level=2)),
        ("params", parameters(Params, params, comments(text))),
        ("stages", stage_table(stages)),
        ("make", make_targets((REPOSITORY / "Makefile").read_text(encoding="utf-8"))),
    ):
        (GENERATED / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def commands(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """Return the help of a parser and of all its sub-commands, a section each."""
    parser.formatter_class = _Wide if level > 2 else parser.formatter_class
    yield from (f"{'#' * level} {parser.prog}", "", "```text", parser.format_help().rstrip(), "```")
    yield ""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from commands(sub, level + 1)


class _Wide(argparse.HelpFormatter):
    """Lays help out at one width, whatever terminal the build runs in."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=88, max_help_position=28)


def parameters(
    model: type[BaseModel], values: dict[str, Any], described: dict[str, str], prefix: str = ""
) -> Iterator[str]:
    """Return a table of the keys of a block of params.yaml, then one for each block in it.

    Parameters
    ----------
    model
        Type of the block.
    values
        Its content in the repository.
    described
        Descriptions of keys that the docstring of `model` does not describe.
    prefix
        Dotted path of the block, with a dot at its end.
    """
    described = described | attributes(model)
    blocks: list[tuple[str, type[BaseModel], Any]] = []
    rows: list[str] = []
    for name, field in model.model_fields.items():
        key, value = f"{prefix}{name}", values.get(name)
        block = _block(field.annotation)
        if block is not None and typing.get_origin(field.annotation) is dict:
            blocks.append((f"{key}.NAME", block, next(iter((value or {}).values()), {})))
        elif block is not None:
            blocks.append((key, block, value or {}))
        else:
            kind = _type(field.annotation, field.metadata)
            rows.append(f"| `{key}` | {kind} | {_value(value)} | {described.get(name, '')} |")
    if rows:
        yield from ("| key | type | value | meaning |", "| --- | --- | --- | --- |", *rows, "")
    for key, block, content in blocks:
        summary = (inspect.getdoc(block) or "").splitlines()[0]
        yield from (f"## {key}", "", summary, "")
        yield from parameters(block, content, {}, f"{key}.")


def _value(value: Any) -> str:
    """Return a value as it is written in YAML, or the keys of a mapping."""
    match value:
        case None:
            return ""
        case dict():
            return ", ".join(f"`{key}`" for key in value)
        case bool():
            return f"`{str(value).lower()}`"
    return f"`{value}`"


def comments(text: str) -> dict[str, str]:
    """Return the comments behind the top-level keys of params.yaml."""
    found = re.findall(r"^(\w+):.*?  # (.+)$", text, re.MULTILINE)
    return {key: comment.replace("|", r"\|") for key, comment in found}


def _block(annotation: Any) -> type[BaseModel] | None:
    """Return the block of parameters that an annotation holds, by itself or by name."""
    for each in (annotation, *typing.get_args(annotation)[1:]):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _type(annotation: Any, metadata: list[Any]) -> str:
    """Return the type of a field, or its choices, and its limits."""
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if annotation is bool:
        return "`true` or `false`"
    if types.NoneType in typing.get_args(annotation):
        kind, field = typing.get_args(typing.get_args(annotation)[0])
        return f"{_type(kind, field.metadata)}, or empty"
    name = {int: "integer", float: "number", str: "text"}.get(annotation, "mapping")
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = [
        f"{sign} {getattr(each, limit)}"
        for each in metadata
        for limit, sign in signs.items()
        if getattr(each, limit, None) is not None
    ]
    return f"{name} {', '.join(limits)}".strip()


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """Return the descriptions in the `Attributes` section of a NumPy-style docstring.

    If several names share a description, a semicolon separates that of each.
    """
    _, _, section = (inspect.getdoc(model) or "").partition("Attributes\n----------\n")
    described: dict[str, str] = {}
    for names, text in re.findall(r"^(\S.*)\n((?:[ \n].*\n?)+)", section, re.MULTILINE):
        keys = [name.strip() for name in names.split(" : ")[0].split(",")]
        whole = " ".join(text.split()).replace("|", r"\|")
        parts = whole.split("; ")
        described |= dict(
            zip(keys, parts if len(parts) == len(keys) else [whole] * len(keys), strict=True)
        )
    return described


def make_targets(makefile: str) -> Iterator[str]:
    """Return the list of targets at the head of the Makefile."""
    yield "```text"
    yield from re.findall(r"^#   (make .*)", makefile, re.MULTILINE)
    yield "```"


def stage_table(stages: dict[str, Any]) -> Iterator[str]:
    """Return what each stage of dvc.yaml reads and writes."""
    yield from ("| stage | reads | parameters | writes |", "| --- | --- | --- | --- |")
    for name, stage in stages.items():
        data = [dep for dep in stage["deps"] if not dep.startswith(("nodules", "stages"))]
        outs = [
            next(iter(out)) if isinstance(out, dict) else out
            for kind in ("outs", "metrics", "plots")
            for out in stage.get(kind, [])
        ]
        params = [param for param in stage["params"] if isinstance(param, str)]
        cells = ("<br>".join(f"`{each}`" for each in cell) for cell in (data, params, outs))
        yield f"| `{name}`: {stage['desc']} | {' | '.join(cells)} |"
