"""Rates, sizes, draws and weights: against closed forms, PyTorch's one cycle and the literature's numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest

from derma_training.classifier.about import encoder_of
from derma_training.classifier.imbalance import (
    class_draws,
    class_weights,
    effective_number,
    epoch_length,
    epoch_order,
    learned_counts,
    source_factors,
)
from derma_training.classifier.manifest import Row
from derma_training.classifier.recipes import DERMA, ESTEVA, RECIPES, STEPPAN, Stage, adapted, recipe_from
from derma_training.classifier.schedules import layer_rates, momentum, one_cycle, size_at, stage_at, stepwise

# ISIC 2019 with the paper's external data: 32,748 pictures
STEPPAN_COUNTS = {
    "NV": 13704, "UNK": 5958, "MEL": 4904, "BCC": 3378, "BKL": 2733, "AK": 867, "SCC": 628, "DF": 294, "VASC": 282,
}  # fmt: skip


def test_one_cycle_is_fastais() -> None:
    assert one_cycle(0.0, 0.3) == pytest.approx(1 / 25)
    assert one_cycle(0.15, 0.3) == pytest.approx((1 + 1 / 25) / 2)
    assert one_cycle(0.3, 0.3) == pytest.approx(1.0)
    assert one_cycle(0.65, 0.3) == pytest.approx((1 + 1 / 25e4) / 2)
    assert one_cycle(1.0, 0.3) == one_cycle(1.7, 0.3) == pytest.approx(1 / 25e4)
    assert [momentum(p, 0.3) for p in (0.0, 0.3, 1.0)] == pytest.approx([0.95, 0.85, 0.95])


def test_one_cycle_agrees_with_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    steps = 1001
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, pct_start=0.3, div_factor=25, final_div_factor=1e4
    )
    # PyTorch's rise ends one step before 0.3 of the way: its own share of the steps is what must be compared
    rise = (0.3 * steps - 1) / (steps - 1)
    for step in range(steps):
        found = optimizer.param_groups[0]
        assert found["lr"] == pytest.approx(one_cycle(step / (steps - 1), rise), rel=1e-6, abs=1e-9)
        assert found["momentum"] == pytest.approx(momentum(step / (steps - 1), rise), rel=1e-6)
        optimizer.step()
        if step < steps - 1:
            cycle.step()


def test_estevas_rate_falls_by_sixteen_every_thirty_epochs() -> None:
    assert [stepwise(e) for e in (0, 29, 30, 59, 60)] == pytest.approx([1, 1, 1 / 16, 1 / 16, 1 / 256])
    assert ESTEVA.stages[0] == Stage(1.0, 1e-3, 1e-3)


def test_stages_follow_each_other() -> None:
    stages = (Stage(1.0, 0.0, 1e-3), Stage(3.0, 1e-4, 1e-3))
    assert stage_at(stages, 0.0) == (stages[0], 0.0)
    assert stage_at(stages, 0.125) == (stages[0], pytest.approx(0.5))
    assert stage_at(stages, 0.25) == (stages[1], pytest.approx(0.0))
    assert stage_at(stages, 1.0) == (stages[1], pytest.approx(1.0)) and stage_at(stages, 2.0)[1] == 1.0
    assert sum(stage.share for stage in STEPPAN.stages) == pytest.approx(1.0)


def test_rates_rise_geometrically_from_body_to_head() -> None:
    assert layer_rates(Stage(1.0, 1e-6, 1e-4), 3) == pytest.approx([1e-6, 1e-5, 1e-4])
    assert layer_rates(Stage(1.0, 0.0, 1e-3), 3) == pytest.approx([1e-3] * 3), "only norms learn in a frozen body"


def test_early_pictures_are_smaller_in_steps_of_32() -> None:
    assert [size_at(p, 160, 0.3, 0.8) for p in (0.0, 0.29, 0.3, 1.0)] == [128, 128, 160, 160]
    assert size_at(0.0, 224, 0.0, 1.0) == 224 and size_at(0.0, 32, 0.3, 0.8) == 32


def test_from_scratch_all_layers_learn_alike_and_lr_moves_the_peak() -> None:
    scratch = adapted(DERMA, pretrained=False)
    assert scratch.stages == (Stage(1.0, 6e-4, 6e-4),)
    assert adapted(STEPPAN, pretrained=True) == STEPPAN
    moved = adapted(DERMA, pretrained=True, peak_lr=4e-3)
    assert [s.head_lr for s in moved.stages] == pytest.approx([4e-3, 4e-3])
    assert [s.body_lr for s in moved.stages] == pytest.approx([0.0, 4e-4])
    assert adapted(ESTEVA, pretrained=False) == ESTEVA, "the paper has one rate"


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_stored_recipe_is_read_again(name: str) -> None:
    recipe = replace(RECIPES[name], emphasis=(("MEL", 2.0),), source_emphasis=(("phone", 2.0),))
    assert recipe_from(asdict(recipe)) == recipe


def test_a_recipe_stored_before_sources_could_be_emphasised_is_read() -> None:
    stored = asdict(DERMA)
    del stored["source_emphasis"]
    assert recipe_from(stored) == DERMA


def test_effective_number_weights_are_those_of_the_papers_counts() -> None:
    weights = dict(zip(STEPPAN_COUNTS, class_weights(list(STEPPAN_COUNTS.values()), "effective", 0.999), strict=True))
    expected = {
        "NV": 0.530, "UNK": 0.532, "MEL": 0.534, "BCC": 0.549, "BKL": 0.567, "AK": 0.914, "SCC": 1.137, "DF": 2.081,
        "VASC": 2.157,
    }  # fmt: skip
    assert weights == pytest.approx(expected, abs=6e-4)


def test_the_effective_number_is_a_geometric_sum() -> None:
    for n in (1, 2, 7, 300):
        for beta in (0.0, 0.5, 0.9, 0.999):
            sum_of_powers = sum(beta**i for i in range(n))
            assert effective_number(np.asarray([float(n)]), beta)[0] == pytest.approx(sum_of_powers)
    assert effective_number(np.asarray([5.0]), 1.0)[0] == 5.0


def test_inverse_weights_make_every_class_cost_the_same() -> None:
    counts = [100, 10, 1]
    cost = class_weights(counts, "inverse") * counts
    assert cost == pytest.approx([cost[0]] * 3) and class_weights(counts, "inverse").mean() == pytest.approx(1.0)
    assert class_weights(counts, "none").tolist() == [1.0, 1.0, 1.0]


LABELS = ["NV"] * 60 + ["MEL"] * 25 + ["DF"] * 4


def drawn(sampling: str, seed: int = 0) -> list[str]:
    order = epoch_order(LABELS, sampling, np.random.default_rng(seed))  # type: ignore[arg-type]
    assert len(order) == epoch_length(LABELS, sampling)  # type: ignore[arg-type]
    return [LABELS[i] for i in order]


def test_a_natural_epoch_shows_every_picture_once() -> None:
    assert sorted(epoch_order(LABELS, "natural", np.random.default_rng(0))) == list(range(89))


def test_over_and_under_sampling_draw_all_classes_equally_often() -> None:
    assert Counter(drawn("over")) == {"NV": 60, "MEL": 60, "DF": 60}
    assert Counter(drawn("under")) == {"NV": 4, "MEL": 4, "DF": 4}
    over = Counter(epoch_order(LABELS, "over", np.random.default_rng(1)).tolist())
    assert set(over) == set(range(89)), "every picture is seen"
    assert max(over[i] for i in range(60, 85)) - min(over[i] for i in range(60, 85)) <= 1
    under = epoch_order(LABELS, "under", np.random.default_rng(1))
    assert len(set(under.tolist())) == 12, "no picture twice"


def test_a_class_is_drawn_as_the_square_root_of_its_size() -> None:
    many = Counter(label for seed in range(300) for label in drawn("sqrt", seed))
    assert many["NV"] / many["DF"] == pytest.approx(np.sqrt(60 / 4), rel=0.05)


def test_what_a_network_learns_of_frequencies_follows_draws_and_costs() -> None:
    pictures = {"NV": 900, "MEL": 100}
    plain = replace(STEPPAN, sampling="natural", class_weights="none")
    assert learned_counts(pictures, plain) == pictures
    assert learned_counts(pictures, replace(plain, sampling="over")) == {"NV": 500, "MEL": 500}
    assert learned_counts(pictures, replace(plain, class_weights="inverse")) == {"NV": 500, "MEL": 500}
    assert learned_counts(pictures, replace(plain, sampling="sqrt")) == {"NV": 750, "MEL": 250}
    assert learned_counts(pictures, replace(plain, emphasis=(("MEL", 9.0),))) == {"NV": 500, "MEL": 500}


@pytest.mark.parametrize("sampling", ["natural", "sqrt", "over", "under"])
def test_an_emphasised_class_is_drawn_so_many_times_as_often(sampling: str) -> None:
    emphasis = (("MEL", 3.0),)
    orders = [
        epoch_order(LABELS, sampling, np.random.default_rng(seed), emphasis)  # type: ignore[arg-type]
        for seed in range(400)
    ]
    many = Counter(LABELS[i] for order in orders for i in order)
    shares = class_draws({"NV": 60, "MEL": 25, "DF": 4}, sampling, emphasis)  # type: ignore[arg-type]
    plain = class_draws({"NV": 60, "MEL": 25, "DF": 4}, sampling)  # type: ignore[arg-type]
    assert shares["MEL"] / shares["NV"] == pytest.approx(3 * plain["MEL"] / plain["NV"])
    assert many["MEL"] / many["NV"] == pytest.approx(shares["MEL"] / shares["NV"], rel=0.1)
    assert all(len(order) == epoch_length(LABELS, sampling) for order in orders)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", ["natural", "sqrt", "over"])
def test_an_emphasised_source_is_drawn_more_often_and_its_class_is_not(sampling: str) -> None:
    sources = ["phone" if i % 5 == 0 else "dermoscopy" for i in range(len(LABELS))]
    within = source_factors(sources, (("phone", 3.0),))
    orders = [
        epoch_order(LABELS, sampling, np.random.default_rng(seed), (), within)  # type: ignore[arg-type]
        for seed in range(400)
    ]
    many = Counter((LABELS[i], sources[i]) for order in orders for i in order)
    assert many["NV", "phone"] / many["NV", "dermoscopy"] == pytest.approx(3 * 12 / 48, rel=0.05)
    shares = class_draws({"NV": 60, "MEL": 25, "DF": 4}, sampling)  # type: ignore[arg-type]
    of_mel = (many["MEL", "phone"] + many["MEL", "dermoscopy"]) / sum(many.values())
    assert of_mel == pytest.approx(shares["MEL"], rel=0.05)


def test_without_an_emphasis_no_picture_is_preferred() -> None:
    assert source_factors(["phone", "dermoscopy"], ()) is None


def test_what_is_known_of_a_person_becomes_numbers(tmp_path) -> None:  # type: ignore[no-untyped-def]
    known = Row(tmp_path, "NV", "1", "0", age=45.0, sex="male", site="back")
    unknown = Row(tmp_path, "NV", "2", "0", sex="", site="")
    encoder = encoder_of([known, unknown, Row(tmp_path, "NV", "3", "0", site="arm")])
    assert encoder.sites == ("arm", "back") and encoder.width == 8
    assert encoder.encode([known, unknown]).tolist() == [[0.5, 0, 0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0, 0, 1]]
    elsewhere = Row(tmp_path, "NV", "4", "0", site="moon")
    assert encoder.encode([elsewhere])[0, -1] == 1.0
