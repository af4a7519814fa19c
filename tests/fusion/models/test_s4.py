"""S4's heads equal their networks written step by step, and neither padding nor rows without media move anything."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from avfuse.fusion.models.attention import AttentionSettings
from avfuse.fusion.models.mctn import MCTNSettings
from avfuse.fusion.models.mfn import MFNSettings
from avfuse.fusion.models.table import Output, build
from avfuse.fusion.settings import preset

SETTINGS = {
    "attention": AttentionSettings(hidden=6, dropout=0.0),
    "mfn": MFNSettings(hidden=6, memory=5, dropout=0.0),
    "mctn": MCTNSettings(hidden=6, dropout=0.0, teacher_forcing=1.0),
}
HEADS = pytest.mark.parametrize("name", list(SETTINGS))


def made(name, widths=(5, 3, 4), **changes):
    torch.manual_seed(0)
    config = replace(preset(name), model=replace(SETTINGS[name], **changes))
    return build(config, [(width,) for width in widths]).double()


def inputs(widths=(5, 3, 4), lengths=(9, 4, 2), count=9, seed=0):
    """Windows of these lengths, padded; every fourth row of the second modality is not valid."""
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn((len(lengths), count, width), generator=generator, dtype=torch.float64) for width in widths]
    mask = torch.arange(count) < torch.tensor(lengths)[:, None]
    valid = [mask.clone() for _ in widths]
    valid[1][:, ::4] = False
    return features, valid, mask


def both(found):
    """Prediction and extra loss (0 where there is none)."""
    return found if isinstance(found, Output) else Output(found, found.new_zeros(()))


def cell_over(cell, rows):
    """States and cells of an LSTMCell over the rows [T, D] of one window."""
    state = memory = rows.new_zeros(1, cell.hidden_size)
    states, memories = [], []
    for row in rows:
        state, memory = cell(row[None], (state, memory))
        states.append(state[0])
        memories.append(memory[0])
    return torch.stack(states), torch.stack(memories)


def both_ways(lstm, rows):
    """States forwards and backwards of one window [T, D]."""
    onward, back = lstm.directions.cells
    return cell_over(onward, rows)[0], cell_over(back, rows.flip(0))[0].flip(0)


def attention_of(model, rows):
    """The attention of one window: rows [T, D_m] of each modality → [T, outputs]."""
    encoded = [
        encoder(cell_over(cell, each)[0])
        for encoder, cell, each in zip(model.encoders, model.temporal.cells, rows, strict=True)
    ]
    fused = []
    for frame in zip(*encoded, strict=True):
        weights = torch.cat(frame)
        for layer in (1, 3, 5):
            weights = model.weights[layer](weights).relu()
        weights = model.weights[7](weights)
        fused.append(sum(weight * one for weight, one in zip(weights, frame, strict=True)))
    return model.head(torch.cat(both_ways(model.context, torch.stack(fused)), -1))


def mfn_of(model, rows):
    """MFN of one window, frame by frame: the memory reads the cells before and after each step."""
    total = [cell_over(cell, each) for cell, each in zip(model.temporal.cells, rows, strict=True)]
    states, cells = (torch.cat([pair[which] for pair in total], -1) for which in (0, 1))
    past, memory, fused = torch.zeros_like(cells[0]), rows[0].new_zeros(model.gates[0][-1].out_features), []

    def two_layers(layers, x):
        return layers[3](layers[0](x).relu())

    for state, cell in zip(states, cells, strict=True):
        star = torch.cat([past, cell])
        attended = two_layers(model.attention, star).softmax(0) * star
        proposal = two_layers(model.proposal, attended).tanh()
        keep, add = (two_layers(gate, torch.cat([attended, memory])).sigmoid() for gate in model.gates)
        memory, past = keep * memory + add * proposal, cell
        fused.append(two_layers(model.fuse, torch.cat([state, memory])))
    return model.head(torch.cat(both_ways(model.context, torch.stack(fused)), -1))


def encode(translation, rows):
    onward, back = both_ways(translation.encoder, rows)
    return onward + back, translation.first(onward[-1] + back[0]).tanh()


def decode(translation, join, state, target, forced):
    """Frames [T, D] written one by one; `forced` bool [T]: the next step reads the target."""
    width, hidden = target.shape[1], len(state)
    frame, frames = target.new_zeros(width), []
    weight, bias = translation.step.weight.view(3, 2, hidden, -1), translation.step.bias.view(3, 2, hidden)

    def cell(row, number):
        """One step of torch's cell from a state of zeros; its gate `keep` has nothing to keep, so any numbers do."""
        parts = []
        for out, into, new in (weight[:, number], bias[:, number]):
            parts.append(torch.cat([into, torch.randn_like(into), new, out]))
        nothing = row.new_zeros(1, hidden)
        unread = torch.randn(4 * hidden, hidden, dtype=row.dtype)
        return torch.lstm_cell(row[None], (nothing, nothing), parts[0], unread, parts[1], 0 * parts[1])[0][0]

    for t in range(len(target)):
        energy = translation.attention(torch.cat([state.expand(len(join), -1), join], -1)).tanh()
        context = translation.score(energy).softmax(0).squeeze(1) @ join
        state = sum(cell(torch.cat([frame, context]), number) for number in range(2))
        frames.append(translation.frame(torch.cat([state, context])))
        frame = target[t] if forced[t] else frames[-1]
    return torch.stack(frames)


