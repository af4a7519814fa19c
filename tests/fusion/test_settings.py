import json
from dataclasses import asdict, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from avfuse.fusion.config import TrainConfig
from avfuse.fusion.models.concat import ConcatSettings
from avfuse.fusion.models.crossattn import CrossAttentionSettings
from avfuse.fusion.models.table import HEADS
from avfuse.fusion.settings import as_json, differences, from_json, preset, with_settings

S1 = preset("crossattn")
LEGAL = {
    "task": ("arousal", "arousal"),
    "loss": ("ccc", "ccc"),
    "label_smoothing_frames": ("5", 5),
    "hop_frames": ("50", 50),
    "modalities": ("face, voice ,x", ("face", "voice", "x")),
}  # not twice what it was


def settings_of(config: TrainConfig) -> dict[str, tuple[object, object]]:
    """{setting: (its type, its value)}, of the run and of its network."""
    found: dict[str, tuple[object, object]] = {}
    for part in (config, config.model):
        hints = get_type_hints(type(part))
        found |= {f.name: (hints[f.name], getattr(part, f.name)) for f in fields(part)}
    return {name: each for name, each in found.items() if name not in ("preset", "model", "finetune")}


def another(name, kind, value):
    """A text, and the value other than `value` that it says."""
    if name in LEGAL:
        return LEGAL[name]
    if get_origin(kind) is tuple:
        return "4, 8,12", (4, 8, 12)
    if get_origin(kind) is Literal:
        word = next(word for word in get_args(kind) if word != value)
        return word, word
    if kind is bool:
        return str(not value).lower(), not value
    changed = 2 * value if kind is int else value / 2
    return str(changed or 1 if kind is int else changed or 0.25), changed or (1 if kind is int else 0.25)


# Settings that only some losses have a use for, under one that has.
UNDER: dict[str, dict[str, Any]] = {
    "task": {"task": "va"},
    "loss": {"task": "va"},
    "label_smoothing_frames": {"task": "va"},
    "speech_threshold": {"audio_rows": "speech"},
    "focal_gamma": {"task": "expr", "loss": "focal"},
    "label_smoothing": {"task": "expr", "loss": "ce"},
    "class_weights": {"task": "au"},
}
EVERY = [
    pytest.param(under, name, *settings_of(under)[name], id=f"{config.preset}-{name}")
    for config in map(preset, HEADS)
    for name in settings_of(config)
    for under in [replace(config, **UNDER.get(name, {}))]
]


