"""Speech to words with times: a Whisper of faster-whisper, from a folder, without a network.

    samples ─ stretches of ≤ 300 s, cut where it is quiet ─ where somebody speaks ─ Whisper ─► words on the clock

Words of equal samples are equal: the search is without chance (one temperature), and no stretch sees another's text.
Source: docs/sources.md (Words). Tested by tests/pipeline/transcribe/test_recogniser.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...shell.text import kind_and_number, one_line, preview
from ..config import RecogniserSettings
from ..media.types import SAMPLE_RATE_HZ
from ..words.transcript import Word

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

_COMPUTE = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
_FILES = ("model.bin", "config.json", "tokenizer.json")
_CONVERT = (
    "ct2-transformers-converter --model DIR --output_dir OUT --copy_files tokenizer.json preprocessor_config.json"
)
# Memory is that of one stretch; a cut is looked for in its last 30 s.
_STRETCH_SAMPLES, _SEARCH_SAMPLES = 300 * SAMPLE_RATE_HZ, 30 * SAMPLE_RATE_HZ
_QUIET_SAMPLES = SAMPLE_RATE_HZ // 5
# Of a word: steps of 20 ms, the share of the loudest one's energy from which another is loud, steps of a pause.
_STEP_SAMPLES, _LOUD, _PAUSE_STEPS = SAMPLE_RATE_HZ // 50, 10**-2.5, 10


def check_whisper_folder(folder: Path) -> None:
    """Refuse what is not a Whisper for faster-whisper, whole, which would be looked for on a hub.

    Raises ValueError with what to do.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: --weights is a folder with {', '.join(_FILES)}; no hub is asked")
    names = sorted(path.name for path in folder.iterdir())
    if "model.bin" not in names and any(name.endswith((".safetensors", ".pt", ".pth")) for name in names):
        raise ValueError(f"{folder} holds a Whisper of another library: convert it once, by `{_CONVERT}`")
    if missing := [name for name in _FILES if name not in names]:
        raise ValueError(f"{folder} lacks {preview(missing)}: is it a Whisper for faster-whisper?")


