"""The table of features: what each is made from, what its rows are, and which settings change them. Torch-free.

    video ─ clock ─┬─ faces ─── crop ── iresnet50, iresnet50_map, crop112, crop48; clip_large, eva02_large … timm:NAME
                   ├─ (audio) ┬ patch ─ vggish, logmel_vgg, logmel
                   │          ├ samples ─ mfcc
                   │          └ states ── wavlm_large, whisper_large …  the means of an encoder's states in a frame
                   └─ (words) ─ words ─ bert

An addition is one entry of `TABLE`; a network's layouts are in `weights/read.py`, its files in `weights/registry.py`.
An entry with `load` is a module of `families`, as `contract.py` says. `feature` knows more names than the table has:
`timm:NAME`, `hear:MODULE`, those of installed packages and of the user's own files (`plugins.py`).
A stream more is a word of `Stream` with what its features are made from, and an entry of `STREAMS` in
`pipeline/extraction/video.py`, with the file that reads it.
Tested by tests/encoders/test_table.py.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..features_store.entries import AUDIO, CLOCK, FACES, WORDS, entry_of
from ..features_store.schema import ArraySpec, JsonValue
from ..shell.text import did_you_mean
from . import plugins
from .contract import About, EncoderModule, about

VggishOutput = Literal["raw", "relu", "pca"]
Stream = Literal["visual", "audio", "text"]
# What the features of a stream are made from: the face track, or sound or words at the frames' times.
MADE_FROM: dict[Stream, str] = {"visual": FACES, "audio": AUDIO, "text": WORDS}
View = Literal["crop", "patch", "samples", "states", "words"]

# Side of an aligned face: what `faces` cuts out is what `embed` takes in.
CROP_PX = 112
SMALL_CROP_PX = 48


# Settings that came later, and are said only where they are set: the fingerprints of before hold without them.
SAID_WHEN_SET = ("denoise", "audio_file")


@dataclass(frozen=True)
class Feature:
    """A kind of row: `row_shape` of `dtype` a frame, from a `view` of the stream.

    `row_shape` None: as the network's output. `network`: whose weights it takes (None: it needs none);
    `else_network`: whose serve where it has none of its own. `weights`: whether these are one file or a folder, and
    whether it does without any. `load`: `MODULE:FUNCTION` below avfuse that loads its encoder, or where a plug-in is.
    `options`: the settings of `extract` that change its rows, beside those of what it is made from. `revision`: raised
    when the same settings begin to give other rows. `is_own`: a plug-in, `code_sha256`: of its file, if it is one.
    `default`: whether it is extracted unless --features says otherwise; `hidden`: not in any list, for tests.
    """

    name: str
    stream: Stream
    view: View
    row_shape: tuple[int, ...] | None
    long_name: str
    options: tuple[str, ...]
    dtype: str = "float32"
    axes: tuple[str, ...] | None = None
    network: str | None = None
    else_network: str | None = None
    weights: Literal["file", "folder", "optional"] = "file"
    load: str | None = None
    revision: int = 1
    is_own: bool = False
    code_sha256: str | None = None
    default: bool = False
    hidden: bool = False

    @property
    def made_from(self) -> str:
        """What it is made from, as its stream is."""
        return MADE_FROM[self.stream]

    @property
    def spec(self) -> ArraySpec:
        """What the store writes beside its array."""
        rank = len(self.row_shape) if self.row_shape is not None else 1
        several = tuple(f"feature_{self.name}_{axis}" for axis in range(2, rank + 1))
        return ArraySpec(self.dtype, self.axes or (f"feature_{self.name}", *several), "1", self.long_name)


@dataclass(frozen=True)
class Source:
    """What features are made from: the settings that change it, and what it is made from itself."""

    name: str
    made_from: str | None
    options: tuple[str, ...]
    revision: int = 1


SOURCES = {
    source.name: source
    for source in (
        Source(CLOCK, None, ("video_stream",)),
        Source(FACES, CLOCK, ("face", "detect_every", "aligned")),
    )
}

_OF_FACE = ("missing_face",)
# What is done to the sound before anything is made from it.
_OF_SAMPLES = ("audio_stream", "denoise", "audio_file")
_OF_SOUND = ("audio_align", *_OF_SAMPLES)
# States lie where they lie: a row is the mean of those of its frame, whatever --audio-align says of patches.
_OF_STATES = _OF_SAMPLES
_PIXELS = ("crop_row", "crop_column", "rgb")
TABLE = {
    each.name: each
    for each in (
        Feature(
            *("iresnet50", "visual", "crop", (512,), "visual embedding of the face", (*_OF_FACE, "precision")),
            network="iresnet50",
            default=True,
        ),
        Feature(
            *("vggish", "audio", "patch", (128,), "VGGish embedding of the audio"),
            (*_OF_SOUND, "precision", "vggish_output"),
            network="vggish",
            default=True,
        ),
        Feature(
            *("logmel_vgg", "audio", "patch", (128,), "log-mel VGG embedding of the audio"),
            (*_OF_SOUND, "precision"),
            network="logmel_vgg",
            else_network="vggish",
            default=True,
        ),
        Feature("mfcc", "audio", "samples", (39,), "13 MFCC with first and second differences", _OF_SOUND),
        Feature(
            *("logmel", "audio", "patch", (96, 64), "log-mel patch of 0.96 s", _OF_SOUND),
            axes=("patch_frame", "mel_band"),
        ),
        Feature(
            *("egemaps", "audio", "states", (88,), "eGeMAPSv02: 88 functionals of a second of the audio", _OF_SOUND),
            load="encoders.families.egemaps:load",
        ),
        Feature(
            *("speech", "audio", "states", (1,), "probability of speech", _OF_SAMPLES),
            load="encoders.families.silero:load",
        ),
        Feature(
            *("iresnet50_map", "visual", "crop", None, "last feature map of the face network"),
            (*_OF_FACE, "precision"),
            dtype="float16",
            axes=("channel", "map_row", "map_column"),
            network="iresnet50",
        ),
        Feature(
            *("crop112", "visual", "crop", (CROP_PX, CROP_PX, 3), "aligned face", _OF_FACE),
            dtype="uint8",
            axes=_PIXELS,
        ),
        Feature(
            *("crop48", "visual", "crop", (SMALL_CROP_PX, SMALL_CROP_PX, 3), "aligned face, shrunk", _OF_FACE),
            dtype="uint8",
            axes=tuple(f"small_{axis}" if axis != "rgb" else axis for axis in _PIXELS),
        ),
        *(
            Feature(
                *(name, "visual", "crop", (dim,), long_name, (*_OF_FACE, "precision")),
                network=name,
                weights="file" if family == "ferplus" else "folder",
                load=f"encoders.families.{family}:load",
            )
            for name, dim, family, long_name in (
                ("clip_large", 768, "clip", "CLIP ViT-L/14 of the face, projected, not normalised"),
                ("eva02_large", 1024, "timm_models", "EVA02-L/14 of the face"),
                ("eva02_base", 768, "timm_models", "EVA02-B/14 of the face"),
                ("resnet50_ferplus", 512, "ferplus", "FER+ ResNet-50 of the face, before its last expansion"),
                ("senet50_ferplus", 512, "ferplus", "FER+ SENet-50 of the face, before its last expansion"),
                ("mobilenetv3_large", 1280, "timm_models", "MobileNetV3-Large of the face, 112 px"),
                ("efficientnetv2_t", 1024, "timm_models", "EfficientNetV2-T of the face, 112 px"),
            )
        ),
        *(
            Feature(
                *(name, "audio", "states", (dim,), long_name, (*_OF_STATES, "precision", *layers)),
                network=name,
                weights="folder",
                load=f"encoders.families.{family}:load",
            )
            for name, dim, long_name, layers, family in (
                ("wavlm_large", 1024, "WavLM-large states of the audio", ("layers",), "wav2vec2"),
                ("wavlm_base", 768, "WavLM-base states of the audio", ("layers",), "wav2vec2"),
                ("hubert_large", 1024, "HuBERT-large states of the audio", ("layers",), "wav2vec2"),
                ("wav2vec2_large", 1024, "wav2vec 2.0 large states of the audio", ("layers",), "wav2vec2"),
                (
                    "wav2vec2_emotion",
                    1024,
                    "wav2vec 2.0 tuned on emotion, states of the audio",
                    ("layers",),
                    "wav2vec2",
                ),
                ("whisper_large", 1280, "Whisper-large encoder states of the audio", (), "whisper"),
            )
        ),
        Feature(
            *("bert", "text", "words", (768,), "BERT's reading of the word that is spoken", ("precision",)),
            network="bert",
            weights="folder",
            load="encoders.families.bert:load",
        ),
        # Made in microseconds, from means of pixels and bands: what most tests extract in place of a network.
        Feature("fake_face", "visual", "crop", (12,), "means of the face's quarters", _OF_FACE, hidden=True),
        Feature("fake_sound", "audio", "patch", (8,), "means of eight bands of the patch", _OF_SOUND, hidden=True),
        Feature("fake_words", "text", "words", (4,), "length and place of the word", (), hidden=True),
    )
}

# What an encoder that is not in the table is fed, by its KIND: stream, view, and the settings that change its rows.
_KINDS: dict[str, tuple[Stream, View, tuple[str, ...]]] = {
    "face": ("visual", "crop", (*_OF_FACE, "precision")),
    "audio": ("audio", "states", (*_OF_STATES, "precision")),
    "words": ("text", "words", ("precision",)),
}
# prefix → KIND, module, weights, and what the rest of the name is.
_PREFIXES: dict[str, tuple[str, str, Literal["folder", "optional"], re.Pattern[str]]] = {
    "timm": ("face", "encoders.families.timm_models:load", "folder", re.compile(r"[A-Za-z0-9_][\w.+-]*")),
    "hear": ("audio", "encoders.families.hear:load", "optional", re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")),
}
FEATURES = tuple(name for name, feature in TABLE.items() if not feature.hidden)
DEFAULT_FEATURES = tuple(name for name, feature in TABLE.items() if feature.default)


def feature(name: str) -> Feature:
    """The feature of this name, from the table or from a plug-in.

    Raises ValueError where there is none, with the nearest name, or where a plug-in cannot be loaded.
    """
    if name in TABLE:
        return TABLE[name]
    prefix, colon, rest = name.partition(":")
    if colon and prefix in _PREFIXES:
        kind, load, weights, form = _PREFIXES[prefix]
        if not form.fullmatch(rest):
            raise ValueError(f"{name}: {rest!r} cannot be the name of a {prefix} model")
        stream, view, options = _KINDS[kind]
        long_name = f"{prefix} model {rest}"
        return Feature(name, stream, view, None, long_name, options, network=name, weights=weights, load=load)
    plug_in = plugins.find(name)
    if plug_in is None:
        known = [*FEATURES, *plugins.installed(), *(file.name for file in plugins.files_in_use())]
        more = "; your own: --encoder NAME=FILE.py"
        hint = did_you_mean(name, known) or f"; the features are {', '.join(known)}, timm:NAME, hear:MODULE{more}"
        raise ValueError(f"{name}: no such feature{hint}")
    stream, view, options = _KINDS[plug_in.about.kind]
    return Feature(
        *(name, stream, view, None, f"rows of the encoder {name}", options),
        network=name,
        weights="optional",
        load=plug_in.source,
        revision=plug_in.about.revision,
        is_own=True,
        code_sha256=plug_in.sha256,
    )


def module_of(made: Feature) -> tuple[EncoderModule, About]:
    """The module that loads a feature's encoder, and what it says of itself: neither its weights nor its libraries.

    Raises ValueError where the feature is not loaded from one, or where it cannot be imported.
    """
    module: Any
    if made.load is None:
        raise ValueError(f"{made.name} is not loaded from a module")
    if made.is_own:
        module = plugins.module_of(made.name)
    else:
        module = importlib.import_module(f"avfuse.{made.load.partition(':')[0]}")
    return module, about(module, made.load)


def of_stream(features: Collection[str], stream: Stream) -> tuple[str, ...]:
    """Those of the features that are made from a stream, in their order."""
    return tuple(name for name in features if feature(name).stream == stream)


def entries_for(
    features: Collection[str], settings: Mapping[str, Any], weights: Mapping[str, Mapping[str, JsonValue]]
) -> dict[str, dict[str, JsonValue]]:
    """What the store says of these features, and of what they are made from, under settings by name.

    `weights`: of each feature with a network, as the store's `weights` has them. The entries' fingerprints are hashes
    of the settings that a feature uses, its weights and the fingerprint of what it is made from.
    """
    entries: dict[str, dict[str, JsonValue]] = {}
    needed = {CLOCK, *(feature(name).made_from for name in features)}
    for source in SOURCES.values():
        if source.name not in needed:
            continue
        options = [option for option in source.options if option != "detect_every" or not settings.get("aligned")]
        used = {option: settings.get(option) for option in options}
        entries[source.name] = entry_of(source.name, source.revision, used, None, source.made_from, entries)
    for name in features:
        made = feature(name)
        said = (each for each in made.options if each not in SAID_WHEN_SET or settings.get(each))
        used = {option: settings.get(option) for option in said}
        if made.code_sha256 is not None:
            used["encoder"] = made.code_sha256
        entries[name] = entry_of(name, made.revision, used, weights.get(name), made.made_from, entries)
    return entries