def typed(value):
    """As `--set` takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(("config", "name", "kind", "value"), EVERY)
def test_every_setting_can_be_told_as_text(config, name, kind, value):
    text, expected = another(name, kind, value)
    changed = with_settings(config, {name: text})
    found, before = settings_of(changed), settings_of(config)
    assert found[name][1] == expected != value
    assert type(found[name][1]) is type(value)
    assert {n: v for n, v in found.items() if n != name} == {n: v for n, v in before.items() if n != name}
    assert changed.preset == config.preset
    assert differences(config, changed) == [f"{name}: {typed(value)} in the run, {typed(expected)} now"]
    assert from_json(json.loads(json.dumps(as_json(changed)))) == changed


@pytest.mark.parametrize("name", HEADS)
def test_json_gives_a_preset_back(name):
    config = preset(name)
    assert config.preset == name
    found = json.loads(json.dumps(as_json(config)))
    assert from_json(found) == config
    assert found["modalities"] == list(config.modalities)
    assert found["lr"] == config.lr
    assert found["model"] == json.loads(json.dumps(asdict(config.model)))
    assert with_settings(config, {}) == config
    assert differences(config, config) == []


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("Yes", True), ("1", True), ("FALSE", False), ("no", False), ("0", False)]
)
def test_words_for_true_and_false(text, value):
    assert with_settings(S1, {"restore_best": text}).restore_best is value


@pytest.mark.parametrize("text", ["3,5", " 3 , 5 ", "[3, 5]", "(3,5)", "3,5,"])
def test_ways_to_write_a_list(text):
    model = with_settings(S1, {"kernels": text}).model
    assert isinstance(model, CrossAttentionSettings)
    assert model.kernels == (3, 5)


def test_several_settings_are_changed_at_once():
    changed = with_settings(S1, {"attention_width": "30", "heads": "3", "window_frames": "50", "hop_frames": "50"})
    assert isinstance(changed.model, CrossAttentionSettings)
    assert (changed.model.attention_width, changed.model.heads) == (30, 3)
    assert (changed.window_frames, changed.hop_frames) == (50, 50)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("batchsize", "batch_size"), ("kernel", "kernels"), ("warmup", "warmup_epochs"), ("earlystop", "early_stop")],
)
def test_an_unknown_setting_names_the_nearest(name, nearest):
    with pytest.raises(
        ValueError, match=rf"^there is no setting '{name}' \(did you mean {nearest}\?\); there are task, "
    ):
        with_settings(S1, {name: "1"})


@pytest.mark.parametrize("name", ["qqq", "preset", "model", ""])
def test_an_unknown_setting_is_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match=rf"^there is no setting '{name}'.*there are ") as refused:
        with_settings(S1, {name: "1"})
    listed = str(refused.value).rpartition("there are ")[2].split(", ")
    assert listed == list(settings_of(S1))


def test_a_setting_of_another_network_is_unknown():
    with pytest.raises(ValueError, match="there is no setting 'kernels'"):
        with_settings(preset("concat"), {"kernels": "3"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("batch_size", "a dozen", "batch_size must be a whole number"),
        ("batch_size", "12.0", "batch_size must be a whole number"),
        ("seed", "", "seed must be a whole number"),
        ("lr", "fast", "lr must be a number"),
        ("lr", "nan", "lr must be a number"),
        ("weight_decay", "inf", "weight_decay must be a number"),
        ("restore_best", "maybe", "restore_best must be true or false"),
        ("causal", "2", "causal must be true or false"),
        ("kernels", "3,five", "kernels must be numbers separated by commas"),
        ("kernels", "3;5", "kernels must be numbers separated by commas"),
        ("statistics", "row", "statistics must be one of scalar, feature"),
        ("task", "VA", "task must be one of va, valence, arousal, expr, au"),
        ("rows_in_loss", "some", "rows_in_loss must be one of labelled, any, all"),
        ("optimizer", "sgd", "optimizer must be one of adam, adamw"),
    ],
)
def test_a_text_that_says_no_value(name, text, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        with_settings(S1, {name: text})
    assert str(refused.value) == f"{name}={text}: {message}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        *((n, "0", f"{n} must be above 0, got 0") for n in ("batch_size", "window_frames", "hop_frames", "max_epochs")),
        *((n, "0", f"{n} must be above 0, got 0") for n in ("early_stop", "heads", "hidden", "attention_width")),
        ("lr", "-1e-4", "lr must be above 0, got -0.0001"),
        ("plateau_factor", "0", "plateau_factor must be above 0, got 0.0"),
        ("plateau_factor", "1", r"plateau_factor must be in \[0, 1\), got 1.0"),
        ("dropout", "1", r"dropout must be in \[0, 1\), got 1.0"),
        ("modality_dropout", "-0.1", r"modality_dropout must be in \[0, 1\), got -0.1"),
        *((n, "-1", f"{n} must not be below 0, got -1") for n in ("seed", "warmup_epochs", "plateau_patience")),
        *((n, "-1", f"{n} must not be below 0, got -1.0") for n in ("weight_decay", "grad_clip", "min_lr")),
        ("kernels", "3,0", r"kernels must be above 0, got \(3, 0\)"),
        ("kernels", "", r"kernels must be above 0, got \(\)"),
        ("lead_channels", "128,-1", r"lead_channels must be above 0, got \(128, -1\)"),
        ("other_channels", "0", r"other_channels must be above 0, got \(0,\)"),
        ("hop_frames", "301", "hop_frames 301 leaves gaps between windows of 300 frames"),
        ("window_frames", "199", "hop_frames 200 leaves gaps between windows of 199 frames"),
        ("heads", "3", "attention_width 256 is not a multiple of heads 3"),
        ("modalities", "", r"modalities must be distinct feature names, got \[\]"),
        ("modalities", "a,b,a", r"modalities must be distinct feature names, got \['a', 'b', 'a'\]"),
    ],
)
def test_a_value_out_of_bounds(name, text, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        with_settings(S1, {name: text})


@pytest.mark.parametrize("field", ["task", "statistics", "rows_in_loss", "optimizer"])
def test_settings_are_checked_wherever_they_come_from(field):
    changes: dict[str, Any] = {field: "other"}
    with pytest.raises(ValueError, match="'other' is not one of "):
        replace(S1, **changes)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"preset 'crosattn' is not one of crossattn, .* \(did you mean crossattn\?\)$"
    ):
        preset("crosattn")


def test_each_preset_has_its_network():
    assert preset("crossattn").model == CrossAttentionSettings()
    assert preset("concat").model == ConcatSettings()
    assert all(name == preset(name).preset for name in HEADS)


@pytest.mark.parametrize("change", ["missing", "unknown", "no model", "model a list", "unknown of the model"])
def test_json_of_another_avfuse_is_refused(change):
    found = json.loads(json.dumps(as_json(S1)))
    match change:
        case "missing":
            del found["lr"]
        case "unknown":
            found["momentum"] = 0.9
        case "no model":
            del found["model"]
        case "model a list":
            found["model"] = []
        case "unknown of the model":
            found["model"]["layers"] = 2
    with pytest.raises(ValueError, match=r"another avfuse|there is no setting 'layers'"):
        from_json(found)


def test_a_run_of_before_has_the_defaults_of_settings_that_came_later():
    found = json.loads(json.dumps(as_json(S1)))
    later = ("loss", "focal_gamma", "label_smoothing", "label_smoothing_frames", "class_weights", "protocol")
    for name in (*later, "audio_rows", "speech_threshold"):
        del found[name]
    assert from_json(found) == S1


@pytest.mark.parametrize("content", [{}, {"preset": None}, {"preset": "other"}])
def test_json_without_a_known_preset_is_refused(content):
    with pytest.raises(ValueError, match="is not one of crossattn, su-zhang, avfuse"):
        from_json(content)


def test_differences_name_settings_of_run_and_network():
    assert isinstance(S1.model, CrossAttentionSettings)
    other = replace(S1, lr=1e-5, model=replace(S1.model, kernels=(3,)))
    assert differences(S1, other) == ["lr: 0.0001 in the run, 1e-05 now", "kernels: 3,5,7 in the run, 3 now"]
    assert "preset: crossattn in the run, concat now" in differences(S1, preset("concat"))
