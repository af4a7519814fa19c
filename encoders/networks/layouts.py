"""Networks with their tensors: out of a checkpoint, recognised by its keys, or seeded random ones.

    state_dict / model wrapper → `module.`, `backbone.` off → which layout? → strict keys and shapes → float32

Source of the layouts: docs/sources.md (IResNet-50, IR-50). Tested by tests/encoders/test_networks.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .ir50 import EVOLVE_PX, IR50, SUZHANG_PX, SuZhangIR50
from .iresnet import INPUT_PX, IResNet50
from .vgg import DIM, vggish

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# What libraries raise where a configuration asks for what they cannot build.
CANNOT_BUILD = (TypeError, ValueError, RuntimeError, AssertionError, LookupError, AttributeError, ArithmeticError)
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_backbone")
_MOST_WRAPPERS = 4
_PREFIXES = ("module.", "backbone.")
_RUN_VISUAL, _RUN_AUDIO = "spatial.visual.", "spatial.audio."
_SUZHANG_FLAT = 12800
_NUM_NAMED = 3
_IMAGE_CHANNELS = (1, 3)
_PRELU_SLOPE = 0.25
_GAINS = {"bn3.weight": 0.35, "features.weight": 0.1}


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
VGGISH = Layout("VGGish", vggish, None, DIM)
FACE_LAYOUTS = (INSIGHTFACE, EVOLVE, SUZHANG)
# Face networks by the side of what they take, as `finetune` names them; the first is the one drawn untrained.
FACE_NETWORKS = {"suzhang40": (SUZHANG,), "iresnet112": (INSIGHTFACE, EVOLVE)}


def empty(layout: Layout) -> nn.Module:
    """The layout's network on the `meta` device: names and shapes, no memory."""
    with torch.device("meta"):
        return layout.build()


def network_of(layout: Layout, state: Mapping[str, Tensor]) -> nn.Module:
    """The layout's network with the weights of `state` as float32, in eval mode and without gradients.

    Raises ValueError, with the first three of each kind, when keys or shapes are not exactly the layout's.
    """
    network = empty(layout)
    assign_strictly(network, state, layout.name)
    return network.eval().requires_grad_(requires_grad=False)


def dtype_on(precision: str, device: torch.device) -> torch.dtype:
    """Type of a network's numbers under a precision. Raises ValueError for fp16 on a CPU."""
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("the precision fp16 needs a GPU; on the CPU take fp32 (exact) or bf16")
    return DTYPES[precision]


def assign_strictly(
    network: nn.Module, state: Mapping[str, Tensor], name: str, known_prefixes: Sequence[str] = ()
) -> None:
    """The weights of `state` as the network's own; keys that begin with `known_prefixes` may be there beside them.

    Raises ValueError, with the first three of each kind, when keys or shapes are not exactly those of `name`.
    """
    wanted = network.state_dict()
    kinds = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted and not key.startswith(tuple(known_prefixes))],
        "shape": [
            f"{key} is {list(state[key].shape)}, not {list(wanted[key].shape)}"
            for key in wanted
            if key in state and state[key].shape != wanted[key].shape
        ],
    }
    complaints = []
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
            complaints.append(f"{kind}: {', '.join(names[:_NUM_NAMED])}{more}")
    if complaints:
        raise ValueError(f"these are not the tensors of {name} ({'; '.join(complaints)})")
    # Own, contiguous memory: a checkpoint may hold half precision, or views of one large storage.
    own = {key: state[key].detach().to("cpu", like.dtype).contiguous() for key, like in wanted.items()}
    network.load_state_dict(own, assign=True)


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
    if not isinstance(loaded, Mapping):
        raise ValueError(f"it holds a {type(loaded).__name__}, not a state dict")
    if not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        names = ", ".join(sorted(map(str, loaded))[:_NUM_NAMED]) or "nothing"
        raise ValueError(f"it holds a dict that is not a state dict, with {names}")
    return {str(key): tensor for key, tensor in loaded.items()}


