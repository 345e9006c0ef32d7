"""README and docs: figures, commands, links and logs are up to date."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML

from docs.experiments.draw import FIGURES, HASH_KEY, source_hash
from nodules.__main__ import _parser
from tests.support import REPOSITORY

EXPERIMENTS = REPOSITORY / "docs" / "experiments"
PROSE = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in (
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *sorted(REPOSITORY.glob("docs/**/*.md")),
    )
    if not {"_build", "generated"} & set(path.parts)
}
# Commands in code blocks (after `$ `) and in backticks.
COMMAND = re.compile(r"^ *\$ (.+)$|`([a-z][^`\n]+ [^`\n]+)`", re.MULTILINE)


def commands(program: str) -> list[tuple[str, str]]:
    found = []
    for page, text in PROSE.items():
        for match in COMMAND.finditer(text):
            command = (match[1] or match[2]).split(" | ")[0]
            if command.startswith(f"{program} "):
                found.append((page, command))
    return found


def test_the_readme_is_short() -> None:
    assert len(PROSE["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_readme_states_the_committed_results(split: str) -> None:
    metrics = json.loads((REPOSITORY / "metrics/evaluate/metrics.json").read_text("utf-8"))[split]
    interval = "{auc:.3f} ({auc_low:.3f} to {auc_high:.3f})"
    row = f"| {split} | {interval} | {{accuracy:.3f}} | {{sensitivity:.3f}} | {{specificity:.3f}} "
    assert f"{row}| {{ece:.3f}} |".format(**metrics) in PROSE["README.md"]
    parameters = json.loads((REPOSITORY / "metrics/train/metrics.json").read_text("utf-8"))
    assert f"({parameters['parameters']:,} parameters)" in PROSE["README.md"]
    params = YAML(typ="safe").load(REPOSITORY / "params.yaml")
    assert f"`{params['model']}` with the recipe `{params['recipe']}`" in PROSE["README.md"]


@pytest.mark.parametrize(("page", "command"), commands("nodules"))
def test_a_documented_command_parses(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    if not all(word.isidentifier() for word in words):  # a command name without arguments
        assert callable(_parser().parse_args(words).run)


def test_documented_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    documented = {command.split()[1] for _, command in commands("make")}
    assert documented >= {"repro", "test", "docs"}
    assert documented <= targets


def test_documented_benchmarks_exist() -> None:
    modules = {command.split()[2] for _, command in commands("python -m benchmarks.")}
    modules |= {m for text in PROSE.values() for m in re.findall(r"-m (benchmarks\.\w+)", text)}
    assert modules
    for module in modules:
        path = REPOSITORY / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize("page", PROSE)
def test_links_to_files_lead_somewhere(page: str) -> None:
    folder = (REPOSITORY / page).parent
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PROSE[page]):
        assert (folder / target).exists(), target


@pytest.mark.parametrize("source", sorted(EXPERIMENTS.glob("*.csv")), ids=lambda path: path.stem)
def test_a_log_has_a_figure_of_its_present_rows_and_a_page(source: Path) -> None:
    with source.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert rows
    assert all(len(row) == len(header) for row in rows)
    assert Image.open(source.with_suffix(".png")).info[HASH_KEY] == source_hash(source)
    pages = "".join(path.read_text(encoding="utf-8") for path in EXPERIMENTS.glob("*.md"))
    assert f"]({source.name})" in pages
    assert f"]({source.stem}.png)" in pages


def test_every_log_has_a_figure() -> None:
    assert FIGURES.keys() == {source.stem for source in EXPERIMENTS.glob("*.csv")}


def test_the_citation_names_this_version() -> None:
    citation = YAML(typ="safe").load(REPOSITORY / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    pyproject = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for key in ("version", "license"):
        assert f'{key} = "{citation[key]}"' in pyproject
