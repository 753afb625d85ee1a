"""The command line: `study COMMAND`, also `python -m study`."""

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from study.document import read_document
from study.layout import SPEC
from study.problems import Problem, Refused, unknown
from study.using import export, predict

app = typer.Typer(
    name="study",
    help="Which pretraining, architecture, backbone and loss give the best segmentation from few pixel masks?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

data = typer.Typer(help="Look at data before a study reads them.", no_args_is_help=True)
app.add_typer(data, name="data")
app.command()(predict)
app.command()(export)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study file (YAML).", show_default=False)]
StudyName = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.", show_default=False)]
Storage = Annotated[Path, typer.Option(help="Where stages and results live.")]
Cache = Annotated[Path | None, typer.Option(help="Prepared images of this machine (default: a per-user folder).")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
DEFAULT_STORAGE = Path("runs")
INTERRUPTED = 130


class TableFormat(StrEnum):
    """How a table is written."""

    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"
    html = "html"


class FigureFormat(StrEnum):
    """How a figure is written."""

    svg = "svg"
    pdf = "pdf"
    png = "png"


@app.command()
def catalog() -> None:
    """List the study files that come with the platform."""
    for template in _templates():
        first = template.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        typer.echo(f"{template.name.removesuffix('.yaml'):24} {first}")


@app.command()
def init(
    template: Annotated[str, typer.Argument(metavar="TEMPLATE", help="A name that `study catalog` lists.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: TEMPLATE.yaml.")] = None,
) -> None:
    """Copy a study file of the catalog, to be edited."""
    known = {found.name.removesuffix(".yaml"): found for found in _templates()}
    place = output or Path(f"{template}.yaml")
    if template not in known:
        raise Refused([Problem(path="", message=unknown("template", template, known))], "study init")
    if place.exists():
        message = f"{place} exists; allowed: a new file; choose another name with -o or remove it"
        raise Refused([Problem(path="", message=message)], "study init")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(known[template].read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        message = (
            f"{place} cannot be written ({error.strerror}); allowed: a place you may write; choose another with -o"
        )
        raise Refused([Problem(path="", message=message)], "study init") from error
    typer.echo(f"wrote {place}; next: study plan {place}")


@app.command()
def schema() -> None:
    """Print the study file's JSON schema; editors check and complete by it."""
    typer.echo((resources.files("study") / "study.schema.json").read_text(encoding="utf-8"), nl=False)


@app.command()
def plan(
    file: File,
    storage: Storage = DEFAULT_STORAGE,
    cache: Cache = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check a study file completely and show what running it would train."""
    from study.load import load_plan
    from study.store import Store
    from study.summary import summary, summary_text

    found = load_plan(read_document(file, overrides or ()), file=str(file), cache=_cache(cache), storage=storage)
    told = summary(found, Store(storage))
    typer.echo(json.dumps(told, indent=1) if as_json else summary_text(told))


@app.command()
def run(
    file: File,
    storage: Storage = DEFAULT_STORAGE,
    cache: Cache = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster; default: this machine.")] = None,
    overrides: Overrides = None,
) -> None:
    """Run a study; running it again resumes it."""
    _run(read_document(file, overrides or ()), str(file), storage, _cache(cache), address)


@app.command()
def resume(
    name: StudyName, storage: Storage = DEFAULT_STORAGE, cache: Cache = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster; default: this machine.")] = None,
) -> None:  # fmt: skip
    """Resume a study by name, from the file it was last run with."""
    spec = _study_folder(storage, name) / "spec.yaml"
    _run(read_document(spec), str(spec), storage, _cache(cache), address)


@app.command()
def status(name: StudyName, storage: Storage = DEFAULT_STORAGE, as_json: AsJson = False) -> None:
    """Tell how far a study is; the storage is all that is needed."""
    from study.status import status as read_status
    from study.status import status_text

    _study_folder(storage, name)
    told = read_status(storage, name)
    typer.echo(json.dumps(told, indent=1) if as_json else status_text(told))


@app.command()
def table(  # noqa: PLR0917 - options are given by name
    name: StudyName,
    metric: Annotated[str, typer.Option(help="mean_iou, dice, precision, recall, f1, accuracy, auc, ...")] = "mean_iou",
    class_: Annotated[str, typer.Option("--class", help="A class, macro or weighted.")] = "macro",
    aggregation: Annotated[str, typer.Option(help="dataset or case.")] = "dataset",
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    rows: Annotated[str | None, typer.Option(help="Factors, separated by commas; default: those that vary.")] = None,
    columns: Annotated[str | None, typer.Option(help="One factor.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Show what papers report beside it.")] = False,
    search: Annotated[bool, typer.Option("--search", help="Show the trials of the study's search instead.")] = False,
    format_: Annotated[TableFormat, typer.Option("--format")] = TableFormat.md,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Show the comparison table."""
    from results.render import render
    from results.tables import table as lay_out
    from study.outcome import read_comparisons

    folder = _study_folder(storage, name)
    if search:
        from study.search.table import search_table

        typer.echo(search_table(folder, format_.value))
        return
    wanted = {"split": split, "aggregation": aggregation, "metric": metric, "class": class_}
    comparisons = read_comparisons(folder, wanted)
    try:
        grid = lay_out(
            comparisons, metric=metric, class_=class_, aggregation=aggregation, split=split,
            rows=rows.split(",") if rows else None, columns=columns,
        )  # fmt: skip
    except ValueError as error:
        raise Refused([Problem(path="", message=str(error))], name) from error
    if published:
        from study.papers import with_published

        grid = with_published(grid, folder / SPEC)
    typer.echo(render(grid, format_.value))


@app.command()
def compare(  # noqa: PLR0917 - options are given by name
    first: Annotated[str, typer.Argument(metavar="A", help="A study's name.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="Another's.", show_default=False)],
    metric: Annotated[str, typer.Option(help="As of `table`.")] = "mean_iou",
    class_: Annotated[str, typer.Option("--class", help="A class, macro or weighted.")] = "macro",
    aggregation: Annotated[str, typer.Option(help="dataset or case.")] = "dataset",
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    format_: Annotated[TableFormat, typer.Option("--format")] = TableFormat.md,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Show two studies beside each other: the cells they share."""
    from results.render import render
    from study.versus import versus

    for name in (first, second):
        _study_folder(storage, name)
    wanted = {"split": split, "aggregation": aggregation, "metric": metric, "class": class_}
    typer.echo(render(versus(storage, (first, second), wanted), format_.value))


@app.command()
def report(  # noqa: PLR0917 - options are given by name
    name: StudyName,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: report/report.html in the study's folder.")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="A folder that each figure is written to as well.")] = None,
    format_: Annotated[FigureFormat, typer.Option("--format", help="Of these figures.")] = FigureFormat.svg,
    log: Annotated[bool, typer.Option("--log", help="Doublings of labelled images equally far apart.")] = False,
    images: Annotated[bool, typer.Option(help="Show test images of the data.")] = True,
    storage: Storage = DEFAULT_STORAGE,
    cache: Cache = None,
) -> None:
    """Write everything a study found to one HTML file; a study that still runs has one too."""
    from study.report import Wishes, write_report

    folder = _study_folder(storage, name)
    place = output or folder / "report" / "report.html"
    wishes = Wishes(figures=figures, format=format_.value, log=log, images=images)
    try:
        write_report(storage, name, cache=_cache(cache), output=place, wishes=wishes)
    except OSError as error:
        message = f"{place} cannot be written ({error}); allowed: a place you may write; choose another with -o"
        raise Refused([Problem(path="", message=message)], name) from error
    typer.echo(f"wrote {place}")


@data.command("check")
def check_data(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A published layout, such as folder or chexpert.")],
    root: Annotated[Path | None, typer.Argument(metavar="ROOT", help="The folder of the data set.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another key.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: SOURCE-contact.png.")] = None,
    cache: Cache = None,
) -> None:
    """Tell what a data set holds and what is wrong with it; draw a sheet of its images and masks."""
    from study.data_check import data_check, read_settings

    settings = read_settings(source, root, overrides or ())
    for line in data_check(settings, cache=_cache(cache), output=output or Path(f"{source}-contact.png")):
        typer.echo(line)


@app.command()
def gc(
    storage: Storage = DEFAULT_STORAGE,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, it is only shown.")] = False,
) -> None:
    """Show, and with --yes remove, what no study of a storage refers to."""
    from study.gc import garbage, remove
    from study.store import Store

    found = garbage(Store(storage))
    for one in found:
        typer.echo(f"{one.path}  {one.bytes / 2**20:.1f} MiB")
    total = sum(one.bytes for one in found) / 2**20
    if yes:
        remove(found)
    told = "removed" if yes else "could be removed with --yes"
    typer.echo(f"{len(found)} folders, {total:.1f} MiB {told}")


@app.command()
def doctor(storage: Storage = DEFAULT_STORAGE, cache: Cache = None) -> None:
    """Check this machine: versions, processors, accelerators, storage, cache, published weights."""
    from study.doctor import findings

    sound = True
    for finding in findings(storage, _cache(cache)):
        typer.echo(finding.line)
        sound = sound and finding.sound
    raise typer.Exit(0 if sound else 1)


def _run(document: dict[str, object], file: str, storage: Path, cache: Path, address: str | None) -> None:
    from rich.console import Console

    from study.load import load_plan
    from study.ready import refuse_unready

    found = load_plan(document, file=file, cache=cache, storage=storage)
    refuse_unready(found, storage, cache)
    from study.ending import ending  # imports torch and ray: only once the plan stands
    from study.run import run as run_plan

    console = Console(soft_wrap=True)
    try:
        ended = run_plan(found, document, storage=storage, cache=cache, address=address, console=console)
    except ConnectionError as error:
        raise Refused([Problem(path="--address", message=str(error))], file) from error
    for line in ending(found, ended, storage):
        typer.echo(line)
    raise typer.Exit(1 if ended.failures or ended.fruitless else 0)


def _templates() -> list[Path]:
    folder = Path(str(resources.files("study") / "catalog"))
    return sorted(folder.glob("*.yaml"))


def _cache(cache: Path | None) -> Path:
    from study.doctor import default_cache

    return cache or default_cache()


def _study_folder(storage: Path, name: str) -> Path:
    folder = storage / "studies" / name
    if not (folder / "spec.yaml").is_file():
        known = sorted(path.parent.name for path in storage.glob("studies/*/spec.yaml"))
        raise Refused([Problem(path="", message=unknown("study", name, known))], f"--storage {storage}")
    return folder


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; refusals are one line each on stderr and exit with 2."""
    run_app: Callable[..., None] = app
    try:
        run_app(arguments)
    except Refused as refused:
        typer.echo(str(refused), err=True)
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer's answer to KeyboardInterrupt
            typer.echo("interrupted; what is finished is kept, the same command goes on from there", err=True)
        raise
