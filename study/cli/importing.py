"""`study import`: results from outside of the platform as a study of a storage."""

import os
from pathlib import Path
from typing import Annotated

import typer

from study.cli.console import say
from study.cli.options import DEFAULT_STORAGE, Storage
from study.errors import ConfigError, Problem

DESIGNS = ("cv", "fixed")


def import_results(  # noqa: PLR0917 - options are given by name
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="CSV or Parquet with the columns metric, value and one for each factor."),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the new study.")] = "",
    nnunet: Annotated[
        Path | None,
        typer.Option("--from-nnunet", metavar="FOLDER", help="A results folder of nnU-Net, in place of FILE."),
    ] = None,
    design: Annotated[
        str | None,
        typer.Option(
            metavar="cv|fixed",
            help="cv: each fold has its own test images (default with several folds); fixed: all share them.",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="FACTOR=VALUE", help="Compare each arm with the arm of this value; may be repeated."),
    ] = None,
    lower_is_better: Annotated[
        list[str] | None, typer.Option(metavar="METRIC", help="A metric that improves downwards; may be repeated.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Divide all values by this number; 100 for percent.")] = 1.0,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Import results of other software as a study, for `table`, `compare` and `report`.

    Optional columns: fold, seed, labelled_fraction, labelled_images, class, aggregation (dataset or case), split,
    image, patient, dataset. Lines with an image are per-case values. All other columns are factors. Importing a study
    again replaces it.
    """
    from study.analysis.imported.checks import ImportSettings
    from study.analysis.imported.nnunet import read_nnunet
    from study.analysis.imported.study import import_study
    from study.analysis.imported.values import read_values
    from study.store.paths import PLAN, SPEC
    from study.store.store import Store

    problems = list(_option_problems(file, name, nnunet, design, baseline or [], scale))
    if problems:
        raise ConfigError([Problem(path="", message=problem) for problem in problems], "study import")
    store = Store(storage)
    store.pull(name)
    folder = store.study(name)
    if any(os.path.lexists(folder / file_name) for file_name in (SPEC, PLAN)):
        message = f"{store.place} has a study {name} that was run; allowed: a new name; choose another with --name"
        raise ConfigError([Problem(path="", message=message)], "study import")
    source = file or nnunet or Path()
    values = read_nnunet(source) if file is None else read_values(source, scale=scale)
    chosen = design or ("cv" if values.frame["fold"].nunique() > 1 else "fixed")
    rules = tuple((factor, value) for factor, _, value in (rule.partition("=") for rule in baseline or []))
    settings = ImportSettings(
        design="fixed" if chosen == "fixed" else "cv", level=values.level, baselines=rules,
        lower_is_better=tuple(lower_is_better or ()), design_is_given=design is not None,
    )  # fmt: skip
    with store.uploading(name):
        import_study(store, name, values.frame, settings, source.absolute())
    say(f"imported {len(values.frame):,} values as {name}; next: study table {name}; study report {name}")


def _option_problems(
    file: Path | None, name: str, nnunet: Path | None, design: str | None, baseline: list[str], scale: float
) -> list[str]:
    from pydantic import TypeAdapter, ValidationError

    from study.config.fields import Name

    problems = []
    if (file is None) == (nnunet is None):
        problems.append("takes one source; allowed: FILE or --from-nnunet FOLDER; give one of them")
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        problems.append(f"--name is '{name}'; allowed: up to 64 letters, digits, - and _; name the study")
    if design is not None and design not in DESIGNS:
        problems.append(f"--design is '{design}'; allowed: {', '.join(DESIGNS)}; choose one")
    problems += [
        f"--baseline is '{rule}'; allowed: FACTOR=VALUE, such as backbone=vgg16; correct it"
        for rule in baseline
        if not all(rule.partition("="))
    ]
    if not 0 < scale < float("inf"):
        problems.append(f"--scale is {scale:g}; allowed: a number above 0, such as 100; correct it")
    return problems
