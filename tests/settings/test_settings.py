"""Settings: what they accept, what names them, and that everything made from their declaration agrees with it."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenseg.errors import UserError
from greenseg.model_names import NETWORKS
from greenseg.runs.directory import RunDirectory
from greenseg.settings import (
    ACCOUNTING,
    REPEATS,
    Overlays,
    Settings,
    choices,
    group_of,
    neutral,
    overlay,
    problems_of,
    read_config,
)
from greenseg.settings.docs import settings_page
from greenseg.settings.identity import same_training, trained
from greenseg.sweep.file import read_sweep
from tests.conftest import Command

FIELDS = list(Settings.model_fields)

# Any of these encoders goes with any of these decoders.
_ENCODERS = st.sampled_from(["mobilenet", "ResNet", "efficientnet-b0", "mobilenetv3-tiny", "tu-resnet18.a1_in1k"])
_DECODERS = st.sampled_from(["unet", "FPN", "deeplabv3plus"])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "data": st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1),
    "image_size": st.integers(1, 64).map(lambda n: 32 * n),
    "spacing": st.floats(0, 100, exclude_min=True),
    "validation_share": st.floats(0, 1, exclude_min=True, exclude_max=True),
    "workers": st.integers(0, 256) | st.just("auto"),
    "labels": st.sets(st.integers(1, 99), max_size=4).map(lambda labels: ",".join(map(str, sorted(labels))))
    | st.sampled_from(["csf=1,brain=2+3", "brain=2+3,csf=1"]),
    "channels": st.sampled_from(["", "T2w", "T2w,T1w"]),
    "split_seed": st.integers(0, 2**32 - 1),
    "test_share": st.floats(0, 1, exclude_max=True),
    "split_from": st.just(""),  # does not go with folds and test_share
    "folds": st.integers(11, 1000),
    "fold": st.integers(0, 10),
    "drop_empty_slices": st.floats(0, 1),
    "batch_size": st.integers(2, 65536) | st.just("auto"),  # 1 does not go with everything
    "model": st.builds("{}-{}".format, _ENCODERS, _DECODERS),
    "decoder_width": st.sampled_from([0, 32, 64]),
    "teacher": st.just(""),  # does not go with several devices, nor does prune
    "distill_weight": st.floats(0, 1, exclude_min=True),
    "distill_temperature": st.floats(1, 20),
    "prune": st.just(0.0),
    "finetune_epochs": st.integers(1, 100_000),
    "teacher_shared": st.booleans(),
    "width": st.just(1.0),  # not of <encoder>-<decoder>; see test_a_whole_network_is_named_like_any_other
    "encoder": st.just("") | _ENCODERS,
    "decoder": st.just("") | _DECODERS,
    "epochs": st.integers(30, 100_000),  # more than measure_after
    "lr": st.floats(0, 100, exclude_min=True) | st.just("auto"),
    "weight_decay": st.floats(0, 10),
    "early_stopping": st.integers(0, 100_000),
    "freeze_encoder": st.just(0),  # does not go with several devices
    "gradient_clip": st.floats(0, 1e6),
    "accumulate": st.integers(1, 65536),
    "devices": st.integers(1, 64),
    "nodes": st.just(1),  # more do not go with auto
    "channels_last": st.booleans(),
    "compile": st.booleans(),
    "gradient_checkpointing": st.just(False),  # does not go with compile
    "power_limit": st.integers(0, 5000),
    "gpu_clock": st.integers(0, 10_000),
    "seed": st.integers(0, 2**32 - 1),
    "cpu_watts": st.floats(0, 1000),
    "dram_watts": st.floats(0, 100),
    "measure_after": st.integers(0, 29),
    "energy_to_dice": st.floats(0, 1, exclude_min=True),
    "carbon_intensity": st.floats(0, 5000),
    "country": st.sampled_from(["", "FRA", "deu"]),
    "pue": st.floats(1, 10),
    "price_per_kwh": st.floats(0, 1e6),
    **{name: st.sampled_from(choices(name)) for name in FIELDS if choices(name)},
    # The others do not go with everything.
    "optimizer": st.sampled_from(choices("optimizer")[:8]),
    "strategy": st.sampled_from(choices("strategy")[:3]),
    "quantize": st.sampled_from(["none", "bf16"]),
    "runtime": st.sampled_from(["auto", "torch", "torch-compile"]),
}
MAPPINGS = st.fixed_dictionaries({}, optional=VALUES).map(
    lambda values: values if "folds" in values else {name: v for name, v in values.items() if name != "fold"}
)


def mistakes(values: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as caught:
        Settings.of(values)
    return caught.value.problems


# ── identity


@given(MAPPINGS)
@settings(deadline=None)
def test_resolved_settings_are_the_same_settings(values: dict[str, Any]) -> None:
    resolved = Settings.of(values)
    assert Settings.of(resolved.resolved()) == resolved
    assert Settings.of(resolved.resolved()).identity == resolved.identity
    assert "model" not in resolved.resolved()


@given(MAPPINGS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_identity_ignores_how_the_settings_are_written(values: dict[str, Any], random: Any) -> None:
    identity = Settings.of(values).identity
    written_out = {name: field.default for name, field in Settings.model_fields.items()} | values
    assert Settings.of(written_out).identity == identity
    shuffled = list(values.items())
    random.shuffle(shuffled)
    assert Settings.of(dict(shuffled)).identity == identity


@given(_ENCODERS, _DECODERS)
@settings(deadline=None)
def test_a_model_and_its_halves_are_the_same_settings(encoder: str, decoder: str) -> None:
    model = Settings.of({"model": f"{encoder}-{decoder}"})
    assert Settings.of({"encoder": encoder, "decoder": decoder}) == model
    assert Settings.of({"model": f"resnet34-{decoder}", "encoder": encoder}) == model
    assert Settings.of({"model": f"{encoder}-linknet", "decoder": decoder}) == model


@pytest.mark.parametrize("name", FIELDS)
@given(data=st.data(), values=MAPPINGS)
@settings(deadline=None, max_examples=20)
def test_identity_changes_with_every_setting_and_configuration_with_all_but_seed_and_fold(
    name: str, data: st.DataObject, values: dict[str, Any]
) -> None:
    if name == "fold":
        values = {"folds": 20} | values
    one, other = (Settings.of(values | {name: data.draw(VALUES[name])}) for _ in range(2))
    if group_of(name) == ACCOUNTING:  # what is accounted for is not what is trained
        assert one.identity == other.identity
        return
    assert (one.identity == other.identity) == (one.resolved() == other.resolved())
    if group_of(name) == REPEATS:
        assert one.configuration == other.configuration
    else:
        assert (one.configuration == other.configuration) == (one.identity == other.identity)


@given(st.sampled_from(list(NETWORKS)), st.floats(0.25, 4))
@settings(deadline=None)
def test_a_whole_network_is_named_like_any_other(network: str, width: float) -> None:
    model = Settings.of({"model": network, "width": width})
    assert (model.encoder, model.decoder, model.model) == ("", network, network)
    assert model == Settings.of({"decoder": network, "width": width}) == Settings.of(model.resolved())
    assert model.slug.startswith(f"{network}-32-true")
    assert (model.identity == Settings.of({"model": network}).identity) == (width == 1)


def test_identities_stay_what_they_were() -> None:
    """Where one of these changes, nobody's runs are found again: a sweep would train everything again."""
    assert Settings().identity[:8] == "eab3990b", "directories of earlier versions are named by eight digits"
    resnet = Settings.of({"model": "resnet-fpn", "precision": "bf16-mixed", "lr": 1, "seed": 3})
    assert resnet.identity == "711e96bd" + resnet.identity[8:]


