"""CLIP's image tower with its projection, as S4 took it: from a folder of transformers, or one of timm.

    pixels ── ViT ── class token, normed ── projection ── float32 [N, 768], not normalised

Sources: docs/sources.md (Visual encoders). Tested by tests/encoders/families/test_clip.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contract import Precision
from . import timm_models

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .images import ImageEncoder, Preprocessing

KIND = "face"
REVISION = 1
LICENCE = "MIT (OpenAI's weights)"
NEEDS = ("timm",)  # transformers for folders of its own alone

_UNTRAINED = "vit_large_patch14_clip_quickgelu_224"
_UNTRAINED_DIM = 768
_BICUBIC = 3  # as PIL counts
_SIZES = (
    *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads", "num_channels"),
    *("image_size", "patch_size", "hidden_act", "layer_norm_eps"),
)
# What a whole checkpoint of transformers holds beside the image tower.
_TEXT_PREFIXES = ("text_model.", "text_projection.", "logit_scale", "vision_model.embeddings.position_ids")


def load(weights: Path | None, device: torch.device, precision: Precision, options: Mapping[str, str]) -> ImageEncoder:
    """The image tower of a folder, or, where `weights` is None, one of seeded random weights (`untrained`).

    Raises ValueError where the folder holds another network, or a tower without its projection.
    """
    from ..weights.folder import CONFIG, read_json  # noqa: PLC0415
    from .images import ImageEncoder  # noqa: PLC0415

    config = {} if weights is None else read_json(weights / CONFIG)
    if weights is None or "architecture" in config:
        network, preprocessing = _of_timm(weights, config, options.get("untrained"))
    else:
        network, preprocessing = _of_transformers(weights, config)
    return ImageEncoder(network, preprocessing, device, precision)


def _of_timm(weights: Path | None, config: Mapping[str, Any], seed: str | None) -> tuple[nn.Module, Preprocessing]:
    """timm's ViT, whose classifier is the projection."""
    import timm  # noqa: PLC0415

    from ..networks.layouts import assign_strictly, fill_untrained  # noqa: PLC0415
    from ..weights.folder import load_tensors  # noqa: PLC0415
    from .images import Preprocessing, build  # noqa: PLC0415

    if weights is None:
        described = dict(vars(timm.get_pretrained_cfg(f"{_UNTRAINED}.openai", allow_unregistered=False)))
        config = {"architecture": _UNTRAINED, "num_classes": _UNTRAINED_DIM, "pretrained_cfg": described}
    architecture, arguments, described = timm_models.read_config(config)
    dim = config.get("num_classes", described.get("num_classes"))
    if not architecture.startswith("vit_") or "_clip_" not in architecture or not isinstance(dim, int) or dim < 1:
        raise ValueError(f"{architecture} with {dim} outputs is not an image tower of CLIP with its projection")
    if described.get("tag") == "openai" and "quickgelu" not in architecture:
        architecture = architecture.replace("_clip_", "_clip_quickgelu_")  # OpenAI trained with it, whatever is said
        timm_models.check_architecture(architecture)

    def create() -> nn.Module:
        network: nn.Module = timm.create_model(
            architecture, pretrained=False, pretrained_cfg=dict(described), num_classes=dim, **arguments
        )
        return network

    def fill(network: nn.Module) -> None:
        if weights is None:
            fill_untrained(network, int(seed or 0), "clip_large")
        else:
            assign_strictly(network, load_tensors(weights), architecture)

    return build(create, fill, architecture), Preprocessing(*timm_models.preprocessing_of(described, None))


def _of_transformers(folder: Path, config: Mapping[str, Any]) -> tuple[nn.Module, Preprocessing]:
    """The tower of a whole CLIP, or a tower alone; mean and std as the folder's image processor has them.

    The class reads the projection's width from the tower's configuration, where many folders have the default: what
    the whole model says comes first.
    """
    import torch  # noqa: PLC0415

    from ..networks.layouts import assign_strictly  # noqa: PLC0415
    from ..weights.folder import load_tensors, read_json, settings_of  # noqa: PLC0415
    from .images import Preprocessing, build  # noqa: PLC0415

    try:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: PLC0415
    except ImportError as error:
        raise ValueError("a folder of transformers needs transformers: pip install 'avfuse[speech]'") from error

    kind = config.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise ValueError(f"config.json has model_type {kind!r}, not 'clip'")
    tower = config.get("vision_config", {}) if kind == "clip" else config
    if not isinstance(tower, dict):
        raise ValueError("config.json has no vision_config")
    # Its sizes alone: old folders have dozens of words more, of generating text, and some ask for another attention.
    sizes = {key: tower[key] for key in _SIZES if key in tower}
    if "projection_dim" in config:
        sizes["projection_dim"] = config["projection_dim"]
    with settings_of("an image tower of CLIP"):
        described = CLIPVisionConfig(**sizes)

    def create() -> nn.Module:
        tower: nn.Module = CLIPVisionModelWithProjection(described)
        embeddings: Any = tower.get_submodule("vision_model.embeddings")
        embeddings.position_ids = torch.arange(embeddings.num_positions, device="cpu")[None]  # in no file
        return tower

    def fill(network: nn.Module) -> None:
        assign_strictly(network, load_tensors(folder), "CLIP's image tower", _TEXT_PREFIXES)

    network = build(create, fill, "CLIP's image tower")
    network.register_forward_hook(lambda _module, _pixels, output: output.image_embeds)

    whole, nested = folder / "preprocessor_config.json", folder / "processor_config.json"
    if not whole.is_file() and not nested.is_file():
        raise ValueError(f"has no {whole.name}, which says the mean and std of its pictures: it is published beside it")
    pictures = read_json(whole) if whole.is_file() else read_json(nested).get("image_processor")
    try:
        mean, std = (tuple(float(value) for value in (pictures or {})[f"image_{key}"]) for key in ("mean", "std"))
        side_px = int(str(described.image_size))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{whole.name} does not say image_mean and image_std of square pictures ({error})") from error
    return network, Preprocessing(side_px, mean, std, (pictures or {}).get("resample", 3) == _BICUBIC)
