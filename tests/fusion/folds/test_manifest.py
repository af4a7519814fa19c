import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfuse.fusion.folds.manifest import Fold, Manifest, Move, manifest_json, read_manifest, write_manifest

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
trial_names = st.text(min_size=1, max_size=8)


@st.composite
def manifests(draw):
    folds = []
    for number in range(draw(st.integers(1, 4))):
        trials = draw(st.lists(trial_names, unique=True, min_size=2, max_size=8))
        cut = draw(st.integers(1, len(trials) - 1))
        folds.append(Fold(number, tuple(trials[:cut]), tuple(trials[cut:])))
    sides = st.sampled_from(["train", "validation"])
    return Manifest(
        tuple(folds),
        draw(st.sampled_from(["subject", "none", "file"])),
        tuple(draw(st.lists(st.builds(Move, st.integers(0, 5), trial_names, sides), max_size=3))),
        draw(st.dictionaries(trial_names, st.lists(trial_names, max_size=3).map(tuple), max_size=3)),
        tuple(draw(st.lists(trial_names, max_size=3))),
    )


@in_one_folder
@given(manifest=manifests())
def test_round_trip(tmp_path, manifest):
    path = tmp_path / "made" / "folds.json"
    write_manifest(path, manifest)
    assert path.read_text() == manifest_json(manifest)
    assert read_manifest(path) == manifest
    assert [each.name for each in path.parent.iterdir()] == ["folds.json"]


def test_the_format(tmp_path):
    manifest = Manifest((Fold(0, ("a", "b"), ("c",)),), "subject", (Move(0, "c", "validation"),), {"s": ("a", "b")}, ())
    assert json.loads(manifest_json(manifest)) == {
        "avfuse_folds": 1,
        "grouping": "subject",
        "subjects": {"s": ["a", "b"]},
        "on_both_sides": [],
        "moved": [{"fold": 0, "trial": "c", "to": "validation"}],
        "folds": [{"fold": 0, "train": ["a", "b"], "validation": ["c"]}],
    }


def test_a_manifest_by_hand_needs_the_folds_only(tmp_path):
    path = tmp_path / "folds.json"
    path.write_text('{"avfuse_folds": 1, "folds": [{"fold": 2, "train": ["b"], "validation": ["a"]}]}')
    assert read_manifest(path) == Manifest((Fold(2, ("b",), ("a",)),), "none")


FOLD = {"fold": 0, "train": ["a"], "validation": ["b"]}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"avfuse_folds": 2}, "avfuse_folds is 1, got 2"),
        ({"avfuse_folds": True}, "got True"),
        ({"avfuse_folds": None}, "got None"),
        ({"fold": 1}, "unknown keys: fold"),
        ({"folds": {}}, "folds must be a list"),
        ({"folds": []}, "different numbers"),
        ({"folds": [FOLD, FOLD]}, r"different numbers, got \[0, 0\]"),
        ({"folds": [7]}, "must be a JSON object, got 7"),
        ({"folds": [{**FOLD, "test": []}]}, "unknown keys: test"),
        ({"folds": [{"fold": 0, "train": ["a"]}]}, "missing keys: validation"),
        ({"folds": [{**FOLD, "fold": "0"}]}, "number is 0 or more, got '0'"),
        ({"folds": [{**FOLD, "fold": -1}]}, "got -1"),
        ({"folds": [{**FOLD, "fold": True}]}, "got True"),
        ({"folds": [{**FOLD, "train": "a"}]}, "train must be a list"),
        ({"folds": [{**FOLD, "train": ["a", 1]}]}, "names only"),
        ({"folds": [{**FOLD, "train": [""]}]}, "names only"),
        ({"folds": [{**FOLD, "train": ["a", "a"]}]}, "fold 0: given twice: a"),
        ({"folds": [{**FOLD, "train": ["a", "b"]}]}, "fold 0: on both sides: b"),
        ({"folds": [{**FOLD, "train": []}]}, "no trial to train on"),
        ({"folds": [{**FOLD, "validation": []}]}, "no trial to validate on"),
        ({"grouping": "subjects"}, "grouping is one of subject, none, file"),
        ({"moved": [{"fold": 0, "trial": "a", "to": "test"}]}, "to is one of train, validation"),
        ({"moved": [{"fold": 0, "trial": 3, "to": "train"}]}, "names only"),
        ({"subjects": {"a": 3}}, "subjects must be a list"),
        ({"on_both_sides": [[]]}, "names only"),
    ],
)
def test_errors_say_what_is_wrong(tmp_path, change, word):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"avfuse_folds": 1, "folds": [FOLD], **change}))
    with pytest.raises(ValueError, match=rf"folds\.json is not a fold manifest: .*{word}"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", r"folds\.json:1: not JSON"),
        (b'{"avfuse_folds": 1,\n"folds": }', r"folds\.json:2: not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "missing keys: avfuse_folds, folds"),
        (b'{"folds": [], "folds": []}', "given twice: folds"),
        (b"\xff\xff", r"folds\.json is not a fold manifest"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_not_a_manifest(tmp_path, content, word):
    (tmp_path / "folds.json").write_bytes(content)
    with pytest.raises(ValueError, match=word):
        read_manifest(tmp_path / "folds.json")


@in_one_folder
@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["avfuse_folds", "folds", "fold", "train", "validation", "moved", "x"]),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_fuzz(tmp_path, content):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"folds\.json"):
        read_manifest(path)


def test_folds_and_moves_are_checked_at_birth():
    with pytest.raises(ValueError, match="number is 0 or more, got -1"):
        Fold(-1, ("a",), ("b",))
    with pytest.raises(ValueError, match="to is one of train, validation, got 'test'"):
        Move(0, "a", "test")  # type: ignore[arg-type]  # is refused
    with pytest.raises(ValueError, match="grouping is one of subject, none, file, got 'other'"):
        Manifest((Fold(0, ("a",), ("b",)),), "other")  # type: ignore[arg-type]  # is refused