def test_neutral_values_never_change() -> None:
    """Whoever changes a default adds `neutral=` with the old one there, and leaves this list as it is: a file that does
    not name the setting then trains something else, and its runs get other identities. A new setting is added here with
    the value that does what was done before.
    """
    network = ("model", "encoder", "decoder")  # always part of an identity
    assert {n: neutral(n) for n in FIELDS if n not in network and group_of(n) != ACCOUNTING} == {
        "data": "phantom",
        "image_size": 128,
        "spacing": 1.5,
        "layout": "auto",
        "labels": "",
        "channels": "",
        "validation_share": 0.2,
        "test_share": 0.0,
        "split_seed": 0,
        "folds": 0,
        "split_from": "",
        "drop_empty_slices": 0.0,
        "augment": "strong",
        "workers": 0,
        "batch_size": 8,
        "width": 1.0,
        "decoder_width": 0,
        "encoder_weights": "none",
        "epochs": 30,
        "early_stopping": 0,
        "freeze_encoder": 0,
        "optimizer": "adamw",
        "loss": "dice_ce",
        "lr": 3e-3,
        "weight_decay": 0.01,
        "schedule": "onecycle",
        "gradient_clip": 0.0,
        "accumulate": 1,
        "teacher": "",
        "distill_weight": 0.5,
        "distill_temperature": 2.0,
        "prune": 0.0,
        "finetune_epochs": 10,
        "quantize": "none",
        "runtime": "torch",
        "precision": "32-true",
        "accelerator": "auto",
        "devices": 1,
        "nodes": 1,
        "strategy": "auto",
        "channels_last": True,
        "compile": False,
        "gradient_checkpointing": False,
        "matmul_precision": "highest",
        "power_limit": 0,
        "gpu_clock": 0,
        "seed": 0,
        "fold": 0,
    }


