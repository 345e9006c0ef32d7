"""Comparing revisions from the command line, in a repository with a trivial pipeline."""

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from dvc.config import Config
from dvc.lock import LockError
from dvc.repo import Repo
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from nodules.__main__ import main
from nodules.comparison.revisions import (
    METRICS,
    PREDICTIONS,
    TEST_PATCHES,
    Revision,
    TrainingPoint,
    parse_predictions,
    read_revision,
    read_revisions,
    scored_patches,
)
from nodules.errors import RevisionError, TestSetError
from nodules.evaluation.metrics import ROC_CORNER, calibration_curve
from nodules.report.as_json import as_json
from nodules.report.charts import charts
from nodules.report.content import make_report, notes, p_text, params_table, title, verdict
from nodules.report.markdown import as_markdown, escaped
from nodules.report.page import write_page
from nodules.report.text import as_text
from nodules.report.vega import make_plots_offline
from tests.support import REPOSITORY
from tests.support.browser import needs_chromium, open_offline
from tests.support.tiny_project import PARAMS, Project, data_taken_away

# Template with which the page of `dvc plots` holds Vega.
OFFLINE = ".dvc/plots/offline.html"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a repository with one commit and its experiments."""
    project = Project.create(tmp_path_factory.mktemp("project"))
    project.experiment("second", "model=second", "skill=2.5", "luck=2")
    project.experiment("lucky", "luck=3")
    project.experiment("other-patches", "patches=420")
    project.experiment("other-pixels", "pixels=2")
    project.experiment("other-file", "compression=gzip", "luck=3")
    return project


def printed(*revisions: str) -> str:
    return as_text(make_report(read_revisions(revisions), resamples=500))


@pytest.mark.usefixtures("inside")
def test_a_better_experiment_is_called_better_and_says_what_changed() -> None:
    text = printed("HEAD", "second")
    assert "second vs. HEAD: better AUC (+0." in text
    assert "400 test patches (nodules: 80, groups: 40)" in text
    assert ["skill", "1.0", "2.5"] in [line.split() for line in text.splitlines()]
    assert "patches " not in text.split("Changed parameters")[1].split("\n\n")[0]


@pytest.mark.usefixtures("inside")
def test_another_seed_is_no_evidence_of_a_difference() -> None:
    text = printed("HEAD", "lucky")
    assert "lucky vs. HEAD: no evidence of a difference in AUC" in text
    assert re.search(
        r"This test set shows an AUC difference of 0\.\d{3} or more with 80% power\. To show "
        r"the observed one would take about [\d,]+ to [\d,]+ test patches in groups of similar "
        r"size; it has 400\.",
        text,
    )


def regrouped(groups: np.ndarray, *revisions: Revision) -> list[Revision]:
    return [
        replace(each, predictions=replace(each.predictions, groups=groups)) for each in revisions
    ]


@pytest.mark.usefixtures("inside")
def test_with_one_group_of_nodules_no_verdict_and_one_reason() -> None:
    revisions = read_revisions(["HEAD", "second"])
    groups = np.asarray(revisions[0].predictions.groups).copy()
    groups[revisions[0].predictions.labels == 1] = "one"
    report = make_report(regrouped(groups, *revisions), resamples=100, margin=0.01)
    assert title(report) == "Comparison of second with HEAD: no verdict on the AUC"
    second, comparison = report.pairs[0]
    line = verdict(report, second, comparison)
    assert re.fullmatch(
        r"second vs\. HEAD: no verdict on the AUC \(\+0\.\d{3}\), not shown to be non-inferior "
        r"within a margin of 0\.01",
        line,
    )
    text = as_text(report)
    reason = "Nodules come from 1 group and other patches from 40 groups. A test needs at least 3"
    assert text.count(reason) == 1
    assert "p =" not in text
    assert "Obuchowski" not in text
    content = json.loads(as_json(report))["comparisons"][0]
    assert content["verdict"] == "no verdict"
    assert content["auc_test"] is None
    assert content["differences"]["auc"]["low"] is None


@pytest.mark.usefixtures("inside")
def test_few_groups_of_a_class_are_a_note_however_many_groups_there_are() -> None:
    revisions = read_revisions(["HEAD", "second"])
    predictions = revisions[0].predictions
    few = "Nodules come from 3 groups and other patches from 40 groups. The verdict allows for so"
    assert few not in "\n".join(notes(make_report(revisions, resamples=100)))
    groups = np.asarray(predictions.groups).copy()
    nodules = np.flatnonzero(predictions.labels)
    groups[nodules] = [f"scan {position % 3}" for position in range(len(nodules))]
    report = make_report(regrouped(groups, *revisions), resamples=100)
    assert few in "\n".join(notes(report))


@pytest.mark.usefixtures("inside")
def test_a_permutation_test_is_named_where_there_is_no_interval() -> None:
    first, second = read_revisions(["HEAD", "second"])
    labels = first.predictions.labels.astype(float)
    constant, perfect = (
        replace(revision, predictions=replace(revision.predictions, probabilities=probabilities))
        for revision, probabilities in ((first, np.full_like(labels, 0.5)), (second, labels))
    )
    report = make_report([constant, perfect], resamples=100)
    text = as_text(report)
    assert "better AUC (+0.500, no interval, p = 0.0010)" in text
    assert "exchanging the two revisions' ranks within each group" in text
    assert "t distribution" not in text
    test = json.loads(as_json(report))["comparisons"][0]["auc_test"]
    assert test["method"] == "permutation"
    assert test["degrees_of_freedom"] is None


@pytest.mark.usefixtures("inside")
def test_a_margin_is_reported_in_every_form(project: Project, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ("HEAD", "lucky", "--margin", "0.2", "--html", str(page))
    found = "equivalent within a margin of 0.2"
    assert found in project.compare(*arguments)
    assert found in project.compare(*arguments, "--md")
    assert found in page.read_text(encoding="utf-8")
    content = json.loads(project.compare(*arguments, "--json"))
    assert content["margin"] == 0.2
    assert content["comparisons"][0]["within_margin"] == "equivalent"


@pytest.mark.parametrize("margin", ["0", "1", "-0.01", "nan", "1%"])
def test_a_margin_that_is_no_auc_difference_is_refused(
    margin: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["nodules", "compare", "HEAD", f"--margin={margin}"])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert f"found {margin}, expected a number between 0 and 1" in capsys.readouterr().err


@pytest.mark.usefixtures("inside")
def test_titles_say_what_a_page_compares() -> None:
    one = make_report(read_revisions(["HEAD", "second"]), resamples=100)
    assert title(one) == "Comparison of second with HEAD: better AUC"
    two = make_report(read_revisions(["HEAD", "second", "lucky"]), resamples=100)
    assert title(two) == "Comparison of second and lucky with HEAD"


@pytest.mark.usefixtures("inside")
def test_training_charts_say_which_split_they_show(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"loss": ("train", "val"), "accuracy": ("train", "val"), "auc": ("val",)}
    points = [
        TrainingPoint(split, metric, 0, 0.5) for metric, names in splits.items() for split in names
    ]
    report = make_report(read_revisions(["HEAD", "second"]), resamples=100)
    monkeypatch.setattr(Revision, "training_curves", lambda _: points)
    assert list(charts(report))[4:] == [
        "Accuracy per epoch (train: as trained; val: plain)",
        "Validation AUC per epoch",
        "Loss per epoch (train: as trained; val: plain)",
    ]


@pytest.mark.usefixtures("inside")
def test_calibration_has_the_bins_of_the_baselines_parameters() -> None:
    first, second = read_revisions(["HEAD", "second"])
    report = make_report([first, second], resamples=100)
    rows = charts(report)["Calibration"]["data"]["values"]
    for revision in report.revisions:
        predictions = revision.predictions
        bins = calibration_curve(predictions.labels, predictions.probabilities, 8)
        mine = [row for row in rows if row["revision"] == revision.name]
        assert mine == [{"revision": revision.name, **bin_._asdict()} for bin_ in bins]
    for value, found in ((None, "None"), ("many", "'many'"), (True, "True"), (10**9, str(10**9))):
        params = {**first.params, "evaluate.calibration_bins": value}
        changed = make_report([replace(first, params=params), second], resamples=100)
        expected = rf"^HEAD: params.yaml: evaluate.calibration_bins: found {found}, expected "
        with pytest.raises(RevisionError, match=expected):
            charts(changed)


@pytest.mark.usefixtures("inside")
def test_the_corner_of_the_roc_holds_the_points_in_it_alone() -> None:
    report = make_report(read_revisions(["HEAD", "second"]), resamples=100)
    whole, corner = charts(report)["ROC"], charts(report)["ROC, upper left corner"]
    assert corner["data"] == whole["data"]
    domains = [
        [layer["encoding"][axis]["scale"]["domain"] for axis in "xy"] for layer in corner["layer"]
    ]
    assert domains == [[[0, ROC_CORNER], [1 - ROC_CORNER, 1]]] * len(domains)
    template = json.loads((REPOSITORY / ".dvc/plots/roc_corner.json").read_text())["encoding"]
    assert [template[axis]["scale"]["domain"] for axis in "xy"] == domains[0]
    points = whole["layer"][-1]["data"]["values"]
    inside = [p for p in points if p["fpr"] <= ROC_CORNER and p["tpr"] >= 1 - ROC_CORNER]
    drawn = [layer["data"]["values"] for layer in corner["layer"] if "data" in layer]
    assert drawn == ([inside] if inside else [])
    assert len(inside) < len(points) == 2


@pytest.mark.usefixtures("inside")
def test_changed_package_versions_are_listed_where_both_record_them() -> None:
    first, second, lucky = read_revisions(["HEAD", "second", "lucky"])
    assert first.packages == {"numpy": "2.0.0", "scipy": "1.10"}
    changed = replace(second, packages={"numpy": "2.1.0", "scipy": "1.10", "keras": "3"})
    unknown = replace(lucky, packages={})
    report = make_report([first, changed, unknown], resamples=100)
    rows = [row for row in params_table(report).rows if row[0].startswith("environment")]
    assert rows == [["environment: numpy", "2.0.0", "2.1.0", "-"]]
    one, other = json.loads(as_json(report))["comparisons"]
    assert one["environment"] == {"numpy": {"baseline": "2.0.0", "candidate": "2.1.0"}}
    assert other["environment"] == {}


def test_a_worse_candidate_fails_only_where_that_is_asked_for(project: Project) -> None:
    compare = ("python", "-m", "nodules", "compare", "--resamples", "100")
    assert project(*compare, "second", "HEAD").returncode == 0
    assert project(*compare, "HEAD", "second", "lucky", "--fail-if-worse").returncode == 0
    failed = project(*compare, "second", "HEAD", "--fail-if-worse")
    assert failed.returncode == 1
    assert "HEAD vs. second: worse AUC" in failed.stdout
    assert failed.stderr == "error: HEAD: found a worse AUC than second, expected none\n"


def test_with_a_margin_a_candidate_fails_unless_it_is_non_inferior(project: Project) -> None:
    compare = ("python", "-m", "nodules", "compare", "--resamples", "100", "--fail-if-worse")
    # Worse, but by less than the margin.
    passed = project(*compare, "second", "HEAD", "--margin", "0.5")
    assert passed.returncode == 0
    assert "worse AUC" in passed.stdout
    # No evidence of a difference, and none that there is no difference.
    failed = project(*compare, "HEAD", "second", "lucky", "--margin", "0.0001")
    assert failed.returncode == 1
    assert "lucky vs. HEAD: no evidence of a difference" in failed.stdout
    problem = "found no evidence that the AUC is non-inferior to that of HEAD"
    expected = "expected it within a margin of 0.0001"
    assert failed.stderr == f"error: lucky: {problem}, {expected}\n"


def test_the_workspace_is_compared_with_head_where_nothing_is_named(project: Project) -> None:
    text = project.compare()
    assert "workspace vs. HEAD: no evidence of a difference" in text
    assert "The AUCs are equal." in text
    assert "has changed" not in text


def test_a_workspace_that_was_not_reproduced_is_said_to_be_old(inside: Project) -> None:
    params = inside.path / "params.yaml"
    params.write_text(PARAMS.replace("luck: 1", "luck: 9"))
    try:
        assert "The workspace has changed since its last `dvc repro`" in printed("HEAD")
    finally:
        params.write_text(PARAMS)


def test_a_workspace_that_is_being_reproduced_is_one_line(
    inside: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(repo: Repo) -> None:
        raise LockError("data/predictions.csv is busy")

    monkeypatch.setattr(Repo, "status", locked)
    with pytest.raises(RevisionError, match=r"^workspace: data/predictions\.csv is busy$"):
        read_revision("workspace")


def test_the_json_holds_what_scikit_learn_and_bonferroni_give(inside: Project) -> None:
    content = json.loads(inside.compare("HEAD", "second", "lucky", "--json"))
    assert content["confidence_of_differences"] == 0.975
    aucs = {}
    for each in content["revisions"]:
        predictions = read_revision(each["name"]).predictions
        assert predictions.index.tolist() == list(range(1000, 2200, 3))
        aucs[each["name"]] = roc_auc_score(predictions.labels, predictions.probabilities)
        assert each["scores"]["auc"]["value"] == pytest.approx(aucs[each["name"]])
    for comparison in content["comparisons"]:
        change = aucs[comparison["candidate"]] - aucs["HEAD"]
        difference, test = comparison["differences"]["auc"], comparison["auc_test"]
        assert difference["value"] == pytest.approx(change)
        assert test["method"] == "Obuchowski"
        assert test["degrees_of_freedom"] == 39
        assert test["p"] == pytest.approx(2 * t.sf(abs(change) / test["standard_error"], 39))
        assert test["p_adjusted"] == min(1, 2 * test["p"])
        margin = t.ppf(1 - 0.025 / 2, 39) * test["standard_error"]
        assert difference["low"] == pytest.approx(change - margin)
        assert difference["high"] == pytest.approx(change + margin)
        low, high = comparison["required_patches"]
        assert 0 < low < high
        assert comparison["detectable_difference"] > 0
    second, lucky = content["comparisons"]
    assert second["params"]["model"] == {"baseline": "first", "candidate": "second"}
    assert lucky["params"] == {"luck": {"baseline": 1, "candidate": 3}}


@pytest.mark.usefixtures("inside")
def test_every_form_shows_one_interval_and_one_p_value_of_the_auc(tmp_path: Path) -> None:
    report = make_report(read_revisions(["HEAD", "second", "lucky"]), resamples=100)
    write_page(report, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for _, comparison in report.pairs:
        estimate, p_value = comparison.differences["auc"], comparison.p_adjusted
        assert p_value is not None
        interval = f"{estimate.low:+.3f} to {estimate.high:+.3f}"
        for shown in (as_text(report), as_markdown(report), html.unescape(page)):
            # In the verdict and in the table.
            assert shown.count(interval) == 2
            assert p_text(p_value) in shown.replace("\\", "")
            assert "DeLong" not in shown


def test_markdown_has_whole_tables_and_the_verdict_first(project: Project) -> None:
    text = project.compare("HEAD", "second", "--md")
    assert text.startswith("**second vs. HEAD: better AUC")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 15
    assert all(line.endswith("|") for line in rows)
    assert "| skill | 1.0 | 2.5 |" in rows


def test_a_revision_whose_network_has_learned_nothing_is_a_warning_in_every_form(
    inside: Project, tmp_path: Path
) -> None:
    first, second = read_revisions(["HEAD", "second"])
    alike = np.full_like(second.predictions.probabilities, 0.4386672)
    alike[0] = 0.4386673
    learned_nothing = replace(second, predictions=replace(second.predictions, probabilities=alike))
    report = make_report([first, learned_nothing], resamples=100)
    problem = "the probabilities of all 400 test patches lie within 0.4386672 to 0.4386673"
    assert as_text(report).count(f"Warning: second: {problem}") == 1
    assert as_markdown(report).count(f"**Warning: second: {problem}") == 1
    write_page(report, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count(f"Warning: second: {problem}") == 1
    ours, theirs = json.loads(as_json(report))["revisions"]
    assert ours["warning"] is None
    assert theirs["warning"].startswith(problem)


def test_in_markdown_names_trigger_no_mentions() -> None:
    assert escaped("by @someone, see #12 and !3") == "by @\u200bsomeone, see #\u200b12 and !\u200b3"
    assert escaped("a_b*") == "a\\_b\\*"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see http://a.b/c or ftp://d", "see http:|//a.b/c or ftp:|//d"),
        ("www.a.b and me@a.b", "www|.a.b and me@|a.b"),
        ("_www.a.b_ *WWW.a.b*", "\\_www|.a.b\\_ \\*WWW|.a.b\\*"),
        ("GH-1, gh-2, JIRA-3", "GH-|1, gh-|2, JIRA-|3"),
        (":tada: at 12:30", ":|tada: at 12:30"),
        ("%1 of 95% &1 ~bug $1", "%|1 of 95% \\&|1 \\~|bug \\$|1"),
        ("![x](http://a)", "!|\\[x\\](http:|//a)"),
        ("squeezenet-2 0.5 [[48, 2]]", "squeezenet-2 0.5 \\[\\[48, 2\\]\\]"),
        ("a\x1b[1m\nb", "a\\\\x1b\\[1m b"),
    ],
)
def test_in_markdown_nothing_is_linked(text: str, expected: str) -> None:
    assert escaped(text).replace("\u200b", "|") == expected


@pytest.mark.parametrize(
    ("revisions", "sentence"),
    [
        (("HEAD", "other-patches"), "found 420 test patches, 400 of them among the 400 of HEAD"),
        (
            ("HEAD", "other-pixels"),
            "other-pixels: found pixels that differ from HEAD in 400 of 400 test patches, first in "
            "row 1000; expected the same test set (did dataset change?)",
        ),
        (("HEAD", ""), "revision: found an empty name, expected a commit or a branch"),
        (("HEAD", "nowhere"), "nowhere: no such revision, expected a commit, a branch"),
        (("HEAD", "HEAD:params.yaml"), "HEAD:params.yaml: no such revision, expected a commit"),
        (("HEAD", "HEAD^{tree}"), "HEAD^{tree}: no such revision, expected a commit"),
        (("HEAD", "a" * 5000), "aaa: no such revision, expected a commit"),
        (
            ("HEAD", "M\udcfcller"),
            "found characters outside the locale's encoding (utf-8)",
        ),
        (("HEAD", "HEAD"), "HEAD: found twice, expected different revisions"),
    ],
)
@pytest.mark.usefixtures("inside")
def test_what_cannot_be_compared_is_refused(revisions: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(RevisionError) as refused:
        make_report(read_revisions(revisions), resamples=100)
    assert sentence in str(refused.value)


@pytest.mark.usefixtures("inside")
def test_the_same_pixels_in_another_file_are_the_same_test_patches() -> None:
    report = make_report(read_revisions(["lucky", "other-file"]), resamples=100)
    ours, theirs = report.revisions
    assert ours.test_hash != theirs.test_hash
    assert report.same_pixels
    assert "The AUCs are equal." in as_text(report)
    assert "pixels" not in "\n".join(notes(report))


def test_without_pixels_the_hash_of_the_test_patches_decides(
    inside: Project, tmp_path: Path
) -> None:
    ours, equal, other = read_revisions(["HEAD", "second", "other-pixels"])
    unknown = replace(equal, test_hash="")
    with data_taken_away(inside, tmp_path):
        assert make_report([ours, equal], resamples=100).same_pixels
        with pytest.raises(TestSetError, match=r"found another data/splits/test\.h5 than in"):
            make_report([ours, other], resamples=100)
        report = make_report([ours, unknown], resamples=100)
    assert "The pixels of the test patches were not compared" in as_text(report)


def test_the_patches_that_were_scored_count_and_not_those_split_since(tmp_path: Path) -> None:
    lock = {"split": {"cmd": "true", "outs": [{"path": TEST_PATCHES, "md5": "2" * 32}]}}
    lock["evaluate"] = {
        "cmd": "true",
        "deps": [{"path": TEST_PATCHES, "md5": "1" * 32}],
        "outs": [{"path": PREDICTIONS, "md5": "3" * 32}],
    }
    stages = {
        "split": {"cmd": "true", "outs": [TEST_PATCHES]},
        "evaluate": {"cmd": "true", "deps": [TEST_PATCHES], "outs": [PREDICTIONS]},
    }
    Repo.init(str(tmp_path), no_scm=True)
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": lock}))
    assert scored_patches(Repo(str(tmp_path))).endswith("1" * 32)


HOSTILE = "\x1b]0;title\x07\x1b[31m\u202e\udcff http://evil.example www.evil.example @all"


def test_names_and_values_cannot_control_the_terminal_or_create_links(
    inside: Project, tmp_path: Path
) -> None:
    first, second = read_revisions(["HEAD", "second"])
    renamed = replace(second, name=HOSTILE, params={HOSTILE: HOSTILE, "date": date(2026, 1, 1)})
    report = make_report([first, renamed], resamples=100)
    for text in (as_text(report), as_markdown(report)):
        shown = text.replace("\n", "").replace("\u200b", "")
        assert shown.isprintable()
        assert "evil.example" in shown
    linked = r"https?://|www\.|@\w"
    assert not re.search(linked, as_markdown(report))
    page = tmp_path / "report.html"
    with data_taken_away(inside, tmp_path):
        write_page(report, page)
    assert "\x1b" not in page.read_text(encoding="utf-8")
    assert json.loads(as_json(report))["revisions"][1]["name"] == HOSTILE


@pytest.mark.parametrize(
    "path",
    [
        "data/predictions.csv",
        "params.yaml",
        "data/splits/test.h5",
        "evaluate.py",
        "metrics/train/plots/metrics/val/loss.tsv",
    ],
)
def test_a_pipe_in_the_workspace_is_refused_at_once(
    path: str, inside: Project, tmp_path: Path
) -> None:
    shutil.move(inside.path / path, tmp_path / "aside")
    os.mkfifo(inside.path / path)
    try:
        with pytest.raises(RevisionError, match=rf"^workspace: {path}: found a device or a pipe"):
            read_revision("workspace")
    finally:
        (inside.path / path).unlink()
        shutil.move(tmp_path / "aside", inside.path / path)


def test_a_refusal_is_one_line(project: Project) -> None:
    result = project("python", "-m", "nodules", "compare", "HEAD", "nowhere")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: nowhere: no such revision")
    assert result.stderr.count("\n") == 1


@pytest.fixture
def emptied(inside: Project, tmp_path: Path) -> Iterator[Project]:
    """Yield the repository without its cache and data."""
    with data_taken_away(inside, tmp_path):
        yield inside


def test_missing_predictions_are_named_with_the_command_that_reproduces_them(
    emptied: Project,
) -> None:
    # Uncommitted parameters are not carried along.
    (emptied.path / "params.yaml").write_text(PARAMS.replace("luck: 1", "luck: 9"))
    with pytest.raises(RevisionError) as missing:
        read_revisions(["HEAD", "second"])
    message, command = str(missing.value).split("; reproduce it with: ")
    assert message == (
        "HEAD: data/predictions.csv: not found in git or DVC's cache (no remote is configured), "
        "expected the file of `dvc repro`"
    )
    assert command == "nodules compare HEAD second --make"
    # Following the message resolves the error.
    result = emptied("python", "-m", *command.split(), "--resamples", "500")
    (emptied.path / "params.yaml").write_text(PARAMS)
    assert "second vs. HEAD: better AUC" in result.stdout
    assert ["luck", "1", "2"] in [line.split() for line in result.stdout.splitlines()]
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert [note.split()[1] for note in notes] == ["HEAD", "second"]
    assert len(read_revision("HEAD").predictions.index) == 400


def test_missing_predictions_of_the_workspace_are_not_reproduced_elsewhere(
    emptied: Project,
) -> None:
    with pytest.raises(RevisionError, match=r"reproduce it with: dvc repro$"):
        read_revision("workspace")
    result = emptied("python", "-m", "nodules", "compare", "--make")
    assert result.returncode == 1
    assert result.stderr.startswith("error: workspace: data/predictions.csv: not found in the ")
    assert result.stderr.count("\n") == 1


def test_predictions_are_read_from_a_remote(emptied: Project, tmp_path: Path) -> None:
    emptied.run("dvc", "config", "--local", "core.remote", "shared")
    emptied.run("dvc", "remote", "add", "--local", "shared", str(tmp_path / "remote"))
    try:
        missing = (
            r"DVC's cache, nor on the remote shared, expected .*; get it with: dvc pull "
            r"data/predictions\.csv, or reproduce it with: dvc repro$"
        )
        with pytest.raises(RevisionError, match=missing):
            read_revision("workspace")
        shutil.copytree(tmp_path / "cache", tmp_path / "remote")
        assert len(read_revision("second").predictions.index) == 400
        # A remote that does not answer.
        url = "http://127.0.0.1:9/store"
        emptied.run("dvc", "remote", "add", "--local", "--force", "shared", url)
        unread = r"get it with: dvc fetch --all-commits, or reproduce it with: nodules compare"
        with pytest.raises(RevisionError, match=unread):
            read_revision("second")
    finally:
        (emptied.path / ".dvc" / "config.local").unlink()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "found no header, expected split,index,group,label,probability, then file or cand"),
        ("test,1,,0,0.5\ntest,x,,1,0.5", "line 3: found an invalid row, expected split,"),
        ("test,1,,2,0.5", "line 2: found label 2, probability 0.5, expected label 0 or 1"),
        ("test,1,,1,nan", "line 2: found label 1, probability nan, expected label 0 or 1"),
        ("test,1,,1,0.5,9", "line 2: found an invalid row, expected split,"),
        ("test,9223372036854775808,,1,0.5", "line 2: found index 9223372036854775808, expected"),
        ("test,-1,,1,0.5", "line 2: found index -1, expected a row of the data set"),
        ("test,1,\r,1,0.5", "line 2: found an invalid row, expected split,"),
        (f"test,1,{'x' * 200_000},1,0.5", "line 2: found invalid CSV (field larger than"),
        ("test,1,,1,0.5\ntest,1,,1,0.6", "found a duplicate index in test, expected unique ones"),
    ],
)
def test_broken_predictions_are_refused_with_their_line(text: str, sentence: str) -> None:
    table = f"split,index,group,label,probability\n{text}\n" if text else ""
    with pytest.raises(RevisionError) as refused:
        parse_predictions(table, "HEAD: data/predictions.csv", split="test")
    assert str(refused.value).startswith("HEAD: data/predictions.csv: ")
    assert sentence in str(refused.value)


@pytest.mark.parametrize("found", ["NaN", "Infinity", "true", "2", "-0.1", '"0.5"'])
def test_a_threshold_that_is_no_probability_is_refused(inside: Project, found: str) -> None:
    path = inside.path / METRICS
    before = path.read_text()
    path.write_text(f'{{"threshold": {found}}}')
    expected = rf"^workspace: {METRICS}: threshold: found .+, expected a number in 0\.\.1$"
    try:
        with pytest.raises(RevisionError, match=expected):
            read_revision("workspace")
    finally:
        path.write_text(before)


@needs_chromium
def test_the_page_draws_every_curve_without_a_network(inside: Project, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    inside.compare("HEAD", "second", "lucky", "--html", str(page))
    opened = open_offline(page, tmp_path / "profile")
    assert opened.console == []
    # ROC twice, precision-recall, calibration and loss of three revisions, and two diagonals.
    assert len(opened.curves()) == 5 * 3 + 2
    assert "second vs. HEAD: better AUC" in opened.document
    assert opened.document.count("data:image/png;base64,") == 2 * 12
    for outside in ('src="http', 'href="http', "url(http", "@import"):
        assert outside not in opened.document


@needs_chromium
def test_on_a_phone_no_cell_of_the_page_is_out_of_sight(inside: Project, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    inside.compare("HEAD", "second", "lucky", "--html", str(page))
    assert widest_drawing(page, tmp_path) <= 390


@needs_chromium
@pytest.mark.usefixtures("inside")
def test_on_a_phone_the_legends_of_two_splits_are_in_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [TrainingPoint(split, "loss", 0, 0.5) for split in ("train", "val")]
    monkeypatch.setattr(Revision, "training_curves", lambda _: points)
    named = [
        replace(revision, name=f"demo-{name}net")
        for revision, name in zip(read_revisions([]), ("squeeze", "mobile"), strict=True)
    ]
    page = tmp_path / "report.html"
    write_page(make_report(named, resamples=100), page)
    assert widest_drawing(page, tmp_path) <= 390


@needs_chromium
def test_names_and_values_cannot_become_markup(inside: Project, tmp_path: Path) -> None:
    hostile = "</script><script>document.title='hit'</script><img src=x onerror=alert(1)>"
    first, second = read_revisions(["HEAD", "second"])
    renamed = type(second)(**{**vars(second), "name": hostile, "params": {hostile: hostile}})
    page = tmp_path / "report.html"
    write_page(make_report([first, renamed], resamples=100), page)
    opened = open_offline(page, tmp_path / "profile")
    assert opened.console == []
    elements = _Elements()
    elements.feed(opened.document)
    assert "<title>hit</title>" not in opened.document
    assert all(source.startswith("data:") for source in elements.pictures)
    assert len(elements.pictures) == 12
    assert len(opened.curves()) == 5 * 2 + 2


class _Elements(HTMLParser):
    """Collects the image sources of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")


