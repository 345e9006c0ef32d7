"""The pull request report, in a repository with a trivial pipeline."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import auc, roc_auc_score

from nodules.comparison.revisions import read_revision, read_revisions
from nodules.errors import RevisionError
from nodules.report.comment import MARKER
from nodules.report.content import make_report
from nodules.report.pull_request import write_pull_request_report
from nodules.report.roc import roc_mermaid
from tests.support.tiny_project import PARAMS, Project, data_taken_away

# What each stage of this repository does first.
CHECK_ENVIRONMENT = """\
from nodules.system.environment import check_environment
check_environment()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a repository with a commit on `main` and several changed branches."""
    project = Project.create(tmp_path_factory.mktemp("project"))
    for branch, old, new, reproduced in (
        ("better", "skill: 1.0", "skill: 2.5", True),
        ("forgotten", "skill: 1.0", "skill: 2.5", False),
        ("other-patches", "patches: 400", "patches: 420", True),
        ("broken", "model: first", "model: first\nbroken: true", False),
        ("upgraded", "skill: 1.0", "skill: 2.5", False),
    ):
        project.run("git", "switch", "--quiet", "--create", branch, "main")
        (project.path / "params.yaml").write_text(PARAMS.replace(old, new))
        if branch == "broken":
            script = project.path / "evaluate.py"
            script.write_text("raise SystemExit('no luck')\n")
        if branch == "upgraded":
            (project.path / "environment.yaml").write_text('numpy: "0"\n')
            script = project.path / "evaluate.py"
            script.write_text(CHECK_ENVIRONMENT + script.read_text())
        if reproduced:
            project.run("dvc", "repro", "--quiet")
        project.commit(branch)
    project.run("git", "switch", "--quiet", "main")
    project.run("dvc", "checkout", "--quiet")
    return project


def reported(candidate: str, folder: Path) -> str:
    comment = write_pull_request_report("main", candidate, folder, resamples=200)
    assert (folder / "comment.md").read_text() == comment
    return comment


def test_the_comment_holds_verdict_tables_curves_and_where_the_results_are_from(
    inside: Project, tmp_path: Path
) -> None:
    comment = reported("better", tmp_path / "report")
    assert comment.startswith(f"{MARKER}\n")
    assert "**better vs. main: better AUC (+0." in comment
    assert "| skill | 1.0 | 2.5 |" in comment
    commit = inside.run("git", "rev-parse", "--short=7", "better").strip()
    assert f"- better ({commit}): results recorded in its dvc.lock." in comment
    assert comment.count("```mermaid\n") == 2
    with Image.open(tmp_path / "report" / "roc.png") as picture:
        assert picture.width > 1.5 * picture.height  # two panels
    page = (tmp_path / "report" / "comparison.html").read_text()
    assert "better vs. main: better AUC" in page
    assert "data:image/png;base64," in page


def mermaid_curves(chart: str) -> list[np.ndarray]:
    lines = re.findall(r"^  line \[(.*)\]$", chart, re.MULTILINE)
    return [np.array([float(y) for y in line.split(", ")]) for line in lines]


@pytest.mark.usefixtures("inside")
def test_the_drawn_curves_are_those_of_the_predictions() -> None:
    revisions = read_revisions(["main", "better"])
    report = make_report(revisions, resamples=100)
    curves = mermaid_curves(roc_mermaid(report))
    corner = roc_mermaid(report, 0.2)
    assert '"False positive rate (1 - specificity)" 0 --> 0.2\n' in corner
    assert '"Sensitivity" 0.8 --> 1\n' in corner
    for curve, part, revision in zip(curves, mermaid_curves(corner), revisions, strict=True):
        # Every fifth point of the corner is at a false positive rate of the whole.
        assert part[::5].tolist() == np.maximum(curve[:11], 0.8).tolist()
        predictions = revision.predictions
        expected = roc_auc_score(predictions.labels, predictions.probabilities)
        found = auc(np.linspace(0, 1, len(curve)), curve)
        assert found == pytest.approx(expected, abs=0.01)
        assert np.all(np.diff(curve) >= 0)


def test_a_commit_whose_lock_is_out_of_date_is_reproduced_elsewhere(
    inside: Project, tmp_path: Path
) -> None:
    (inside.path / "unsaved.txt").write_text("mine")
    before = inside.run("git", "status", "--porcelain"), inside.run("dvc", "status", "--json")
    comment = reported("forgotten", tmp_path / "report")
    after = inside.run("git", "status", "--porcelain"), inside.run("dvc", "status", "--json")
    assert before == after
    (inside.path / "unsaved.txt").unlink()
    made = "reproduced with `dvc repro`, because its dvc.lock is outdated (evaluate)"
    assert f"{made}. Run `dvc repro` and commit its results." in comment.replace("\\", "")
    # The parameters match those of the reproduced branch.
    better = reported("better", tmp_path / "better")
    verdict = re.compile(r"better AUC \((.*)\)\*\*")
    assert verdict.findall(comment) == verdict.findall(better) != []


@pytest.mark.usefixtures("inside")
def test_a_commit_that_recorded_other_versions_is_reproduced_with_those_installed(
    tmp_path: Path,
) -> None:
    comment = reported("upgraded", tmp_path / "report").replace("\\", "")
    assert "upgraded vs. main: better AUC" in comment
    assert "reproduced with `dvc repro`, because its dvc.lock is outdated (evaluate)" in comment


def test_results_that_cannot_be_pulled_are_reproduced_once(inside: Project, tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    with data_taken_away(inside, tmp_path / "aside"):
        (inside.path / "data").mkdir()
        comment = reported("better", tmp_path / "report").replace("\\", "")
        why = "because its results are neither in DVC's cache nor on a remote."
        assert comment.count(f"reproduced with `dvc repro`, {why}") == 2
        assert "better AUC" in comment
        # From now on they are cached.
        assert "reproduced with" not in reported("better", tmp_path / "report")
        assert len(read_revision("better").predictions.index) == 400


@pytest.mark.usefixtures("inside")
def test_for_other_test_patches_the_comment_states_only_that(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    reported("better", folder)
    comment = reported("other-patches", folder)
    assert "The results cannot be compared. other-patches: found 420 test patches, 400" in comment
    assert "AUC" not in comment
    # Not the pictures of the previous report.
    assert [path.name for path in folder.iterdir()] == ["comment.md"]


def test_a_revision_is_not_compared_with_itself(inside: Project) -> None:
    result = inside("python", "-m", "nodules.report.pull_request", "main", "main")
    assert result.returncode == 1
    expected = "error: main: found twice, expected different revisions"
    assert result.stderr.splitlines() == [expected]


def test_a_commit_that_cannot_be_reproduced_is_refused_in_one_line(inside: Project) -> None:
    report = ("python", "-m", "nodules.report.pull_request", "main")
    (inside.path / "params.yaml").write_text(PARAMS.replace("luck: 1", "luck: 9"))
    result = inside(*report, "broken")
    (inside.path / "params.yaml").write_text(PARAMS)
    assert "note: uncommitted changes are not included in the report\n" in result.stderr
    assert result.returncode == 1
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: broken: `dvc repro` exited with status ")
    assert "Traceback" not in result.stderr
    assert not (inside.path / "report").exists()
    with pytest.raises(RevisionError, match="nowhere: no such revision"):
        write_pull_request_report("main", "nowhere", Path("report"))
