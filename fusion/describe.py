"""What a preset is: its network in numbers, what of the input moves an output, and every setting with its source.

    input rows   0 ─────────────── t ─────────────── W−1        the gradient of output row W−1 reaches back as far as
    output rows  0 …                               … W−1        its past, that of row 0 ahead as far as its future

Nothing is taken from what a head says of itself: parameters are counted, and a window is sent through the network.
Tested by tests/fusion/test_describe.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

import torch
from torch import nn

from ..encoders.table import TABLE, feature
from ..features_store.store import FeatureStore
from ..shell.text import did_you_mean, preview, text_table
from .config import HeadSettings, TrainConfig
from .models.table import HEADS, Output, build
from .settings import preset, spelled

FRAMES_PER_S = 30  # of what is said in seconds; most videos of Aff-Wild2 have 30
# Where the settings of a run come from; those of a head say it themselves (`Annotated`).
RUN_SOURCES = {
    "task": "S1, S2: both at once; S3: one network each",
    "modalities": "S1",
    "seed": "ours",
    "window_frames": "S3",
    "hop_frames": "S3",
    "statistics": "S3's code: scalar",
    "rows_in_loss": "ours",
    "audio_rows": "ours: all",
    "speech_threshold": "ours",
    "loss": "the task's",
    "focal_gamma": "Lin et al. 2017",
    "label_smoothing": "ours: none",
    "class_weights": "ours",
    "label_smoothing_frames": "ours: none",
    "modality_dropout": "ours: none",
    "optimizer": "S3",
    "lr": "S3's code for valence and arousal",
    "weight_decay": "S3",
    "batch_size": "S3",
    "grad_clip": "ours: none",
    "warmup_epochs": "S3",
    "plateau_patience": "S3",
    "plateau_factor": "S3",
    "min_lr": "S3's code",
    "max_epochs": "S3",
    "early_stop": "S3",
    "restore_best": "S3's code",
    "protocol": "ours: trials that are held out",
}


@dataclass(frozen=True)
class Reach:
    """Of one modality: how many frames before and after its own move an output; None: as far as the window goes."""

    past_frames: int | None
    future_frames: int | None

    @property
    def frames(self) -> int | None:
        """The receptive field: past, its own and future; None: the window."""
        if self.past_frames is None or self.future_frames is None:
            return None
        return self.past_frames + 1 + self.future_frames


@dataclass(frozen=True)
class NetworkDescription:
    """A network with its settings. `parameters` {part: count}; `settings` {name: (value, source)}.

    `reach` of each modality; None: in evaluation it moves no output.
    """

    preset: str
    about: str
    shapes: Mapping[str, tuple[int, ...]]
    parameters: Mapping[str, int]
    window_frames: int
    reach: Mapping[str, Reach | None]
    settings: Mapping[str, tuple[Any, str]]

    @property
    def causal(self) -> bool:
        """Whether no output is moved by what comes after its frame."""
        return all(each is None or each.future_frames == 0 for each in self.reach.values())

    def as_json(self) -> dict[str, Any]:
        """The same as data; lists for tuples, null where the window is the bound."""
        return {
            "preset": self.preset,
            "about": self.about,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "parameters": {"total": sum(self.parameters.values()), "parts": dict(self.parameters)},
            "window_frames": self.window_frames,
            "receptive_field": {
                name: reach and {**asdict(reach), "frames": reach.frames} for name, reach in self.reach.items()
            },
            "causal": self.causal,
            "settings": {name: {"value": value, "source": source} for name, (value, source) in self.settings.items()},
        }

    def lines(self) -> list[str]:
        """For people."""
        shapes = ", ".join(f"{name} {' × '.join(map(str, shape))}" for name, shape in self.shapes.items())
        parts = [[part, f"{count:,}"] for part, count in self.parameters.items()]
        seen = [["an output of frame t is moved by", "from", "to", "frames", f"s at {FRAMES_PER_S} frames/s"]]
        for name, reach in self.reach.items():
            if reach is None:
                seen.append([name, "nothing", "nothing", "0", "–"])
                continue
            past, future = reach.past_frames, reach.future_frames
            first = "its window's first" if past is None else f"t − {past}" if past else "t"
            last = "its window's last" if future is None else f"t + {future}" if future else "t"
            frames = reach.frames
            length = ["the window", "–"] if frames is None else [str(frames), f"{frames / FRAMES_PER_S:.1f}"]
            seen.append([name, first, last, *length])
        causal = "yes" if self.causal else "no: an output waits for frames after its own"
        values = [["setting", "value", "from"]]
        values += [[name, spelled(value), source] for name, (value, source) in self.settings.items()]
        return [
            f"{self.preset}: {self.about}",
            f"rows: {shapes}; windows of {self.window_frames} frames",
            "",
            *text_table([["parameters", ""], *parts, ["together", f"{sum(self.parameters.values()):,}"]]),
            "",
            *text_table(seen, words=3),
            f"causal: {causal}",
            "",
            *text_table(values, words=3),
        ]


def describe(config: TrainConfig, shapes: Sequence[tuple[int, ...]]) -> NetworkDescription:
    """The network of these settings for modalities whose rows have these `shapes`.

    Raises ValueError if the head has no use for such shapes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build(config, shapes).double().eval().requires_grad_(False)
        reach = probe(model, shapes, config.window_frames)
    parts = {name: sum(each.numel() for each in part.parameters()) for name, part in model.named_children()}
    if alone := sum(each.numel() for each in model.parameters(recurse=False)):
        parts["its own"] = alone
    return NetworkDescription(
        preset=config.preset,
        about=(type(config.model).__doc__ or "").partition("\n")[0].partition(" Source:")[0],
        shapes=dict(zip(config.modalities, shapes, strict=True)),
        parameters={name: count for name, count in parts.items() if count},
        window_frames=config.window_frames,
        reach=dict(zip(config.modalities, reach, strict=True)),
        settings={name: (value, source) for name, value, source in _sourced(config)},
    )