class Recogniser:
    """A loaded model. Raises ValueError where the library is missing, or the folder cannot be used."""

    def __init__(self, settings: RecogniserSettings) -> None:
        check_whisper_folder(settings.folder)
        try:
            import ctranslate2  # noqa: PLC0415 - the extra `asr`, only where it is used
            from faster_whisper import WhisperModel  # noqa: PLC0415
        except ImportError as error:
            raise ValueError("transcribe needs faster-whisper: pip install 'avfuse[asr]'") from error
        num_gpus = ctranslate2.get_cuda_device_count()  # which may see GPUs that torch does not
        device = settings.device if settings.device != "auto" else "cuda" if num_gpus else "cpu"
        kind, number = kind_and_number(device)
        if kind == "cuda" and number >= num_gpus:
            raise ValueError(f"there is no {settings.device}: ctranslate2 does not see it; try --device cpu")
        precision = settings.precision
        if precision == "auto":
            precision = "fp16" if kind == "cuda" else "fp32"
        known = ctranslate2.get_supported_compute_types(kind, number)
        if _COMPUTE[precision] not in known:
            able = [name for name, compute in _COMPUTE.items() if compute in known]
            raise ValueError(f"--precision {precision} is not possible on {kind} here: take {' or '.join(able)}")
        target: dict[str, Any] = {"device": kind, "device_index": number, "cpu_threads": settings.threads}
        try:
            self._model: WhisperModel = WhisperModel(
                str(settings.folder), compute_type=_COMPUTE[precision], local_files_only=True, **target
            )
        except (RuntimeError, ValueError, TypeError, KeyError) as error:  # whatever is wrong with a file
            raise ValueError(f"{settings.folder} cannot be loaded: {one_line(error)}") from error
        bands, wanted = len(self._model.feature_extractor.mel_filters), self._model.model.n_mels
        if bands != wanted:
            lack = "preprocessor_config.json, copied beside model.bin, says so"
            raise ValueError(f"{settings.folder} takes {wanted} mel bands, not {bands}: {lack}")
        languages = self._model.supported_languages
        if settings.language is not None and settings.language not in languages:
            raise ValueError(f"--language {settings.language}: this model knows {preview(languages, 12)}")
        self._language = settings.language or (languages[0] if len(languages) == 1 else None)
        self._beam = settings.beam

    def words(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[tuple[float, list[Word], str]]:
        """Words of the sound that arrives in blocks, mono at 16 kHz: (s that are done, words so far unheard, language).

        `blocks` float32 [S]. Times are s from the first sample. Several threads must not call it at once.
        """
        language = self._language
        for start, samples in stretches(blocks):
            start_s = start / SAMPLE_RATE_HZ
            end_s = start_s + len(samples) / SAMPLE_RATE_HZ
            if samples.any():
                # Without the search for speech Whisper hears words in music and silence: docs/sources.md (Words).
                found, info = self._model.transcribe(
                    samples,
                    language=language,
                    beam_size=self._beam,
                    temperature=0.0,
                    condition_on_previous_text=False,
                    word_timestamps=True,
                    vad_filter=True,
                )
                for segment in found:
                    language = info.language
                    words = [
                        Word(
                            each.word.strip(),
                            float(each.start),
                            max(float(each.start), float(each.end)),
                            float(each.probability),
                        )
                        for each in segment.words or ()
                        if each.word.strip()
                    ]
                    words = [_shifted(word, start_s) for word in tightened(words, samples)]
                    yield min(start_s + float(segment.end), end_s), words, info.language
            yield end_s, [], language or ""


def tightened(words: Iterable[Word], samples: NDArray[np.float32]) -> list[Word]:
    """The words without the pauses that Whisper counts to them: up to a second before the first one of a phrase.

    Of the loud parts of a word, those that no pause of 0.2 s parts count as one; it is the one that holds the most
    energy. Loud: within 25 dB of the loudest 20 ms of the word. Words lie within `samples` [S], whose first is at 0 s.
    """
    steps = len(samples) // _STEP_SAMPLES
    energy = np.square(samples[: steps * _STEP_SAMPLES], dtype=np.float64).reshape(steps, -1).sum(axis=1)
    step_s, end_s = _STEP_SAMPLES / SAMPLE_RATE_HZ, len(samples) / SAMPLE_RATE_HZ
    found = []
    for word in words:
        start_s, stop_s = (min(max(each, 0.0), end_s) for each in (word.start_s, word.end_s))
        first, last = int(start_s / step_s), math.ceil(stop_s / step_s)
        of_word = energy[first:last]
        loud = np.flatnonzero(of_word > of_word.max() * _LOUD) if len(of_word) else np.empty(0, np.int64)
        if len(loud) and stop_s > start_s:
            parts = np.split(loud, np.flatnonzero(np.diff(loud) > _PAUSE_STEPS) + 1)
            part = max(parts, key=lambda part: float(of_word[part].sum()))
            start_s = max(start_s, (first + int(part[0])) * step_s)
            stop_s = min(stop_s, (first + int(part[-1]) + 1) * step_s)
        found.append(replace(word, start_s=start_s, end_s=stop_s))
    return found


def _shifted(word: Word, by_s: float) -> Word:
    return replace(word, start_s=word.start_s + by_s, end_s=word.end_s + by_s)


def stretches(
    blocks: Iterable[NDArray[np.float32]], most: int = _STRETCH_SAMPLES, search: int = _SEARCH_SAMPLES
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The sound in pieces of at most `most` samples, each with the number of its first sample.

    Blocks and pieces are float32 [S]. A piece ends in the quietest fifth of a second of its last `search` samples.
    """
    waiting: list[NDArray[np.float32]] = []
    held, start = 0, 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        while held >= most:
            samples = np.concatenate(waiting)
            tail = np.square(samples[most - search : most], dtype=np.float64)
            sums = np.concatenate([[0.0], np.cumsum(tail)])
            quietest = int(np.argmin(sums[_QUIET_SAMPLES:] - sums[:-_QUIET_SAMPLES]))
            cut = most - search + quietest + _QUIET_SAMPLES // 2
            yield start, samples[:cut]
            waiting, held, start = [samples[cut:]], held - cut, start + cut
    if held:
        yield start, np.concatenate(waiting)


def clamped(words: Iterable[Word], spans: list[tuple[float, float]]) -> list[Word]:
    """The words within the sound that there is: from the start of its first span to the end of its last one, in s."""
    if not spans:
        return []
    first_s, last_s = spans[0][0], spans[-1][1]
    return [
        replace(word, start_s=min(max(word.start_s, first_s), last_s), end_s=min(max(word.end_s, first_s), last_s))
        for word in words
    ]