def part_of_run(state: Mapping[str, Tensor], feature: str) -> dict[str, Tensor]:
    """Of the state dict of a run of ABAW3 the tensors of the backbone of this feature; any other as it is.

    Raises ValueError where the run has no such backbone. Source of the names: docs/sources.md (Fine-tuning).
    """
    prefix = _RUN_VISUAL if feature == "iresnet50" else _RUN_AUDIO
    bare = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    if not any(key.startswith((_RUN_VISUAL, _RUN_AUDIO)) for key in bare):
        return dict(state)
    part = {key.removeprefix(prefix): tensor for key, tensor in bare.items() if key.startswith(prefix)}
    if not part:
        raise ValueError(f"a run of ABAW3 without {prefix}*: it was trained without the network of {feature}")
    return part


def recognise(state: Mapping[str, Tensor]) -> tuple[Layout | None, dict[str, Tensor]]:
    """The layout of a state dict (None: none of ours) and the tensors under that layout's own names."""
    bare: dict[str, Tensor] = {}
    for key, tensor in state.items():
        while key.startswith(_PREFIXES):
            key = key.partition(".")[2]  # noqa: PLW2901
        bare[key] = tensor
    if "layer1.0.bn1.weight" in bare:
        return INSIGHTFACE, bare
    if "body.0.res_layer.0.weight" in bare:
        head = bare.get("output_layer.3.weight")
        small = head is not None and head.ndim == 2 and head.shape[1] == _SUZHANG_FLAT
        if not small and "logits.weight" not in bare:
            return EVOLVE, bare
        return SUZHANG, {key if key.startswith("logits.") else f"backbone.{key}": value for key, value in bare.items()}
    return VGGISH if "embeddings.0.weight" in bare else None, bare


def fill_untrained(module: nn.Module, seed: int, feature: str) -> None:
    """Seeded random weights for tests and demos: features of order 1 that still differ from one input to another.

    The recipe, for the tensor `key` of a feature's network (no data and no torch generator takes part):

    - two dimensions or more: n = `numpy.random.default_rng([seed, crc32(feature), crc32(key)])`, standard normal
      in float32; less its mean over the inputs of each output, the first layer excepted; times √2 / √(inputs).
    - norm weights, `running_var` and `gamma` (scales of layers) 1, PReLU slopes 0.25, biases, `running_mean`,
      `num_batches_tracked` 0.
    - then the gains below, so that 24 residual sums do not grow and the embedding comes out at order 1.

    Plain random layers behind a ReLU answer almost the same to every input, because all their inputs are
    positive; filters that sum to zero do not see that common part. Measured on the faces of three clips and one
    file of speech, seeds 0 and 1: root mean square 1.6 to 2.0 (`iresnet50`) and 0.95 to 1.1 (`vggish`), standard
    deviation from row to row 1.2 to 1.4 and 0.8; among the faces of one clip 0.4 to 0.9.

    `module` may be on any device, `meta` too.
    """
    slopes = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.PReLU)}
    state = {}
    for key, like in module.state_dict().items():
        if key in slopes:
            value = torch.full(like.shape, _PRELU_SLOPE)
        elif like.ndim < 2:
            value = torch.full(like.shape, int(key.endswith(("weight", "running_var", "gamma"))), dtype=like.dtype)
        else:
            num_inputs = like[0].numel()
            value = untrained_matrix((like.shape[0], num_inputs), seed, feature, key)
            if like.shape[1] not in _IMAGE_CHANNELS:
                value -= value.mean(1, keepdim=True)
            value *= (2 / num_inputs) ** 0.5
            value = value.reshape(like.shape)
        state[key] = value * next((gain for end, gain in _GAINS.items() if key.endswith(end)), 1)
    module.load_state_dict(state, assign=True)


def untrained_matrix(shape: tuple[int, int], seed: int, feature: str, key: str) -> Tensor:
    """Standard normal numbers, float32 [M, N] of the shape (M, N), of the seed, the feature and the key alone."""
    names = [zlib.crc32(feature.encode()), zlib.crc32(key.encode())]
    return torch.from_numpy(np.random.default_rng([seed, *names]).standard_normal(shape, np.float32))
