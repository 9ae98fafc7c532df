"""Configuration files and `--config.a.b=value`."""

import dataclasses
import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.config import (
    CorpusConfig,
    EncoderConfig,
    FinetuneConfig,
    LabelledConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
    to_dict,
)
from bert_jax.config.overrides import apply_overrides, differences, from_dict, load_config
from bert_jax.errors import InputError
from bert_jax.tasks import checked, choices
from bert_jax.tasks.classification import ClassificationOptions

PRETRAIN = RunConfig(encoder=EncoderConfig.preset("tiny"), pretrain=PretrainConfig(steps=10))
BOTH = dataclasses.replace(PRETRAIN, finetune=FinetuneConfig())


def write(tmp_path, body: str):
    path = tmp_path / "experiment.py"
    path.write_text(f"from bert_jax.config import *\n\ndef get_config():\n    {body}\n", encoding="utf-8")
    return path


def test_every_kind_of_value():
    changed = apply_overrides(
        BOTH,
        [
            "seed=3",
            "compute.scan_layers=True",
            "compute.dtype=bfloat16",
            "corpus.source=/texts/a=b*.txt",
            "pretrain.optimizer.learning_rate=3e-4",
            "finetune.task.labels=negative, positive",
            "finetune.data.test=",
        ],
        choices(),
    )
    assert changed.seed == 3 and changed.compute.scan_layers is True and changed.compute.dtype == "bfloat16"
    assert changed.corpus.source == "/texts/a=b*.txt"
    assert changed.pretrain.optimizer.learning_rate == 3e-4
    assert changed.finetune.task.labels == ("negative", "positive") and changed.finetune.data.test == ""
    assert BOTH.seed == 0 and changed.finetune.optimizer == BOTH.finetune.optimizer


def test_values_that_only_fit_together_are_checked_once():
    changed = apply_overrides(PRETRAIN, ["pretrain.rows.length=1024", "encoder.heads=3", "encoder.width=96", "encoder.max_positions=1024"])
    assert (changed.encoder.width, changed.encoder.heads, changed.pretrain.rows.length) == (96, 3, 1024)


@pytest.mark.parametrize("order", [1, -1])
def test_a_preset_is_the_base_of_finer_values(order):
    changed = apply_overrides(PRETRAIN, ["encoder=small", "encoder.dropout=0"][::order])
    assert changed.encoder == EncoderConfig.preset("small", dropout=0.0)


def test_a_preset_sets_sizes_and_initializers_and_leaves_the_rest():
    kept = {"max_positions": 640, "segment_types": 3, "dropout": 0.2, "attention_dropout": 0.0, "norm_epsilon": 1e-5}
    encoder = EncoderConfig(
        layers=1, width=32, heads=2, feed_forward=48, initializer_range=0.08,
        position_initializer="sinusoidal", attention_initializer="neighbours", **kept,
    )  # fmt: skip
    changed = apply_overrides(RunConfig(encoder=encoder), ["encoder=base"]).encoder
    assert changed == EncoderConfig(layers=12, width=768, heads=12, feed_forward=3072, **kept)
    assert {field.name for field in dataclasses.fields(EncoderConfig)} == {
        "layers", "width", "heads", "feed_forward", "initializer_range", "position_initializer", "attention_initializer", *kept
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_a_preset_keeps_the_fused_attention_of_every_configuration(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(path.stem, choices())
    assert config == load_config(path, choices()), "a configuration that builds on another one finds it from any directory"
    assert apply_overrides(config, ["encoder=base"], choices()).encoder.attention_dropout == config.encoder.attention_dropout


def test_a_stage_can_be_left_out_and_the_last_value_counts():
    assert apply_overrides(BOTH, ["finetune=none"]).finetune is None
    assert apply_overrides(BOTH, ["seed=1", "seed=2"]).seed == 2
    assert apply_overrides(BOTH, []) == BOTH


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("pretrain.optimizer.lerning_rate=1", ["pretrain.optimizer.lerning_rate", "pretrain.optimizer.learning_rate"]),
        ("learning_rate=1", ["--config.pretrain.optimizer.learning_rate", "--config.finetune.optimizer.learning_rate"]),
        ("pretrain.rows.lenght=3", ["pretrain.rows.length"]),
        ("pretrain.optimiser.clip_norm=1", ["--config.pretrain.optimizer.clip_norm"]),
        ("seed.deep=1", ["seed.deep"]),
        ("qqq=1", ["--config.qqq", "--config.encoder"]),
        ("pretrain.optimizer.name=adam", ["--config.pretrain.optimizer.name=adam", "adamw, lamb"]),
        ("pretrain.steps=1e5", ["--config.pretrain.steps=1e5", "an integer"]),
        ("pretrain.optimizer.learning_rate=nan", ["--config.pretrain.optimizer.learning_rate=nan", "finite number"]),
        ("pretrain.optimizer.learning_rate=fast", ["finite number"]),
        ("compute.scan_layers=yes", ["--config.compute.scan_layers=yes", "one of true, false, auto"]),
        ("compute.scan_layers=1", ["one of true, false, auto"]),
        ("pretrain.optimizer.learning_rate=-1", ["--config.pretrain.optimizer", "learning_rate=-1.0", "greater than zero"]),
        ("pretrain.rows.length=1024", ["pretrain.rows.length=1024", "512 positions"]),
        ("pretrain.rows=128", ["--config.pretrain.rows", "length, next_sentence"]),
        ("encoder=smol", ["--config.encoder", "tiny, mini, small"]),
        ("finetune.epochs=1", ["--config.finetune.epochs", "no finetune stage"]),
        ("pretrain.steps", ["--config.pretrain.steps=VALUE"]),
        ("=1", ["--config.KEY=VALUE"]),
        ("", ["--config.KEY=VALUE"]),
    ],
)
def test_a_mistake_is_explained(override, parts):
    with pytest.raises(InputError) as caught:
        apply_overrides(PRETRAIN, [override])
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message


