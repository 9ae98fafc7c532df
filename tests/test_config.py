"""Configuration: checks, presets, and no field that nothing reads."""

import ast
import dataclasses
from pathlib import Path

import pytest

from bert_jax import config as config_room
from bert_jax.config import (
    EncoderConfig,
    FinetuneConfig,
    LabelledConfig,
    LongRowsConfig,
    LoopConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
)
from bert_jax.config.overrides import load_config
from bert_jax.errors import InputError
from bert_jax.stages.pretrain import stage_parts
from bert_jax.tasks import choices
from bert_jax.tasks.classification import ClassificationOptions

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def attributes_read() -> set[str]:
    """Names read as `something.name` anywhere in the package outside the configuration itself."""
    names = set()
    for path in (ROOT / "bert_jax").rglob("*.py"):
        if path.name == "config.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
    return names


def test_every_field_is_read() -> None:
    read = attributes_read()
    classes = [value for value in vars(config_room).values() if dataclasses.is_dataclass(value)]
    assert len(classes) > 10
    unread = [f"{cls.__name__}.{field.name}" for cls in classes for field in dataclasses.fields(cls) if field.name not in read]
    assert unread == []


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads", "feed_forward"),
    [
        ("tiny", 2, 128, 2, 512),
        ("mini", 4, 256, 4, 1024),
        ("small", 4, 512, 8, 2048),
        ("medium", 8, 512, 8, 2048),
        ("base", 12, 768, 12, 3072),
        ("large", 24, 1024, 16, 4096),
    ],
)
def test_presets_are_the_published_sizes(name: str, layers: int, width: int, heads: int, feed_forward: int) -> None:
    encoder = EncoderConfig.preset(name)
    assert (encoder.layers, encoder.width, encoder.heads, encoder.feed_forward) == (layers, width, heads, feed_forward)
    assert encoder.max_positions == 512


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_load_and_say_what_they_cost(path: Path) -> None:
    config = load_config(path, choices())
    assert config.pretrain or config.finetune
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"python train.py --config=configs/{path.name}" in docstring


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: EncoderConfig(width=100, heads=3), ("heads", "100")),
        (lambda: EncoderConfig(dropout=1.0), ("dropout",)),
        (lambda: EncoderConfig.preset("huge"), ("huge", "base")),
        (lambda: RowsConfig(length=4), ("length",)),
        (lambda: OptimizerConfig(learning_rate=0.0), ("learning_rate",)),
        (lambda: PretrainConfig(batch_size=10, gradient_accumulation_steps=3), ("accumulation", "10")),
        (lambda: FinetuneConfig(from_scratch=True, checkpoint="x"), ("from_scratch",)),
        (lambda: RunConfig(pretrain=PretrainConfig(rows=RowsConfig(length=1024))), ("pretrain.rows.length", "512")),
        (lambda: RunConfig(pretrain=PretrainConfig(long_rows=LongRowsConfig(0.1, 1024))), ("pretrain.long_rows.length", "512")),
        (lambda: LongRowsConfig(gradient_accumulation_steps=3), ("accumulation", "256")),
        (lambda: ClassificationOptions(labels=("a", "b", "b", "c")), ("labels='b'", "once")),
        (lambda: FinetuneConfig(data=LabelledConfig(text="a"), task=ClassificationOptions(label="a")), ("label='a'", "text columns")),
        (lambda: FinetuneConfig(ClassificationOptions(label="b"), LabelledConfig(text_pair="b")), ("label='b'", "text columns")),
        (lambda: ClassificationOptions(labels=("a", "", "b")), ("labels=''", "needs a name")),
        (lambda: ClassificationOptions(labels=("a", " ")), ("labels=' '", "needs a name")),
        (lambda: ClassificationOptions(labels=("a", "a ")), ("labels='a '", "whitespace")),
    ],
)
def test_impossible_values_are_refused_by_name(build: object, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as error:
        build()  # type: ignore[operator]
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize("profile", ["5", "0:3", "6:5", "1:2:3", "a:b", "-1:4"])
def test_steps_to_trace_are_a_first_and_a_last(profile: str) -> None:
    assert LoopConfig(profile="5:5").profile == "5:5"
    with pytest.raises(InputError, match=r"profile=.*such as 100:105"):
        LoopConfig(profile=profile)


@pytest.mark.parametrize("share", [-1.0, 0.5, 1.0])
def test_a_loss_below_its_mean_is_never_too_high(share: float) -> None:
    with pytest.raises(InputError, match="skip_above"):
        OptimizerConfig(skip_above=share)


@pytest.mark.parametrize(
    ("share", "wanted"),
    [(0.0, [(10, 128, 256)]), (0.04, [(10, 128, 256)]), (0.1, [(9, 128, 256), (1, 512, 64)]), (0.97, [(1, 128, 256), (9, 512, 64)])],
)
def test_the_parts_of_pre_training(share: float, wanted: list[tuple[int, int, int]]) -> None:
    parts = stage_parts(PretrainConfig(steps=10, long_rows=LongRowsConfig(share, batch_size=64)))
    assert [(part.steps, part.rows.length, part.batch_size) for part in parts] == wanted
