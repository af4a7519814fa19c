"""From videos to tuned weights, to features made with them, to a head: the commands as they are typed."""

import json

import pytest

from avfuse.features_store.store import FeatureStore


@pytest.mark.parametrize(
    ("networks", "names", "unused"),
    [
        (("--visual", "none"), ["iresnet50"], "iresnet50: only logmel_vgg"),
        (("--audio", "none"), ["vggish", "iresnet50"], "vggish: only iresnet50"),
        ((), ["vggish-pca", "suzhang40"], "vggish-pca, suzhang40: only iresnet50 and logmel_vgg"),
        # The weights of VGGish serve where logmel_vgg has none of its own.
        (("--visual", "none"), ["vggish", "logmel_vgg"], "vggish: only logmel_vgg"),
        (("--visual", "none"), ["vggish"], None),
        (("--visual", "none"), ["logmel_vgg"], None),
    ],
)
def test_weights_of_a_network_that_is_not_tuned_are_refused(networks, names, unused, avfuse, tmp_path):
    """Before anything is read: else a run begins from other weights than were meant."""
    file = tmp_path / "weights.pth"
    file.write_bytes(b"no network")
    given = [word for name in names for word in ("--weights", f"{name}={file}")]
    place = ("--store", tmp_path / "none.zarr", "--annotations", tmp_path, "--out", tmp_path / "out")
    result = avfuse("finetune", "--fold", 0, *place, *networks, *given)
    if unused is None:  # the file is looked into
        assert (result.exit_code, str(file) in result.stderr) == (1, True)
    else:
        assert result.exit_code == 2
        assert f"Error: --weights {unused} can have weights here; --visual and --audio choose" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_finetune_extract_train(avfuse, tmp_path):
    """And what was tuned on a trial is not to be scored there."""
    pytest.importorskip("skimage")

    def run(*words):
        result = avfuse(*words)
        assert result.exit_code == 0, result.stderr
        return result

    corpus, store, tuned, head = (tmp_path / name for name in ("corpus", "features.zarr", "tuned", "head"))
    run("synth", corpus, "--trials", 6, "--seconds", 1)
    videos = ("--videos", corpus / "videos", "--annotations", corpus / "annotations", "--store", store)
    run("extract", *videos, "--features", "logmel,mfcc", "--device", "cpu")
    small = ["--fold", "0", "--preset", "concat", "--epochs", "1", "--device", "cpu", "--no-plots", "--no-tensorboard"]
    small += ["--set=window_frames=20", "--set=hop_frames=20", "--set=warmup_epochs=0"]
    of_sound = ("--visual", "none", "--audio", "vgg", "--modalities", "mfcc", "--untrained", 0)
    run("finetune", "--store", store, *small, *of_sound, "--set", "backbone_lr=1e-3", "--out", tuned)
    file = tuned / "logmel_vgg.safetensors"
    assert json.loads((tuned / "config.json").read_text())["finetune"]["weights"] == ["logmel_vgg=untrained 0"]
    # Extracted with the tuned weights: other rows than with those that it began from.
    run("extract", *videos, "--features", "logmel_vgg", "--weights", f"logmel_vgg={file}", "--device", "cpu")
    trials = FeatureStore(store)
    name = json.loads((tuned / "fold.json").read_text())["validation"][0]
    entry = trials[name].entries["logmel_vgg"]
    assert entry["weights"]["tuning"]["validation"] == json.loads((tuned / "fold.json").read_text())["validation"]
    said = run("train", "--store", store, *small, "--modalities", "logmel_vgg,mfcc", "--out", head)
    assert "tuned on" not in said.stderr
    assert json.loads((head / "metrics.json").read_text())["epoch"] == 1
    run("evaluate", "--run", head, "--device", "cpu")
    # The leaky variant: a fold whose validation trials the weights were tuned on.
    fold = json.loads((tuned / "fold.json").read_text())
    swapped = tmp_path / "swapped.json"
    manifest = json.loads(run("folds", "--annotations", corpus / "annotations", "--json").stdout)
    (first,) = [each for each in manifest["folds"] if each["fold"] == 0]
    first["train"], first["validation"] = first["validation"], first["train"]
    swapped.write_text(json.dumps({**manifest, "folds": [first]}))
    leaky = run(
        "train",
        "--store",
        store,
        *small,
        "--modalities",
        "logmel_vgg,mfcc",
        "--manifest",
        swapped,
        "--out",
        tmp_path / "leaky",
    )
    assert "tuned on" in leaky.stderr
    refused = avfuse("evaluate", "--run", tmp_path / "leaky", "--device", "cpu")
    assert refused.exit_code == 1
    assert "--allow-leak" in refused.stderr
    assert fold["number"] == 0
