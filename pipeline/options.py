"""The options of `avfuse extract`: their types, defaults and help."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from ..batch.options import batch_options
from ..encoders.table import DEFAULT_FEATURES, FEATURES, Precision, VggishOutput
from ..features_store.clock import AudioAlign, MissingFace
from ..shell.options import (
    FOLDER,
    STORE,
    Command,
    MergedOption,
    Number,
    config_option,
    expand_home,
    key_and_value,
    trial_options,
    with_options,
)
from .config import ExtractConfig, FacePolicy


class FeatureList(click.ParamType[tuple[str, ...]]):
    """Feature names separated by commas."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split and check the names."""
        names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)
        unknown = [name for name in names if name not in FEATURES]
        if unknown:
            self.fail(f"{', '.join(unknown)}: no such feature; there are {', '.join(FEATURES)}", param, ctx)
        return names


class WeightsOption(click.ParamType[tuple[str, Path]]):
    """NAME=FILE."""

    name = "NAME=FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        """Split at the first equals sign."""
        if isinstance(value, tuple):
            return value
        try:
            name, file = key_and_value(value, self.name)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return name, Path(expand_home(file, self, param, ctx))


# Headings of `avfuse extract --help`. Tested by tests/test_cli.py: every option is under one of them.
GROUPS = {
    "Input and store": ("videos", "store", "annotations", "aligned", "video-stream", "audio-stream"),
    "Features": ("features", "vggish-output", "audio-align"),
    "Faces": ("face", "detect-every", "missing-face"),
    "Weights and networks": ("weights", "untrained", "device", "precision", "batch-size"),
    "Which videos": ("trials", "trials-from", "limit", "replace", "overwrite", "retry-failed", "dry-run"),
    "Where and how": (
        "workers",
        "scheduler",
        "jobqueue",
        "shard",
        "videos-at-once",
        "retries",
        "timeout-factor",
        "stall-timeout",
    ),
    "Settings file and output": ("config", "json", "verbose", "help"),
}

_OPTIONS = (
    click.option("--videos", type=FOLDER, required=True, help="Folder of videos; sub-folders are searched too."),
    click.option(
        "--store",
        type=STORE,
        help="Store to write: a folder or zarr store URL. [default: features.zarr beside --videos]",
    ),
    click.option(
        "--annotations",
        type=FOLDER,
        help="Folder of Aff-Wild2 annotations: trial names and lengths. [default: none]",
    ),
    click.option(
        "--aligned",
        type=FOLDER,
        help="Organiser's cropped_aligned folder, used in place of detection. [default: detect faces]",
    ),
    click.option(
        "--features",
        type=FeatureList(),
        default=",".join(DEFAULT_FEATURES),
        show_default=True,
        help=f"Features, separated by commas, of {', '.join(FEATURES)}.",
    ),
    click.option(
        "--weights",
        cls=MergedOption,
        type=WeightsOption(),
        multiple=True,
        help="Weight file of a feature (repeatable). [default: $AVFUSE_WEIGHTS, then the cache]",
    ),
    click.option(
        "--untrained",
        type=click.IntRange(min=0),
        metavar="SEED",
        help="Seeded random weights for every network without --weights: for tests and demos only. [default: off]",
    ),
    click.option("--device", metavar="DEVICE", default="auto", show_default=True, help="auto, cpu or cuda[:N]."),
    click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="fp32",
        show_default=True,
        help="Number format of the networks.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        default=32,
        show_default=True,
        help="Faces or patches a network sees at once.",
    ),
    click.option(
        "--face",
        type=click.Choice(get_args(FacePolicy)),
        default="largest",
        show_default=True,
        help="Whom to follow; `all` makes one trial a person, TRIAL/face0, TRIAL/face1, ….",
    ),
    click.option(
        "--detect-every",
        type=click.IntRange(min=1),
        default=ExtractConfig.detect_every,
        show_default=True,
        metavar="N",
        help="Search the whole picture for faces every N frames at least, every second, and when a face is lost; "
        "between, only about the followed faces. 1: every frame.",
    ),
    click.option(
        "--missing-face",
        type=click.Choice(get_args(MissingFace)),
        default="repeat",
        show_default=True,
        help="Row of a frame without a face: the last one, or zeros. Always flagged invalid.",
    ),
    click.option(
        "--audio-align",
        type=click.Choice(get_args(AudioAlign)),
        default="start",
        show_default=True,
        help="Where the 0.96 s audio patch lies about the frame: [t, t+0.96), centred, or [t-0.96, t).",
    ),
    click.option(
        "--vggish-output",
        type=click.Choice(get_args(VggishOutput)),
        default="raw",
        show_default=True,
        help="VGGish embedding before its last ReLU, after it, or PCA-processed.",
    ),
    click.option(
        "--video-stream",
        type=click.IntRange(min=0),
        metavar="N",
        help="Picture of every video: the N-th video stream from 0 on, as ffmpeg's v:N. [default: the default one, "
        "no still image]",
    ),
    click.option(
        "--audio-stream",
        type=click.IntRange(min=0),
        metavar="N",
        help="Sound of every video: the N-th audio stream from 0 on, as ffmpeg's a:N. [default: the default one of the "
        "picture's programme, no commentary]",
    ),
    *batch_options("videos"),
    click.option(
        "--videos-at-once",
        type=click.IntRange(min=1),
        metavar="N",
        help="Videos processed at once, in each process. [default: 1, on a GPU 4]",
    ),
    click.option(
        "--timeout-factor",
        type=Number(min=0, min_open=True),
        metavar="X",
        default=100.0,
        show_default=True,
        help="Give a video up that takes more than 120 s and this many times its duration.",
    ),
    click.option(
        "--stall-timeout",
        type=Number(min=1),
        metavar="S",
        default=60.0,
        show_default=True,
        help="Give a video up when ffmpeg delivers nothing for this long, in s.",
    ),
    *trial_options("extract"),
    click.option(
        "--replace",
        is_flag=True,
        help="Make done trials of other settings, weights, features or lengths anew; without it a run that would do so "
        "does not start. [default: off]",
    ),
    click.option("--overwrite", is_flag=True, help="Extract all again, also what is done. [default: off]"),
    click.option("--retry-failed", is_flag=True, help="Try videos again that failed before. [default: off]"),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Do at most N videos. [default: all]"),
    click.option("--dry-run", is_flag=True, help="Say what would be done, and stop. [default: off]"),
    click.option("--json", "as_json", is_flag=True, help="Machine-readable summary on stdout. [default: off]"),
    click.option("--verbose", is_flag=True, help="A line for every video. [default: off]"),
    config_option,
)


def extract_options(command: Command) -> Command:
    """Give a command the options of `extract`, in the table's order."""
    return with_options(command, _OPTIONS)