def mctn_of(model, rows, valid, rate):
    """MCTN of one window → prediction, and squared errors of each translation's rows that are there."""
    rows = [F.pad(each, (0, model.width - each.shape[1])) for each in rows]
    join, errors = rows[0], []
    for number, translation in enumerate(model.translations):
        join, state = encode(translation, join)
        frames = decode(translation, join, state, rows[number + 1], valid[number + 1] & bool(rate))
        errors.append((frames - rows[number + 1]).square().mean(-1)[valid[number + 1]])
        if number == 0:
            again, state = encode(translation, frames)
            back = decode(translation, again, state, rows[0], valid[0] & bool(rate))
            errors.append((back - rows[0]).square().mean(-1)[valid[0]])
    return model.head(torch.cat(both_ways(model.context, join), -1)), errors


@pytest.mark.parametrize("widths", [(5, 3), (5, 3, 4), (3, 2, 6, 4)])
@pytest.mark.parametrize(("name", "rate"), [("attention", 0), ("mfn", 0), ("mctn", 0), ("mctn", 1)])
def test_equals_the_network_written_step_by_step(name, rate, widths):
    model = made(name, widths, **({"teacher_forcing": float(rate)} if name == "mctn" else {}))
    features, valid, mask = inputs(widths)
    found, extra = both(model.train()(features, valid, mask))
    evaluated = model.eval()(features, valid, mask)
    all_errors = []
    for number, length in enumerate(mask.sum(1).tolist()):
        there = [flags[number, :length] for flags in valid]
        rows = [each[number, :length] * flag[:, None] for each, flag in zip(features, there, strict=True)]
        if name == "mctn":
            expected, errors = mctn_of(model, rows, there, rate)
            all_errors.append(errors)
        else:
            expected = {"attention": attention_of, "mfn": mfn_of}[name](model, rows)
        for rows_out in (found, evaluated):
            torch.testing.assert_close(rows_out[number, :length], expected, rtol=0, atol=1e-9)
    if name == "mctn":
        losses = [torch.cat(each).mean() for each in zip(*all_errors, strict=True)]
        assert len(losses) == len(widths)  # there and back again, then each further modality
        torch.testing.assert_close(extra, 0.5 * sum(losses), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "rate"), [("attention", 0), ("mfn", 0), ("mctn", 0), ("mctn", 1)])
