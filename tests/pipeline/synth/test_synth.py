"""The planted corpus on disk: a small one is made once, then looked at with the pipeline's own readers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from avfuse.cli import main
from avfuse.features_store.labels.annotations import annotation_files, read_labels
from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.faces.mtcnn import FaceDetector
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.types import MediaError
from avfuse.pipeline.runs.discover import find_jobs, find_sources
from avfuse.pipeline.synth.corpus import make_corpus
from avfuse.pipeline.synth.encode import encode
from avfuse.pipeline.synth.face import load_picture
from avfuse.pipeline.synth.filming import film, record
from avfuse.pipeline.synth.planning import SynthConfig, frame_times_s, plan_corpus
from avfuse.pipeline.synth.recipes import recipes

SMALL = SynthConfig(trials=6, seconds=1.5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "corpus"
    make_corpus(out, SMALL)
    return out


@pytest.fixture(scope="module")
def planted(corpus) -> dict[str, Any]:
    return json.loads((corpus / "planted.json").read_text())["planted"]


@pytest.fixture(scope="module")
def decoded(corpus, planted, decode) -> dict[str, Any]:
    return {name: decode(corpus / "videos" / trial["video"]) for name, trial in planted.items()}


def truth_of(corpus, trial):
    return np.genfromtxt(corpus / "truth" / f"{trial}.csv", delimiter=",", names=True)


def test_a_label_row_for_every_decoded_frame(corpus, planted, decoded):
    files = annotation_files(corpus / "annotations")
    assert set(files) == set(planted)
    for name, trial in planted.items():
        labels, truth = read_labels(files[name]), truth_of(corpus, name)
        assert files[name].parent.name == trial["set"]
        assert len(labels.valid) == len(decoded[name].time_s) == trial["frames"] == len(truth)
        np.testing.assert_allclose(decoded[name].time_s, truth["time_s"], atol=1e-3)
        np.testing.assert_array_equal(np.flatnonzero(~labels.valid), trial["masked"])
        wanted = np.stack([truth["valence"], truth["arousal"]], axis=1)[labels.valid]
        np.testing.assert_allclose(labels.values[labels.valid], wanted, atol=1e-6)


def test_the_specials_are_there(planted, corpus):
    assert {trial["video"].rpartition(".")[2] for trial in planted.values()} == {"mp4", "avi", "mkv"}
    assert len({trial["fps"] for trial in planted.values()}) >= 4
    assert any(not trial["audio"] for trial in planted.values())
    assert any(trial["audio_start_s"] == 0.4 for trial in planted.values())
    assert any(trial["faceless"] for trial in planted.values())
    inner = [row for trial in planted.values() for row in trial["masked"] if 5 < row < trial["frames"] - 5]
    assert inner
    assert {"video59_left", "video59_right", "video86_1", "video86_2"} <= set(planted)
    assert {path.parent.name for path in (corpus / "videos").rglob("*.*")} == {"batch1", "batch2"}


def test_the_vfr_clip_has_irregular_times(planted, decoded):
    (name,) = (name for name, trial in planted.items() if trial["vfr"])
    assert len(np.unique(np.round(np.diff(decoded[name].time_s), 3))) > 8


def test_sets_share_no_subject_and_pairs_and_parts_stay_together(planted):
    people = {
        word: {trial["subject"] for trial in planted.values() if trial["set"] == word}
        for word in ("Train_Set", "Validation_Set")
    }
    assert not people["Train_Set"] & people["Validation_Set"]
    assert planted["video86_1"]["subject"] == planted["video86_2"]["subject"]
    assert planted["video59_left"]["subject"] != planted["video59_right"]["subject"]
    assert planted["video59_left"]["set"] == planted["video59_right"]["set"]


@pytest.mark.parametrize("trials", [6, 12, 40])
def test_about_a_third_validates(trials):
    sets = [recipe.label_set for recipe in recipes(trials) for _ in recipe.trials]
    assert len(sets) == trials
    assert 0.2 < sets.count("Validation_Set") / trials < 0.4


def test_the_default_corpus_is_small_enough_for_a_demo():
    assert sum(len(clip.time_s) * len(clip.trials) for clip in plan_corpus(SynthConfig())) <= 2600


def test_the_sound_lies_where_it_was_planted(planted, decoded):
    for clip in plan_corpus(SMALL):
        sound, samples = record(clip), decoded[clip.trials[0].name].samples
        if sound is None:
            assert not len(samples)
            continue
        start = round(sound.start_s * sound.rate_hz)
        samples = samples[start : start + len(sound.samples)]
        assert np.corrcoef(samples, sound.samples[: len(samples)])[0, 1] > 0.98, clip.recipe.video
        assert len(samples) > len(sound.samples) - 800


def test_the_plan_finds_every_trial(corpus, planted):
    sources = find_sources(corpus / "videos", corpus / "annotations", corpus / "cropped_aligned")
    jobs, failures, notes = find_jobs(sources, ExtractConfig())
    assert not failures
    assert not notes
    found = {Path(job.trial).name: job for job in jobs}
    assert {name: job.length for name, job in found.items()} == {
        name: trial["frames"] for name, trial in planted.items()
    }
    assert found["video59_left"].face == "left"


def test_crops_are_numbered_by_frame(corpus, planted):
    for name, trial in planted.items():
        numbers = sorted(int(path.stem) for path in (corpus / "cropped_aligned" / name).glob("*.jpg"))
        assert numbers == [row + 1 for row in range(trial["frames"]) if row not in trial["faceless"]]
        with Image.open(corpus / "cropped_aligned" / name / f"{numbers[0]:05d}.jpg") as crop:
            assert crop.size == (112, 112)


@pytest.mark.parametrize("name", ["video59_left", "10-60-1280x720"])
def test_the_detector_sees_the_faces_where_they_are(planted, decoded, name):
    (clip,) = (clip for clip in plan_corpus(SMALL) if name in [trial.name for trial in clip.trials])
    shots = list(film(clip, load_picture()))
    hidden = planted[name]["faceless"]
    rows = sorted({*range(0, len(shots), 9), *hidden})
    for row, faces in zip(rows, FaceDetector()(decoded[name].pixels[rows]), strict=True):
        seen = [points for points in shots[row].landmarks if points is not None]
        assert len(faces) == len(seen) == (0 if row in hidden else len(clip.trials))
        found = sorted(faces.landmarks.tolist(), key=lambda points: points[0][0])
        np.testing.assert_allclose(found, seen, atol=4.5)


def files_below(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def test_the_same_seed_gives_the_same_corpus_in_place_of_an_unfinished_one(corpus, tmp_path):
    (tmp_path / ".avfuse-synth").touch()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "old.csv").touch()
    words = ["synth", str(tmp_path), "--trials", "6", "--seconds", "1.5", "--overwrite", "--json"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == json.dumps(json.loads((corpus / "planted.json").read_text()))
    for folder in ("annotations", "truth", "cropped_aligned"):
        assert files_below(tmp_path / folder) == files_below(corpus / folder)
    assert (tmp_path / "planted.json").read_bytes() == (corpus / "planted.json").read_bytes()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_earlier_corpus_is_replaced_only_on_request(corpus):
    result = CliRunner().invoke(main, ["synth", str(corpus)])
    assert result.exit_code == 1
    assert "--overwrite" in result.stderr
    assert (corpus / "planted.json").is_file()


def test_another_seed_gives_another_corpus():
    one, two = (plan_corpus(SynthConfig(seed=seed))[0].trials[0] for seed in (0, 1))
    assert one.script != two.script
    assert one.subject != two.subject


def test_times_of_a_vfr_clip_rise():
    (recipe,) = (recipe for recipe in recipes(12) if recipe.vfr)
    step_s = np.diff(frame_times_s(recipe, 60.0))
    assert step_s.min() > 0.02
    assert step_s.max() < 0.07


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--trials", "5"], 1, "6 trials or more, got 5"),
        (["--seconds", "0.2"], 2, "0.2 is not in the range 1<=x<=600"),
        (["--seconds", "nan"], 2, "nan is not a number"),
        (["--lag", "-1"], 2, "-1.0 is not in the range 0<=x<=2"),
        (["--seed", "-1"], 1, "0 or more, got -1"),
    ],
)
def test_wrong_settings_are_one_clear_line(tmp_path, words, code, why):
    result = CliRunner().invoke(main, ["synth", str(tmp_path / "out"), *words])
    assert result.exit_code == code
    assert why in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    result = CliRunner().invoke(main, ["synth", str(tmp_path), "--overwrite"])
    assert result.exit_code == 1
    assert "is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_without_scikit_image_the_error_says_how_to_fix_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    result = CliRunner().invoke(main, ["synth", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "pip install 'avfuse[demo]'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_ffmpeg_that_fails_is_quoted(tmp_path):
    clip = plan_corpus(SMALL)[0]
    frames = iter([np.zeros((240, 480, 3), np.uint8)] * 200)
    with pytest.raises(MediaError, match="encode"):
        encode(tmp_path / "no" / "folder.mp4", frames, clip.size_px, clip.recipe.fps, None)


def test_the_offset_is_in_the_file(corpus, planted):
    (trial,) = (trial for trial in planted.values() if trial["audio_start_s"])
    info = probe(corpus / "videos" / trial["video"])
    assert info.video_start_s == 0
    assert info.audio_start_s == pytest.approx(0.4, abs=0.033)  # AAC's run-in comes before


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom avfuse.cli import main\n"
        "try:\n    main(['synth', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'zarr', 'dask', 'h5py', 'scipy', 'skimage') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
