"""What a run needs beside a sound plan: places to write, initial weights to read."""

from pathlib import Path

from study.errors import Problem, Refused
from study.planning.graph import Plan
from study.planning.pending import todo
from study.planning.pretrained import missing_weights
from study.store.store import Store


def refuse_unready(plan: Plan, storage: Path, cache: Path) -> None:
    """Raise `Refused` where a folder cannot be written, or published weights are neither cached nor to be had."""
    store = Store(storage)
    lacking = missing_weights(plan, todo(plan, store), store)
    problems = [Problem(path="compare.initial_weights", message=line) for line in lacking]
    for option, folder in (("--storage", storage), ("--cache", cache)):
        unwritable = Store(folder).writable_problem()
        if unwritable:
            problems.append(Problem(path=option, message=unwritable))
    if problems:
        raise Refused(problems, plan.file)
