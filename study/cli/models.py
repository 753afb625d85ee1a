"""Commands for trained networks: `study predict` and `study export`."""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.console import say
from study.cli.options import DEFAULT_STORAGE, Cache, Storage
from study.places import cache_of

StudyOrDigest = Annotated[
    str,
    typer.Argument(
        metavar="NAME|DIGEST",
        help="A study, whose arm with the best test mean IoU is used, or the digest of a stage.",
        show_default=False,
    ),
]
ArmOption = Annotated[
    list[str] | None,
    typer.Option("--arm", metavar="FACTOR=VALUE", help="Only arms with this value of a factor; may be repeated."),
]
Fold = Annotated[int | None, typer.Option(min=0, help="Only networks of this fold (default: all).")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Only networks of this seed (default: all).")]


def predict(  # noqa: PLR0917 - options are given by name
    name: StudyOrDigest,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM files, or folders of them."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the predicted masks.")],
    arm: ArmOption = None,
    fold: Fold = None,
    seed: SeedOption = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Threshold of probabilities (default: that of the study).")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE|HEIGHTxWIDTH",
            help="Write masks of this size in pixels, as a study scores them at evaluate.size. The Dice of the study's "
            "own images stays that of the mask at the image's own size.",
        ),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS|auto",
            help="Cut images into overlapping square tiles with this side. For images that are much larger than the "
            "training images at the same scale: give the side of the training images. auto: use that side, and "
            "cut only images that are more than twice as large.",
        ),
    ] = None,
    postprocess: Annotated[
        bool,
        typer.Option("--postprocess/--no-postprocess", help="Post-process masks as for the scores of the study."),
    ] = True,
    tta: Annotated[
        bool, typer.Option("--tta/--no-tta", help="Use the test-time augmentation of the scores of the study.")
    ] = True,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble",
            help="Predict the study's own images by all networks too, those that trained on them included; no Dice is "
            "stated then.",
        ),
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write each image with the outlines of its masks.")
    ] = False,
    probabilities: Annotated[
        str | None,
        typer.Option(metavar="float16|float32", help="Also write probabilities as npz, with channel names."),
    ] = None,
    cache: Cache = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Predict masks by the mean probability of an arm's networks over folds and seeds.

    An image of the study's own data is predicted out of fold, by the networks that neither trained nor validated on
    it, and the Dice of its mask is stated, as scored and at the image's own size. Without such networks its mask is
    that of all networks, without Dice.

    Masks have the image's own size: class ids if classes exclude each other (0 is the background), else a file of 0
    and 255 for each class.
    """
    from study.inference.outputs import Precision
    from study.inference.predict import PredictionOptions, parse_size, predict
    from study.inference.select import choose
    from study.store.store import Store

    if probabilities is not None and probabilities not in list(Precision):
        raise typer.BadParameter(f"is {probabilities}; allowed: float16, float32", param_hint="--probabilities")
    options = PredictionOptions(
        output=output, size=None if size is None else parse_size(size), tile=tile, threshold=threshold,
        postprocess=postprocess, tta=tta,
        ensemble=ensemble, overlay=overlay,
        probabilities=Precision(probabilities) if probabilities else None, cache=cache_of(cache),
    )  # fmt: skip
    store = Store(storage)
    choice = choose(store, name, arm=arm or (), fold=fold, seed=seed)
    if not predict(choice, store, images, options, say):
        raise typer.Exit(1)


def export(  # noqa: PLR0917 - options are given by name
    name: StudyOrDigest,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE|FOLDER", help="File or folder to write.")],
    images: Annotated[
        list[Path] | None, typer.Option("--images", help="Files or folders to check ONNX on (default: the study's).")
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Export the average of all networks of the cell (ONNX).")
    ] = False,
    arm: ArmOption = None,
    fold: Fold = None,
    seed: SeedOption = None,
    cache: Cache = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Export a network for other programs: .onnx, .safetensors, or a folder for segmentation-models-pytorch.

    Of several networks of a cell it is the one with the best validation score. ONNX takes images of 0 to 1 at the
    training size and returns probabilities; it is checked against torch on real images. A folder holds a model card.
    """
    from study.inference.export import export
    from study.inference.select import choose
    from study.store.store import Store

    store = Store(storage)
    choice = choose(store, name, arm=arm or (), fold=fold, seed=seed)
    for line in export(choice, store, output, images=images or (), ensemble=ensemble, cache=cache_of(cache)):
        say(line)
