"""`avfuse run`: a row a decoded frame, plots, drawn videos and a table; what a run has learned from, and no other."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from avfuse.apps.run.results import how_often
from avfuse.features_store.labels.kinds import KINDS
from avfuse.features_store.records.failures import Stage
from avfuse.features_store.store import FeatureStore
from avfuse.fusion.results.plots import prediction_plot
from avfuse.fusion.tasks.table import TASKS
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.readers import FrameReader
from avfuse.pipeline.media.types import MediaError


def times_of(path):
    with FrameReader(probe(path), pixels=False) as reader:
        return np.concatenate([batch.time_s for batch in reader])


def rows_of(path):
    header, *lines = path.read_text().splitlines()
    return header, np.array([[float(value) for value in line.split(",")] for line in lines])


def failure_lines(result):
    return [line for line in result.stderr.splitlines() if line.startswith("failed: ")]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestResults:
    def test_a_row_a_decoded_frame_and_one_line_for_a_bad_file(self, run_videos, planted, videos, tmp_path):
        out = tmp_path / "out"
        result = run_videos(videos, planted.run, out)
        assert result.exit_code == 3
        (line,) = failure_lines(result)
        assert line.startswith("failed: bad.mp4: cannot be read as a video")
        assert "--retry-failed" not in result.stderr  # which is for those of an earlier call
        for path in (videos / "sub" / "two.mp4", next(videos.glob("one.*"))):
            trial = path.relative_to(videos).with_suffix("")
            header, rows = rows_of(out / trial.with_suffix(".csv"))
            assert header == "time_s,valence,arousal,valid"
            np.testing.assert_allclose(rows[:, 0], times_of(path), atol=1e-6)
            assert np.abs(rows[:, 1:3]).max() <= 1
            assert set(rows[:, 3]) <= {0, 1}
            with Image.open(out / trial.with_suffix(".png")) as picture:
                assert picture.size[0] > 800
        table = result.stdout.splitlines()
        assert table[0].split() == ["trial", "frames", "seconds", "face", "sound", "valid", "valence", "arousal"]
        assert [line.split()[0] for line in table[1:3]] == ["one", "sub/two"]
        assert table[-1].startswith("2 trials, ")

    def test_a_second_call_extracts_nothing_and_gives_the_same(self, run_videos, planted, videos, out):
        run_videos(videos, planted.run, out, "--no-plots")  # so that all is of this folder
        before = contents(out)
        result = run_videos(videos, planted.run, out, "--no-plots")
        assert "0 videos to do, 2 done before, 1 failed" in result.stderr
        assert "--retry-failed tries them again" in result.stderr
        (line,) = failure_lines(result)
        assert line.startswith("failed: bad.mp4: probe: cannot be read as a video")
        after = contents(out)
        changing = {"made.json", "summary.json"}  # when, and by which command
        assert {name: each for name, each in after.items() if name not in changing} == {
            name: each for name, each in before.items() if name not in changing
        }

    def test_videos_that_are_gone_are_not_predicted(self, run_videos, planted, videos, out):
        shutil.rmtree(videos / "sub")
        (videos / "bad.mp4").unlink()
        result = run_videos(videos, planted.run, out, "--no-plots")
        assert result.exit_code == 0, result.stderr
        assert sorted(path.name for path in out.glob("**/*.csv")) == ["one.csv"]

    def test_the_summary_for_programs(self, run_videos, planted, videos, out):
        result = run_videos(videos, planted.run, out, "--no-plots", "--json")
        said = json.loads(result.stdout)
        one, two = said["videos"]
        assert (two["trial"], two["video"], two["files"]) == ("sub/two", "sub/two.mp4", ["sub/two.csv"])
        assert one["frames"] == len(rows_of(out / "one.csv")[1])
        assert one["mean"].keys() == {"valence", "arousal"}
        assert list(said["failed"]) == ["bad.mp4"]
        assert said["made"]["runs"] == [str(planted.run)]
        assert json.loads((out / "summary.json").read_text()) == said

    def test_a_video_that_is_broken_now_is_not_predicted_from_what_it_was(self, run_videos, planted, videos, out):
        (videos / "sub" / "two.mp4").write_bytes(b"broken")
        result = run_videos(videos, planted.run, out, "--no-plots")
        assert result.exit_code == 3
        assert [line.split(":")[1] for line in failure_lines(result)] == [" sub/two.mp4", " bad.mp4"]
        assert "1 predicted, 2 failed" in result.stderr
        assert sorted(path.name for path in out.glob("**/*.csv")) == ["one.csv"]

    def test_runs_that_cannot_be_used_are_refused_before_any_work(self, run_videos, planted, videos, tmp_path):
        broken = shutil.copytree(planted.run, tmp_path / "broken")
        (broken / "model.safetensors").write_bytes(b"broken")
        other = shutil.copytree(planted.run, tmp_path / "other")
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, "task": "expr"}))
        for words in ((broken,), (planted.run, "--model", other)):
            result = run_videos(videos, words[0], tmp_path / "out", *words[1:])
            assert result.exit_code == 1
            assert not (tmp_path / "out").exists()

    def test_only_bad_files(self, run_videos, planted, tmp_path):
        (tmp_path / "videos").mkdir()
        (tmp_path / "videos" / "bad.mp4").write_bytes(b"no video")
        result = run_videos(tmp_path / "videos", planted.run, tmp_path / "out")
        assert result.exit_code == 3
        assert "0 predicted, 1 failed" in result.stderr

    def test_several_runs_are_averaged_as_predict_does(
        self, run_videos, planted, videos, out, tmp_path, avfuse, train_planted
    ):
        other = tmp_path / "other"
        train_planted(planted, other, "--seed", 1)
        (videos / "bad.mp4").unlink()
        result = run_videos(videos, planted.run, out, "--model", other, "--no-plots")
        assert result.exit_code == 0, result.stderr
        words = ("--run", planted.run, "--run", other, "--store", out / "features.zarr", "--device", "cpu")
        assert avfuse("predict", *words, "--out", tmp_path / "predicted").exit_code == 0
        for name in ("one", "sub/two"):
            assert (out / f"{name}.csv").read_text() == (tmp_path / "predicted" / f"{name}.txt").read_text()

    def test_a_video_that_cannot_be_drawn_is_named_once(self, run_videos, planted, videos, out, monkeypatch):
        from avfuse.apps.run import drawing

        def full(*more, **given):
            raise MediaError("two.mp4", Stage.VIDEO, "no memory")

        monkeypatch.setattr(drawing, "draw_video", full)
        (videos / "bad.mp4").unlink()
        shutil.rmtree(videos / "sub")
        result = run_videos(videos, planted.run, out, "--no-plots", "--draw")
        assert result.exit_code == 3
        (line,) = failure_lines(result)
        (one,) = json.loads((out / "summary.json").read_text())["failed"].items()
        assert line == "failed: {}: {}".format(*one)
        assert one[1] == "not drawn: video: no memory"

    def test_drawn_videos(self, run_videos, planted, videos, out):
        (videos / "bad.mp4").unlink()
        result = run_videos(videos, planted.run, out, "--no-plots", "--draw")
        assert result.exit_code == 0, result.stderr
        for path in (videos / "sub" / "two.mp4", next(videos.glob("one.*"))):
            drawn = out / path.relative_to(videos).with_suffix(".mp4")
            np.testing.assert_allclose(times_of(drawn), times_of(path), atol=2e-5)
            assert (probe(drawn).audio_stream is None) == (probe(path).audio_stream is None)

    @pytest.mark.slow
    def test_what_was_drawn_from_the_same_is_not_drawn_again(self, run_videos, planted, videos, tmp_path):
        (videos / "bad.mp4").unlink()
        out, words = tmp_path / "out", ("--draw", "--limit", 1)
        run_videos(videos, planted.run, out, *words)
        pictures = {path.name: path.stat().st_ino for path in (out / "one.png", out / "one.mp4")}
        assert run_videos(videos, planted.run, out, *words).exit_code == 0
        assert {name: (out / name).stat().st_ino for name in pictures} == pictures
        assert run_videos(videos, planted.run, out, *words, "--smooth", "ma:9").exit_code == 0
        assert not set(pictures.values()) & {(out / name).stat().st_ino for name in pictures}
        assert run_videos(videos, planted.run, out, "--limit", 1, "--no-plots").exit_code == 0
        assert sorted(path.name for path in out.glob("one.*")) == ["one.csv"]

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL])
    def test_a_stop_while_it_draws_loses_only_what_was_in_work(
        self, run_videos, planted, videos, tmp_path, ffmpeg_run, kind
    ):
        """The first video's files are whole and stay, the second call goes on with the second video."""
        out, second = tmp_path / "out", next(videos.glob("sub/two.*"))
        ffmpeg_run("-stream_loop", 9, "-i", second, "-c", "copy", tmp_path / second.name)  # it takes seconds to draw
        shutil.move(tmp_path / second.name, second)
        command = [sys.executable, "-m", "avfuse", "run", "--videos", videos, "--model", planted.run, "--out", out]
        with subprocess.Popen([*command, "--device", "cpu", "--draw"], stderr=subprocess.PIPE, text=True) as process:
            end_s = time.monotonic() + 300
            while not list(out.glob(".tmp/**/two.csv")):  # its plot and its pictures are still to be made
                assert process.poll() is None
                assert time.monotonic() < end_s
                time.sleep(0.01)
            process.send_signal(kind)
            _, said = process.communicate(timeout=120)
        assert process.returncode == (143 if kind == signal.SIGTERM else -9)
        if kind != signal.SIGKILL:
            assert f"stopped by {kind.name} with 1 video to do: sub/two; what is done is safe" in said
        assert not (out / "sub").exists()
        source = next(videos.glob("one.*"))
        np.testing.assert_allclose(times_of(out / "one.mp4"), times_of(source), atol=2e-5)
        np.testing.assert_allclose(rows_of(out / "one.csv")[1][:, 0], times_of(source), atol=1e-6)
        with Image.open(out / "one.png") as picture:
            picture.load()
        summary = json.loads((out / "summary.json").read_text())
        assert [each["trial"] for each in summary["videos"]] == ["one"]
        assert json.loads((out / "made.json").read_text())["unfinished"] is True
        first = (out / "one.mp4").stat().st_ino
        assert run_videos(videos, planted.run, out, "--draw").exit_code == 3  # bad.mp4
        assert (out / "one.mp4").stat().st_ino == first
        assert {path.name for path in out.glob("**/two.*")} == {"two.csv", "two.png", "two.mp4"}
        assert "unfinished" not in json.loads((out / "made.json").read_text())
        assert not (out / ".tmp").exists()

    def test_a_stop_that_a_library_swallows_is_not_lost(self, run_videos, planted, videos, tmp_path, monkeypatch):
        def swallowing(*given):
            with contextlib.suppress(Exception):  # as in the middle of matplotlib
                os.kill(os.getpid(), signal.SIGTERM)  # which no shell has ignored
                time.sleep(1)
            prediction_plot(*given)

        monkeypatch.setattr("avfuse.apps.run.results.prediction_plot", swallowing)
        result = run_videos(videos, planted.run, tmp_path / "out", "--draw")
        assert result.exit_code == 143
        assert "stopped by SIGTERM with 2 videos to do: one, sub/two; what is done is safe" in result.stderr

    def test_a_folder_of_others_is_refused_before_any_work(self, run_videos, planted, videos, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        result = run_videos(videos, planted.run, tmp_path / "out")
        assert result.exit_code == 1
        assert "holds other files (mine.txt); name another --out" in result.stderr
        assert not (tmp_path / "out" / "features.zarr").exists()


class TestOtherTasks:
    @pytest.mark.parametrize(("task", "kind", "row"), [("expr", "EXPR", "3"), ("au", "AU", ",".join("001000000000"))])
    def test_the_table_and_the_plot(self, run_videos, planted, train_planted, videos, out, tmp_path, task, kind, row):
        for path in planted.annotations.rglob("*.txt"):
            there = tmp_path / "labels" / KINDS[kind].folder / path.parent.name / path.name
            there.parent.mkdir(parents=True, exist_ok=True)
            rows = len(path.read_text().splitlines()) - 1
            there.write_text("\n".join([KINDS[kind].header, *[row] * rows, ""]))
        labelled = dataclasses.replace(planted, annotations=tmp_path / "labels")
        train_planted(labelled, tmp_path / "run", "--task", task)
        (videos / "bad.mp4").unlink()
        shutil.rmtree(videos / "sub")
        result = run_videos(videos, tmp_path / "run", out)
        assert result.exit_code == 0, result.stderr
        heading, line, _ = result.stdout.splitlines()
        _, rows = rows_of(out / "one.csv")
        often = how_often(rows[:, 1:-1], TASKS[task])
        (said,) = json.loads((out / "summary.json").read_text())["videos"]
        assert said["often"] == pytest.approx(often, abs=0.02)  # the file has rounded numbers
        assert heading.endswith({"expr": "most frequent", "au": "active most often"}[task])
        most = max(said["often"], key=lambda column: said["often"][column])
        assert (f"{most} {said['often'][most]:.1%}" if said["often"][most] else "none") in line
        with Image.open(out / "one.png") as picture:  # one panel: with a second one of what is true it would be higher
            assert picture.size[1] == round((0.9 + 0.16 * len(TASKS[task].columns)) * 200)

    def test_how_often(self):
        """The likeliest class is counted, not how likely it is: of three rows the second is likeliest twice."""
        rows = np.zeros((3, 8))
        rows[:, 0], rows[:2, 1], rows[2, 0] = 0.49, 0.51, 1.0
        often = how_often(rows, TASKS["expr"])
        assert often == pytest.approx({**dict.fromkeys(often, 0.0), "Neutral": 1 / 3, "Anger": 2 / 3})
        units = np.zeros((4, 12))
        units[:3, 2], units[0, 5], units[:, 7] = 0.6, 0.5, 0.4
        often = how_often(units, TASKS["au"])
        assert often == pytest.approx({**dict.fromkeys(often, 0.0), "AU4": 0.75, "AU10": 0.25})
        assert how_often(rows, TASKS["va"]) == {}


class TestWhatARunCarries:
    def test_its_own_settings_are_those_of_the_extraction(self, first_call, planted):
        assert "--audio-align center" in first_call.result.stderr
        assert "--detect-every 20" in first_call.result.stderr
        trial = FeatureStore(first_call.out / "features.zarr")["one"]
        of_run = json.loads((planted.run / "features.json").read_text())
        for name in ("fake_face", "fake_sound"):
            assert trial.entries[name]["fingerprint"] in of_run["fingerprints"][name]
            assert of_run["entries"][name][name]["fingerprint"] == trial.entries[name]["fingerprint"]

    def test_an_older_run_asks_its_store(self, run_videos, planted, videos, out, tmp_path):
        run = shutil.copytree(planted.run, tmp_path / "run")
        features = json.loads((run / "features.json").read_text())
        del features["entries"]
        (run / "features.json").write_text(json.dumps(features))
        result = run_videos(videos, run, out, "--no-plots")
        assert "--audio-align center" in result.stderr
        assert result.exit_code == 3
        assert "0 videos to do, 2 done before" in result.stderr

        features["store"] = str(tmp_path / "gone.zarr")
        (run / "features.json").write_text(json.dumps(features))
        result = run_videos(videos, run, tmp_path / "elsewhere")
        assert result.exit_code == 1
        assert "does not say how its fake_face was extracted" in result.stderr
        assert "avfuse predict --run" in result.stderr
        assert not (tmp_path / "elsewhere").exists()

    def test_crops_that_it_has_learned_from_are_missed_before_anything_is_decoded(
        self, run_videos, planted, videos, tmp_path
    ):
        run = shutil.copytree(planted.run, tmp_path / "run")
        features = json.loads((run / "features.json").read_text())
        features["entries"]["fake_face"]["faces"]["settings"]["aligned"] = True
        features["fingerprints"]["fake_face"] = {"0" * 64: 6}
        (run / "features.json").write_text(json.dumps(features))
        result = run_videos(videos, run, tmp_path / "out")
        assert result.exit_code == 1
        assert "aligned: True in the run, False now" in result.stderr
        assert "crops in place of face detection: --aligned DIR" in result.stderr
        assert not (tmp_path / "out" / "features.zarr").exists()
        assert run_videos(videos, run, tmp_path / "out", "--allow-other-features", "--no-plots").exit_code == 3


@pytest.mark.slow
def test_real_clips(media, run_videos, planted, tmp_path):
    """Rotated, without sound, of a variable rate, begun with the sound, cut off: as many rows and frames as decode."""
    names = ["grid_bbaf2n_rot_displaymatrix.mp4", "grid_bbaf2n_noaudio.mp4", "aoc_vfr_dropped.mp4"]
    names += ["grid_bbaf2n_truncated.mpg", "obama_speech_vp9_opus.webm"]
    (tmp_path / "videos").mkdir()
    for name in names:
        shutil.copy(media / "derived" / name, tmp_path / "videos")
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"no video" * 100)
    result = run_videos(tmp_path / "videos", planted.run, tmp_path / "out", "--draw")
    assert result.exit_code == 3
    assert [line.split(":")[1] for line in failure_lines(result)] == [" bad.mp4"]
    for name in names:
        source = tmp_path / "videos" / name
        drawn = (tmp_path / "out" / name).with_suffix(".mp4")
        before_s, after_s = times_of(source), times_of(drawn)
        assert len(rows_of(drawn.with_suffix(".csv"))[1]) == len(before_s)
        np.testing.assert_allclose(after_s, before_s, atol=2e-5)
        one, other = probe(source), probe(drawn)
        assert (one.audio_stream is None) == (other.audio_stream is None)
        step_s = np.median(np.diff(before_s))
        if one.duration_s is not None and other.duration_s is not None:
            assert abs(one.duration_s - other.duration_s) <= step_s + 1e-3
