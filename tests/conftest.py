"""Real clips (skipped with a reason where they are missing), generated ones, and runs of training in a second."""

import json
import os
import shutil
import socket
import subprocess
import wave
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch is loaded, and for every process that a test starts: threads of as many processes wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

from avfuse.cli import main
from avfuse.features_store.store import FeatureStore

# How fast a machine is decides no test. Of the usual hundred examples a quarter is tried; `make test-slow` tries more.
settings.register_profile("avfuse", deadline=None, max_examples=int(os.environ.get("AVFUSE_EXAMPLES", "25")))
settings.load_profile("avfuse")

MEDIA = Path(__file__).parents[1].parent / "shared" / "media"

MOST_PIXELS = 10_000_000  # of a real clip that every run of the tests decodes: four seconds of 360 × 288 px

# The slowest files begin first, so that processes which share out the files end together.
SLOWEST = (
    "tests/pipeline/media/test_readers.py",
    "tests/pipeline/extraction/test_extract.py",
    "tests/fusion/training/test_planted.py",
    "tests/fusion/models/test_every_head.py",
    "tests/faults/kills/test_random_kills.py",
    "tests/fusion/inference/test_evaluate.py",
    "tests/apps/run/test_run.py",
    "tests/faults/test_bad_input.py",
    "tests/faults/test_zoo.py",
    "tests/faults/test_replacing.py",
    "tests/faults/test_stop.py",
    "tests/pipeline/runs/test_work.py",
    "tests/fusion/tasks/test_tasks.py",
    "tests/fusion/runs/test_work.py",
    "tests/test_literal.py",
    "tests/pipeline/extraction/test_adding.py",
    "tests/apps/report/test_browser.py",
    "tests/faults/test_nothing_gets_out.py",
    "tests/faults/test_train_kill.py",
    "tests/faults/kills/test_meanwhile.py",
    "tests/fusion/results/test_plots.py",
    "tests/faults/test_train_input.py",
    "tests/fusion/data/test_dataset.py",
    "tests/fusion/finetuning/test_backbones.py",
    "tests/fusion/inference/test_ensemble.py",
    "tests/pipeline/extraction/test_words.py",
    "tests/pipeline/extraction/test_sound_states.py",
    "tests/pipeline/media/test_sync.py",
    "tests/pipeline/media/test_streams.py",
    "tests/pipeline/audio/test_denoise.py",
    "tests/fusion/runs/test_identity.py",
    "tests/faults/test_environment.py",
    "tests/pipeline/media/test_sweep.py",
    "tests/faults/kills/test_every_step.py",
    "tests/test_cluster_guide.py",
    "tests/batch/cluster/test_executor.py",
    "tests/faults/test_train_disk.py",
)


def pytest_collection_modifyitems(items):
    ranks = {Path(__file__).parents[1] / name: rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_generate_tests(metafunc):
    """`clip`: every entry of the manifest of which it is known how many frames it has; large ones are slow."""
    if "clip" in metafunc.fixturenames:
        manifest = MEDIA / "MANIFEST.json"
        entries = json.loads(manifest.read_text()) if manifest.is_file() else []
        found = [entry for entry in entries if entry.get("decoded_frames")]
        clips = [
            pytest.param(entry, id=entry["file"], marks=pytest.mark.slow if pixels_of(entry) > MOST_PIXELS else ())
            for entry in found
        ]
        metafunc.parametrize("clip", clips or [pytest.param(None, id="missing")])


def pixels_of(entry: dict[str, Any]) -> int:
    """Of all frames of a clip together."""
    width, height = entry["video"].split()[1].split("x")
    return int(entry["decoded_frames"]) * int(width) * int(height)


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Whoever asks the network fails the test."""

    def refuse(*words, **more):
        raise AssertionError(f"asked for the network: {words[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def media() -> Path:
    """Folder of the real clips."""
    if not (MEDIA / "MANIFEST.json").is_file():
        reason = f"the real clips are not at {MEDIA}"
        if "media" in os.environ.get("AVFUSE_REQUIRE", "").split(","):
            pytest.fail(f"{reason}, and AVFUSE_REQUIRE asks for them")
        pytest.skip(reason)
    return MEDIA


@pytest.fixture(scope="session")
def manifest(media) -> list[dict[str, Any]]:
    """What is known about each real clip."""
    return json.loads((media / "MANIFEST.json").read_text())


@pytest.fixture(scope="session")
def ffmpeg_run() -> Callable[..., None]:
    """Run ffmpeg with these words; its own words are in the failure."""

    def run(*words, stdin: bytes | None = None) -> None:
        command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", *map(str, words)]
        done = subprocess.run(command, input=stdin or b"", capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    return run


@pytest.fixture(scope="session")
def write_wav() -> Callable[..., Path]:
    """Write samples [S] or [S, C] of ±1 as a 16-bit wav file."""

    def write(path: Path, samples: np.ndarray, rate_hz: int) -> Path:
        with wave.open(os.fspath(path), "wb") as file:
            file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
            file.setsampwidth(2)
            file.setframerate(rate_hz)
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        return path

    return write


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory, ffmpeg_run, write_wav) -> Callable[..., Path]:
    """A clip of frames uint8 [T, H, W, 3] at a rate, and of samples; `late_*_s` are the streams' starts."""

    def make(
        name: str,
        frames: np.ndarray,
        *,
        rate: str = "25",
        samples: np.ndarray | None = None,
        rate_hz: int = 44_100,
        options: tuple[str, ...] = (),
        late_video_s: float = 0.0,
        late_audio_s: float = 0.0,
    ) -> Path:
        folder = tmp_path_factory.mktemp("clip")
        height, width = frames.shape[1:3]
        words = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "pipe:"]
        if samples is not None:
            words += ["-i", write_wav(folder / "sound.wav", samples, rate_hz)]
        ffmpeg_run(*words, *options, folder / name, stdin=frames.tobytes())
        if not (late_video_s or late_audio_s):
            return folder / name
        # Encoders round an offset to their frame rate; copied packets keep it.
        two = [
            "-itsoffset",
            late_video_s,
            "-i",
            folder / name,
            "-itsoffset",
            late_audio_s,
            "-i",
            folder / name,
        ]
        ffmpeg_run(*two, "-map", "0:v", "-map", "1:a", "-c", "copy", folder / f"late_{name}")
        return folder / f"late_{name}"

    return make


