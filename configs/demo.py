"""The demo: a small Chinese BERT pre-trained on real shopping reviews, then fine-tuned on their sentiment with 1,000 labels.

    python train.py --config=configs/demo.py --workdir=runs/demo

Cost: on two cores of an EPYC, 7 to 8 minutes (Zen 4) or 11 minutes (Zen 3, which has no AVX-512).
Score: on held-out reviews, masked-token accuracy 40% (majority baseline: 5%) and next-sentence accuracy 76% (chance: 50%);
sentiment accuracy 80.2% pre-trained and 74.2% from scratch. Means over three seeds, measured earlier: 79.7% and 76.0%. A longer
run, --config.pretrain.steps=4500, gave 40.8% and 76.7% at that time.

How these values were found: experiments on held-out data of the same text (1.0M tokens per epoch). A narrow encoder predicts from
the bag of words for millions of tokens before its heads find the neighboring tokens; the outcome depends on shortening that plateau.
- Heads that start out attending to their neighbors: masked-token accuracy 25.6% after 900 steps instead of 16.2% (both at 1e-3).
  In both layers instead of the first only: 25.8%, but next-sentence prediction is learned later.
- With them, learning rates of 1e-3, 2e-3, 3e-3 and 4e-3: 25.6%, 30.7%, 31.7% and 31.4% after 900 steps (all but 3e-3 with
  positions 1.4 to 2 times as large, 2e-3 with neighbors in both layers). Without them, a rate above 1e-3 does not help (3e-3: 6.9%
  instead of 12.2% after 700 steps).
- Matrices initialized with standard deviation 0.08 instead of the published 0.02, which leaves queries and keys of width 128 with
  almost no gradient: masked-token accuracy 14.6% after 700 steps instead of 12.2%.
- Without the next-sentence task: no faster (14.8% instead of 14.6%).
- Batches of 8 sequences instead of 16: the same accuracy for the same number of tokens.
- Sinusoidal initial positions: next-sentence accuracy 65% after 2M tokens instead of 58%.
- 30% of the tokens masked instead of 15%: twice the labels per step; loss 5.50 instead of 5.63 after 1,200 steps.
- Fine-tuning (dev accuracy, means of two seeds): learning rates 1.5e-4, 3e-4 and 6e-4 (with weight decay 0.1) give 76.9%, 77.3%
  and 77.8%; dropout 0.2 in the encoder gives 77.1% (from scratch 73.1% instead of 74.3%); pooling [CLS] instead of the mean costs
  three points.
- Two CPU devices instead of one (freed memory kept in both, `bert_jax/training/host_memory.py`): 23.2k tokens/s instead of 21.4k
  (300 steps on Zen 4); with an earlier version on Zen 3, 17k instead of 10k.
"""

from bert_jax.config import (
    ComputeConfig,
    CorpusConfig,
    EncoderConfig,
    FinetuneConfig,
    LabelledConfig,
    LoopConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
    RowsConfig,
    RunConfig,
    VocabularyConfig,
)
from bert_jax.tasks.classification import ClassificationOptions


def get_config() -> RunConfig:
    return RunConfig(
        encoder=EncoderConfig.preset(
            "tiny",
            heads=4,
            max_positions=128,
            dropout=0.0,
            attention_dropout=0.0,
            initializer_range=0.08,
            position_initializer="sinusoidal",
            attention_initializer="neighbours",
        ),
        compute=ComputeConfig(cpu_devices=2),
        vocabulary=VocabularyConfig(size=6000),
        corpus=CorpusConfig(source="demo:reviews", sentence_ends="clauses", valid_fraction=0.03),
        pretrain=PretrainConfig(
            steps=3200,
            batch_size=16,
            rows=RowsConfig(length=128),
            masking=MaskingConfig(rate=0.3),
            optimizer=OptimizerConfig(learning_rate=3e-3, beta2=0.98),
            loop=LoopConfig(log_every=50, evaluate_every=800, save_every=400),
            blanks=("这家酒店的服务很[MASK]。", "房间很干[MASK]，下次还会来。", "这本书我很喜[MASK]。", "电池不[MASK]用，很失望。"),
        ),
        finetune=FinetuneConfig(
            data=LabelledConfig(train="demo", max_train_examples=1000),
            compare_from_scratch=True,
            epochs=8,
            batch_size=8,
            task=ClassificationOptions(pooling="mean"),
            optimizer=OptimizerConfig(learning_rate=6e-4, weight_decay=0.1),
            loop=LoopConfig(log_every=10, evaluate_every=60, save_every=60),
        ),
    )