def test_gradients_are_those_of_the_network_written_step_by_step(name, rate):
    model = made(name, **({"teacher_forcing": float(rate)} if name == "mctn" else {})).train()
    features, valid, mask = inputs()
    found, extra = both(model(features, valid, mask))
    ours = torch.autograd.grad(found[mask].square().sum() + extra, list(model.parameters()))
    assert all(grad.abs().max() > 0 for grad in ours)
    total, all_errors = torch.zeros((), dtype=torch.float64), []
    for number, length in enumerate(mask.sum(1).tolist()):
        there = [flags[number, :length] for flags in valid]
        rows = [each[number, :length] * flag[:, None] for each, flag in zip(features, there, strict=True)]
        if name == "mctn":
            expected, errors = mctn_of(model, rows, there, rate)
            all_errors.append(errors)
        else:
            expected = {"attention": attention_of, "mfn": mfn_of}[name](model, rows)
        total = total + expected.square().sum()
    total = total + sum(0.5 * torch.cat(each).mean() for each in zip(*all_errors, strict=True))
    theirs = torch.autograd.grad(total, list(model.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@HEADS
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_padding_and_rows_without_media_move_nothing(name, training):
    model = made(name).train(training)
    features, valid, mask = inputs()
    found, extra = both(model(features, valid, mask))
    for value in (100.0, float("nan")):
        spoiled = [
            rows.masked_fill(~(flags & mask)[..., None], value) for rows, flags in zip(features, valid, strict=True)
        ]
        again, again_extra = both(model(spoiled, valid, mask))
        assert torch.equal(again[mask], found[mask])
        assert torch.equal(again_extra, extra)
    longer = [F.pad(rows, (0, 0, 0, 3), value=7.0) for rows in features]
    flags = [F.pad(each, (0, 3), value=True) for each in valid]  # what `valid` says of padding does not matter
    again, again_extra = both(model(longer, flags, F.pad(mask, (0, 3))))
    torch.testing.assert_close(again[:, :9][mask], found[mask], rtol=0, atol=1e-13)
    torch.testing.assert_close(again_extra, extra, rtol=0, atol=1e-13)


@HEADS
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_windows_do_not_know_of_each_other(name, training):
    model = made(name).train(training)
    features, valid, mask = inputs()
    found = both(model(features, valid, mask)).prediction
    order = [2, 0, 1]
    turned = both(model([f[order] for f in features], [v[order] for v in valid], mask[order])).prediction
    torch.testing.assert_close(turned, found[order], rtol=0, atol=1e-13)
    alone = both(model([f[1:2] for f in features], [v[1:2] for v in valid], mask[1:2])).prediction
    torch.testing.assert_close(alone[0], found[1], rtol=0, atol=1e-13)


@HEADS
def test_all_windows_without_one_modality_are_finite(name):
    model = made(name).train()
    features, valid, mask = inputs()
    valid[1][:] = False
    found, extra = both(model(features, valid, mask))
    (found.square().sum() + extra).backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(extra)
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@HEADS
def test_windows_of_two_frames(name):
    model, batch = made(name).train(), inputs(lengths=(2, 1), count=2)
    found, extra = both(model(*batch))
    (found.square().sum() + extra).backward()
    assert found.shape == (2, 2, 2)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@HEADS
def test_dropout_is_there_in_training_only_and_repeats(name):
    model, batch = made(name, dropout=0.5), inputs()
    assert torch.equal(model.eval()(*batch), model(*batch))
    model.train()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(both(model(*batch)).prediction)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_teacher_forcing_is_a_share_of_the_frames_that_are_there():
    model, there = made("mctn", teacher_forcing=0.3), torch.ones(50, 200, dtype=torch.bool)
    there[:, ::2] = False
    torch.manual_seed(0)
    forced = model._forced(there)
    assert not forced[:, ::2].any()
    assert abs(forced[:, 1::2].double().mean() - 0.3) < 0.02
    torch.manual_seed(0)
    assert torch.equal(model._forced(there), forced)


def test_forcing_changes_the_translations_and_not_the_prediction():
    model, batch = made("mctn").train(), inputs()
    forced = model(*batch)
    free = made("mctn", teacher_forcing=0.0).train()(*batch)
    assert torch.equal(forced.prediction, free.prediction)
    assert not torch.equal(forced.extra_loss, free.extra_loss)


def test_a_prediction_of_mctn_is_made_of_the_leading_modality():
    model, (features, valid, mask) = made("mctn").eval(), inputs()
    other = [features[0], features[1] + 1, features[2] - 1]
    assert torch.equal(model(features, valid, mask), model(other, valid, mask))
    assert not torch.equal(model(features, valid, mask), model([features[0] + 1, *features[1:]], valid, mask))


def test_mctn_with_keys_far_out_is_finite():
    model, (features, valid, mask) = made("mctn").float().train(), inputs()
    with torch.no_grad():
        for translation in model.translations:
            translation.attention.weight.mul_(300)
    found, extra = model([rows.float() for rows in features], valid, mask)
    (found.square().sum() + extra).backward()
    assert torch.isfinite(extra)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "change", "word"),
    [
        (AttentionSettings, {"hidden": 0}, "hidden must be above 0"),
        (MFNSettings, {"hidden": 1}, "hidden 1 has no half"),
        (MFNSettings, {"window_dim": 0}, "window_dim must be above 0"),
        (MCTNSettings, {"teacher_forcing": 1.5}, "teacher_forcing must be in"),
        (MCTNSettings, {"loss_weight": -1.0}, "loss_weight must not be below 0"),
    ],
)
def test_settings_are_checked(settings, change, word):
    with pytest.raises(ValueError, match=word):
        settings(**change)


def test_mctn_needs_two_modalities():
    with pytest.raises(ValueError, match="needs two or more"):
        made("mctn", (5,))


@pytest.mark.parametrize("name", ["attention", "mfn"])
def test_one_modality_is_enough(name):
    model = made(name, (5,))
    features, _, mask = inputs((5, 3))
    assert model(features[:1], [mask], mask).shape == (3, 9, 2)


@pytest.mark.parametrize("window", [1, 3])
def test_mfn_attends_to_as_many_cells_as_its_window(window):
    model, batch = made("mfn", window_dim=window), inputs()
    assert model.attention[0].in_features == window * 3 * 6
    assert model(*batch).shape == (3, 9, 2)