def test_patches_without_pixels_are_listed(inside: Project, tmp_path: Path) -> None:
    revisions = read_revisions(["HEAD", "second"])
    page = tmp_path / "report.html"
    with data_taken_away(inside, tmp_path):
        write_page(make_report(revisions, resamples=100), page)
    text = page.read_text()
    assert "data:image/png" not in text
    listed = re.sub(r' data-label="[^"]*"', "", text)
    listed = listed.split("Largest disagreements between second and HEAD")[1]
    first, second = (each.predictions for each in revisions)
    farthest = int(np.argmax(np.abs(first.probabilities - second.probabilities)))
    assert f"<td>{first.index[farthest]}</td>" in listed.split("</tr>")[1]


@needs_chromium
def test_dvcs_own_page_draws_without_a_network_wherever_it_is(
    project: Project, tmp_path: Path
) -> None:
    plots = ("dvc", "plots", "diff", "HEAD", "second", "--out")
    project.run(*plots, str(tmp_path / "before"))
    before = open_offline(tmp_path / "before" / "index.html", tmp_path / "profile")
    assert "after `make setup`" in before.document.split("<div")[0]
    project.run("python", "-m", "nodules.report.vega", ".dvc")
    project.run(*plots, str(tmp_path / "after"))
    opened = open_offline(tmp_path / "after" / "index.html", tmp_path / "profile")
    assert [line for line in opened.console if "WARN" not in line] == []
    assert len(opened.curves()) == 2


