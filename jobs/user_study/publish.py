"""A report, from the answers to its files and to MLflow."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from infra.errors import UsageError, one_line, printable
from infra.files import replacing
from infra.store import Store
from infra.tracking import runs
from jobs.experiment.experiment import Experiment
from jobs.experiment.runs import find_parent_run, tracking_uri
from jobs.invocation import start_of
from jobs.user_study.answers import Answers
from jobs.user_study.folder import ANSWERS, open_study
from jobs.user_study.report import Report, answers_csv, codes_csv, figures, files, make_report, markdown

ARTIFACTS = "study"  # in MLflow


def publish(folder: Path, csv: Path, tracking: str | None, storage: str | None, console: Console) -> None:
    """Print the table, and leave it in the folder, in MLflow, and all answers in `csv`.

    Args: tracking: --tracking-uri. storage: where the experiments are now, None for where they were.

    Raises UsageError, also if nobody's answers count yet; StorageError.
    """
    study = open_study(folder)
    if not (folder / ANSWERS).is_file():
        mend = f"run {' '.join(start_of('study'))} serve {printable(folder)} first"
        raise UsageError(f"{printable(folder / ANSWERS)}: is not there, nobody has answered; {mend}")
    people = Answers(folder / ANSWERS, study).participants()
    found = make_report(study, people)
    written = files(found)
    contents = {folder / name: content for name, content in written.items()}
    contents |= {csv: answers_csv(people), folder / "codes.csv": codes_csv(people)}
    for path, content in contents.items():
        with replacing(path) as file:
            file.write(content)
    console.print(markdown(found))
    console.print(f"every answer is in {printable(csv)}, the page in {printable(folder)}/report.md")
    if not found.people.counted:
        raise UsageError(f"{printable(folder)}: no participant's answers count yet; serve it, and report later")
    _track(found, written, tracking, storage, console)


def _track(
    found: Report, written: dict[str, bytes], tracking: str | None, storage: str | None, console: Console
) -> None:
    """Add figures and pages to the runs in MLflow of the experiments; a line names those that have none."""
    by_experiment: dict[str, list[str]] = {}
    for method, of in found.study.methods.items():
        by_experiment.setdefault(of.experiment, []).append(method)
    for uri, methods in by_experiment.items():
        if not uri:
            console.print(f"warning: the experiment of {', '.join(methods)} is not known: it has no run in MLflow")
            continue
        was = Store(uri)
        experiment = Experiment.open(storage, was.name) if storage else Experiment(Store.open(uri, "experiment"))
        address = tracking_uri(experiment, tracking)
        metrics: dict[str, float] = {}
        for method in methods:
            metrics |= figures(found, method, named=len(methods) > 1)
        try:
            parent = find_parent_run(experiment, address)
            if parent is None:
                told = f"MLflow ({printable(address)}) has no run of {experiment.name}"
                console.print(f"warning: {told}; give --storage or --tracking-uri")
                continue
            runs.log_evaluation(parent, parent.run_id, metrics, written, ARTIFACTS)
            console.print(f"in MLflow: {parent.link(parent.run_id)}")
        except runs.ERRORS as error:
            why = one_line(error)
            console.print(f"warning: not in MLflow ({printable(address)}): {why}; run this again when it answers")
