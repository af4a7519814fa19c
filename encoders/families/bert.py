"""BERT on words: a word's row is the sum of the last four hidden layers, averaged over its sub-words.

    words      Today,            two    years
    sub-words  [CLS] today ,     two    years   [SEP]      at most 256 at once, cut between words
    rows       mean of both      its    its

Source: docs/sources.md (Words). Tested by tests/encoders/families/test_bert.py.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ...shell.text import one_line
from ..contract import Precision
from ..networks.layouts import CANNOT_BUILD, DTYPES
from ..weights.folder import load_tensors, read_json, settings_of, strict

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import BertModel

KIND = "words"
REVISION = 1
LICENCE = "as the folder says; bert-base-uncased: Apache-2.0 (unverified)"
NEEDS = ("transformers",)

_MOST_TOKENS = 256
_LAYERS = 4
# Heads of pre-training and of fine-tuning, the pooler, and numbers that old files keep beside the weights.
_OF_OTHERS = ("cls.", "classifier.", "qa_outputs.", "pooler.", "embeddings.position_ids")
_TENSORFLOWS = {"gamma": "weight", "beta": "bias"}


class Bert:
    """A BERT and its tokenizer; `dim`: width of a row."""

    def __init__(self, model: BertModel, tokenizer: Tokenizer, device: torch.device) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._most = min(_MOST_TOKENS, int(model.config.max_position_embeddings))
        self.dim = self._read(["word"]).shape[1]

    def rows(self, words: list[str]) -> NDArray[np.float32]:
        """The words of one segment, in order → float32 [W, dim]; a word that has no sub-words has zeros.

        A segment of more than 256 sub-words is read in parts, none longer than that.
        """
        room = self._most - self._tokenizer.num_special_tokens_to_add(False)
        places = self._tokenizer.encode(words, is_pretokenized=True, add_special_tokens=False).word_ids
        lengths = np.bincount(np.array(places, np.int64), minlength=len(words))
        ends = np.minimum(lengths, room).cumsum()
        done = [np.zeros((0, self.dim), np.float32)]
        start = 0
        while start < len(words):
            before = ends[start - 1] if start else 0
            left = ends[-1] - before
            share = -(-left // max(1, -(-left // room)))  # about equal parts: the last one has a context too
            stop = max(start + 1, int(np.searchsorted(ends, before + share, side="right")))
            done.append(self._read(words[start:stop]))
            start = stop
        return np.concatenate(done)

    def _read(self, words: list[str]) -> NDArray[np.float32]:
        """Rows of words that fit at once, but for the end of a word that is too long by itself."""
        found = self._tokenizer.encode(words, is_pretokenized=True)
        ids, places = found.ids, found.word_ids
        if len(ids) > self._most:
            ids, places = [*ids[: self._most - 1], ids[-1]], [*places[: self._most - 1], places[-1]]
        with torch.inference_mode():
            inputs = torch.tensor([ids], device=self._device)
            layers = self._model(inputs, output_hidden_states=True).hidden_states
            states = torch.stack([layer[0].float() for layer in layers[-_LAYERS:]]).sum(dim=0).cpu().numpy()
        of_word = np.array([-1 if place is None else place for place in places])
        rows = np.zeros((len(words), states.shape[1]), np.float32)
        for number in range(len(words)):
            if (mine := of_word == number).any():
                rows[number] = states[mine].mean(axis=0)
        return rows


def load(weights: Path | None, device: torch.device, precision: Precision, options: Mapping[str, str]) -> Bert:
    """A BERT from its folder: config.json, model.safetensors, tokenizer.json.

    Raises ValueError where it is not a BERT, lacks a tensor or its tokenizer, or where no folder is given: there are
    no untrained words.
    """
    if weights is None:
        raise ValueError(
            "words need a real vocabulary, so there is no untrained one: give the folder of a BERT (config.json, "
            "model.safetensors, tokenizer.json), such as google-bert/bert-base-uncased, by --weights bert=DIR"
        )
    from tokenizers import Tokenizer  # noqa: PLC0415 - the extra `text`, only where it is used
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    described = read_json(weights / "config.json")
    if described.get("model_type") != "bert":
        raise ValueError(f"is a {described.get('model_type')!r}, not a 'bert' (model_type in config.json)")
    with settings_of("a BERT"):
        config = BertConfig.from_dict(described)
        config.num_hidden_layers = operator.index(config.num_hidden_layers)
    if config.num_hidden_layers < _LAYERS:
        raise ValueError(f"has {config.num_hidden_layers} layers; a row is the sum of the last {_LAYERS}")
    if not (weights / "tokenizer.json").is_file():
        raise ValueError(
            "has no tokenizer.json; of an older folder make one by "
            "transformers.BertTokenizerFast.from_pretrained(DIR).save_pretrained(DIR)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"tokenizer.json cannot be read: {one_line(error)}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    known = tokenizer.get_vocab_size()
    if not tokenizer.num_special_tokens_to_add(False) < known <= config.vocab_size:
        raise ValueError(f"its tokenizer knows {known} sub-words, its network {config.vocab_size}: not of one model")
    try:
        model = BertModel(config, add_pooling_layer=False)
    except CANNOT_BUILD as error:
        raise ValueError(f"cannot be built as config.json says: {one_line(error)}") from error
    tensors = {_key(name): each for name, each in load_tensors(weights).items()}
    try:
        found = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        raise ValueError(one_line(error)) from error
    strict(found.missing_keys, found.unexpected_keys, _OF_OTHERS)
    model.train(False).to(device, DTYPES[precision])
    return Bert(model, tokenizer, device)


def _key(name: str) -> str:
    """A tensor's name in the network itself; files of TensorFlow's time call the norms' parameters otherwise."""
    head, dot, last = name.removeprefix("bert.").rpartition(".")
    return f"{head}{dot}{_TENSORFLOWS.get(last, last)}"
