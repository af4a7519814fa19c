"""BERT on words: the rows are those of its own library, in the store too; what is not a BERT is refused."""

import json
import re
import shutil
import string
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avfuse.encoders.families import bert
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.words.transcript import Word, write_transcript

CPU = torch.device("cpu")
SENTENCE = ["The", "cat's", "well-known", "mat,", "日本", "☃", "x y", "é", "is", "a" * 30, "cat."]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """A BERT of five layers with the heads of its pre-training, as published ones are, that knows letters."""
    from transformers import AutoTokenizer, BertConfig, BertForPreTraining
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("bert") / "tiny"
    letters = string.ascii_lowercase
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{each}" for each in letters)]
    vocabulary += ["the", "cat", ".", ",", "'", "-"]
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2}
    network = BertForPreTraining(BertConfig(vocab_size=len(vocabulary), intermediate_size=64, **sizes))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for each in network.parameters():
            each.copy_(torch.randn(each.shape, generator=generator) * 0.2)
    network.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    AutoTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def library_rows(tiny_bert):
    """The library's own forward pass over words that are read together."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert, local_files_only=True)
    network = AutoModel.from_pretrained(tiny_bert, local_files_only=True, use_safetensors=True).eval()

    def rows(words):
        inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            layers = network(**inputs, output_hidden_states=True).hidden_states
        states = (layers[-4] + layers[-3] + layers[-2] + layers[-1])[0].numpy()
        mine = [[at for at, each in enumerate(inputs.word_ids()) if each == number] for number in range(len(words))]
        return np.stack([states[at].mean(axis=0) if at else np.zeros(32) for at in mine])

    return rows


@pytest.fixture
def altered(tiny_bert, tmp_path):
    """A copy of the folder with another configuration, or other tensors."""

    def alter(change=lambda tensors: tensors, **settings):
        folder = shutil.copytree(tiny_bert, tmp_path / "altered")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
        return folder

    return alter


def load(folder, precision="fp32"):
    return bert.load(folder, CPU, precision, {"feature": "bert"})


def test_rows_are_those_of_the_library(tiny_bert, library_rows):
    encoder = load(tiny_bert)
    assert encoder.dim == 32
    rows = encoder.rows(SENTENCE)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, library_rows(SENTENCE), atol=1e-5)
    assert (rows == encoder.rows(SENTENCE)).all()
    np.testing.assert_allclose(encoder.rows(["the"]), library_rows(["the"]), atol=1e-5)
    assert np.abs(encoder.rows(["the"])[0] - rows[0]).max() > 1e-2  # words have their context


def test_words_of_nothing_have_zeros(tiny_bert):
    encoder = load(tiny_bert)
    rows = encoder.rows(["the", "\u200b", "cat"])
    assert not rows[1].any()
    np.testing.assert_array_equal(rows[[0, 2]], encoder.rows(["the", "cat"]))
    assert encoder.rows([]).shape == (0, 32)
    assert not encoder.rows(["\u200b", "\ufe0f"]).any()


def test_long_segments_are_read_in_parts(tiny_bert, library_rows):
    encoder = load(tiny_bert)
    words = [string.ascii_lowercase[:length] for length in (3, 1, 7, 5, 2) * 20]  # 360 sub-words: two parts of 180
    rows = encoder.rows(words)
    np.testing.assert_allclose(rows, np.concatenate([library_rows(words[:50]), library_rows(words[50:])]), atol=1e-5)
    monster = encoder.rows(["the", "b" * 90, "cat"])
    np.testing.assert_allclose(monster, library_rows(["the", "b" * 90, "cat"]), atol=1e-5)
    monster = encoder.rows(["the", "ab" * 45, *["[UNK]"] * 3, "c" * 600, "cat"])
    assert monster.shape == (7, 32)
    assert np.abs(monster).sum(axis=1).all()


def test_half_precision_is_near(tiny_bert):
    exact, near = (load(tiny_bert, precision).rows(SENTENCE) for precision in ("fp32", "bf16"))
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


def test_old_names_of_norms_and_foreign_heads_do_not_matter(altered, tiny_bert):
    def as_published(tensors):
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): each
            for name, each in tensors.items()
        }
        return {**renamed, "bert.embeddings.position_ids": torch.arange(512)[None], "classifier.weight": torch.ones(2)}

    np.testing.assert_array_equal(load(altered(as_published)).rows(SENTENCE), load(tiny_bert).rows(SENTENCE))


def half(tensors):
    return {name: each for name, each in tensors.items() if ".layer.3." not in name and ".layer.4." not in name}


def narrow(tensors):
    return {name: each[..., :16].clone() for name, each in tensors.items()}


def foreign(tensors):
    return {**tensors, "bert.encoder.layer.5.output.dense.bias": torch.zeros(32)}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (half, {}, "32 tensors missing: encoder.layer.3"),
        (foreign, {}, "1 tensor too many: encoder.layer.5.output.dense.bias"),
        (narrow, {}, "size mismatch"),
        (dict, {"num_hidden_layers": 3}, "has 3 layers; a row is the sum of the last 4"),
        (dict, {"num_hidden_layers": "many"}, "config.json is not that of a BERT"),
        (dict, {"num_attention_heads": 3}, "cannot be built as config.json says"),
        (dict, {"model_type": "roberta"}, "is a 'roberta', not a 'bert'"),
        (dict, {"vocab_size": 40}, "its tokenizer knows 63 sub-words, its network 40: not of one model"),
    ],
)
def test_what_is_not_whole_or_not_a_bert_is_refused(altered, change, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load(altered(change, **settings))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no tokenizer.json"), ("{", "tokenizer.json cannot be read"), ("{}", "cannot be")],
)
def test_a_tokenizer_that_is_none_is_refused(altered, content, message):
    folder = altered(dict)
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_there_are_no_untrained_words():
    with pytest.raises(ValueError, match="there is no untrained one: give the folder of a BERT"):
        bert.load(None, CPU, "fp32", {"feature": "bert", "untrained": "0"})


def test_real_clips_have_its_rows_where_words_are_spoken(avfuse, media, tmp_path, tiny_bert, library_rows):
    videos, words, store = tmp_path / "videos", tmp_path / "words", tmp_path / "s.zarr"
    videos.mkdir()
    shutil.copy(media / "derived/aoc_vfr_dropped.mp4", videos / "clip.mp4")
    sentences = (["The", "cat", "sat."], ["On", "a", "mat,", "all", "day."])
    spoken = [Word(text, 0.5 * number, 0.5 * number + 0.3) for number, text in enumerate(chain(*sentences))]
    write_transcript(words / "clip.csv", spoken)
    made = ("extract", "--videos", videos, "--store", store, "--words", words, "--device", "cpu")
    result = avfuse(*made, "--features", "mfcc,bert", "--weights", f"bert={tiny_bert}")
    assert result.exit_code == 0, result.output
    trial = FeatureStore(store)["clip"]
    wanted = np.concatenate([library_rows(each) for each in sentences])
    rows, valid = np.zeros((trial.rows, 32), np.float32), np.zeros(trial.rows, bool)
    for row, now_s in enumerate(trial.time_s):
        for number, word in enumerate(spoken):
            if word.start_s < now_s <= word.end_s:
                rows[row], valid[row] = wanted[number], True
    assert 0.3 < valid.mean() < 0.8
    np.testing.assert_array_equal(trial.valid("bert"), valid)
    found = np.asarray(trial["bert"][:])
    np.testing.assert_allclose(found, rows, atol=1e-5)
    assert not found[~valid].any()
    entry = trial.entries["bert"]
    assert (entry["made_from"], entry["settings"]) == ("words", {"precision": "fp32"})
    assert entry["weights"]["sha256"]
    assert "transformers" in entry["versions"]
    again = avfuse(*made, "--features", "mfcc,bert", "--weights", f"bert={tiny_bert}")
    assert "0 videos to do, 1 done before" in again.stderr
    other = avfuse(*made, "--features", "bert", "--untrained", 0)
    assert other.exit_code == 1
    assert "words need a real vocabulary" in other.stderr or "weights of bert" in other.stderr


def test_a_head_learns_from_rows_that_are_mostly_invalid(fit, plant_small, tmp_path):
    corpus = plant_small(tmp_path)
    rng = np.random.default_rng(0)
    for trial in FeatureStore(corpus.store).trials():
        spoken = rng.random(len(corpus.rows(trial)["time"])) < 0.3
        rows = np.where(spoken[:, None], rng.standard_normal((len(spoken), 32)), 0).astype(np.float32)
        corpus.rewrite(trial, bert=rows, bert_valid=spoken)
    fit(corpus, tmp_path / "run", "--modalities", "face,bert")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["P"] > -1
