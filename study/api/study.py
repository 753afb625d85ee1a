"""The class `Study`: plan, run and read a study from Python."""

import io
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from study.api.plan import StudyPlan
from study.config.document import Document, document_of, read_document
from study.errors import ConfigError, Problem
from study.places import cache_of, storage_at, study_folder
from study.store.paths import COMPARISONS, IMPORTED, RESULTS, SPEC, TESTS
from study.store.references import refuse_imported
from study.store.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from study.config.schema import StudySpec
    from study.inference.arrays import Prediction
    from study.inference.module import SegmentationModule
    from study.inference.networks import CellNetworks, NetworkOptions
    from study.inference.select import Choice
    from study.planning.graph import Plan

File = str | Path | Mapping[str, Any]
"""A study file: its path, or its keys and values."""
Overrides = Mapping[str, object]
"""Values by dotted path, such as `{"compare.folds": 3}`."""
Place = str | Path
NAME_OF_MAPPING = "study"
"""Name of a study file that is given as a mapping, for messages."""


class Study:
    """A study in a storage, finished or not; made by `Study.run` or `Study.open`.

    Properties read the storage when they are first used and keep what they read; `refresh` reads it again.

    All methods raise `study.errors.ConfigError` with the text that the command line prints: one line for each problem,
    with what is allowed and a remedy.

    Args:
        storage: Folder or URI of the storage.
        name: Name of the study.
        cache: Folder of prepared images; default: that of the user.
    """

    def __init__(self, storage: Place, name: str, *, cache: Place | None = None) -> None:
        _check_place(storage, "storage")
        if not isinstance(name, str):
            raise _argument_error(f"name is {name!r}; allowed: the name of a study; pass a text")
        self._cache = _cache_folder(cache)
        self._storage = storage_at(str(storage), self._cache).absolute()
        self.name = name
        self._frames: dict[str, pd.DataFrame] = {}
        self._opened: tuple[Choice, NetworkOptions, CellNetworks, list[str]] | None = None
        self._folder = study_folder(self._storage, name)

    @classmethod
    def plan(
        cls, file: File, *, overrides: Overrides | None = None, storage: Place | None = None, cache: Place | None = None
    ) -> StudyPlan:
        """Check a study file completely and return what a run would train; trains and writes nothing.

        Args:
            file: Path of the study file, or its keys and values.
            overrides: Values by dotted path that replace those of the file.
            storage: Folder or URI in which stages may be finished already; default: `runs`.
            cache: Folder of prepared images; default: that of the user.

        Raises:
            ConfigError: The file, its data or weights are invalid; with all problems.
        """
        from study.monitoring.plan_summary import summary
        from study.search.load import load_study

        folder = _cache_folder(cache)
        place = storage_at(str(storage or "runs"), folder)
        document, source = _read(file, overrides)
        plan, searches = load_study(document, file=source, cache=folder, storage=place)
        store = Store(place)
        return StudyPlan(summary(plan, store, folder, searches), plan, Store(place.absolute()))

    @classmethod
    def run(
        cls, file: File, *, overrides: Overrides | None = None, storage: Place = "runs", cache: Place | None = None,
        address: str | None = None, quiet: bool = False,
    ) -> Self:  # fmt: skip
        """Run a study, or resume it, and return it; `failures` lists stages that failed.

        Args:
            file: Path of the study file, or its keys and values.
            overrides: Values by dotted path that replace those of the file.
            storage: Folder or URI of stages and results.
            cache: Folder of prepared images; default: that of the user.
            address: A running Ray cluster; default: this machine.
            quiet: Whether nothing is printed.

        Raises:
            ConfigError: The file, its data or weights are invalid, or the cluster cannot be used.
        """
        from rich.console import Console

        from study.monitoring.reporter import Reporter
        from study.run import run_study

        folder = _cache_folder(cache)
        place = storage_at(str(storage), folder)
        document, source = _read(file, overrides)
        console = Console(file=io.StringIO()) if quiet else Console(soft_wrap=True)
        reporter = Reporter(console)
        with reporter.watching():
            reporter.begin(f"reading {source} and its data", at_once=False)
            outcome = run_study(document, file=source, storage=place, cache=folder, address=address, reporter=reporter)
        return cls(storage, outcome.plan.spec.name, cache=cache)

    @classmethod
    def open(cls, storage: Place, name: str, *, cache: Place | None = None) -> Self:
        """Return a study of a storage, finished or not, or imported results.

        Raises:
            ConfigError: The storage has no study of this name.
        """
        return cls(storage, name, cache=cache)

    def refresh(self) -> None:
        """Forget what was read, such as after a run has gone on."""
        self._store.pull(self.name)
        self._frames.clear()
        self._opened = None
        for name in ("figures", "_spec", "_planned"):
            self.__dict__.pop(name, None)

    @property
    def status(self) -> dict[str, Any]:
        """Return state, counts of stages, running stages and time left, as `study status --json` prints them."""
        from study.monitoring.status import status

        if self._is_imported:
            return {"study": self.name, "state": "imported"}
        return status(self._storage, self.name)

    @property
    def failures(self) -> "pd.DataFrame":
        """Return one row per stage that failed in the last run: `digest`, `stage`, `error`."""
        import pandas as pd

        return pd.DataFrame(self.status.get("failures", []), columns=["digest", "stage", "error"], dtype="str")

    @property
    def results(self) -> "pd.DataFrame":
        """Return one row per replicate x split x aggregation x class x metric: `results.parquet`."""
        return self._table(RESULTS)

    @property
    def comparisons(self) -> "pd.DataFrame":
        """Return one row per cell x baseline x split x aggregation x class x metric: `comparisons.parquet`."""
        return self._table(COMPARISONS)

    @property
    def tests(self) -> "pd.DataFrame":
        """Return one row per paired test: `tests.parquet`."""
        return self._table(TESTS)

    @property
    def images(self) -> "pd.DataFrame":
        """Return one row per replicate x test split x image x class, with a column for each metric.

        Columns: `study`, the factors, `labelled_fraction`, `labelled_images`, `fold`, `seed`, `digest`, `split`,
        `image`, `patient`, `class`, then the metrics, NaN where undefined. A volume is one image. The classes
        `macro` and `weighted` are means over the classes of an image.
        """
        from study.analysis.image_scores import image_scores

        if "images" not in self._frames:
            refuse_imported(self._store, self.name)
            self._frames["images"] = image_scores(self._store, self.name, self._spec)
        return self._frames["images"].copy()

    def table(
        self, *, metric: str | None = None, class_: str = "macro", aggregation: str | None = None,
        split: str | None = None, stage: str | None = None, rows: Sequence[str] | None = None,
        columns: str | None = None, published: bool = False, hours: bool = False, search: bool = False,
    ) -> "pd.DataFrame":  # fmt: skip
        """Return the rows of `study table NAME --format csv`, one per cell and metric.

        Args:
            metric: A metric such as `dice`; default: mean IoU (pooled) and Dice (per case).
            class_: A class, `macro` or `weighted`.
            aggregation: `dataset` or `case`; default: that of the metric.
            split: `test`, `validation` or a variant of these; default: `test`.
            stage: A localisation stage, whose scores are returned instead.
            rows: Factors of the rows; default: those that vary.
            columns: The factor of the columns.
            published: Whether results that papers report are added.
            hours: Whether the arms at equal hours of annotation are returned instead.
            search: Whether the trials of the search are returned instead.

        Raises:
            ConfigError: The study has no such numbers, or options exclude each other.
        """
        import pandas as pd

        from results.tables.render import records_of
        from study.analysis.shown_table import TableOptions, check_options, read_table

        if isinstance(rows, str):
            raise _argument_error(f"rows is {rows!r}; allowed: a list of factors; write [{rows!r}]")
        options = TableOptions(
            metric=metric, class_=class_, aggregation=aggregation, split=split, stage=stage, rows=rows,
            columns=columns, published=published, hours=hours, search=search,
        )  # fmt: skip
        if search:
            from study.search.table import flat_rows, search_rows

            check_options(self._folder, options)
            if options != TableOptions(search=True):
                raise _argument_error("search has other options; allowed: search alone; leave the others out")
            return pd.DataFrame(flat_rows(search_rows(self._folder)))
        frame = pd.DataFrame(records_of(read_table(self._folder, options)))
        missing = [name for name in frame if frame[name].isna().all()]  # numbers that no cell has
        return frame.astype(dict.fromkeys(missing, "float64"))

    def splits(self) -> "pd.DataFrame":
        """Return how the images of the target are used: one row per image x fold x seed x amount of labelled data.

        Columns: `image`, `patient`, `fold`, `seed`, `labelled_fraction` or `labelled_images`, and `role`: `labelled`
        (trained on with masks), `validation`, `unlabelled` (masks hidden or missing) or `test`.

        Raises:
            ConfigError: The data cannot be read, or have changed since the study ran.
        """
        from study.api.splits import split_rows

        return split_rows(self._planned)

    def history(self) -> "pd.DataFrame":
        """Return one row per finished stage and epoch: `digest`, `stage`, `epoch`, losses and validation scores."""
        from study.analysis.image_scores import stage_histories

        refuse_imported(self._store, self.name)
        return stage_histories(self._store, self.name)

    @overload
    def predict(  # type: ignore[overload-overlap]  # a text is a path, not a sequence of texts
        self, images: "NDArray[Any] | str | Path", *, arm: Mapping[str, object] | None = None, fold: int | None = None,
        seed: int | None = None, threshold: float | None = None, tile: int | str | None = None, tta: bool = True,
        postprocess: bool = True, ensemble: bool = False, spacing: Sequence[float] = (),
    ) -> "Prediction": ...  # fmt: skip
    @overload
    def predict(
        self, images: "Sequence[NDArray[Any] | str | Path]", *, arm: Mapping[str, object] | None = None,
        fold: int | None = None, seed: int | None = None, threshold: float | None = None,
        tile: int | str | None = None, tta: bool = True, postprocess: bool = True, ensemble: bool = False,
        spacing: Sequence[float] = (),
    ) -> "list[Prediction]": ...  # fmt: skip
    def predict(
        self, images: object, *,
        arm: Mapping[str, object] | None = None, fold: int | None = None, seed: int | None = None,
        threshold: float | None = None, tile: int | str | None = None, tta: bool = True, postprocess: bool = True,
        ensemble: bool = False, spacing: Sequence[float] = (),
    ) -> "Prediction | list[Prediction]":  # fmt: skip
        """Predict images at their own size by the mean probability of an arm's networks, as `study predict` does.

        Images of the study's own data are recognised by the content of their file and predicted by the networks that
        neither trained nor validated on them; arrays are taken as new images. A warning says if they cannot be
        recognised, such as without the data of the study. The networks are kept for the next call, until `refresh`.

        Args:
            images: An array (H, W) or (H, W, C), the path of a file, or a list of arrays, files and folders. Arrays of
                uint8 are taken as they are; other types are scaled from their range to 8 bits, as files are. Images of
                Pillow and tensors on the CPU are taken as arrays.
            arm: Values of factors, such as `{"pathway": "none"}`; of the arms with these values the best one is taken.
            fold: Only networks of this fold.
            seed: Only networks of this seed.
            threshold: Probability threshold in 0..1; default: that of the study.
            tile: Side of overlapping tiles in pixels, or "auto"; default: no tiles.
            tta: Whether the test-time augmentation of the study's scores is used.
            postprocess: Whether masks are post-processed as for the scores of the study.
            ensemble: Whether all networks predict the study's own images too.
            spacing: Height and width of a pixel of an array in mm, if the study sets `image.spacing`.

        Returns:
            The prediction of an image, or a list of those of all images.

        Raises:
            ConfigError: No networks with weights match, or an image cannot be read or does not fit them.
        """
        from study.api.images import checked_images, predict_images
        from study.inference.networks import NetworkOptions

        options = NetworkOptions(
            cache=self._cache, threshold=threshold, tile=None if tile is None else str(tile), postprocess=postprocess,
            tta=tta, ensemble=ensemble,
        )  # fmt: skip
        _check_threshold(threshold)
        listed, single = checked_images(images)
        networks, cautions = self._networks(self._choose(arm, fold, seed), options)
        for caution in cautions:
            warnings.warn(caution, stacklevel=2)
        predictions = list(predict_images(networks, listed, single=single, spacing=spacing))
        return predictions[0] if single else predictions

    def model(
        self, *, arm: Mapping[str, object] | None = None, fold: int | None = None, seed: int | None = None
    ) -> "SegmentationModule":
        """Return a trained network as a `torch.nn.Module` in evaluation mode, on the CPU.

        Of several networks it is the one with the best validation score. `module.prepare(image)` returns the input of
        an image, `module(input)` its probabilities.

        Args:
            arm: Values of factors, as for `predict`.
            fold: Only networks of this fold.
            seed: Only networks of this seed.

        Raises:
            ConfigError: No network with weights matches.
        """
        from study.inference.export import best_stage, metadata
        from study.inference.module import SegmentationModule
        from study.inference.scored_evaluation import ScoredEvaluation
        from study.training.load_model import open_model

        choice = self._choose(arm, fold, seed)
        best = open_model(self._store, best_stage(self._store, choice.digests))
        facts = metadata([best], choice, ScoredEvaluation.read(self._store, choice))
        return SegmentationModule(best, threshold=choice.threshold(best.record), metadata=facts).eval()

    def report(self, path: Place | None = None, *, images: bool = True) -> Path:
        """Write all results to one HTML file and return its path.

        Args:
            path: The file; default: `report/report.html` in the folder of the study.
            images: Whether test images are shown.

        Raises:
            ConfigError: The file cannot be written, or the data of the study are damaged.
        """
        from study.report.page import ReportOptions, write_report
        from study.store.atomic import writing_problem

        output = Path(path) if path is not None else self._folder / "report" / "report.html"
        problem = f"{output} is a folder; allowed: a file" if output.is_dir() else writing_problem(output.parent)
        if problem:
            raise ConfigError([Problem(path="", message=problem)], self.name)
        with self._store.uploading(self.name):
            options = ReportOptions(images=images)
            return write_report(self._storage, self.name, cache=self._cache, output=output, options=options)

    @cached_property
    def figures(self) -> "Mapping[str, Figure]":
        """Return the figures of the report by name, such as `learning_curve_dice`.

        The tables of a study that was not finished are derived again for this, as by `report`.

        Raises:
            ConfigError: The results were imported, so that there is nothing to draw.
        """
        from study.report.study_figures import study_figures

        with self._store.uploading(self.name):
            return study_figures(self._storage, self.name, cache=self._cache)

    def __repr__(self) -> str:
        return f"Study({self._store.place!r}, {self.name!r})"

    def _repr_html_(self) -> str:
        from study.api.display import study_html

        return study_html(lambda: self.status, self._folder)

    @cached_property
    def _store(self) -> Store:
        return Store(self._storage)

    @property
    def _is_imported(self) -> bool:
        return (self._folder / IMPORTED).is_file()

    @cached_property
    def _spec(self) -> "StudySpec":
        from study.config.validation import parse

        spec, problems = parse(read_document(self._folder / SPEC))
        if spec is None:
            raise ConfigError(problems, str(self._folder / SPEC))
        return spec

    @cached_property
    def _planned(self) -> "Plan":
        from study.search.load import stored_plan

        refuse_imported(self._store, self.name)
        plan, reason = stored_plan(self._store, self.name, self._cache)
        if plan is None:
            message = f"its data cannot be read as it ran: {reason}; allowed: the data as they were; restore them"
            raise ConfigError([Problem(path="", message=message)], self.name)
        return plan

    def _table(self, file: str) -> "pd.DataFrame":
        import pyarrow.parquet as pq

        from study.analysis.derived_cache import study_table

        if not (self._folder / file).is_file():
            message = "has no results yet; allowed: a study that has run; run it first"
            raise ConfigError([Problem(path="", message=message)], self.name)
        if file not in self._frames:
            self._frames[file] = pq.read_table(study_table(self._folder, file)).to_pandas()
        return self._frames[file].copy()

    def _choose(self, arm: Mapping[str, object] | None, fold: int | None, seed: int | None) -> "Choice":
        from study.inference.select import choose

        if arm is not None and not isinstance(arm, Mapping):
            raise _argument_error(f'arm is {arm!r}; allowed: a mapping of factors to values; write {{"FACTOR": VALUE}}')
        for argument, value in (("fold", fold), ("seed", seed)):
            if value is not None and not isinstance(value, Integral):
                raise _argument_error(f"{argument} is {value!r}; allowed: a whole number; pass a number")
        texts = [f"{factor}={value}" for factor, value in (arm or {}).items()]
        return choose(self._store, self.name, arm=texts, fold=fold, seed=seed)

    def _networks(self, choice: "Choice", options: "NetworkOptions") -> "tuple[CellNetworks, list[str]]":
        """Return the networks, the last ones again if they are the same, and cautions about their use."""
        from study.inference.networks import open_networks

        if self._opened is None or self._opened[:2] != (choice, options):
            self._opened = None  # frees their memory first
            cautions: list[str] = []
            self._opened = (choice, options, open_networks(choice, self._store, options, cautions.append), cautions)
        return self._opened[2], self._opened[3]


