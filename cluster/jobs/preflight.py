"""The first thing a job does on the cluster: is this the Python, and are these the libraries, that the study needs?

Runs before anything is installed for sure: imports the standard library, and `packaging`, which Ray brings.
"""

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REQUIREMENTS = "requirements.txt"


def problems(python: str, requirements: Iterable[str]) -> Iterator[str]:
    """Yield what is wrong here. `python` is MAJOR.MINOR of the machine that submitted."""
    from packaging.requirements import Requirement

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != python:
        yield f"the cluster runs Python {here} and {python} submitted; allowed: the same; submit with python{here}"
    wrong = []
    for line in requirements:
        needed = Requirement(line)
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(found, prereleases=True):
            wrong.append(f"{needed.name} is {found}, not {needed.specifier}")
    if wrong:
        yield f"{', '.join(wrong)}; allowed: requirements.lock on every node; install it, or name an --image with it"


def main() -> None:
    """Exit with 2, as a refusal, where anything is wrong."""
    listed = Path(REQUIREMENTS)
    found = list(problems(sys.argv[1], listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else ()))
    for problem in found:
        sys.stderr.write(f"{sys.executable}: {problem}\n")
    sys.exit(2 if found else 0)


if __name__ == "__main__":
    main()
