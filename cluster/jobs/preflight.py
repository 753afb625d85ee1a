"""Check Python and libraries on the cluster before a job starts its study.

Imports only the standard library and `packaging`, which Ray installs: other requirements may be missing.
"""

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REQUIREMENTS = "requirements.txt"


def problems(python: str, requirements: Iterable[str]) -> Iterator[str]:
    """Yield error messages on mismatches. `python` is MAJOR.MINOR of the machine that submitted."""
    from packaging.requirements import Requirement

    cluster_python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if cluster_python != python:
        yield (
            f"the cluster runs Python {cluster_python} and {python} submitted; allowed: the same; "
            f"submit with python{cluster_python}"
        )
    mismatches = []
    for line in requirements:
        requirement = Requirement(line)
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            mismatches.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            mismatches.append(f"{requirement.name} is {installed}, not {requirement.specifier}")
    if mismatches:
        yield (
            f"{', '.join(mismatches)}; allowed: requirements.lock on every node; install it, or name an --image with it"
        )


def main() -> None:
    """Exit with status 2 and messages on stderr if there are mismatches."""
    file = Path(REQUIREMENTS)
    messages = list(problems(sys.argv[1], file.read_text(encoding="utf-8").splitlines() if file.is_file() else ()))
    for message in messages:
        sys.stderr.write(f"{sys.executable}: {message}\n")
    sys.exit(2 if messages else 0)


if __name__ == "__main__":
    main()
