"""Searches of small grids whose curves are computed."""

import math
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenseg.search.curves import Curve
from greenseg.search.halving import (
    AUDIT,
    LEAST,
    Candidate,
    Options,
    Step,
    audit_of,
    next_round,
    predicted,
    stand,
)

EPOCHS = 20
Grid = tuple[list[Candidate], dict[str, Curve]]


def grid(
    seed: int = 0, networks: int = 4, kinds: int = 4, seeds: int = 2, noise: float = 0.01, epochs: int = EPOCHS
) -> Grid:
    """Networks that cost and reach more and more, each with good and bad ways to train."""
    draw = random.Random(seed)
    candidates, curves = [], {}
    for network in range(networks):
        for kind in range(kinds):
            best = 0.9 + 0.08 * network / networks - 0.3 * kind / kinds + draw.gauss(0, noise)
            for repeat in range(seeds):
                key = f"{network:03}-{kind:03}-{repeat}"
                configuration = f"{network}-{kind}"
                candidates.append(Candidate(key, configuration, repeat, kind, epochs, configuration, (network, kind)))
                top, cost = best + draw.gauss(0, noise), 10.0 * (network + 1) * draw.uniform(0.99, 1.01)
                dice = [min(max(top * (1 - math.exp(-0.3 * e)), 0.0), 0.99) for e in range(1, epochs + 1)]
                curves[key] = Curve(tuple(dice), tuple(5 + cost * e for e in range(1, epochs + 1)), True)
    return candidates, curves


def search(
    grid: Grid, options: Options, failed: frozenset[str] = frozenset()
) -> tuple[dict[str, Curve], list[list[Step]]]:
    """A whole search; runs in `failed` fail in their first round."""
    candidates, curves = grid
    seen: dict[str, Curve] = {}
    gone: set[str] = set()
    rounds: list[list[Step]] = []
    while steps := next_round(candidates, seen, options, len(rounds), frozenset(gone)):
        rounds.append(steps)
        for step in steps:
            key = step.candidate.key
            assert step.until > len(seen[key].dice) if key in seen else step.until > 0
            if key in failed:
                gone.add(key)
            else:
                seen[key] = curves[key].until(step.until)
    return seen, rounds


def spent(seen: Mapping[str, Curve]) -> float:
    return sum(curve.joules[-1] for curve in seen.values())


def plain(rounds: Sequence[Sequence[Step]]) -> list[list[tuple[str, int, str]]]:
    return [[(step.candidate.key, step.until, step.why) for step in steps] for steps in rounds]


def test_first_round_trains_every_configuration_once_and_no_less_than_three_epochs() -> None:
    candidates, _ = grid()
    steps = next_round(candidates, {}, Options(first=0.01), 0)
    assert [step.candidate.repeat for step in steps] == [0] * 16
    assert {step.until for step in steps} == {LEAST}
    short, _ = grid(epochs=2)
    assert {step.until for step in next_round(short, {}, Options(), 0)} == {2}


def test_front_of_an_easy_grid_is_found_for_less_than_half_of_its_joules() -> None:
    candidates, curves = easy = grid(noise=0.002)
    seen, rounds = search(easy, Options(audit=0.0))
    best = {c.configuration for c in candidates if c.kind == 0}
    ended = {c.configuration for c in candidates if c.key in seen and seen[c.key].ended}
    assert best <= ended
    assert spent(seen) < 0.5 * spent(curves)
    assert not stand(candidates, seen, Options()).undecided
    assert all(step.why for steps in rounds for step in steps)


