"""The commands that use a trained model: their flags."""

import argparse
import re
from collections.abc import Callable

from bert_jax.cli.arguments import Add, anywhere, disk


def add_model_commands(add: Add) -> None:
    """Adds fill-mask, next-sentence, embed, classify and score."""
    run = "runs/demo"
    fill = add(
        "fill-mask",
        _on_model("fill_mask"),
        "fill the blanks of texts",
        f"{run}/pretrain '这家酒店的服务很[MASK]。'",
        f"{run}/pretrain texts.txt --words 好,差 --output filled.jsonl",
    )
    fill.add_argument("--top-k", type=int, default=5, help="predictions for each [MASK] (default: %(default)s)")
    fill.add_argument("--words", type=_words, metavar="WORD,WORD,...", help="predict none but these (default: the whole vocabulary)")
    follows = add(
        "next-sentence",
        _on_model("next_sentence"),
        "tell whether a sentence follows another",
        f"{run}/pretrain '他打开门。' '屋里没有人。'",
        f"{run}/pretrain pairs.tsv --text a --text-pair b",
    )
    embed = add(
        "embed",
        _on_model("embed"),
        "turn texts into vectors",
        f"{run}/pretrain '房间很干净' '房间很整洁'",
        f"{run}/pretrain texts.txt --output vectors.npy",
    )
    embed.add_argument(
        "--pooling",
        metavar="MODE[+MODE]",
        help="a text's vector from those of its tokens: mean, cls, max, mean_sqrt_len_tokens, weightedmean, lasttoken, or several joined "
        "by + (default: the model's own)",
    )
    embed.add_argument("--layer", type=int, metavar="N", help="the layer they are from; -1 is the last (default: -1)")
    embed.add_argument("--normalize", action="store_const", const=True, help="scale vectors to length 1 (default: the model's own)")
    embed.add_argument("--prompt", metavar="TEXT", help="a text to put before each text, such as 'query: '; '' for none")
    embed.add_argument("--prompt-name", metavar="NAME", help="one of the model's prompts, instead (default: the model's own)")
    classify = add(
        "classify",
        _on_model("classify"),
        "classify texts",
        f"{run}/finetune '房间很干净' '再也不来了'",
        f"{run}/finetune reviews.tsv --text text --output classified.jsonl",
    )
    score = add(
        "score",
        _on_model("score"),
        "tell how likely texts are",
        f"{run}/pretrain '房间很干净' '房间很干静'",
        f"{run}/pretrain texts.txt --output scores.jsonl",
    )
    for command in (fill, follows, embed, classify, score):
        _add_texts(command, of_pairs=command is follows, vectors=command is embed)
    follows.add_argument("--text-pair", default="text_pair", metavar="COLUMN", help="that with the second sentence (default: %(default)s)")
    classify.add_argument("--text-pair", metavar="COLUMN", help="that with the second text, for a classifier of pairs")


def _add_texts(command: argparse.ArgumentParser, of_pairs: bool, vectors: bool) -> None:
    tables = ".tsv, .csv or .jsonl (by column names)"
    kinds = tables if of_pairs else f".txt (a text a line), {tables}"
    metavar, what = ("SENTENCE", "two, A and B") if of_pairs else ("TEXT", "one or several")
    command.add_argument("model", metavar="MODEL", type=anywhere, help="the directory of a trained stage")
    command.add_argument("texts", nargs="*", metavar=metavar, help=f"{what}; or one file of them: {kinds}, also .gz and .xz")
    lines = "" if of_pairs else "; of another ending it has a text a line"
    command.add_argument("--input", type=disk, metavar="FILE", help=f"the same file, whatever its name{lines}")
    command.add_argument("--text", default="text", metavar="COLUMN", help="the column of the file with the text (default: %(default)s)")
    command.add_argument(
        "--output",
        type=disk,
        metavar="FILE",
        help=f"write to this .jsonl{' or .npy' * vectors} file instead of the terminal; the same command goes on with an unfinished one",
    )
    command.add_argument("--json", action="store_true", help="print JSON, a line for each text")


def _words(text: str) -> list[str]:
    words = [word for word in re.split("[,，]", text) if word]
    if not words:
        raise argparse.ArgumentTypeError("it names no word, as 好,差 would")
    return words


def _on_model(name: str) -> Callable[[argparse.Namespace], None]:
    def run(flags: argparse.Namespace) -> None:
        from bert_jax.cli import predict

        getattr(predict, name)(flags)

    return run
