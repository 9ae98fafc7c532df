"""BERT (Devlin et al. 2019), with the names used by `transformers` and google-research/bert."""

from collections.abc import Iterator

from bert_jax.config import EncoderConfig
from bert_jax.families.base import SAME, Entry, Family, Layout, linear, norm

# The next-sentence classes are swapped: "B follows A" is class 0 in `transformers` and class 1 here.
_CLASSES_SWAPPED = Layout(lambda theirs: theirs[::-1], lambda ours: ours[::-1])
_TRANSPOSED_AND_SWAPPED = Layout(lambda theirs: theirs[::-1].T, lambda ours: ours.T[::-1])

_LAYER = {
    "query": ("attention.self.query", linear),
    "key": ("attention.self.key", linear),
    "value": ("attention.self.value", linear),
    "attention_output": ("attention.output.dense", linear),
    "attention_norm": ("attention.output.LayerNorm", norm),
    "feed_forward": ("intermediate.dense", linear),
    "feed_forward_output": ("output.dense", linear),
    "feed_forward_norm": ("output.LayerNorm", norm),
}
_EMBEDDINGS = (
    Entry("bert.embeddings.word_embeddings.weight", ("embeddings", "tokens"), SAME),
    Entry("bert.embeddings.position_embeddings.weight", ("embeddings", "positions"), SAME),
    Entry("bert.embeddings.token_type_embeddings.weight", ("embeddings", "segments"), SAME),
    *norm("bert.embeddings.LayerNorm", "embeddings", "norm"),
)
_HEADS = {
    "pooler": tuple(linear("bert.pooler.dense", "pooler", "dense")),
    "masked_token": (
        *linear("cls.predictions.transform.dense", "masked_token", "dense"),
        *norm("cls.predictions.transform.LayerNorm", "masked_token", "norm"),
        Entry("cls.predictions.bias", ("masked_token", "bias"), SAME),
    ),
    "next_sentence": (
        Entry("cls.seq_relationship.weight", ("next_sentence", "dense", "kernel"), _TRANSPOSED_AND_SWAPPED),
        Entry("cls.seq_relationship.bias", ("next_sentence", "dense", "bias"), _CLASSES_SWAPPED),
    ),
    "classifier": tuple(linear("classifier", "classifier", "dense")),
    "tagger": tuple(linear("classifier", "tagger", "dense")),
    "span": tuple(linear("qa_outputs", "span", "dense")),
}


def _layers(count: int) -> Iterator[Entry]:
    for layer in range(count):
        for ours, (theirs, kind) in _LAYER.items():
            yield from kind(f"bert.encoder.layer.{layer}.{theirs}", "encoder", "layers", ours, layer=layer)


def _parts(config: EncoderConfig) -> dict[str, tuple[Entry, ...]]:
    return {"embeddings": _EMBEDDINGS, "encoder": tuple(_layers(config.layers)), **_HEADS}


BERT = Family(
    name="bert",
    title="BERT",
    prefix="Bert",
    base="bert.",
    covers="BERT-wwm, RoBERTa-wwm-ext, MacBERT and the sentence-embedding models built on BERT",
    fields={
        "num_hidden_layers": "layers",
        "hidden_size": "width",
        "num_attention_heads": "heads",
        "intermediate_size": "feed_forward",
        "max_position_embeddings": "max_positions",
        "type_vocab_size": "segment_types",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "layer_norm_eps": "norm_epsilon",
        "initializer_range": "initializer_range",
    },
    required=("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"),
    fixed={
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
        "pruned_heads": ({},),
    },
    written={"hidden_act": "gelu"},
    parts=_parts,
    tied={
        "masked_token": {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }
    },
    ignored=("bert.embeddings.position_ids",),
    renames=(
        (r"\.gamma$", ".weight"),
        (r"\.beta$", ".bias"),
        (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),
    ),
    tensorflow=(
        (r"^bert/", "bert."),
        (r"layer_(\d+)", r"layer.\1"),
        (r"^cls/predictions/output_bias$", "cls.predictions.bias"),
        (r"^cls/seq_relationship/output_weights$", "cls.seq_relationship.weight"),
        (r"^cls/seq_relationship/output_bias$", "cls.seq_relationship.bias"),
        (r"^output_weights$", "classifier.weight"),
        (r"^output_bias$", "classifier.bias"),
        (r"(word|position|token_type)_embeddings$", r"\1_embeddings.weight"),
        (r"/(kernel|gamma)$", ".weight"),
        (r"/beta$", ".bias"),
        (r"/", "."),
    ),
)
