"""Any image network of timm, from a folder that timm wrote: config.json and model.safetensors.

    architecture, model_args ── network without its classifier ── its pooled features
    pretrained_cfg ── side in pixels, mean, std

A face crop keeps its rim: the view has the network's own side, and `crop_pct`, which would cut a tenth of the face off,
is left aside. Sources: docs/sources.md (Visual encoders). Tested by tests/encoders/families/test_timm_models.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract import Precision

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .images import ImageEncoder

KIND = "face"
REVISION = 1
LICENCE = "that of the weights: in their config.json where timm wrote it"
NEEDS = ("timm",)

# Arguments of timm's factory that are not the network's, and those that would make it another kind of network.
_NOT_ARGUMENTS = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "checkpoint_path", "cache_dir"),
    *("scriptable", "exportable", "no_jit", "features_only", "feature_cfg", "out_indices", "device", "dtype"),
}


@dataclass(frozen=True)
class BuiltIn:
    """A feature that avfuse has a name for: how its architectures begin, the one drawn untrained, its side in pixels.

    `side_px` None: that of the weights.
    """

    prefix: str
    untrained: str
    side_px: int | None = None


BUILT_IN = {
    "eva02_large": BuiltIn("eva02_large_patch14_", "eva02_large_patch14_224"),
    "eva02_base": BuiltIn("eva02_base_patch14_", "eva02_base_patch14_224"),
    # S4 fed these two with the crops as they were.
    "mobilenetv3_large": BuiltIn("mobilenetv3_large_", "mobilenetv3_large_100", 112),
    "efficientnetv2_t": BuiltIn("efficientnetv2_rw_t", "efficientnetv2_rw_t", 112),
}


def load(weights: Path | None, device: torch.device, precision: Precision, options: Mapping[str, str]) -> ImageEncoder:
    """The network of a folder, or, where `weights` is None, one of seeded random weights (`untrained`).

    `options`: `feature`, one of `BUILT_IN` or `timm:NAME`, whose network the folder must hold. Raises ValueError.
    """
    import timm  # noqa: PLC0415

    from ..networks.layouts import assign_strictly, fill_untrained  # noqa: PLC0415
    from ..weights.folder import load_tensors  # noqa: PLC0415
    from .images import ImageEncoder, Preprocessing, build, even_out  # noqa: PLC0415

    feature = options.get("feature", "")
    known, wanted = BUILT_IN.get(feature), feature.removeprefix("timm:").partition(".")[0]
    architecture, arguments, described = read_config(config_of(weights, feature))
    if weights is not None and not (architecture.startswith(known.prefix) if known else architecture == wanted):
        raise ValueError(f"the folder holds {architecture}, not {f'{known.prefix}…' if known else wanted}")

    def create() -> nn.Module:
        network: nn.Module = timm.create_model(
            architecture, pretrained=False, pretrained_cfg=dict(described), num_classes=0, **arguments
        )
        return network

    def fill(network: nn.Module) -> None:
        if weights is None:
            fill_untrained(network, int(options["untrained"]), feature)
            return
        heads = described.get("classifier") or ()
        heads = [heads] if isinstance(heads, str) else heads
        # Of a head of several layers the file has all, the network none.
        prefixes = [f"{str(head).partition('.')[0]}." for head in heads]
        assign_strictly(network, load_tensors(weights), architecture, prefixes)

    network = build(create, fill, architecture)
    preprocessing = Preprocessing(*preprocessing_of(described, known.side_px if known else None))
    if weights is None:
        even_out(network, int(options["untrained"]), preprocessing.side_px)
    return ImageEncoder(network, preprocessing, device, precision)


def config_of(weights: Path | None, feature: str) -> dict[str, Any]:
    """The config.json of a folder; without one, what it would say of the network that is drawn untrained."""
    import timm  # noqa: PLC0415

    from ..weights.folder import CONFIG, read_json  # noqa: PLC0415

    if weights is not None:
        return read_json(weights / CONFIG)
    known = BUILT_IN.get(feature)
    architecture = known.untrained if known else feature.removeprefix("timm:").partition(".")[0]
    check_architecture(architecture)
    described = timm.get_pretrained_cfg(architecture, allow_unregistered=False)
    return {"architecture": architecture, "pretrained_cfg": dict(vars(described))}


def read_config(config: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Architecture, arguments of the network, and what timm says of its weights, out of a folder's config.json.

    Raises ValueError where it is not timm's, or names what is not an argument of a network.
    """
    architecture, arguments = config.get("architecture"), config.get("model_args", {})
    described = config.get("pretrained_cfg", config)  # at its top in folders of old
    if not isinstance(architecture, str) or not isinstance(arguments, dict) or not isinstance(described, dict):
        raise ValueError("config.json is not timm's: it names no architecture (is this a folder of transformers?)")
    check_architecture(architecture)
    arguments = {key: value for key, value in arguments.items() if key != "num_classes"}
    if wrong := sorted(_NOT_ARGUMENTS & set(arguments)):
        raise ValueError(f"config.json: {', '.join(wrong)} is not an argument of a network")
    return architecture, arguments, described


def check_architecture(architecture: str) -> None:
    """Raise ValueError for what is not one of timm's networks: a misspelt name, one of the hub, a path."""
    import timm  # noqa: PLC0415

    if "/" in architecture or ":" in architecture or not timm.is_model(architecture):
        raise ValueError(f"timm {timm.__version__} has no network {architecture!r}")


def preprocessing_of(
    described: Mapping[str, Any], side_px: int | None
) -> tuple[int, tuple[float, ...], tuple[float, ...], bool]:
    """Side in pixels (`side_px`, where that is given), mean, std and whether it is bicubic, as timm describes them.

    Raises ValueError where one is missing.
    """
    try:
        channels, height, width = (int(size) for size in described["input_size"])
        mean, std = (tuple(float(value) for value in described[key]) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"config.json does not say input_size, mean and std of the pictures ({error})") from error
    if channels != 3 or height != width:
        raise ValueError(
            f"config.json: pictures of {[channels, height, width]}; three channels of a square are cut out"
        )
    return side_px or height, mean, std, described.get("interpolation") != "bilinear"
