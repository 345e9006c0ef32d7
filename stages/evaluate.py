"""Stage `evaluate`: score the trained model on every split."""

from pathlib import Path

from nodules.runtime import be_deterministic
from nodules.system.exits import one_line_errors


def main() -> None:
    """Read params, score, write metrics, plots and predictions."""
    be_deterministic()  # before any import of TensorFlow

    from nodules.evaluation.evaluate import EvaluationFiles, evaluate
    from nodules.models.archive import check_archive
    from nodules.params import read_params

    params = read_params()
    files = EvaluationFiles(
        model=Path("models/model.keras"),
        splits=Path("data/splits"),
        log=Path("metrics/evaluate"),
        figures=Path("plots"),
        predictions=Path("data/predictions.csv"),
    )
    check_archive(files.model)
    evaluate(params.evaluate, params.seed, files)


if __name__ == "__main__":
    with one_line_errors():
        main()
