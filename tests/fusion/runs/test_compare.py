"""`avfuse compare`: the runs are those of `train`, the table is over them, a second call does what is left."""

import csv
import json
import shutil

import numpy as np
import pytest

from avfuse.fusion.artifacts.folder import read_description
from avfuse.fusion.artifacts.state import read_metrics
from avfuse.fusion.results.prediction_files import read_prediction

CELLS = ("crossattn_face+voice", "concat_face+voice")
SEEDS = range(2)
NETWORK = ("lead_channels", "other_channels", "attention_width", "heads", "hidden")
WHOLE = ("--presets", "crossattn,concat", "--fold", 1, "--seeds", 2, "--epochs", 2)


@pytest.fixture(scope="module")
def call(avfuse, train_words, small):
    """Call `compare` with the settings of `fit`, those of a network where that one is compared."""

    def compare(out, *words):
        given = list(train_words(small, out))[1:]
        if "crossattn" not in " ".join(map(str, words)):
            own = [at for at, word in enumerate(given) if str(word).partition("=")[0] in NETWORK]
            given = [word for at, word in enumerate(given) if at not in own and at + 1 not in own]
        return avfuse("compare", *given, *words)

    return compare


@pytest.fixture(scope="module")
def compared(call, tmp_path_factory):
    """Two presets, two seeds of a fold, two epochs; not to be changed."""
    out = tmp_path_factory.mktemp("compared") / "out"
    result = call(out, *WHOLE)
    assert result.exit_code == 0, result.stderr
    return out, result


