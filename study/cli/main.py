"""The command line: `study COMMAND`, also `python -m study`."""

import atexit
import errno
import io
import json
import sys
from collections.abc import Callable
from gc import freeze
from importlib import metadata, resources
from typing import Annotated

import typer

from results.text import printable
from study.cli.backbones import backbones
from study.cli.catalog import catalog, demo, init
from study.cli.console import say
from study.cli.data import data
from study.cli.figures import figures
from study.cli.importing import import_results
from study.cli.jobs import HEAD, logs, show_job, stop, submit
from study.cli.models import export, predict
from study.cli.options import (
    DEFAULT_STORAGE,
    AsJson,
    Cache,
    File,
    Overrides,
    Storage,
    StudyName,
)
from study.cli.results import compare, report, table
from study.cli.running import run_document
from study.cli.weights import weights
from study.config.document import read_document
from study.errors import ConfigError
from study.places import cache_of, study_folder
from study.store.object_store import StoreUnavailable
from study.store.retry import is_transient

app = typer.Typer(
    name="study",
    help="Which pretraining, architecture, backbone and loss give the best segmentation from few pixel masks?",
    invoke_without_command=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

PATH_ERRORS = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST}
"""Error numbers caused by the given path rather than by the state of the storage."""

app.add_typer(data, name="data")


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Handle the options that precede a command."""
    if version:
        say(f"study {metadata.version('segmentation-study')}")
        raise typer.Exit


for command in (
    catalog,
    init,
    demo,
    table,
    compare,
    report,
    figures,
    predict,
    export,
    backbones,
    weights,
    submit,
    logs,
    stop,
):
    app.command()(command)
app.command("import")(import_results)


@app.command()
def schema() -> None:
    """Print the JSON schema of the study file, for checks and completion in editors."""
    say((resources.files("study") / "study.schema.json").read_text(encoding="utf-8"), newline=False)


@app.command()
def plan(
    file: File,
    storage: Storage = DEFAULT_STORAGE,
    cache: Cache = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check a study file and show its stages, their cost and the differences it can detect."""
    from study.monitoring.plan_summary import summary, summary_text
    from study.search.load import load_study
    from study.store.store import Store

    folder = cache_of(cache)
    study_plan, searches = load_study(
        read_document(file, overrides or ()), file=str(file), cache=folder, storage=storage
    )
    content = summary(study_plan, Store(storage), folder, searches)
    say(json.dumps(content, indent=1) if as_json else summary_text(content))


@app.command()
def run(
    file: File,
    storage: Storage = DEFAULT_STORAGE,
    cache: Cache = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster; default: this machine.")] = None,
    overrides: Overrides = None,
) -> None:
    """Run a study; running it again resumes it."""
    run_document(read_document(file, overrides or ()), str(file), storage, cache_of(cache), address)


@app.command()
def resume(
    name: StudyName, storage: Storage = DEFAULT_STORAGE, cache: Cache = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster; default: this machine.")] = None,
) -> None:  # fmt: skip
    """Resume a study by name, from the file it was last run with."""
    from study.store.references import refuse_imported
    from study.store.store import Store

    spec = study_folder(storage, name) / "spec.yaml"
    refuse_imported(Store(storage), name)
    run_document(read_document(spec), str(spec), storage, cache_of(cache), address)


@app.command()
def status(
    name: StudyName,
    storage: Storage = DEFAULT_STORAGE,
    address: Annotated[str | None, typer.Option(help=f"{HEAD} Shows the study's job there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a study, from its storage or from the cluster it was submitted to."""
    if address is not None:
        show_job(name, address, as_json=as_json)
        return
    from study.monitoring.status import status as read_status
    from study.monitoring.status import status_text
    from study.store.paths import IMPORTED

    if (study_folder(storage, name) / IMPORTED).is_file():
        say(json.dumps({"study": name, "state": "imported"}, indent=1) if as_json else f"{name}: imported results")
        return
    content = read_status(storage, name)
    say(json.dumps(content, indent=1) if as_json else status_text(content))


@app.command()
def gc(
    storage: Storage = DEFAULT_STORAGE,
    yes: Annotated[bool, typer.Option("--yes", help="Remove the files; without it they are only listed.")] = False,
) -> None:
    """List the files of a storage that no study refers to; with --yes, remove them."""
    from study.diagnostics.gc import find_garbage, remove_garbage
    from study.store.store import Store

    store = Store(storage)
    garbage = find_garbage(store)
    for item in garbage:
        say(f"{store.place}/{item.folder}  {item.bytes / 2**20:.1f} MiB")
    total = sum(item.bytes for item in garbage) / 2**20
    if yes:
        remove_garbage(store, garbage)
    action = "removed" if yes else "could be removed with --yes"
    say(f"{len(garbage)} folders, {total:.1f} MiB {action}")


@app.command()
def doctor(storage: Storage = DEFAULT_STORAGE, cache: Cache = None) -> None:
    """Check this machine: versions, CPU cores, GPUs, storage, cache, published weights."""
    from study.diagnostics.doctor import findings

    sound = True
    for finding in findings(storage, cache_of(cache)):
        say(finding.line)
        if finding.remedy:
            say(f"{'':13}remedy: {finding.remedy}")
        sound = sound and finding.sound
    raise typer.Exit(0 if sound else 1)


def _show_usage(error: typer.TyperException) -> None:
    """Print an error of the options in one line; nothing if the help was printed instead."""
    message = " ".join(error.format_message().split()).replace("Value error, ", "").replace("Input should", "must")
    command = getattr(getattr(error, "ctx", None), "command_path", "study")
    if message:
        say(f"{command}: {message.rstrip('.')}; allowed: what `{command} --help` lists", error=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; configuration errors are printed on stderr, one line each, with exit code 2."""
    run_app: Callable[..., int | None] = app
    atexit.register(freeze)  # skips the last garbage collection, half a second
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may lack characters
    try:
        status = run_app(arguments, standalone_mode=False) or 0
    except ConfigError as error:
        say(str(error), error=True)
        status = 2
    except typer.TyperException as error:
        _show_usage(error)
        status = 2
    except StoreUnavailable as error:
        message = f"{error}; allowed: a storage that answers; finished stages are kept, run the same command later"
        say(" ".join(message.split()), error=True)
        status = 1
    except MemoryError:
        remedy = "allowed: a machine with memory and address space (`ulimit -v`) to spare; free some"
        say(f"out of memory; {remedy}; finished stages are kept", error=True)
        status = 1
    except OSError as error:
        if error.errno in PATH_ERRORS:
            message = f"{error.filename}: {error.strerror}; allowed: a path that can be used here; correct it"
            say(printable(message), error=True)
            status = 2
        elif is_transient(error) or error.errno == errno.EFBIG:
            message = f"{error}; allowed: a place with room that can be written; finished stages are kept, run the "
            say(printable(f"{message}same command once there is"), error=True)
            status = 1
        else:
            raise
    sys.exit(status)
