"""Which stages the studies of a storage need."""

from study.files import Altered
from study.layout import PLAN, SPEC
from study.problems import Problem, Refused
from study.store import Store
from study.stored import read_plan


def planned_by_all(store: Store, *, but: str | None = None) -> frozenset[str]:
    """Return the digests that studies plan with, those of one name left out.

    Raises `Refused` where a study has no sound plan: nobody knows which stages it needs.
    """
    planned: set[str] = set()
    problems = []
    for name in sorted({*store.studies(PLAN, SPEC), *store.studies(SPEC)} - {but}):
        try:
            plan = read_plan(store.study(name))
            what = f"{PLAN} is missing"
        except Altered as error:
            plan, what = None, f"{PLAN} {error.what}"
        if plan is not None:
            planned |= plan["stages"].keys()
        else:
            problems.append(Problem(path=f"study {name}", message=f"its {what}; {_remedy(store, name)}"))
    if problems:
        raise Refused(problems, store.place)
    return frozenset(planned)


def _remedy(store: Store, name: str) -> str:
    return (
        f"allowed: a sound plan of every study, which says what it needs; `study resume {name}` writes it again, or "
        f"remove {store.study(name)} if the study is not wanted any more"
    )