@pytest.fixture
def out(compared, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(compared[0], tmp_path / "out")


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def results_of(out):
    return json.loads((out / "compare.json").read_text())


class TestRuns:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_numbers_are_those_of_train_alone(self, small, compared, fit, same_run, seed, tmp_path):
        alone, of_cell = tmp_path / "run", compared[0] / CELLS[0] / f"fold1/seed{seed}"
        fit(small, alone, "--fold", 1, "--epochs", 2, "--seed", seed)
        same_run(of_cell, alone)
        found, expected = read_description(of_cell), read_description(alone)
        assert (found.config, found.fold, found.labels) == (expected.config, expected.fold, expected.labels)

    def test_of_another_preset_too(self, small, compared, avfuse, same_run, tmp_path):
        words = ("--fold", 1, "--epochs", 2, "--device", "cpu", "--no-plots", "--no-tensorboard")
        settings = [f"--set={each}" for each in ("window_frames=60", "hop_frames=40", "lr=0.003", "warmup_epochs=1")]
        place = ("--store", small.store, "--annotations", small.annotations, "--out", tmp_path / "run")
        result = avfuse("train", "--preset", "concat", "--modalities", "face,voice", *place, *words, *settings)
        assert result.exit_code == 0, result.stderr
        same_run(compared[0] / CELLS[1] / "fold1/seed0", tmp_path / "run")

    def test_settings_that_one_preset_alone_has(self, compared):
        assert "note: attention_width is a setting of crossattn alone" in compared[1].stderr
        assert "note: lr is" not in compared[1].stderr

    def test_features_are_read_once_a_set(self, call, tmp_path):
        words = ("--presets", "concat", "--modalities", "voice; face,voice", "--seeds", 2, "--epochs", 1)
        result = call(tmp_path / "out", *words)
        assert result.exit_code == 0, result.stderr
        read = [line for line in result.stderr.splitlines() if line.startswith("8 trials, ")]
        assert [line.split(" of ")[1] for line in read] == ["face 6, voice 4, on cpu", "voice 4, on cpu"]
        assert [cell["cell"] for cell in results_of(tmp_path / "out")["cells"]] == [
            "concat_face+voice",
            "concat_voice",
        ]


class TestTable:
    def test_scores(self, compared):
        out, _ = compared
        scores = {cell: [read_metrics(out / cell / f"fold1/seed{seed}") for seed in SEEDS] for cell in CELLS}
        with (out / "compare.csv").open() as file:
            rows = {row["cell"]: row for row in csv.DictReader(file)}
        for cell, metrics in scores.items():
            p = [each["P"] for each in metrics]
            assert float(rows[cell]["mean_P"]) == pytest.approx(np.mean(p))
            assert float(rows[cell]["sd_P"]) == pytest.approx(np.std(p, ddof=1))
            assert float(rows[cell]["best_P"]) == max(p)
            assert (rows[cell]["runs"], rows[cell]["of"], rows[cell]["s4_window_leaky"]) == ("2", "2", "")
        assert int(rows[CELLS[1]]["parameters"]) == (6 + 4) * 2 + 2

    def test_on_the_screen_and_in_the_files(self, compared):
        out, result = compared
        text = (out / "compare.txt").read_text()
        assert result.stdout == text
        assert all(cell in text for cell in CELLS)
        assert f"{CELLS[1]} − {CELLS[0]}" in text
        assert "folds of fewer than 10 trials" in text
        assert (out / "compare.md").read_text().count("| --- |") == 2

    def test_the_chart_alone(self, call, out):
        result = call(out, *WHOLE, "--plots")
        assert "0 runs to do, 4 done before" in result.stderr
        assert (out / "compare.png").read_bytes()[:4] == b"\x89PNG"
        assert call(out, *WHOLE, "--plots", "--figures", "svg").exit_code == 0
        assert b"<svg" in (out / "compare.svg").read_bytes()
        assert (out / "compare.tex").read_text().count(r"\bottomrule") == 2

    def test_every_run_is_in_the_json(self, small, compared):
        out, _ = compared
        found = results_of(out)
        assert [run["folder"] for run in found["runs"]] == [
            f"{cell}/fold1/seed{seed}" for cell in CELLS for seed in SEEDS
        ]
        for run in found["runs"]:
            metrics = read_metrics(out / run["folder"])
            assert run["scores"]["P"] == metrics["P"]
            assert (run["epoch"], run["epochs"], run["fold"]) == (metrics["epoch"], 2, 1)
            assert run["seconds"] > 0
            assert run["modalities"] == ["face", "voice"]
            assert run["protocol"] == "trials"
            assert run["settings"]["lr"] == 0.003
        assert [run["preset"] for run in found["runs"]] == ["crossattn", "crossattn", "concat", "concat"]
        assert found["made"]["store"] == [str(small.store)]
        assert found["failed"] == {}

    def test_the_difference_is_that_of_the_table(self, compared):
        found = results_of(compared[0])
        means = [cell["mean"]["P"] for cell in found["cells"]]
        (pair,) = found["differences"]
        assert (pair["one"], pair["other"], pair["runs"]) == (CELLS[1], CELLS[0], 2)
        assert pair["scores"]["P"]["difference"] == pytest.approx(means[1] - means[0], abs=1e-5)  # files: six decimals
        assert pair["scores"]["P"]["low"] <= pair["scores"]["P"]["difference"] <= pair["scores"]["P"]["high"]

    def test_as_json(self, call, out):
        result = call(out, *WHOLE, "--json")
        found = json.loads(result.stdout)
        found.pop("made")
        before = results_of(out)
        before.pop("made")
        assert found == before


class TestOnlyWhatIsLeft:
    def test_a_second_call_does_nothing(self, call, out):
        before = contents(out)
        result = call(out, *WHOLE)
        assert result.exit_code == 0
        assert "0 runs to do, 4 done before" in result.stderr
        assert contents(out) == before

    def test_one_that_was_killed_goes_on(self, call, compared, out, same_run):
        """One run had not ended, one had not begun, and the table was not written."""
        (out / CELLS[0] / "fold1/seed1/finished.json").unlink()
        shutil.rmtree(out / CELLS[1] / "fold1/seed0")
        for path in out.glob("compare.*"):
            path.unlink()
        result = call(out, *WHOLE)
        assert "2 runs to do, 2 done before" in result.stderr
        for cell in CELLS:
            for seed in SEEDS:
                same_run(out / cell / f"fold1/seed{seed}", compared[0] / cell / f"fold1/seed{seed}")
        assert results_of(out)["differences"] == results_of(compared[0])["differences"]

    def test_another_cell_leaves_the_others_alone(self, call, out):
        before = {path: of for path, of in contents(out).items() if path.parent != out}
        result = call(out, *WHOLE, "--modalities", "face")
        assert "4 runs to do, 4 done before" in result.stderr
        assert before.items() <= contents(out).items()

    def test_other_settings_are_refused(self, call, out):
        result = call(out, *WHOLE, "--set", "lr=0.1")
        assert result.exit_code == 1
        assert "lr: 0.003 in the run, 0.1 now" in result.stderr.splitlines()[-1]

    def test_parts_of_a_job_array(self, call, compared, tmp_path):
        for part in ("0/2", "1/2"):
            result = call(tmp_path / "out", *WHOLE, "--shard", part)
            assert result.exit_code == 0, result.stderr
            assert "2 runs to do, 0 done before" in result.stderr
        found, whole = results_of(tmp_path / "out"), results_of(compared[0])
        assert found["differences"] == whole["differences"]
        assert [run["scores"] for run in found["runs"]] == [run["scores"] for run in whole["runs"]]

    def test_a_folder_of_other_files(self, call, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        result = call(tmp_path, *WHOLE)
        assert result.exit_code == 1
        assert "holds other files and is not a comparison (notes.txt)" in result.stderr


class TestGrids:
    def test_one_that_fails_leaves_the_others_alone(self, call, tmp_path):
        """Steps of this length leave no number a number."""
        (tmp_path / "g.yaml").write_text(
            "cells: [{name: sound, preset: concat}, "
            "{name: broken, preset: concat, set: {optimizer: adamw, weight_decay: 1.0e+30}}]"
        )
        out = tmp_path / "out"
        result = call(out, "--grid", tmp_path / "g.yaml", "--epochs", 2)
        assert result.exit_code == 1
        broken = out / "broken_face+voice/fold0/seed0"
        assert result.stderr.splitlines()[-1].startswith(f"Error: 1 of 2 runs failed: {broken}: ")
        found = results_of(out)
        assert [(cell["cell"], cell["runs"]) for cell in found["cells"]] == [
            ("sound_face+voice", 1),
            ("broken_face+voice", 0),
        ]
        assert list(found["failed"]) == ["broken_face+voice/fold0/seed0"]
        assert "0 of 1" in result.stdout
        assert "not all runs of broken_face+voice are done" in result.stdout

    def test_a_grid_that_comes_along(self, call, tmp_path):
        out = tmp_path / "out"
        result = call(out, "--grid", "modalities", "--presets", "concat", "--epochs", 1)
        assert result.exit_code == 0, result.stderr
        assert [cell["modalities"] for cell in results_of(out)["cells"]] == [["face"], ["voice"], ["face", "voice"]]
        assert len(results_of(out)["differences"]) == 3

    def test_tasks_are_compared_each_with_itself(self, call, tmp_path):
        (tmp_path / "g.yaml").write_text("product: {task: [valence, va], set: {dropout: [0, 0.5]}}")
        result = call(tmp_path / "out", "--grid", tmp_path / "g.yaml", "--presets", "concat", "--epochs", 1)
        assert result.exit_code == 0, result.stderr
        pairs = [(each["one"], each["other"]) for each in results_of(tmp_path / "out")["differences"]]
        assert pairs == [
            (f"concat_face+voice_task={task}_dropout=0.5", f"concat_face+voice_task={task}_dropout=0")
            for task in ("valence", "va")
        ]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "name what to compare: --presets, --grid or both"),
            (("--presets", "transformer"), "--presets: this avfuse has no preset 'transformer'"),
            (("--grid", "s3"), "there is no grid 's3'"),
            (("--presets", "concat", "--set", "head=3"), "there is no setting 'head'"),
            (("--presets", "concat", "--set", "lr=0"), "concat_face+voice: lr must be above 0"),
            (("--presets", "concat", "--set", "modalities=face"), "give features by --modalities"),
            (("--presets", "concat", "--set", "protocol=s4-window"), "only `avfuse compare --protocol`"),
            (("--grid", "s1-kernels", "--set", "kernels=3"), "kernels is set by the grid and by an option"),
        ],
    )
    def test_wrong_usage(self, call, tmp_path, words, message):
        result = call(tmp_path / "out", *words)
        assert result.exit_code == 2
        assert message in result.stderr.splitlines()[-1]
        assert not (tmp_path / "out").exists()

    def test_a_feature_that_the_store_lacks(self, call, tmp_path):
        """Nothing is trained."""
        result = call(tmp_path / "out", "--presets", "concat", "--modalities", "face", "--modalities", "smell")
        assert result.exit_code == 1
        assert "has no smell, only face, voice" in result.stderr.splitlines()[-1]
        assert not (tmp_path / "out").exists()