def probe(network: nn.Module, shapes: Sequence[tuple[int, ...]], frames: int) -> list[Reach | None]:
    """How far each modality's rows move an output row, found by its gradient in a window of random rows.

    A reach that fills the window is None: a longer window might show more; so is that of a modality that moves none.
    The network is in evaluation and in float64.
    """
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn((2, frames, *shape), generator=generator, dtype=torch.float64) for shape in shapes]
    for rows in features:
        rows.requires_grad_()
    mask = torch.ones(2, frames, dtype=torch.bool)
    found = network(features, [mask for _ in shapes], mask)
    prediction = found.prediction if isinstance(found, Output) else found
    # Of one window the last row, which has all the past, of the other the first, which has all the future.
    (prediction[0, -1].sum() + prediction[1, 0].sum()).backward()
    reaches: list[Reach | None] = []
    for rows in features:
        if rows.grad is None or not rows.grad.any():
            reaches.append(None)
            continue
        back, later = (grad.flatten(1).abs().amax(-1).nonzero().flatten().tolist() for grad in rows.grad)
        past, future = frames - 1 - min(back, default=frames - 1), max(later, default=0)
        reaches.append(Reach(*(None if each == frames - 1 else each for each in (past, future))))
    return reaches


def shapes_of(modalities: Sequence[str], store: FeatureStore | None) -> list[tuple[int, ...]]:
    """A row's shape of each modality: as the store has it, or as the table of features says.

    Raises ValueError, with what to do, on a feature of which neither tells.
    """
    if store is not None:
        trials = store.trials()
        having = {name: next((t for t in trials if name in store[t].features), None) for name in modalities}
        if lacking := [name for name, trial in having.items() if trial is None]:
            raise ValueError(f"{store.path} does not hold {preview(lacking)}; extract it, or choose --modalities")
        return [tuple(store[trial][name].shape[1:]) for name, trial in having.items() if trial is not None]
    shapes = []
    for name in modalities:
        try:
            shape = feature(name).row_shape
        except ValueError:
            near = did_you_mean(name, TABLE)
            raise ValueError(f"{name} is not a feature of avfuse{near}; --store tells its width") from None
        if shape is None:
            raise ValueError(f"how wide {name} is depends on its network; --store tells it")
        shapes.append(shape)
    return shapes


def sources_of(settings: HeadSettings) -> dict[str, str]:
    """{setting: where its default comes from} of a head, as its fields say it: `heads: Annotated[int, "S1's code"]`."""
    hints = get_type_hints(type(settings), include_extras=True)
    return {each.name: " ".join(getattr(hints[each.name], "__metadata__", ())) for each in fields(settings)}


def _sourced(config: TrainConfig) -> Iterator[tuple[str, Any, str]]:
    """Every setting, its value and its source; of one that is not the preset's, that it was given."""
    usual = preset(config.preset)
    parts = ((config.model, usual.model, sources_of(config.model)), (config, usual, RUN_SOURCES))
    for settings, defaults, sources in parts:
        for each in fields(settings):
            if each.name in ("preset", "model", "finetune"):
                continue
            value, source = getattr(settings, each.name), sources.get(each.name, "")
            if settings is config and each.name in HEADS[config.preset].training:
                source = "this preset"
            yield each.name, value, source if value == getattr(defaults, each.name) else "given"