@pytest.fixture
def make_disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Mount a disk of its own with these options (`size=1m`); a test without the right to mount is skipped."""
    mounted: list[Path] = []

    def make(options: str = "size=50%") -> Path:
        disk = tmp_path / f"disk{len(mounted)}"
        disk.mkdir()
        mount = ("mount", "-t", "tmpfs", "-o", options, "tmpfs", disk)
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root, with the right to mount, can make a disk")
        mounted.append(disk)
        return disk

    yield make
    for disk in mounted:
        subprocess.run(["umount", "-l", disk], check=True)


@dataclass(frozen=True)
class Small:
    """A store of the features `face` [T, 6] and `voice` [T, 4], and labels in the Aff-Wild2 layout."""

    store: Path
    annotations: Path

    def rows(self, trial: str) -> dict[str, np.ndarray]:
        """A trial's arrays as they may be written again."""
        return {name: np.asarray(array[:]) for name, array in FeatureStore(self.store)[trial].items()}

    def rewrite(self, trial: str, fingerprint: str = "planted", **arrays: np.ndarray | None) -> None:
        """Write a trial again with these arrays changed, or left out where they are None."""
        changed = {name: rows for name, rows in {**self.rows(trial), **arrays}.items() if rows is not None}
        FeatureStore(self.store, mode="a").write(trial, changed, {"fingerprint": fingerprint})

    def labels(self, trial: str) -> Path:
        """A trial's label file."""
        return next(self.annotations.rglob(f"{trial}.txt"))


@pytest.fixture(scope="session")
def plant_small(tmp_path_factory) -> Callable[..., Small]:
    """Write trials clip0 …, every fourth one to validate on; clip3 has ten masked rows in the middle.

    Each kind is made once and copied.
    """
    made: dict[str, Path] = {}

    def plant(folder: Path, trials: int = 8, **attributes) -> Small:
        kind = f"{trials} {attributes}"
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("small")
            write(made[kind], trials, attributes)
        shutil.copytree(made[kind], folder, dirs_exist_ok=True)
        return Small(folder / "features.zarr", folder / "annotations")

    def write(folder: Path, trials: int, attributes: dict[str, Any]) -> None:
        rng = np.random.default_rng(7)
        store = FeatureStore(folder / "features.zarr", mode="a")
        to_face, to_voice = rng.standard_normal((1, 6)), rng.standard_normal((1, 4))
        for number in range(trials):
            time_s = np.arange(100 + 5 * number) / 25
            labels = 0.6 * np.sin(time_s[:, None] * rng.uniform(0.5, 2.5, 2) + rng.uniform(0, 6, 2))
            arrays = {"time": time_s}
            for name, signal in (("face", labels[:, :1] @ to_face), ("voice", labels[:, 1:] @ to_voice)):
                arrays[name] = (signal + 0.3 * rng.standard_normal(signal.shape)).astype(np.float32)
                arrays[f"{name}_valid"] = np.ones(len(signal), bool)
            store.write(f"clip{number}", arrays, {"fingerprint": "planted", **attributes})
            if number == 3:
                labels[40:50] = -5
            part = "Validation_Set" if number % 4 == 3 else "Train_Set"
            path = folder / "annotations" / "VA_Estimation_Challenge" / part / f"clip{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("valence,arousal\n" + "".join(f"{v:.6f},{a:.6f}\n" for v, a in labels))

    return plant


@pytest.fixture(scope="session")
def face_weights(tmp_path_factory) -> Callable[..., Path]:
    """A file of random weights for the IResNet-50 that sees faces of 40 px: an eighth of the work of 112 px."""
    folder = tmp_path_factory.mktemp("weights")

    def make(seed: int = 0) -> Path:
        import torch

        from avfuse.encoders.networks.layouts import SUZHANG, empty, fill_untrained

        path = folder / f"{seed}.pth"
        if not path.exists():
            module = empty(SUZHANG)
            fill_untrained(module, seed, "iresnet50")
            torch.save({"state_dict": module.state_dict()}, path)
        return path

    return make


