"""Using trained models from Python: fill masks, score texts, predict next sentences, embed and classify."""

from bert_jax.errors import TextError
from bert_jax.inference.bert import Bert, UnusedTensorsWarning, load
from bert_jax.inference.chunks import CHUNK, TruncationWarning
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.pretraining import Prediction
from bert_jax.tasks.similar import Neighbor

__all__ = ["CHUNK", "Bert", "Classification", "Neighbor", "Prediction", "TextError", "TruncationWarning", "UnusedTensorsWarning", "load"]