def test_a_default_that_a_later_version_changes_changes_identities() -> None:
    class Later(Settings):
        epochs: int = 50

    assert Later().identity == Settings.of({"epochs": 50}).identity != Settings().identity
    assert Later(epochs=30).identity == Settings().identity


@given(MAPPINGS, st.sets(st.sampled_from(FIELDS)))
@settings(deadline=None)
def test_a_record_of_before_a_setting_existed_is_of_the_same_run(values: dict[str, Any], unknown: set[str]) -> None:
    resolved = Settings.of(values).resolved()
    known = {n: v for n, v in resolved.items() if n in ("encoder", "decoder") or n not in unknown or v != neutral(n)}
    assert trained(known) == Settings.of(values).trained
    assert same_training(known, vars(Settings.of(values)))
    assert not same_training(known, vars(Settings.of({**values, "seed": 977})))


def test_a_whole_number_is_a_number() -> None:
    assert Settings.of({"spacing": 2, "lr": 1}).identity == Settings.of({"spacing": 2.0, "lr": 1.0}).identity


def test_a_setting_without_effect_is_no_other_run() -> None:
    plain = Settings.of({})
    for values in ({"finetune_epochs": 3}, {"distill_weight": 0.9}, {"distill_temperature": 4.0}, {"runtime": "torch"}):
        assert Settings.of(values) == plain
    assert Settings.of({"prune": 0.3, "finetune_epochs": 3}).identity != Settings.of({"prune": 0.3}).identity
    assert Overlays({"finetune_epochs": 3}).over({"prune": 0.0}).identity == plain.identity
    assert Overlays({"finetune_epochs": 3}).over({"prune": 0.3}).finetune_epochs == 3


@given(MAPPINGS)
@settings(deadline=None)
def test_a_slug_is_a_safe_name_that_ends_with_the_identity(values: dict[str, Any]) -> None:
    resolved = Settings.of(values)
    assert resolved.slug.rpartition("-")[2] == resolved.identity
    assert resolved.slug.isascii()
    assert not set(resolved.slug) & set("/\\ :*?\"'<>|$")
    assert len(resolved.slug) < 200


