"""The options of `avfuse extract`: their types, defaults and help, and the request that they make."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from ..batch.options import batch_options
from ..encoders.contract import Precision
from ..encoders.plugins import encoder_file, use_files
from ..encoders.table import DEFAULT_FEATURES, FEATURES, VggishOutput, feature
from ..features_store.schema import AudioAlign, MissingFace
from ..shell.options import (
    FOLDER,
    STORE,
    Number,
    config_option,
    device_option,
    encoder_option,
    trial_options,
    untrained_option,
    weights_option,
    with_options,
)
from .config import Denoise, ExtractConfig, FacePolicy, RunConfig


@dataclass(frozen=True)
class ExtractRequest:
    """What `avfuse extract` is asked to do: its options by their names, None where the help gives the default."""

    videos: Path
    store: str | None
    annotations: Path | None
    aligned: Path | None
    audio: Path | None
    words: Path | None
    video_stream: int | None
    audio_stream: int | None

    features: tuple[str, ...]
    encoder: tuple[tuple[str, Path], ...]
    layers: str
    vggish_output: VggishOutput
    audio_align: AudioAlign
    denoise: Denoise | None
    face: FacePolicy
    detect_every: int
    missing_face: MissingFace

    weights: tuple[tuple[str, Path], ...]
    untrained: int | None
    device: str
    precision: Precision
    batch_size: int

    trials: str | None
    trials_from: Path | None
    limit: int | None
    replace: bool
    overwrite: bool
    retry_failed: bool
    dry_run: bool

    workers: int
    scheduler: str | None
    jobqueue: tuple[str, ...]
    shard: tuple[int, int]
    videos_at_once: int | None
    retries: int
    timeout_factor: float
    stall_timeout: float

    as_json: bool
    verbose: bool

    def config(self) -> ExtractConfig:
        """What changes the numbers; this process knows the user's encoders from now on.

        Raises ValueError on settings that are not possible, click.BadParameter for a feature that there is not.
        """
        encoders = tuple(encoder_file(name, path) for name, path in dict(self.encoder).items())
        use_files(encoders)
        for name in self.features:
            try:
                feature(name)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint="'--features'") from error
        return ExtractConfig(
            features=self.features,
            face=self.face,
            detect_every=self.detect_every,
            missing_face=self.missing_face,
            audio_align=self.audio_align,
            vggish_output=self.vggish_output,
            precision=self.precision,
            aligned=self.aligned is not None,
            video_stream=self.video_stream,
            audio_stream=self.audio_stream,
            denoise=self.denoise,
            audio_file=self.audio is not None,
            layers=self.layers,
            encoders=encoders,
        )

    def run_config(self) -> RunConfig:
        """How to run."""
        return RunConfig(
            device=self.device,
            batch_size=self.batch_size,
            stall_timeout_s=self.stall_timeout,
            videos_at_once=self.videos_at_once or 0,
            timeout_factor=self.timeout_factor,
        )


class FeatureList(click.ParamType[tuple[str, ...]]):
    """Feature names separated by commas."""

    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split; whether there are such features is seen once --encoder is read."""
        return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)