@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 1000), share=st.sampled_from([None, 0.2, 0.5]), draw=st.randoms(use_true_random=False))
def test_rounds_depend_on_no_order(seed: int, share: float | None, draw: random.Random) -> None:
    candidates, curves = noisy = grid(seed, noise=0.03)
    options = Options(share=share, seed=seed)
    _, rounds = search(noisy, options)
    other = draw.sample(candidates, len(candidates)), dict(draw.sample([*curves.items()], len(curves)))
    assert plain(search(other, options)[1]) == plain(rounds)


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 1000), budget=st.floats(0.05, 0.9))
def test_budget_is_kept(seed: int, budget: float) -> None:
    noisy = grid(seed, noise=0.03)
    _, curves = noisy
    in_joules, rounds = search(noisy, Options(budget=budget * spent(curves)))
    least = sum(curves[step.candidate.key].joules[step.until - 1] for step in rounds[0])
    # Joules to come are expected with 1 % of error each.
    assert spent(in_joules) <= max(1.02 * budget * spent(curves), least)
    as_share, rounds = search(noisy, Options(share=budget))
    least = sum(curves[step.candidate.key].joules[step.until - 1] for step in rounds[0])
    assert spent(as_share) <= max(1.03 * budget * spent(curves), least)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), ended=st.floats(0.1, 0.9), epochs=st.integers(3, 19))
def test_no_run_is_given_up_whose_bound_reaches_the_front(seed: int, ended: float, epochs: int) -> None:
    candidates, curves = grid(seed, noise=0.05)
    draw = random.Random(seed)
    seen = {
        c.key: curves[c.key] if draw.random() < ended else curves[c.key].until(epochs)
        for c in candidates
        if c.repeat == 0
    }
    standing = stand(candidates, seen, Options())
    for key, by in standing.given_up.items():
        assert not seen[key].ended
        assert standing.joules[by] < standing.joules[key]
        assert standing.bounds[key].high < standing.bounds[by].high
        rivals = [k for k in seen if standing.joules[k] < standing.joules[key]]
        assert standing.bounds[key].high < max(
            seen[k].best if seen[k].ended else standing.bounds[k].low for k in rivals
        )
    for key, bounds in standing.bounds.items():
        assert seen[key].best <= bounds.low <= bounds.expected <= bounds.high
    assert not standing.given_up.keys() & set(standing.undecided)


def test_nothing_is_given_up_before_a_run_has_ended() -> None:
    candidates, curves = grid()
    seen = {c.key: curves[c.key].until(3) for c in candidates if c.repeat == 0}
    standing = stand(candidates, seen, Options())
    assert not standing.given_up
    assert len(standing.undecided) == 16


def test_failed_runs_take_no_more_part() -> None:
    failed = frozenset({"000-000-0", "003-000-0"})
    seen, rounds = search(grid(noise=0.002), Options(), failed)
    assert not failed & seen.keys()
    later = {step.candidate.configuration for steps in rounds[1:] for step in steps}
    assert not {"0-0", "3-0"} & later


def test_of_equal_results_the_cheapest_goes_on() -> None:
    candidates, curves = grid(noise=0.002)
    # The second kind is the first one with other workers: the same Dice for 20 % less.
    equal = [replace(c, results=f"{c.key[:3]}-{0 if c.kind == 1 else c.kind}") for c in candidates]
    for each in equal:
        if each.kind == 1:
            dear = curves[each.key.replace("-001-", "-000-")]
            curves[each.key] = replace(dear, joules=tuple(0.8 * joules for joules in dear.joules))
    seen, _ = search((equal, curves), Options())
    assert all(len(seen[f"00{n}-000-0"].dice) == LEAST for n in range(4))
    assert all(f"00{n}-000-1" not in seen for n in range(4))
    standing = stand(equal, seen, Options())
    assert all(standing.given_up[f"00{n}-000-0"] == f"00{n}-001-0" for n in range(4))
    # Within the noise, the first one stays.
    for each in equal:
        if each.kind == 1:
            dear = curves[each.key.replace("-001-", "-000-")]
            curves[each.key] = replace(dear, joules=tuple(0.99 * joules for joules in dear.joules))
    seen, _ = search((equal, curves), Options())
    assert stand(equal, seen, Options()).given_up["000-001-0"] == "000-000-0"