def test_a_slug_names_what_one_looks_for() -> None:
    resolved = Settings.of({"model": "resnet18-fpn", "precision": "bf16-mixed", "batch_size": 4, "seed": 7})
    assert resolved.slug == f"resnet18-fpn-bf16-mixed-b4-e30-s7-{resolved.identity}"


# ── mistakes


def test_every_mistake_is_named_at_once_with_the_nearest_valid_name() -> None:
    wrong: dict[str, tuple[Any, str]] = {
        "batchsize": (8, "unknown setting 'batchsize' (did you mean 'batch_size'?)"),
        "precision": ("bf16-mixd", "precision: 'bf16-mixd' is not valid (did you mean 'bf16-mixed'?)"),
        "epochs": (0, "epochs: 0: must be greater than or equal to 1"),
        "lr": ("fast", "lr: 'fast' is neither a number nor auto"),
        "encoder": ("resnet17", "encoder: no encoder 'resnet17' (did you mean 'resnet18'?)"),
        "decoder": ("unett", "decoder: no decoder 'unett' (did you mean 'unet'?)"),
        "image_size": (100, "image_size: 100: must be a multiple of 32"),
        "compile": (1, "compile: 1 is not true or false"),
        "workers": (1.5, "workers: 1.5 is neither a whole number nor auto"),
        "augment": (3, "augment: 3 is not valid; valid: none, flips, light, strong"),
        "data": ("", "data: is empty"),
        "model": ("resnet18", "model: 'resnet18' is not <encoder>-<decoder>"),
    }
    problems = mistakes({name: value for name, (value, _) in wrong.items()})
    assert len(problems) == len(wrong)
    for _, message in wrong.values():
        assert any(problem.startswith(message) for problem in problems), message


def test_some_epoch_is_left_to_measure() -> None:
    (problem,) = mistakes({"measure_after": 2, "epochs": 2})
    assert problem.startswith("measure_after: 2 of 2 epochs ")
    assert problem.endswith("; valid: 0 to 1")
    assert Settings.of({"measure_after": 1, "epochs": 2}).measure_after == 1


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, [], {}, b"x", object(), math.nan, math.inf, -1, 2**70])
def test_a_wrong_value_is_a_problem_of_its_setting(name: str, value: Any) -> None:
    (problem,) = problems_of({name: value})
    assert problem.key == name
    assert str(problem).startswith(f"{name}: ")


@pytest.mark.parametrize("name", FIELDS)
def test_types_are_not_guessed(name: str) -> None:
    guesses: dict[type, list[Any]] = {
        str: [1, True],
        bool: [0, 1, "true"],
        int: [True, "1", 1.0],
        float: [True, "1.0"],
    }
    guesses_for = {
        "labels": [True, "x"],
        "workers": [True, "x", 1.0],
        "batch_size": [True, "x", 1.0],
        "lr": [True, "x"],
    }  # these take text and numbers
    for value in guesses_for.get(name) or guesses[type(Settings.model_fields[name].default)]:
        assert [problem.key for problem in problems_of({name: value})] == [name], value


@pytest.mark.parametrize(
    ("name", "valid", "invalid"),
    [
        ("image_size", [32, 2048], [0, 33, 2080]),
        ("spacing", [1e-9, 100], [0, 100.1]),
        ("validation_share", [0.01, 0.99], [0, 1]),
        ("test_share", [0, 0.99], [-0.1, 1]),
        ("workers", [0, 256], [257]),
        ("batch_size", [1, 65536], [0, 65537]),
        ("epochs", [1, 100_000], [0, 100_001]),
        ("lr", [1e-9, 100], [0, 101]),
        ("weight_decay", [0, 10], [-0.1, 11]),
        ("devices", [1, 64], [0, 65]),
        ("seed", [0, 2**32 - 1], [-1, 2**32]),
    ],
)
def test_limits(name: str, valid: list[float], invalid: list[float]) -> None:
    assert [value for value in valid if problems_of({name: value})] == []
    assert [value for value in invalid if not problems_of({name: value})] == []


