"""Tables of pictures, pictures that cannot be read, and what becomes of the others."""

import numpy as np
import pytest
import torch
from PIL import Image

from avfuse.fusion.finetuning.pictures import batches, read_table, read_views, turned


def table(folder, *lines):
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def paint(folder, name, value=100, size=(60, 50), mode="RGB"):
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(folder / name)


@pytest.mark.parametrize(
    ("lines", "kind", "classes", "targets"),
    [
        (["path,label", "a,0", "b,2", "c,0", "d,1"], "classes", ("0", "1", "2"), [[1, 0, 0], [0, 0, 1]]),
        (["path,label", "a,joy", "b,anger", "c,joy", "d,anger"], "classes", ("anger", "joy"), [[0, 1], [1, 0]]),
        (["path,p_0,p_1", "a,3,1", "b,0,7", "c,1,1", "d,0.5,0.5"], "classes", ("0", "1"), [[0.75, 0.25], [0, 1]]),
        (["path,valence,arousal", "a,-1,0.5", "b,0,0", "c,1,1", "d,0,1"], "va", (), [[-1, 0.5], [0, 0]]),
    ],
)
def test_each_form_of_labels(lines, kind, classes, targets, tmp_path):
    found = read_table(tmp_path, table(tmp_path, *lines), 0.5, 0)
    assert (found.kind, found.classes, found.names) == (kind, classes, ("a", "b", "c", "d"))
    np.testing.assert_allclose(found.targets[:2], targets)
    assert found.held_out.sum() == 2


def test_sides_are_the_tables_own_or_drawn_by_the_seed(tmp_path):
    lines = ["split,path,label", *(f"{'val' if n % 3 else 'Train'},{n},{n % 2}" for n in range(9)), "test,t,1", ""]
    found = read_table(tmp_path, table(tmp_path, *lines), 0.5, 0)
    assert found.held_out.tolist() == [bool(n % 3) for n in range(9)]
    assert found.notes == ("1 picture of another split left out",)
    plain = table(tmp_path, "path,label", *(f"{n},{n % 2}" for n in range(100)))
    drawn = [read_table(tmp_path, plain, 0.2, seed).held_out for seed in (0, 0, 1)]
    assert [each.sum() for each in drawn] == [20, 20, 20]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_unknown_values_are_left_out(tmp_path):
    rows = ["a,-2,-2", "b,0,0", "c,1,1", "d,0,1", "e,0.5,-5", "f,0,0"]
    found = read_table(tmp_path, table(tmp_path, "path,valence,arousal", *rows), 0.5, 0)
    assert found.names == ("b", "c", "d", "f")
    assert found.notes == ("2 pictures of unknown valence, arousal left out",)
    found = read_table(tmp_path, table(tmp_path, "path,label", "a,-1", "b,0", "c,1", "d,0", "e,1"), 0.5, 0)
    assert found.names == ("b", "c", "d", "e")
    assert found.classes == ("0", "1")
    assert found.notes == ("1 picture of unknown label left out",)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([], r"labels\.csv:1: the first line is path,label or path,p_0"),
        (["path,class"], "the first line is"),
        (["path,p_0"], "the first line is"),
        (["path,p_0,p_2"], "the first line is"),
        (["path,label,label"], "the first line is"),
        (["path,label", "a"], r"labels\.csv:2: a row is path,label, got 'a'"),
        (["path,label", "a,1", "a,2"], r"labels\.csv:3: a is given twice"),
        (["path,valence,arousal", "a,x,1"], r"labels\.csv:2: could not convert"),
        (["path,valence,arousal", "a,1.5,1"], "valence, arousal are within -1 and 1"),
        (["path,valence,arousal", "a,nan,1"], "valence, arousal are within -1 and 1"),
        (["path,p_0,p_1", "a,0,0"], "0 or more, and not all 0"),
        (["path,label", "a,1", "b,1", "c,0"], "2 pictures to train on and 1|two of each are needed"),
        (["path,label", "a,x", "b,x", "c,x", "d,x"], "one class alone"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(lines, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        read_table(tmp_path, table(tmp_path, *lines), 0.5, 0)


def test_bad_pictures_are_named_and_left_out(tmp_path):
    names = [f"{n}.png" for n in range(6)]
    for number, name in enumerate(names):
        paint(tmp_path, name, 40 * number, mode="L" if number == 5 else "RGB")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])
    (tmp_path / "2.png").write_text("no picture")
    lines = ["path,label,split", *(f"{name},{n % 2},{'val' if n > 3 else 'train'}" for n, name in enumerate(names))]
    lines += ["gone.png,1,val", "0b.png,1,train"]
    paint(tmp_path, "0b.png", 7)
    read = read_table(tmp_path, table(tmp_path, *lines), 0.5, 0)
    found = read_views(read, 48, tmp_path / "scratch", 10**9)
    assert found.names == ("0.png", "3.png", "4.png", "5.png", "0b.png")
    assert found.views is not None
    assert (found.views.shape, found.views[:, 20, 20, 0].tolist()) == ((5, 48, 48, 3), [0, 120, 160, 200, 7])
    assert found.held_out.tolist() == [False, False, True, True, False]
    (note,) = found.notes
    assert note.startswith("3 pictures left out, since they cannot be read: 1.png (")
    assert "2.png (UnidentifiedImageError" in note
    assert "gone.png (is not there)" in note
    # More than the memory may hold: the same, from a file.
    on_disk = read_views(read, 48, tmp_path / "scratch", 1000)
    np.testing.assert_array_equal(on_disk.views, found.views)
    assert (tmp_path / "scratch").is_file()
    for name in names[3:]:
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="2 pictures to train on and 0 to validate on"):
        read_views(read, 48, tmp_path / "scratch", 10**9)


def test_batches_leave_no_picture_alone():
    assert [part.tolist() for part in batches(range(7), 3)] == [[0, 1, 2], [3, 4, 5, 6]]
    assert [part.tolist() for part in batches(range(6), 3)] == [[0, 1, 2], [3, 4, 5]]
    assert [len(part) for part in batches(range(2), 64)] == [2]


def test_turned_mirrored_and_cut():
    """Each by its own draw: an unturned one is a window of the picture or of its mirror."""
    views = torch.randint(0, 256, (32, 48, 48, 3), dtype=torch.uint8)
    still = turned(views, torch.Generator().manual_seed(1), 0.0, True, 40)
    windows = [(r, c) for r in range(9) for c in range(9)]
    kinds = set()
    for view, cut in zip(views, still, strict=True):
        for mirrored in (False, True):
            whole = view.flip(1) if mirrored else view
            kinds |= {(mirrored, r, c) for r, c in windows if torch.equal(whole[r : r + 40, c : c + 40], cut)}
    assert len(kinds) > 20
    assert {mirrored for mirrored, _, _ in kinds} == {False, True}
    plain = turned(views, torch.Generator().manual_seed(1), 0.0, False, 48)
    assert torch.equal(plain, views)
    # A spot to the right of the middle goes up to sin 10° of its distance up or down.
    spot = torch.zeros(64, 101, 101, 3, dtype=torch.uint8)
    spot[:, 50, 90] = 255
    moved = turned(spot, torch.Generator().manual_seed(1), 10.0, False, 101)
    rows = moved[..., 0].flatten(1).argmax(1) // 101 - 50
    assert rows.abs().max() <= 8
    assert rows.max() > 3
    assert rows.min() < -3