@pytest.fixture(scope="session")
def timm_network(tmp_path_factory) -> Path:
    """A folder of a small network of timm, `timm:test_resnet`, that takes faces of 32 px."""
    timm = pytest.importorskip("timm")
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("network") / "test_resnet"
    small = timm.create_model("test_resnet", pretrained=False)
    small.pretrained_cfg["input_size"] = (3, 32, 32)
    save_for_hf(small, os.fspath(folder), safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def avfuse() -> Callable[..., Result]:
    """The command line in this process, where torch is loaded once, on one thread: two wait for each other."""
    import torch

    def run(*words) -> Result:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            result = CliRunner().invoke(main, [*map(str, words)])
        finally:
            torch.set_num_threads(threads)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def train_words() -> Callable[..., tuple[object, ...]]:
    """`train` with a network that learns a Small corpus in a second."""
    settings = {
        "lead_channels": "8,8",
        "other_channels": "8,8",
        "attention_width": 8,
        "heads": 2,
        "hidden": 8,
        "window_frames": 60,
        "hop_frames": 40,
        "lr": 0.003,
        "warmup_epochs": 1,
    }

    def words(corpus: Small, out: Path, *more) -> tuple[object, ...]:
        given = ("train", "--store", corpus.store, "--annotations", corpus.annotations, "--out", out)
        small = ("--modalities", "face,voice", "--fold", 0, "--epochs", 3, "--device", "cpu")
        pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        return (*given, *small, *pairs, "--no-plots", "--no-tensorboard", *more)

    return words


@pytest.fixture(scope="session")
def fit(avfuse, train_words) -> Callable[..., Result]:
    """Train a Small corpus in this process; it must go well."""

    def run(corpus: Small, out: Path, *more) -> Result:
        result = avfuse(*train_words(corpus, out, *more))
        assert result.exit_code == 0, result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def same_run() -> Callable[[Path, Path], None]:
    """Two runs must have the same history, seconds aside, the same scores and, bit for bit, the same weights."""

    def check(one: Path, other: Path) -> None:
        for name in ("model.safetensors", "metrics.json"):
            assert (one / name).read_bytes() == (other / name).read_bytes()
        lines = [(run / "history.csv").read_text().splitlines() for run in (one, other)]
        histories = [[line.rpartition(",")[0] for line in of_one] for of_one in lines]
        assert histories[0] == histories[1]
        assert len(histories[0]) > 1

    return check


@pytest.fixture(scope="session")
def speech_folder(tmp_path_factory) -> Callable[..., tuple[Path, Any]]:
    """A folder of a tiny network for the feature of a name, as transformers saves it, and that network; made once.

    `head`: of which class it is; `normalize`: whether sound is to be levelled; `change`: called with the network.
    """
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": (16,) * 7}
    small |= {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "num_hidden_layers": 5}
    large = {**small, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
    whisper = {"d_model": 32, "vocab_size": 60, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2}
    for half in ("encoder", "decoder"):
        whisper |= {f"{half}_layers": 2, f"{half}_attention_heads": 2, f"{half}_ffn_dim": 64}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "wavlm_base": ("WavLM", small),
        "wavlm_large": ("WavLM", {**large, "conv_bias": False}),
        "hubert_large": ("Hubert", large),
        "wav2vec2_large": ("Wav2Vec2", large),
        "wav2vec2_emotion": ("Wav2Vec2", {**large, "num_hidden_layers": 4}),
        "whisper_large": ("Whisper", {**whisper, "decoder_start_token_id": 3, "num_mel_bins": 128}),
    }
    made: dict[str, tuple[Path, Any]] = {}

    def make(name: str, head: str = "Model", *, normalize: bool = True, change: Any = None, **sizes: Any):
        import torch
        import transformers

        key = f"{name} {head} {normalize} {change} {sizes}"
        if key in made:
            return made[key]
        transformers.utils.logging.disable_progress_bar()
        kind, config = kinds[name]
        settings = getattr(transformers, f"{kind}Config")(**{**config, **sizes})
        model = getattr(transformers, f"{kind}{head.removeprefix(kind)}")(settings).eval()
        state = {}
        for number, tensor in model.state_dict().items():
            # From arrays of NumPy, which no version of an initialiser changes.
            drawn = np.random.default_rng(zlib.crc32(number.encode())).standard_normal(tensor.shape)
            is_norm = "norm" in number and number.endswith("weight")
            state[number] = torch.from_numpy(drawn.astype(np.float32)) * (0.05 if is_norm else 0.15) + is_norm
        model.load_state_dict(state)
        if change is not None:
            change(model)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        if kind == "Whisper":
            transformers.WhisperFeatureExtractor(feature_size=settings.num_mel_bins).save_pretrained(folder)
        else:
            transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
        made[key] = folder, model
        return made[key]

    return make
