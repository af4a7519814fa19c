"""Checkpoints told apart by their keys, and put into the network that bears these names.

    state_dict / model wrapper → `module.`, `backbone.` off → which layout? → strict keys and shapes → float32

Source of the layouts: docs/sources.md (IResNet-50, IR-50). Tested by tests/encoders/test_networks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .ir50 import EVOLVE_PX, IR50, SUZHANG_PX, SuZhangIR50
from .iresnet import INPUT_PX, IResNet50
from .vgg import DIM, VGG

_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_backbone")
_MOST_WRAPPERS = 4
_PREFIXES = ("module.", "backbone.")
_SUZHANG_FLAT = 12800
_NUM_NAMED = 3


@dataclass(frozen=True)
class Layout:
    """A network and the names of its tensors; `input_px` is the side of a face, None for audio."""

    name: str
    build: Callable[[], nn.Module]
    input_px: int | None
    dim: int


INSIGHTFACE = Layout("insightface IResNet-50", IResNet50, INPUT_PX, 512)
EVOLVE = Layout("face.evoLVe IR-50", IR50, EVOLVE_PX, 512)
SUZHANG = Layout("Su Zhang's IR-50", SuZhangIR50, SUZHANG_PX, 512)
VGGISH = Layout("VGGish", VGG, None, DIM)
FACE_LAYOUTS = (INSIGHTFACE, EVOLVE, SUZHANG)


def network_of(layout: Layout, state: Mapping[str, Tensor]) -> nn.Module:
    """The layout's network with the weights of `state` as float32, in eval mode and without gradients.

    Raises ValueError, with the first three of each kind, when keys or shapes are not exactly the layout's.
    """
    network = empty(layout)
    wanted = network.state_dict()
    if complaint := _difference(state, wanted):
        raise ValueError(f"these are not the tensors of {layout.name} ({complaint})")
    network.load_state_dict({key: _like(state[key], wanted[key]) for key in wanted}, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def empty(layout: Layout) -> nn.Module:
    """The layout's network on the `meta` device: names and shapes, no memory."""
    with torch.device("meta"):
        return layout.build()


def recognise(state: Mapping[str, Tensor]) -> tuple[Layout | None, dict[str, Tensor]]:
    """The layout of a state dict (None: none of ours) and the tensors under that layout's own names."""
    bare = {_bare(key): tensor for key, tensor in state.items()}
    layout = _layout(bare)
    if layout is SUZHANG:
        bare = {key if key.startswith("logits.") else f"backbone.{key}": value for key, value in bare.items()}
    return layout, bare


def unwrap(loaded: object) -> dict[str, Tensor]:
    """The state dict inside what a checkpoint holds: the dict itself, or one entry of it.

    Raises ValueError when there is none.
    """
    for _ in range(_MOST_WRAPPERS):  # a pickle may hold itself
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[name] for name in _WRAPPERS if isinstance(loaded.get(name), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ValueError(f"no state dict in it, but {_describe(loaded)}")
    return {str(key): tensor for key, tensor in loaded.items()}


def _layout(bare: Mapping[str, Tensor]) -> Layout | None:
    if "layer1.0.bn1.weight" in bare:
        return INSIGHTFACE
    if "body.0.res_layer.0.weight" in bare:
        head = bare.get("output_layer.3.weight")
        small = head is not None and head.ndim == 2 and head.shape[1] == _SUZHANG_FLAT
        return SUZHANG if small or "logits.weight" in bare else EVOLVE
    return VGGISH if "embeddings.0.weight" in bare else None


def _bare(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.partition(".")[2]
    return key


def _difference(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    shapes = [
        f"{key} is {list(state[key].shape)}, not {list(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    missing = _first("missing", (key for key in wanted if key not in state))
    return "; ".join(
        filter(
            None,
            (
                missing,
                _first("unexpected", (key for key in state if key not in wanted)),
                _first("shape", shapes),
            ),
        )
    )


def _first(what: str, keys: Iterable[str]) -> str:
    found = list(keys)
    rest = f" and {len(found) - _NUM_NAMED} more" if len(found) > _NUM_NAMED else ""
    return f"{what}: {', '.join(found[:_NUM_NAMED])}{rest}" if found else ""


def _like(tensor: Tensor, wanted: Tensor) -> Tensor:
    # Own, contiguous memory: a checkpoint may hold half precision, or views of one large storage.
    return tensor.detach().to("cpu", wanted.dtype).contiguous()


def _describe(loaded: object) -> str:
    if isinstance(loaded, Mapping):
        return f"a dict with {', '.join(sorted(map(str, loaded))[:_NUM_NAMED]) or 'nothing'}"
    return f"a {type(loaded).__name__}"
