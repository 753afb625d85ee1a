"""Whether methods help with few masks: `python -m tests.experiments [NAME ...] [--development] [--storage FOLDER]`.

The settings in the study files were chosen on the generated images of their seed. Each study is run once, with three
seeds, on images of another seed that were not used for any choice. `--development` runs the files as they are.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from study.config.document import read_document

FOLDER = Path(__file__).parent
TEACHER = "teacher"
"""The study that trains the teacher of `self_supervised`, on images of its own."""
EXPERIMENTS = ("self_supervised", "masked_autoencoder", "semi_supervised", "weak_labels")
UNUSED = 1_000_000
"""Added to the seeds of generated images."""
SEEDS = [0, 1, 2]


def main() -> None:
    """Run the chosen experiments, which print their tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.experiments", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(EXPERIMENTS)}; default: all")
    parser.add_argument("--development", action="store_true", help="run the files as they are, with one seed")
    parser.add_argument("--storage", type=Path, default=Path("runs") / "experiments")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"NAME is {unknown[0]}; allowed: {', '.join(EXPERIMENTS)}; correct the name")
    storage: Path = chosen.storage.resolve()
    for name in chosen.names or EXPERIMENTS:
        if name == "self_supervised":
            export_teacher(storage)
        changed = [word for change in changes(name, storage, chosen.development) for word in ("--set", change)]
        study("run", file_of(name), *changed, "--storage", storage)


def export_teacher(storage: Path) -> None:
    """Train the teacher, unless it is trained, and write its weights."""
    study("run", file_of(TEACHER), "--storage", storage)
    study("export", "experiment-teacher", "--output", teacher_file(storage), "--storage", storage)


def changes(name: str, storage: Path, development: bool) -> list[str]:
    """Return the `PATH=VALUE` changes of the study file of an experiment."""
    values = {} if development else unused_images(name)
    if name == "self_supervised":
        values["stages.imitate.teacher.initial_weights.file"] = teacher_file(storage)
    return [f"{path}={value}" for path, value in values.items()]


def unused_images(name: str) -> dict[str, object]:
    """Return the values, by path in the study file, that replace its generated images and seeds."""
    document = read_document(file_of(name))
    seeds = {f"data.{data}.seed": settings["seed"] + UNUSED for data, settings in document["data"].items()}
    return {"name": f"experiment-{name.replace('_', '-')}", "compare.seeds": SEEDS, **seeds}


def file_of(name: str) -> Path:
    """Return the study file of an experiment."""
    return FOLDER / f"{name}.yaml"


def teacher_file(storage: Path) -> Path:
    """Return the file of the weights of the teacher."""
    return storage / "teacher.safetensors"


def study(*words: object) -> None:
    """Run a command of the platform; ends the program if it fails."""
    ended = subprocess.run([sys.executable, "-m", "study", *map(str, words)], check=False)
    if ended.returncode:
        sys.exit(ended.returncode)


if __name__ == "__main__":
    main()
