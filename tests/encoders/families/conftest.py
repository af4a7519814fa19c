"""Tiny folders of weights, written by the libraries that read them; the network refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _no_network(no_network):
    """No test of a library asks it."""


@pytest.fixture(scope="session")
def timm_folder(tmp_path_factory, pictures) -> Callable[..., Path]:
    """A folder as timm writes it, of random weights with norms that do something; made once for these arguments."""
    made: dict[str, Path] = {}

    def make(architecture: str, tag: str | None = None, **arguments: Any) -> Path:
        import timm
        import torch
        from timm.models import save_for_hf

        key = f"{architecture} {tag} {arguments}"
        if key not in made:
            torch.manual_seed(0)  # the same network whichever tests ran before
            network: Any = timm.create_model(architecture, pretrained=False, **arguments)
            size = network.pretrained_cfg["input_size"]
            for norm in network.modules():
                if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
                    norm.momentum = 1.0
                    torch.nn.init.normal_(norm.bias, 0, 0.1)
            drawn = torch.from_numpy(pictures(6, size[1])).permute(0, 3, 1, 2) / 64 - 2
            with torch.no_grad():  # else dozens of layers, each of its own scale, would leave nothing to compare
                network.train()(drawn)
            made[key] = tmp_path_factory.mktemp("timm") / architecture
            described = {} if tag is None else {"pretrained_cfg": {"tag": tag}}
            save_for_hf(network, os.fspath(made[key]), model_config=described, safe_serialization=True)
        return made[key]

    return make


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A whole CLIP of two layers as transformers writes it, its projection 24 wide where the tower's default is 512."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2}
    folder: Path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(vision_config=sizes, text_config=text, projection_dim=24)).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pictures() -> Callable[..., np.ndarray]:
    """RGB pictures uint8 [N, px, px, 3] that have edges and slopes."""

    def draw(count: int, side_px: int) -> np.ndarray:
        y, x = np.mgrid[0:side_px, 0:side_px] / side_px
        rng = np.random.default_rng(side_px)
        drawn = []
        for _ in range(count):
            waves = [np.sin(rng.uniform(5, 40) * x + rng.uniform(5, 40) * y + phase) for phase in (0, 1, 2)]
            picture = 127 + 120 * np.stack(waves, axis=2)
            picture[side_px // 3 : side_px // 2, side_px // 4 : side_px // 2] = rng.integers(0, 256, 3)
            drawn.append(picture.astype(np.uint8))
        return np.stack(drawn)

    return draw