@needs_chromium
def test_dvcs_own_page_fits_a_phone(project: Project, tmp_path: Path) -> None:
    project.run("python", "-m", "nodules.report.vega", ".dvc")
    project.run("dvc", "plots", "diff", "HEAD", "second", "--out", str(tmp_path / "plots"))
    assert widest_drawing(tmp_path / "plots" / "index.html", tmp_path) <= 390


def widest_drawing(page: Path, folder: Path) -> float:
    """Return the right edge of the widest chart or table of a page on a screen of 390 pixels.

    Chromium's own windows are at least 500 pixels wide, so the page is put into a frame.
    """
    content = html.escape(page.read_text(encoding="utf-8"))
    frame = f'<iframe id="page" srcdoc="{content}" style="width: 390px; border: 0"></iframe>'
    (folder / "phone.html").write_text(f"{frame}<script>{MEASURE}</script>", encoding="utf-8")
    opened = open_offline(folder / "phone.html", folder / "profile")
    edges = re.search(r"<output>(\[.+?\])</output>", opened.document)
    assert edges
    return max(json.loads(edges[1]))


# Writes the right edges of all charts and tables in the frame, once they are drawn. A text beyond
# the edge of its chart, which cuts it, is out of sight.
MEASURE = """\
setTimeout(() => {
  const page = document.getElementById("page").contentDocument;
  const right = (element) => element.getBoundingClientRect().right;
  const edges = [...page.querySelectorAll("svg, table")].map(right);
  const texts = [...page.querySelectorAll("svg text")];
  const cut = texts.some((text) => right(text) > right(text.closest("svg")) + 1);
  edges.push(cut ? 1e9 : 0);
  document.body.insertAdjacentHTML("beforeend", `<output>${JSON.stringify(edges)}</output>`);
}, 3000);
"""