class TestS4Protocol:
    def test_beside_the_honest_number(self, call, out, compared):
        result = call(out, *WHOLE, "--seeds", 1, "--protocol", "s4-window")
        assert result.exit_code == 0, result.stderr
        assert "2 runs to do, 2 done before" in result.stderr
        found = results_of(out)
        for cell in found["cells"]:
            metrics = read_metrics(out / "s4-window" / cell["cell"] / "fold1/seed0")
            assert cell["leaky"] == metrics["P"]
            assert cell["mean"]["P"] == read_metrics(compared[0] / cell["cell"] / "fold1/seed0")["P"]
        leaky = [run for run in found["runs"] if run["protocol"] == "s4-window"]
        assert [run["folder"] for run in leaky] == [f"s4-window/{cell}/fold1/seed0" for cell in CELLS]
        assert {run["settings"]["hop_frames"] for run in leaky} == {12}
        assert len(found["differences"]) == 1  # of the honest runs
        assert "S4's windows (leaky)" in result.stdout
        assert "not comparable with any other number" in result.stdout


def test_predictions_are_read_as_they_were_written(compared):
    path = next((compared[0] / CELLS[0] / "fold1/seed0/predictions").glob("*.txt"))
    columns, values = read_prediction(path)
    assert columns == ("valence", "arousal")
    lines = [line.split(",")[1:3] for line in path.read_text().splitlines()[1:]]
    assert values.tolist() == [[float(v), float(a)] for v, a in lines]


@pytest.mark.parametrize("text", ["valence,arousal\n0,0\n", "time_s,valence,valid\n0,x,1\n", "time_s,valid\n0,1\n"])
def test_what_are_no_predictions(tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(ValueError, match="does not hold predictions"):
        read_prediction(tmp_path / "p.txt")
