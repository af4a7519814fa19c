"""Networks that are tuned: what they are fed from the store, and which of their layers are released one after another.

    rows of a view ─ inputs ─► step ─ step ─ … ┃ step ─ step ─► rows of the feature
                               prefix: frozen  ┃ suffix: from the first released layer on

A backbone is always in eval mode: its batch norms keep their statistics, and rows come out as `extract` makes them.
Sources: docs/sources.md (Fine-tuning). Tested by tests/fusion/finetuning/test_backbones.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ...encoders.embed import faces_to_input
from ...encoders.families.images import ImageEncoder
from ...encoders.loading import load_encoder
from ...encoders.networks.ir50 import IR50, SUZHANG_PX, SuZhangIR50, row_norm_1
from ...encoders.networks.iresnet import IResNet50
from ...encoders.networks.layouts import FACE_NETWORKS
from ...encoders.networks.vgg import flattened, is_vggish
from ...encoders.table import CROP_PX
from ...encoders.table import feature as feature_of
from ...encoders.weights.folder import CONFIG, WEIGHTS
from ...encoders.weights.read import Network, untrained_network
from ...encoders.weights.resolve import WeightSource, load_network
from ...encoders.weights.tuning import KEY, record_of, with_base
from ...features_store.disk.atomic import replace_file, write_json
from ...features_store.schema import JsonValue
from ...shell.text import preview

LOGMEL_VGG, IRESNET50 = "logmel_vgg", "iresnet50"
Step = tuple[str, Callable[[Tensor], Tensor]]
_WRAPPER = "backbone."  # around the layers of Su Zhang's network; patterns may leave it out
_MOST_GROUPS = 3


@dataclass(frozen=True)
class Group:
    """Layers that are released together: fnmatch patterns of the names of their parameters."""

    name: str
    patterns: tuple[str, ...]


_IR50 = (
    Group("output_layer", ("output_layer.*",)),
    Group("body 21-23", ("body.21.*", "body.22.*", "body.23.*")),
    Group("body 18-20", ("body.18.*", "body.19.*", "body.20.*")),
)
_IRESNET = (
    Group("fc", ("bn2.*", "fc.*", "features.*")),
    Group("layer4", ("layer4.*",)),
    Group("layer3 11-13", ("layer3.11.*", "layer3.12.*", "layer3.13.*")),
)
_VGG = (
    Group("fc3", ("embeddings.4.*",)),
    Group("fc2", ("embeddings.2.*",)),
    Group("fc1", ("embeddings.0.*",)),
)


@dataclass(frozen=True)
class Backbone:
    """A network in tuning: float32, in eval mode, and without gradients until its `groups` are released.

    `feature`: whose weight file comes out. `view`: what it is fed from the store, crop48, crop112 or logmel. `dim`:
    width of its rows. `input_px`: side of a face, None for sound. `base`: the weights that it began from, as the
    written file says. `prepare`: views uint8 [N, px, px, 3] on the device → what `network` takes. `config`: config.json
    of a network of timm. Raises ValueError for groups that `members` refuses.
    """

    feature: str
    view: str
    network: nn.Module
    dim: int
    input_px: int | None
    groups: tuple[Group, ...]
    base: Mapping[str, JsonValue] = field(default_factory=dict)
    prepare: Callable[[Tensor], Tensor] | None = None
    config: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.members()

    def members(self) -> tuple[tuple[str, ...], ...]:
        """Names of the parameters of each group; one that several groups name is the first one's.

        Raises ValueError for a pattern that matches nothing, and names what there is.
        """
        names = [name for name, _ in self.network.named_parameters()]
        taken: set[str] = set()
        members = []
        for group in self.groups:
            found: dict[str, None] = {}
            for pattern in group.patterns:
                matching = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, _WRAPPER + pattern)]
                if not matching:
                    there = dict.fromkeys(".".join(_bare(name).split(".")[:-1][:2]) + ".*" for name in names)
                    raise ValueError(
                        f"group {group.name}: {pattern!r} matches no parameter of {self.feature}; "
                        f"there are {preview(list(there), 40)}"
                    )
                found |= dict.fromkeys(name for name in matching if name not in taken)
            if not found:
                raise ValueError(f"group {group.name}: the groups before it have all of its parameters already")
            taken |= set(found)
            members.append(tuple(found))
        return tuple(members)

    def inputs(self, rows: Tensor) -> Tensor:
        """What `network` takes, of faces uint8 [N, px, px, 3], or of log-mel patches float32 [N, 96, 64] as stored.

        On the device of `rows`. Faces of 48 px are cut to their middle 40 where the network takes 40; those that have
        40 already, cut at random perhaps, are taken as they are.
        """
        if self.input_px is None:
            return rows[:, None]
        prepare = self.prepare or (lambda faces: faces_to_input(faces, self.input_px or CROP_PX))
        return prepare(rows).contiguous(memory_format=torch.channels_last)

    def split(self, released: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """Two parts of the network, `suffix(prefix(x))` its rows [N, dim] bit for bit.

        The second begins at what is released: the first of its layers that any of `released` groups is a part of.

        Of a network whose layers are not known here the whole is the suffix: autograd keeps nothing of its frozen
        beginning anyway.
        """
        steps = steps_of(self.network)
        moving = [_bare(name) for group in self.members()[:released] for name in group]
        first = next(
            (place for place, (name, _) in enumerate(steps) if any(_is_part(each, name) for each in moving)), len(steps)
        )
        return _in_turn(steps[:first]), _in_turn(steps[first:])

    def release(self, count: int) -> list[nn.Parameter]:
        """Let the first `count` groups, and no others, have gradients; these parameters, group by group.

        Raises ValueError where there are fewer groups.
        """
        members = self.members()
        if not 0 <= count <= len(members):
            raise ValueError(f"{self.feature} has {len(members)} groups, {count} cannot be released")
        self.network.requires_grad_(requires_grad=False)
        by_name = dict(self.network.named_parameters())
        released = [by_name[name] for names in members[:count] for name in names]
        for parameter in released:
            parameter.requires_grad_()
        return released


def open_backbone(
    feature: str, source: WeightSource, device: torch.device, groups: Sequence[Group] | None = None
) -> Backbone:
    """The network of a feature with the weights of `source`, ready to be tuned on a device.

    `feature`: iresnet50 (whatever face network the file holds), suzhang40 or iresnet112 (that kind of it alone),
    logmel_vgg, or a network of timm. `groups` None: the last layers, as published. Raises WeightsInvalid, ValueError.
    """
    wanted = FACE_NETWORKS.get(feature)
    name = IRESNET50 if wanted else feature
    base = record_of(source)
    if name in (IRESNET50, LOGMEL_VGG):
        loaded: Network = (
            untrained_network(name, source.untrained_seed or 0, wanted[0] if wanted else None)
            if source.path is None
            else load_network(source)
        )
        if wanted and loaded.input_px != wanted[0].input_px:
            raise ValueError(
                f"{source.path or source.name}: a network of {loaded.input_px} px, and {feature} is one of "
                f"{wanted[0].input_px} px"
            )
        network, px = loaded.module, loaded.input_px
        usual = _VGG if px is None else _IRESNET if isinstance(network, IResNet50) else _IR50
        view = "logmel" if px is None else "crop48" if px == SUZHANG_PX else "crop112"
        network = network.to(device)
        network = network if px is None else network.to(memory_format=torch.channels_last)
        return Backbone(name, view, network, loaded.dim, px, tuple(groups or usual), base)
    made = feature_of(name)
    if made.load is None or not made.load.startswith("encoders.families.timm_models"):
        raise ValueError(
            f"{name} cannot be tuned: suzhang40, iresnet112, logmel_vgg and networks of timm can (timm:NAME)"
        )
    from ...encoders.families.timm_models import config_of  # noqa: PLC0415 - timm is an extra

    encoder = load_encoder(name, {}, source, device, "fp32", 1).made
    assert isinstance(encoder, ImageEncoder)
    network = encoder.network.to(memory_format=torch.channels_last)
    return Backbone(
        *(name, "crop112", network, encoder.dim, encoder.preprocessing.side_px),
        tuple(groups or _last_stages(network)),
        base,
        encoder.preprocessing,
        config_of(source.path, name),
    )


def parse_groups(text: str) -> tuple[Group, ...]:
    """Groups of `output_layer.*; body.21.*, body.22.*`: groups between semicolons, patterns between commas.

    Raises ValueError where a group has no pattern.
    """
    parts = [tuple(pattern.strip() for pattern in part.split(",") if pattern.strip()) for part in text.split(";")]
    if not all(parts):
        raise ValueError(f"groups {text!r}: patterns of names such as 'output_layer.*; body.21.*, body.22.*'")
    return tuple(Group(", ".join(patterns), patterns) for patterns in parts)


def steps_of(network: nn.Module) -> list[Step]:
    """A network as steps, one after the other, each by the name that its parameters begin with ("" has them all)."""
    if isinstance(network, SuZhangIR50):
        return [*steps_of(network.backbone), ("-", row_norm_1)]
    if isinstance(network, IR50):
        parts: list[Step] = [("input_layer", network.input_layer)]
        parts += [(f"body.{name}", unit) for name, unit in network.body.named_children()]
        return [*parts, *((f"output_layer.{name}", each) for name, each in network.output_layer.named_children())]
    if isinstance(network, IResNet50):
        stem: list[Step] = [(name, network.get_submodule(name)) for name in ("conv1", "bn1", "prelu")]
        stages = [name for name, _ in network.named_children() if name.startswith("layer")]
        blocks = [(f"{s}.{n}", block) for s in stages for n, block in network.get_submodule(s).named_children()]
        head: list[Step] = [("bn2", network.bn2), ("-", nn.Flatten()), ("fc", network.fc)]
        return [*stem, *blocks, *head, ("features", network.features)]
    if is_vggish(network):
        layers, linear = network.get_submodule("features"), network.get_submodule("embeddings")
        first: list[Step] = [(f"features.{name}", each) for name, each in layers.named_children()]
        return [*first, ("-", flattened), *((f"embeddings.{name}", each) for name, each in linear.named_children())]
    if isinstance(network, nn.Sequential):
        return list(network.named_children())
    return [("", network)]


def write_weights(backbone: Backbone, path: Path, provenance: Mapping[str, JsonValue]) -> None:
    """Write the weights as `extract --weights` reads them: a safetensors file, of a network of timm a folder.

    `provenance`, what they were tuned on (fold, trials, validation, epoch, score, …), goes into their metadata, with
    the weights that they began from, whose trials count as their own. Raises OSError naming the file.
    """
    record: dict[str, JsonValue] = {
        **with_base(provenance, backbone.base),
        "feature": backbone.feature,
        "view": backbone.view,
        "groups": [{"name": group.name, "patterns": list(group.patterns)} for group in backbone.groups],
        "avfuse": version("avfuse"),
    }
    state = {name: value.detach().cpu().contiguous() for name, value in backbone.network.state_dict().items()}
    target = path
    if backbone.config is not None:
        path.mkdir(parents=True, exist_ok=True)
        target = path / WEIGHTS
        write_json(path / CONFIG, {**backbone.config, "license": backbone.base.get("licence")})
    replace_file(target, save(state, {KEY: json.dumps(record, sort_keys=True)}))


def _last_stages(network: nn.Module) -> tuple[Group, ...]:
    """The last stages of a network of timm, the last one first, as timm groups its layers."""
    from timm.models import group_parameters  # noqa: PLC0415 - timm is an extra

    matcher: Any = getattr(network, "group_matcher", None)
    names = [name for name, _ in network.named_parameters()]
    if matcher is None:
        return (Group("all", ("*",)),)
    by_stage: dict[int, list[str]] = group_parameters(network, matcher(coarse=True))
    groups = []
    for stage in sorted(by_stage, reverse=True)[:_MOST_GROUPS]:
        own = set(by_stage[stage])
        patterns = []
        for name in by_stage[stage]:
            parts = name.split(".")
            starts = (".".join(parts[:depth]) + ".*" for depth in range(1, len(parts)))
            # The shortest beginning that is this stage's alone.
            alone = (start for start in starts if all(each in own for each in names if fnmatchcase(each, start)))
            patterns.append(next(alone, name))
        kept = tuple(dict.fromkeys(patterns))
        groups.append(Group(", ".join(kept), kept))
    return tuple(groups)


def _bare(name: str) -> str:
    return name.removeprefix(_WRAPPER)


def _is_part(parameter: str, step: str) -> bool:
    return not step or parameter.startswith(f"{step}.")


def _in_turn(steps: Sequence[Step]) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        for _, step in steps:
            x = step(x)
        return x

    return run
