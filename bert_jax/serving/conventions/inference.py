"""The routes of Hugging Face's text-embeddings-inference, so that its clients work unchanged."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import Field

from bert_jax.serving.conventions.fields import Request, Text, answer
from bert_jax.serving.conventions.openai import shortened
from bert_jax.serving.failures import Failure
from bert_jax.serving.limits import CONNECTIONS
from bert_jax.serving.served import Models, RequestLimits, Served

Texts = Text | list[Text]
OneOrTwo = Annotated[list[Text], Field(min_length=1, max_length=2)]


class Truncated(Request):
    """What all requests may say about texts that are too long."""

    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] = "Right"


class EmbedRequest(Truncated):
    """A text or several."""

    inputs: Texts
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None


class PredictRequest(Truncated):
    """A text, a pair, or a list of lists with a text or a pair each."""

    inputs: Text | OneOrTwo | Annotated[list[OneOrTwo], Field(min_length=1)]
    raw_scores: bool = False


class RerankRequest(Truncated):
    """A query and the texts to order."""

    query: Text
    texts: list[Text]
    raw_scores: bool = False
    return_text: bool = False


class SimilarityInputs(Request):
    """A sentence and those to compare with it."""

    source_sentence: Text
    sentences: list[Text]


class SimilarityParameters(Truncated):
    """How sentences are embedded."""

    prompt_name: str | None = None


class SimilarityRequest(Request):
    """Sentences to compare."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None


class TokenizeRequest(Request):
    """A text or several to split into tokens."""

    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: str | None = None
    model: str | None = None


def routes(models: Models, limits: RequestLimits, version: str) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["text-embeddings-inference"])
    _add_vectors(router, models)
    _add_scores(router, models)
    _add_descriptions(router, models, limits, version)
    return router


def _add_vectors(router: APIRouter, models: Models) -> None:
    @router.post("/embed", response_model=list[list[float]])
    async def embed(request: EmbedRequest) -> Any:
        """Compute the embeddings of texts."""
        model = models.find(None, "embed")
        options: dict[str, Any] = {"normalize": request.normalize, "prompt_name": request.prompt_name}
        vectors, _ = await model.ask("embed", _listed(request.inputs), field="inputs", truncate=bool(request.truncate), **options)
        if request.dimensions is not None:
            vectors = shortened(vectors, request.dimensions)
        return answer(np.asarray(vectors).tolist())

    @router.post("/similarity")
    async def similarity(request: SimilarityRequest) -> list[float]:
        """Compute the cosine of each sentence with the source sentence."""
        given, parameters = request.inputs, request.parameters or SimilarityParameters()
        if not given.sentences:
            raise Failure(422, "inputs.sentences is empty: send at least one sentence.", "inputs.sentences")
        texts = [given.source_sentence, *given.sentences]
        found, _ = await models.find(None, "embed").ask(
            "embed", texts, field="inputs", truncate=bool(parameters.truncate), normalize=True, prompt_name=parameters.prompt_name
        )
        vectors = np.asarray(found)
        return (vectors[1:] @ vectors[0]).tolist()


def _add_scores(router: APIRouter, models: Models) -> None:
    @router.post("/predict")
    async def predict(request: PredictRequest) -> list[Any]:
        """Predict the labels of texts or pairs, or their number, most probable first."""
        if request.raw_scores:
            raise Failure(422, "raw_scores is not supported: this server returns probabilities.", "raw_scores")
        given = request.inputs
        several = isinstance(given, list) and not any(isinstance(one, str) for one in given)
        batch: Any = given if several else [[given] if isinstance(given, str) else given]
        found = await _predicted(models, batch, bool(request.truncate))
        return found if several else found[0]

    @router.post("/rerank")
    async def rerank(request: RerankRequest) -> list[dict[str, Any]]:
        """Order texts by how well they fit a query, best first, with a model that rates pairs of texts."""
        model = models.find(None, "regress")
        queries = [request.query] * len(request.texts)
        scores, _ = await model.ask("regress", queries, request.texts, field="texts", truncate=bool(request.truncate))
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        return [
            {"index": index, "score": float(scores[index])} | ({"text": request.texts[index]} if request.return_text else {})
            for index in order
        ]