def test_runs_without_a_dice_count_as_zero() -> None:
    candidates, curves = grid()
    nothing = {key: replace(curve, dice=(math.nan,) * EPOCHS) for key, curve in curves.items()}
    assert nothing["000-000-0"].best == 0
    seen, rounds = search((candidates, nothing), Options())
    assert rounds
    assert all(curve.best == 0 for curve in seen.values())


def test_early_stopping_ends_a_run() -> None:
    candidates, curves = grid()
    short = {key: replace(c.until(12), ended=True) for key, c in curves.items()}
    seen, _ = search((candidates, short), Options())
    assert any(curve.ended for curve in seen.values())


def test_audits_come_last_and_bound_what_was_missed() -> None:
    large = grid(networks=5, kinds=8, noise=0.002)
    candidates, _ = large
    options = Options(audit=0.6)
    seen, rounds = search(large, options)
    whys = [step.why for steps in rounds for step in steps]
    assert all(len({step.why == AUDIT for step in steps}) == 1 for steps in rounds)
    assert AUDIT not in whys[: len(whys) // 2]
    audited = frozenset(step.candidate.key for steps in rounds for step in steps if step.why == AUDIT)
    found = audit_of(candidates, seen, options, audited)
    assert found.audited == whys.count(AUDIT) >= 10
    assert found.wrong == 0
    assert found.at_most is not None
    assert 0 < found.at_most < found.given_up
    # Without a wrong one, 1 − (1 − p)ⁿ ≤ 0.95 to the nearest run.
    assert found.at_most / (found.given_up + found.audited) == pytest.approx(1 - 0.05 ** (1 / found.audited), abs=0.1)
    few = audit_of(candidates, seen, options, frozenset())
    assert few.audited == 0
    assert few.at_most is None


def test_an_audited_run_on_the_front_counts_as_wrong() -> None:
    candidates, curves = grid(networks=6, kinds=12, noise=0.002)
    first = [c for c in candidates if c.repeat == 0]
    seen = {c.key: curves[c.key] if c.kind in (0, 11) else curves[c.key].until(9) for c in first}
    seen["000-011-0"] = replace(seen["000-011-0"], dice=(0.99,) * EPOCHS)
    audited = frozenset(c.key for c in first if c.kind == 11) | {c.key for c in first if c.kind == 0}
    found = audit_of(candidates, seen, Options(), audited)
    assert found.audited == 12
    assert found.wrong >= 1


def test_prediction_of_the_grid_narrows_and_ends_at_its_joules() -> None:
    candidates, curves = grid()
    assert predicted(candidates, {}) is None
    begun = {c.key: curves[c.key].until(3) for c in candidates if c.repeat == 0}
    few = dict([*begun.items()][:4])
    early, later = predicted(candidates, few), predicted(candidates, begun)
    assert early
    assert later
    assert later.mean > early.mean  # the first four have the cheapest network
    assert later.low < spent(curves) < later.high
    assert later.mean == pytest.approx(spent(curves), rel=0.02)
    final = predicted(candidates, curves)
    assert final
    assert final.low == pytest.approx(final.high) == pytest.approx(spent(curves))


def test_500_configurations_are_decided_in_under_a_second_per_round() -> None:
    large = grid(networks=25, kinds=20, noise=0.02)
    slowest, total, number = 0.0, 0.0, 0
    candidates, curves = large
    seen: dict[str, Curve] = {}
    while number < 6:
        began = time.perf_counter()
        steps = next_round(candidates, seen, Options(share=0.4), number)
        slowest = max(slowest, time.perf_counter() - began)
        total += time.perf_counter() - began
        seen |= {step.candidate.key: curves[step.candidate.key].until(step.until) for step in steps}
        number += 1
    assert len(seen) >= 500
    assert slowest < 1
    assert total < 6


def test_decisions_import_no_torch() -> None:
    code = "import sys, greenseg.search.halving, greenseg.search.of_run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