def test_halves_that_do_not_go_together_are_a_problem_of_no_single_key() -> None:
    (problem,) = problems_of({"encoder": "vgg11", "decoder": "deeplabv3"})
    assert problem.key is None
    assert "vgg11-deeplabv3: deeplabv3 needs a dilated encoder" in str(problem)


@given(st.dictionaries(st.text(max_size=3) | st.sampled_from(FIELDS), st.from_type(object), max_size=5))
@settings(deadline=None, max_examples=50)
def test_whatever_is_given_the_answer_is_settings_or_problems(values: dict[str, Any]) -> None:
    problems = problems_of(values)
    assert all(problem.message for problem in problems)
    assert all(problem.key is None or problem.key in values for problem in problems)
    assert problems or Settings.of(values)


# ── overlay


def test_an_overlay_wins_key_by_key() -> None:
    assert overlay({"epochs": 1, "lr": 0.1}, {"epochs": 2}) == {"epochs": 2, "lr": 0.1}


def test_a_model_replaces_the_halves_under_it() -> None:
    below = {"encoder": "resnet18", "decoder": "fpn", "epochs": 1}
    assert Settings.of(overlay(below, {"model": "resnet34-unet"})).model == "resnet34-unet"
    assert Settings.of(overlay(below, {"model": "resnet34-unet", "decoder": "pan"})).model == "resnet34-pan"
    assert Settings.of(overlay({"model": "resnet34-unet"}, {"decoder": "fpn"})).model == "resnet34-fpn"


# ── configuration files


@given(values=MAPPINGS)
@example(values={"data": "1e3"})
@example(values={"data": "~"})
@example(values={"data": "on"})
@settings(deadline=None)
def test_the_config_of_a_run_repeats_it(values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    resolved = Settings.of(values)
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    run.create(resolved)
    assert Settings.of(read_config(run.path / "config.yaml")) == resolved


def test_mistakes_in_a_config_are_shown_where_they_are(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("epochs: 3\nprecison: 32-true\n  \nlr: fast  # very\n7: 8\n")
    with pytest.raises(UserError) as caught:
        read_config(config)
    assert sorted(caught.value.problems) == [
        f"{config}:2:1: unknown setting 'precison' (did you mean 'precision'?)",
        f"{config}:4:1: lr: 'fast' is neither a number nor auto",
        f"{config}:5:1: unknown setting '7'",
    ]


@pytest.mark.parametrize("text", ["", "- epochs\n", "epochs\n", "# nothing\n"])
def test_a_config_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml:1:1: a configuration is a mapping"):
        read_config(config)


# ── what follows from the declaration


def test_the_docs_are_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == settings_page(), "run `make docs`"


def test_the_docs_show_names_in_angle_brackets() -> None:
    """Outside of code, Markdown takes them for tags and drops them."""
    assert "<" not in re.sub(r"`[^`]*`", "", settings_page())


def test_every_setting_is_documented_and_an_option_of_train(greenseg: Command) -> None:
    shown = greenseg("train", "--help", COLUMNS="200", TERM="dumb")
    assert shown.returncode == 0
    words = shown.stdout.replace("│", " ").split()
    for name in FIELDS:
        assert f"--{name.replace('_', '-')}" in words
        assert f"| `{name}` | `--{name.replace('_', '-')}` |" in settings_page()


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_a_key_of_a_sweep(name: str, tmp_path: Path) -> None:
    default = Settings.model_fields[name].default
    file = tmp_path / "sweep.yaml"
    for content in ({"base": {name: default}}, {"grid": {name: [default]}}, {"include": [{name: default}]}):
        file.write_text(yaml.safe_dump(content))
        assert read_sweep(file).runs == (Settings(),)


def test_every_setting_has_a_strategy_here() -> None:
    assert set(VALUES) == set(FIELDS)