def _add_descriptions(router: APIRouter, models: Models, limits: RequestLimits, version: str) -> None:
    @router.post("/tokenize")
    async def tokenize(request: TokenizeRequest) -> list[list[dict[str, Any]]]:
        """Split texts into tokens, with their places in characters."""
        return await asyncio.to_thread(_tokenized, models.find(request.model, "embed"), _listed(request.inputs), request, limits)

    @router.get("/info")
    async def info() -> dict[str, Any]:
        """Describe the first model and the limits."""
        model = models.find(None, "embed")  # which all models answer
        kind: dict[str, Any] = {"embedding": {"pooling": model.model.description.embedding.pooling}}
        if labels := model.model.labels:
            names = {str(index): label for index, label in enumerate(labels)}
            kind = {"classifier": {"id2label": names, "label2id": {label: index for index, label in enumerate(labels)}}}
        return {
            "model_id": model.name, "model_sha": None, "model_dtype": model.dtype, "model_type": kind,
            "max_concurrent_requests": CONNECTIONS, "max_input_length": model.model.max_tokens("embed"),
            "max_batch_tokens": limits.tokens, "max_batch_requests": None, "max_client_batch_size": limits.texts,
            "auto_truncate": limits.truncate, "tokenization_workers": 1, "version": version, "sha": None, "docker_label": None,
        }  # fmt: skip


def _listed(inputs: Texts) -> list[str]:
    return [inputs] if isinstance(inputs, str) else inputs


async def _predicted(models: Models, batch: Sequence[Sequence[str]], truncate: bool) -> list[list[dict[str, Any]]]:
    """Return the labels of each text or pair with their scores."""
    question = next((name for name in ("classify", "regress") if any(name in one.questions for one in models.by_name.values())), "classify")
    model = models.find(None, question)
    found: list[list[dict[str, Any]]] = [[]] * len(batch)
    for size in (1, 2):
        rows = [row for row, one in enumerate(batch) if len(one) == size]
        if rows:
            texts, *pairs = (list(column) for column in zip(*(batch[row] for row in rows), strict=True))
            answers, _ = await model.ask(question, texts, pairs[0] if pairs else None, field="inputs", truncate=truncate)
            for row, one in zip(rows, answers, strict=True):
                found[row] = _scores(model, question, one)
    return found


def _scores(model: Served, question: str, answer: Any) -> list[dict[str, Any]]:
    probabilities = model.questions[question].record(answer).get("probabilities")
    if probabilities is None:
        return [{"label": "LABEL_0", "score": float(answer)}]
    return [{"label": label, "score": score} for label, score in sorted(probabilities.items(), key=lambda one: -one[1])]


def _tokenized(model: Served, texts: Sequence[str], request: TokenizeRequest, limits: RequestLimits) -> list[list[dict[str, Any]]]:
    """Return the tokens of each text."""
    reader = model.model.tokenizer
    if not texts:
        raise Failure(422, "inputs is empty: send at least one text.", "inputs")
    if len(texts) > limits.texts:
        raise Failure(413, f"inputs has {len(texts)} texts, more than the {limits.texts} of a request: send several requests.", "inputs")
    if reader.units:
        raise Failure(424, f"This model reads {reader.nouns.input}s, which have no tokens of text.")
    prompt = model.model.prompts.get(request.prompt_name or "", "")
    if request.prompt_name and not prompt:
        raise Failure(422, f"prompt_name={request.prompt_name!r} is not one of this model's prompts.", "prompt_name")
    found = []
    for encoding in reader.encode_batch([prompt + text for text in texts]):
        tokens = [
            {"id": int(token), "text": text, "special": int(token) in reader.special_ids, "start": int(start), "stop": int(stop)}
            for token, text, (start, stop) in zip(encoding.ids, reader.tokens(encoding.ids), encoding.offsets, strict=True)
        ]
        if request.add_special_tokens:
            cls, sep = (
                {"id": token, "text": reader.tokens([token])[0], "special": True, "start": None, "stop": None}
                for token in (reader.cls_id, reader.sep_id)
            )
            tokens = [cls, *tokens, sep]
        found.append(tokens)
    return found