# Headings of `avfuse extract --help`. Tested by tests/test_cli.py: every option is under one of them.
GROUPS = {
    "Input and store": ("videos", "store", "annotations", "aligned", "audio", "words", "video-stream", "audio-stream"),
    "Features": ("features", "encoder", "layers", "vggish-output", "audio-align", "denoise"),
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

precision_option = click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    default="fp32",
    show_default=True,
    help="Number format of the networks.",
)
batch_size_option = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    metavar="N",
    default=RunConfig.batch_size,
    show_default=True,
    help="Faces or patches that a network processes at once.",
)
# Of transcribe too.
videos_option = click.option(
    "--videos", type=FOLDER, required=True, help="Folder of videos; subfolders are searched too."
)
audio_stream_option = click.option(
    "--audio-stream",
    type=click.IntRange(min=0),
    metavar="N",
    help="Take the sound of every video from its audio stream N, counted from 0 like ffmpeg's a:N. [default: the "
    "default one of the picture's programme, never a commentary]",
)
stall_timeout_option = click.option(
    "--stall-timeout",
    type=Number(min=1),
    metavar="S",
    default=60.0,
    show_default=True,
    help="Give up on a video when ffmpeg delivers nothing for S seconds.",
)
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Process at most N videos. [default: all]"
)
run_output_options = (
    click.option("--dry-run", is_flag=True, help="Show what would be done, and stop. [default: off]"),
    click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary. [default: off]"),
    click.option("--verbose", is_flag=True, help="Print a line for every video. [default: off]"),
)
_OPTIONS = (
    videos_option,
    click.option(
        "--store",
        type=STORE,
        help="Store to write: a folder or zarr store URL. [default: features.zarr beside --videos]",
    ),
    click.option(
        "--annotations",
        type=FOLDER,
        help="Folder of labels, in any form that `train` takes: they give trial names and, with one row per frame, "
        "lengths. [default: none]",
    ),
    click.option(
        "--aligned",
        type=FOLDER,
        help="The organisers' cropped_aligned folder, used instead of face detection. [default: detect faces]",
    ),
    click.option(
        "--audio",
        type=FOLDER,
        help="Folder of TRIAL.wav or TRIAL.flac, one for every trial, used instead of the videos' own sound: separated "
        "speakers, for example. A file begins where the video's sound does. [default: the videos' own sound]",
    ),
    click.option(
        "--words",
        type=FOLDER,
        help="Folder of words with times for features made from them: TRIAL.csv with word,start_s,end_s, as `avfuse "
        "transcribe` writes it. [default: none]",
    ),
    click.option(
        "--features",
        type=FeatureList(),
        default=",".join(DEFAULT_FEATURES),
        show_default=True,
        help=f"Features, separated by commas: any of {', '.join(FEATURES)}; timm:NAME, hear:MODULE, what installed "
        "packages bring, and your own by --encoder (`avfuse encoder list`).",
    ),
    encoder_option,
    click.option(
        "--layers",
        metavar="LAYERS",
        default=ExtractConfig.layers,
        show_default=True,
        help="Layers of encoders of sound that a row is made of: last4 (their sum), last, one by its number, or the "
        "mean of A-B.",
    ),
    weights_option("Weights of a feature (repeatable): a file, or a folder with config.json and model.safetensors."),
    untrained_option("tests and demos only. [default: off]"),
    device_option,
    precision_option,
    batch_size_option,
    click.option(
        "--face",
        type=click.Choice(get_args(FacePolicy)),
        default="largest",
        show_default=True,
        help="Whom to follow; `all` makes one trial per person: TRIAL/face0, TRIAL/face1, ….",
    ),
    click.option(
        "--detect-every",
        type=click.IntRange(min=1),
        default=ExtractConfig.detect_every,
        show_default=True,
        metavar="N",
        help="Search the whole picture for faces at least every N frames, every second, and when a face is lost; in "
        "between, only around the followed faces. 1: in every frame.",
    ),
    click.option(
        "--missing-face",
        type=click.Choice(get_args(MissingFace)),
        default="repeat",
        show_default=True,
        help="Row of a frame without a face: the last one again, or zeros. It is always marked invalid.",
    ),
    click.option(
        "--audio-align",
        type=click.Choice(get_args(AudioAlign)),
        default="start",
        show_default=True,
        help="Position of the 0.96 s audio patch of a frame at t: [t, t+0.96), centred, or [t-0.96, t).",
    ),
    click.option(
        "--denoise",
        type=click.Choice(get_args(Denoise)),
        help="Clean the sound before every audio feature: `dfn3` is DeepFilterNet3. [default: off]",
    ),
    click.option(
        "--vggish-output",
        type=click.Choice(get_args(VggishOutput)),
        default="raw",
        show_default=True,
        help="VGGish embedding before its last ReLU, after it, or after PCA.",
    ),
    click.option(
        "--video-stream",
        type=click.IntRange(min=0),
        metavar="N",
        help="Take the picture of every video from its video stream N, counted from 0 like ffmpeg's v:N. [default: the "
        "default one, never a still image]",
    ),
    audio_stream_option,
    *batch_options("videos"),
    click.option(
        "--videos-at-once",
        type=click.IntRange(min=1),
        metavar="N",
        help="Videos that each process works on at once. [default: 1, on a GPU 4]",
    ),
    click.option(
        "--timeout-factor",
        type=Number(min=0, min_open=True),
        metavar="X",
        default=100.0,
        show_default=True,
        help="Give up on a video after 120 s plus X times its duration.",
    ),
    stall_timeout_option,
    *trial_options("extract"),
    click.option(
        "--replace",
        is_flag=True,
        help="Make finished trials again whose settings, weights, features or lengths differ; without it, a run that "
        "would do so does not start. [default: off]",
    ),
    click.option("--overwrite", is_flag=True, help="Extract everything again, including what is done. [default: off]"),
    click.option("--retry-failed", is_flag=True, help="Try again the videos that failed before. [default: off]"),
    limit_option,
    *run_output_options,
    config_option,
)
extract_options = partial(with_options, options=_OPTIONS)