def test_a_dictionary_and_back():
    config = RunConfig(
        seed=7,
        corpus=CorpusConfig(source="tfds:wikipedia/20230601.en"),
        pretrain=PretrainConfig(steps=5, rows=RowsConfig(length=64), optimizer=OptimizerConfig(name="lamb", clip_norm=0.0)),
        finetune=FinetuneConfig(task=ClassificationOptions(labels=("0", "1"))),
    )
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config))), choices()) == config
    assert from_dict(RunConfig, to_dict(PRETRAIN)) == PRETRAIN
    assert from_dict(RunConfig, {"seed": 3}) == RunConfig(seed=3)


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        OptimizerConfig,
        name=st.sampled_from(["adamw", "lamb"]),
        learning_rate=st.floats(1e-12, 1e3),
        beta1=st.floats(0, 0.999),
        clip_norm=st.floats(0, 1e6),
    )
)
def test_what_was_printed_can_be_typed(optimizer):
    """Every value survives its way through JSON and through the command line."""
    config = dataclasses.replace(PRETRAIN, pretrain=PretrainConfig(steps=10, optimizer=optimizer))
    typed = [f"pretrain.optimizer.{name}={value}" for name, value in to_dict(optimizer).items()]
    assert apply_overrides(PRETRAIN, typed) == config == from_dict(RunConfig, json.loads(json.dumps(to_dict(config))))


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"sede": 1}, ["sede", "Did you mean seed"]),
        ({"pretrain": {"steps": "100"}}, ["pretrain.steps", "an integer"]),
        ({"pretrain": {"steps": True}}, ["pretrain.steps", "an integer"]),
        ({"pretrain": {"optimizer": {"learning_rate": True}}}, ["pretrain.optimizer.learning_rate"]),
        ({"finetune": {"task": {"labels": "ab"}}}, ["finetune.task.labels"]),
        ({"finetune": {"task": {"labels": [0, 1]}}}, ["finetune.task.labels"]),
        ({"finetune": {"task": {"name": "clasify"}}}, ["finetune.task.name=clasify", "Did you mean classify"]),
        ({"compute": {"dtype": 32}}, ["compute.dtype", "float32, bfloat16"]),
        ({"encoder": None}, ["encoder"]),
        ({"pretrain": {"rows": {"length": 4}}}, ["pretrain.rows", "at least 8"]),
    ],
)
def test_a_dictionary_with_a_mistake(values, parts):
    with pytest.raises(InputError) as caught:
        from_dict(RunConfig, values, choices())
    assert all(part in str(caught.value) for part in parts)


def test_differences_name_path_and_both_values():
    changed = apply_overrides(BOTH, ["pretrain.steps=20", "corpus.source=x", "compute.scan_layers=true"])
    assert differences(BOTH, changed) == [
        "compute.scan_layers: 'auto' -> true",
        "corpus.source: 'demo' -> 'x'",
        "pretrain.steps: 10 -> 20",
    ]
    assert differences(BOTH, PRETRAIN) == ["finetune: present -> none"]
    assert differences(BOTH, BOTH) == []


