"""Options of the commands that train or use networks, `avfuse train` to `predict`, and the request made of them.

Tested by tests/fusion/test_commands.py, test_defaults.py and tests/fusion/inference/test_evaluate.py.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from ..batch.options import batch_options
from ..encoders.contract import Precision
from ..shell.options import (
    FILE,
    FOLDER,
    NAME_LIST,
    MergedOption,
    Number,
    config_option,
    device_option,
    smooth_option,
    store_option,
    store_or_default,
    untrained_option,
    weights_option,
    with_options,
)
from ..shell.text import key_and_value
from .config import (
    AUDIO_NETWORKS,
    VISUAL_NETWORKS,
    Figures,
    FinetuneConfig,
    RunConfig,
)
from .folds.options import FOLD_OPTIONS, annotations_or_remembered, manifest_option
from .models.table import HEADS
from .requests import CompareRequest, FinetuneRequest, PicturesRequest, TrainRequest
from .tasks.table import TASKS


class Setting(click.ParamType[tuple[str, str]]):
    """KEY=VALUE."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split at the first equals sign."""
        if isinstance(value, tuple):
            return value
        try:
            key, text = key_and_value(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return key.replace("-", "_"), text


class FoldChoice(click.ParamType[int | None]):
    """A fold's number, or `all` (None)."""

    name = "K|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """A number from 0 on, or None for `all`."""
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        if value == "all":
            return None
        if not str(value).isdecimal():
            self.fail(f"{value!r} is neither a fold's number nor all", param, ctx)
        return int(value)


class FoldOption(click.Option):
    """An option that must be given, unless the network is only described, or learns from pictures."""

    def value_is_missing(self, value: Any) -> bool:
        """Whether to complain: --describe and --images, which are read first, need no fold."""
        given = click.get_current_context().params
        return super().value_is_missing(value) and not (given.get("describe") or given.get("images"))


length_option = click.option(
    "--allow-length-difference",
    is_flag=True,
    help="Go on if label rows and frames differ by more than 5 and more than 1 %: features are cut, or the last "
    "row is repeated. [default: refuse]",
)
figures_option = click.option(
    "--figures",
    type=click.Choice(get_args(Figures)),
    default="png",
    show_default=True,
    help="Format of the pictures; pdf and svg are sharp at any size: docs/figures.md.",
)
RUNS = "runs"  # where runs lie unless --out says otherwise

# Headings of `avfuse train --help`. Tested by tests/test_cli.py: every option is under one of them.
GROUPS = {
    "Input and output": ("store", "annotations", "extra-annotations", "out"),
    "Folds": ("fold", "folds", "group", "groups", "manifest"),
    "What to train": ("preset", "task", "modalities", "set", "epochs", "seed", "seeds", "describe"),
    "How to run": ("device", "precision", "memory-gb", "compile", "resume", "replace"),
    "What to let pass": ("allow-length-difference", "allow-other-features"),
    "Where to run": ("workers", "scheduler", "jobqueue", "shard", "retries"),
    "Settings file and reports": ("config", "json", "tensorboard", "plots", "figures", "help"),
}


def _in_place_of_training(own: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """GROUPS, with the headings of another command where "What to train" stands."""
    headings: dict[str, tuple[str, ...]] = {}
    for heading, options in GROUPS.items():
        headings |= own if heading == "What to train" else {heading: options}
    return headings


COMPARED = ("presets", "modalities", "grid", "protocol", "task", "set", "epochs", "seed", "seeds")
COMPARE_GROUPS = _in_place_of_training({"What to compare": COMPARED})

FINETUNED = (
    "preset",
    "task",
    "visual",
    "audio",
    "modalities",
    "weights",
    "untrained",
    "set",
    "epochs",
    "seed",
    "seeds",
)
FINETUNE_GROUPS = {
    **_in_place_of_training({"What to tune": FINETUNED, "On pictures": ("images", "csv")}),
    "How to run": (*GROUPS["How to run"], "micro-batch"),
}

_RUN_OPTIONS = (
    device_option,
    click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="fp32",
        show_default=True,
        help="Number format of the network's products.",
    ),
    click.option(
        "--memory-gb",
        type=Number(min=0),
        metavar="GB",
        help="Memory that features may take, on the device and outside it, in GB; beyond that they are streamed from "
        "the store. [default: half of what is free]",
    ),
    click.option(
        "--allow-other-features",
        is_flag=True,
        help="Go on although features come from other settings or weights. [default: refuse]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout. [default: off]"),
    config_option,
)
_PRESET_OPTIONS = (
    click.option(
        "--preset",
        type=click.Choice(list(HEADS)),
        default="crossattn",
        show_default=True,
        help="System to train: see docs/training.md.",
    ),
    click.option(
        "--modalities",
        type=NAME_LIST,
        help="Features, separated by commas; the first one leads: it is the query. "
        "[default: iresnet50,vggish,logmel_vgg, or the preset's]",
    ),
    click.option(
        "--out",
        type=FOLDER,
        help="Folder of the run; with several runs, of all of them. [default: runs/PRESET in the working folder]",
    ),
)
_FINETUNE_OPTIONS = (
    click.option(
        "--images",
        type=FOLDER,
        is_eager=True,
        help="Folder of pictures of faces: the network of the face alone is tuned, on them in place of a store. "
        "[default: none]",
    ),
    click.option(
        "--csv",
        "table",
        type=FILE,
        help="Table of the pictures of --images: path,label or path,valence,arousal or path,p_0,p_1,… (soft labels), "
        "perhaps with split (train or validation). [default: none]",
    ),
    click.option(
        "--preset",
        type=click.Choice(list(HEADS)),
        default="crossattn",
        show_default=True,
        help="System whose head is trained with the networks: see docs/training.md.",
    ),
    click.option(
        "--visual",
        metavar="NAME",
        default=FinetuneConfig.visual,
        show_default=True,
        help=f"Network of the face: {', '.join(VISUAL_NETWORKS)}, timm:NAME or none. It is fed the crops of the store: "
        "crop48, or crop112 (`extract --features crop48,logmel`).",
    ),
    click.option(
        "--audio",
        type=click.Choice([*AUDIO_NETWORKS, "none"]),
        default=FinetuneConfig.audio,
        show_default=True,
        help="Network of the sound, fed the log-mel patches of the store.",
    ),
    click.option(
        "--modalities",
        type=NAME_LIST,
        help="Stored features beside the tuned ones, separated by commas. The first one leads, a tuned one unless the "
        "list has those too. [default: none]",
    ),
    weights_option("Weights that a network begins from (repeatable): iresnet50=FILE, logmel_vgg=FILE, timm:NAME=DIR."),
    untrained_option("tests only. [default: off]"),
    click.option(
        "--micro-batch",
        type=click.IntRange(min=1),
        metavar="N",
        default=RunConfig.micro_batch_rows,
        show_default=True,
        help="Faces or patches that a network takes at once: what the memory of a step depends on.",
    ),
    click.option(
        "--out",
        type=FOLDER,
        help="Folder of the run; with several runs, of all of them. [default: runs/finetune in the working folder]",
    ),
)
_COMPARE_OPTIONS = (
    click.option(
        "--presets", type=NAME_LIST, help="Systems to compare, separated by commas. [default: those of the grid]"
    ),
    click.option(
        "--modalities",
        multiple=True,
        metavar="SETS",
        help="Features, separated by commas; for several sets repeat it, or put `;` between them (quoted in a shell): "
        "each preset is trained on each set. [default: the preset's, or the grid's]",
    ),
    click.option(
        "--grid",
        metavar="NAME|FILE",
        help="Cells to compare: s1-kernels, s2-table2, s4-table1, modalities, or a YAML file; docs/comparing.md. "
        "[default: each preset on each set]",
    ),
    click.option(
        "--protocol",
        type=click.Choice(["s4-window"]),
        help="Train each run once more, validated on windows that overlap its training windows as S4's do, for the "
        "leaky number beside the honest one. [default: none]",
    ),
    click.option(
        "--out",
        type=FOLDER,
        help="Folder of all runs, their table and chart. [default: runs/compare in the working folder]",
    ),
)
_TRAIN_OPTIONS = (
    click.option(
        "--fold",
        cls=FoldOption,
        type=FoldChoice(),
        required=True,
        metavar="K|all",
        help="Fold to validate on, or all of them.",
    ),
    store_option,
    click.option(
        "--extra-annotations",
        type=FOLDER,
        help="Folder of further labels, such as `pseudo-label` makes: their trials are trained on, and never validated "
        "on. [default: none]",
    ),
    manifest_option,
    click.option(
        "--task",
        type=click.Choice(list(TASKS)),
        help="What to learn: valence and arousal, or one of them; classes of expression; action units. "
        "[default: va, or the preset's]",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True, help="Seed of the (first) run."
    ),
    click.option(
        "--seeds",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Train N runs per fold, with the seeds --seed, --seed + 1, …",
    ),
    click.option(
        "--set",
        "settings",
        cls=MergedOption,
        type=Setting(),
        multiple=True,
        help="Any setting of the preset (repeatable): docs/training.md lists them. [default: the preset's]",
    ),
    click.option("--resume", is_flag=True, help="Go on with runs that have not ended. [default: refuse]"),
    length_option,
    click.option(
        "--replace",
        is_flag=True,
        help="Train again the runs in --out that have other settings, labels, trials or features. [default: refuse]",
    ),
    click.option("--compile", "compiled", is_flag=True, help="Compile the network with torch.compile. [default: off]"),
    click.option(
        "--tensorboard/--no-tensorboard",
        default=None,
        help="Write TensorBoard events into the run's folder. [default: if tensorboard is installed]",
    ),
    click.option("--plots/--no-plots", default=True, show_default=True, help="Draw curves and predictions."),
    figures_option,
    *batch_options("runs"),
)
describe_option = click.option(
    "--describe",
    is_flag=True,
    is_eager=True,
    help="Train nothing: print the network of these settings, what moves its outputs, and where each setting comes "
    "from. Needs neither labels nor a fold; widths are those of --store, else those of the table of features. "
    "[default: off]",
)
_EPOCHS_OPTION, _FINETUNE_EPOCHS_OPTION = (
    click.option("--epochs", type=click.IntRange(min=1), metavar="N", help=f"At most N epochs. [default: {default}]")
    for default in ("100", "100, with --images 60")
)
_RESULT_OPTIONS = (
    click.option(
        "--run",
        "runs",
        type=FOLDER,
        multiple=True,
        help="Folder of a run, or of several; repeatable: their predictions are averaged. [default: the run below "
        "runs that finished last, with the other folds and seeds of its call]",
    ),
    smooth_option,
)


def train_request(
    store: str | None, annotations: Path | None, out: Path | None, preset: str, **given: Any
) -> TrainRequest:
    """The request that `avfuse train` makes of its options; each default that it takes is a line on stderr.

    Raises ValueError, with what to type, where the default store is not here, or remembers no folder of labels.
    """
    return TrainRequest(**_places(store, annotations, out, preset), preset=preset, **given)


def compare_request(store: str | None, annotations: Path | None, out: Path | None, **given: Any) -> CompareRequest:
    """The request that `avfuse compare` makes of its options, as `train_request` does."""
    return CompareRequest(**_places(store, annotations, out, "compare"), **given)


def finetune_request(
    store: str | None, annotations: Path | None, out: Path | None, table: Path | None, **given: Any
) -> FinetuneRequest:
    """The request that `avfuse finetune` makes of its options, as `train_request` does.

    Raises click.UsageError also on --csv without --images.
    """
    if table is not None:
        raise click.UsageError("--csv is the table of --images DIR, the folder of its pictures")
    return FinetuneRequest(**_places(store, annotations, out, "finetune"), **given)


def pictures_request(images: Path, table: Path | None, out: Path | None, **given: Any) -> PicturesRequest:
    """The request that `avfuse finetune --images` makes of its options.

    Raises click.UsageError on options that do not go with --images, and without --csv.
    """
    own = {each.name for each in fields(PicturesRequest)}
    context = click.get_current_context()
    for each in context.command.params:
        is_given = context.get_parameter_source(each.name or "") == click.core.ParameterSource.COMMANDLINE
        if is_given and each.name not in own | {"config"}:
            raise click.UsageError(f"{each.opts[0]} does not go with --images")
    if table is None:
        raise click.UsageError("--images needs --csv FILE, the table of its pictures")
    others = {name: value for name, value in given.items() if name in own}
    return PicturesRequest(images=images, table=table, out=_out_or_default(out, "finetune"), **others)


def _places(store: str | None, annotations: Path | None, out: Path | None, name: str) -> dict[str, Any]:
    """Where a request reads and writes; `name`: of the folder below runs, unless `out` is given."""
    store = store_or_default(store)
    annotations = annotations_or_remembered(annotations, store)
    return {"store": store, "annotations": annotations, "out": _out_or_default(out, name)}


def _out_or_default(out: Path | None, name: str) -> Path:
    if out is not None:
        return out
    click.echo(f"note: --out {Path(RUNS, name)}", err=True)
    return Path(RUNS, name)


def request_to_describe(store: str | None, annotations: Path | None, out: Path | None, **given: Any) -> TrainRequest:
    """The request whose settings `avfuse train --describe` shows: what is not given stays empty, `store` is then ""."""
    return TrainRequest(store=store or "", annotations=annotations or Path(), out=out or Path(), **given)


_ALONE = (*FOLD_OPTIONS, *_PRESET_OPTIONS, *_TRAIN_OPTIONS, _EPOCHS_OPTION, describe_option, *_RUN_OPTIONS)
train_options = partial(with_options, options=_ALONE)
finetune_options = partial(
    with_options, options=(*FOLD_OPTIONS, *_FINETUNE_OPTIONS, *_TRAIN_OPTIONS, _FINETUNE_EPOCHS_OPTION, *_RUN_OPTIONS)
)
compare_options = partial(
    with_options, options=(*FOLD_OPTIONS, *_COMPARE_OPTIONS, *_TRAIN_OPTIONS, _EPOCHS_OPTION, *_RUN_OPTIONS)
)
result_options = partial(with_options, options=(*_RESULT_OPTIONS, *_RUN_OPTIONS))