def _cache_folder(cache: Place | None) -> Path:
    if cache is not None:
        _check_place(cache, "cache")
    return cache_of(None if cache is None else Path(cache)).absolute()


def _check_place(place: object, argument: str) -> None:
    if not isinstance(place, str | Path) or "\0" in str(place):
        raise _argument_error(f"{argument} is {place!r}; allowed: a folder; pass its path")


def _read(file: File, overrides: Overrides | None) -> tuple[Document, str]:
    """Return a study file with other values, and its name for messages."""
    if overrides is not None and not (
        isinstance(overrides, Mapping) and all(isinstance(key, str) for key in overrides)
    ):
        allowed = 'allowed: a mapping of dotted paths to values; write {"compare.folds": 3}'
        raise _argument_error(f"overrides is {overrides!r}; {allowed}")
    if not isinstance(file, Mapping | str | Path):
        raise _argument_error(f"a study file is a {type(file).__name__}; allowed: a path or a mapping; pass one")
    if isinstance(file, Mapping):
        return document_of(file, overrides or {}, file=NAME_OF_MAPPING), NAME_OF_MAPPING
    return document_of(read_document(Path(file)), overrides or {}, file=str(file)), str(file)


def _check_threshold(threshold: float | None) -> None:
    if threshold is not None and not (isinstance(threshold, Real) and 0.0 <= threshold <= 1.0):
        raise _argument_error(f"threshold is {threshold!r}; allowed: 0 to 1; change it")


def _argument_error(message: str) -> ConfigError:
    return ConfigError([Problem(path="", message=message)], "Study")