def test_setting_up_makes_that_page_draw_offline_and_keeps_another_choice(
    tmp_path: Path,
) -> None:
    listed = subprocess.run(
        ["make", "--dry-run", "install"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python -m nodules.report.vega .dvc\n" in listed.stdout
    for path in (OFFLINE, ".dvc/config.local"):
        ignored = ["git", "check-ignore", "--quiet", path]
        assert subprocess.run(ignored, cwd=REPOSITORY, check=False).returncode == 0
    folder = tmp_path / ".dvc"
    shutil.copytree(REPOSITORY / ".dvc" / "plots", folder / "plots")
    (folder / "config.local").write_text("[core]\n    remote = mine\n")
    make_plots_offline(folder)
    assert Config(str(folder))["plots"]["html_template"] == "plots/offline.html"
    assert Config(str(folder))["core"]["remote"] == "mine"
    text = (tmp_path / OFFLINE).read_text(encoding="utf-8")
    # DVC replaces these, so they may not be a part of Vega.
    assert all(f"window.{name}=" in text for name in ("vega", "vegaLite", "vegaEmbed"))
    for placeholder in ("{refresh_tag}", "{scripts}", "{plot_divs}"):
        assert text.count(placeholder) == 1
    (folder / "config.local").write_text("[plots]\n    html_template = plots/mine.html\n")
    make_plots_offline(folder)
    assert Config(str(folder))["plots"]["html_template"] == "plots/mine.html"


def test_comparing_needs_no_tensorflow(inside: Project) -> None:
    code = (
        "import sys; from nodules.comparison.revisions import read_revisions;"
        "from nodules.report.content import make_report;"
        "from nodules.report.text import as_text;"
        "as_text(make_report(read_revisions(['HEAD']), resamples=100));"
        "sys.exit('tensorflow' in sys.modules or 'sklearn' in sys.modules)"
    )
    inside.run("python", "-c", code)