def test_a_file_gives_its_configuration_with_types_put_right(tmp_path):
    pretrain = "PretrainConfig(optimizer=OptimizerConfig(clip_norm=1))"
    finetune = 'FinetuneConfig(task=ClassificationOptions(labels=["a", "b"]))'
    imported = "from bert_jax.tasks.classification import ClassificationOptions"
    config = load_config(write(tmp_path, f"{imported}\n    return RunConfig(pretrain={pretrain}, finetune={finetune})"), choices())
    assert config.finetune.task.labels == ("a", "b") and type(config.pretrain.optimizer.clip_norm) is float
    hash(config)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("return RunConfig(pretrain=PretrainConfig(stepz=10))", ["line 4", "stepz", "Did you mean", "pretrain.steps"]),
        ("return RunConfig(seed=-1)", ["line 4", "seed=-1"]),
        ("return RunConfig(pretrain=PretrainConfig(steps=10.5))", ["pretrain.steps=10.5", "an integer"]),
        ("return RunConfig(", ["SyntaxError"]),
        ("import a_module_that_is_not_there", ["line 4", "a_module_that_is_not_there"]),
        ("return {}", ["dict", "RunConfig"]),
    ],
)
def test_a_file_with_a_mistake(tmp_path, body, parts):
    path = write(tmp_path, body)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert all(part in str(caught.value) for part in [str(path), *parts])


def test_a_file_that_is_not_there_or_defines_nothing(tmp_path):
    path = write(tmp_path, "return RunConfig()")
    with pytest.raises(InputError, match=r"experimnt\.py.*Did you mean .*experiment\.py"):
        load_config(tmp_path / "experimnt.py")
    path.write_text("x = 1\n")
    with pytest.raises(InputError, match="get_config"):
        load_config(path)


TASK = dataclasses.replace(PRETRAIN, finetune=FinetuneConfig(task=ClassificationOptions(label="stars", labels=("1", "2"), pooling="mean")))


def test_a_task_is_chosen_and_its_options_set_in_any_order():
    typed = ["finetune.task.label=stars", "finetune.task=classify", "finetune.task.labels=1,2", "finetune.task.pooling=mean"]
    assert apply_overrides(BOTH, typed, choices()) == TASK == apply_overrides(BOTH, typed[::-1], choices())
    given = {"name": "classification", "label": "stars", "labels": ["1", "2"], "pooling": "mean"}
    assert to_dict(TASK)["finetune"]["task"] == given | {"class_weights": "none", "label_smoothing": 0.0}
    for override, parts in (
        ("finetune.task=clasify", ["one of classify, classification", "Did you mean classify"]),
        ("finetune.task.poling=mean", ["Did you mean --config.finetune.task.pooling"]),
        ("finetune.task.pooling=max", ["finetune.task.pooling=max", "cls, mean"]),
        ("finetune.task.label=text", ["task.label", "text columns"]),
        ("finetune.task.scheme=bio", ["task.scheme belongs to --config.finetune.task=tag, but this configuration has classify"]),
        ("finetune.task.target=a", ["--config.finetune.task=regress or tag or embed"]),
        ("finetune.task.schemes=bio", ["There is no configuration value", "Did you mean --config.finetune.task.name or"]),
    ):
        with pytest.raises(InputError) as caught:
            apply_overrides(BOTH, [override], choices())
        assert all(part in str(caught.value) for part in parts), caught.value


def test_former_names_go_on_working():
    """Typed, in a configuration file, and in the config.json of a workdir, which nobody has to be warned of."""
    typed = ["finetune.data.label=stars", "finetune.data.labels=1,2", "finetune.pooling=mean"]
    with warnings.catch_warnings(record=True, action="always") as told:
        assert apply_overrides(BOTH, typed, choices()) == TASK
    assert [one.category.__mro__[1] for one in told] == 3 * [DeprecationWarning]
    assert "finetune.pooling is now finetune.task.pooling" in str(told[2].message)
    with warnings.catch_warnings(record=True, action="always") as told:
        finetune = FinetuneConfig(data=LabelledConfig(label="stars", labels=("1", "2")), pooling="mean")
    assert [one.filename for one in told] == 3 * [__file__] and "FinetuneConfig(pooling=...) is now" in str(told[2].message)
    assert checked(dataclasses.replace(PRETRAIN, finetune=finetune)) == TASK
    assert checked(dataclasses.replace(PRETRAIN, finetune=dataclasses.replace(finetune, epochs=3))) == TASK
    with pytest.warns(DeprecationWarning, match="pretrain.accumulation is now pretrain.gradient_accumulation_steps"):
        assert apply_overrides(PRETRAIN, ["pretrain.accumulation=2"]).pretrain.gradient_accumulation_steps == 2
    with pytest.warns(DeprecationWarning, match="PretrainConfig.accumulation=.... is now"):
        stage = PretrainConfig(accumulation=2)
    with pytest.warns(DeprecationWarning, match="PretrainConfig.accumulation is now"):
        assert stage.accumulation == stage.gradient_accumulation_steps == 2
    stored = to_dict(TASK)
    stored["finetune"]["data"] |= {"label": "stars", "labels": ["1", "2"]}
    stored["finetune"] = {name: value for name, value in stored["finetune"].items() if name != "task"} | {"pooling": "mean"}
    assert from_dict(RunConfig, stored, choices()) == TASK
