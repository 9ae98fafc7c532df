"""The `import` and `export` commands."""

import argparse

from bert_jax.cli.arguments import Add, anywhere, disk, say
from bert_jax.errors import InputError


def add_conversion_commands(add: Add) -> None:
    """Add `import` and `export`."""
    command = add(
        "import",
        _import,
        "convert a BERT checkpoint from another library to a model directory",
        "google-bert/bert-base-chinese runs/bert-base-chinese",
        "downloads/bert-base-chinese runs/bert-base-chinese",
    )
    command.add_argument(
        "source", metavar="SOURCE", help="a Hugging Face directory, a model name on the Hub, or a Google TensorFlow checkpoint directory"
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="the new directory")
    command.add_argument("--initialize-missing", action="store_true", help="randomly initialize heads that SOURCE lacks")
    command = add(
        "export",
        _export,
        "export a trained model to a Hugging Face directory or an ONNX file",
        "runs/demo/pretrain exported --license apache-2.0",
        "runs/demo/finetune classifier.onnx",
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="the directory of a trained stage or an imported model")
    command.add_argument("out", metavar="OUT", type=disk, help="a new directory, or a new file NAME.onnx")
    command.add_argument(
        "--architecture", default="", metavar="CLASS", help="write only the heads of this transformers class, such as BertForMaskedLM"
    )
    command.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="the type of the weights (default: %(default)s)"
    )
    command.add_argument("--license", default="", metavar="NAME", help="license for the model card, such as apache-2.0 or cc-by-sa-4.0")


def _import(flags: argparse.Namespace) -> None:
    from bert_jax.convert.imports import import_model, summary

    say(f"{summary(import_model(flags.source, flags.workdir, flags.initialize_missing))}\n{flags.workdir} is ready")


def _export(flags: argparse.Namespace) -> None:
    if flags.out.suffix == ".onnx":
        if flags.dtype != "float32":
            raise InputError(f"--dtype {flags.dtype} is for a Hugging Face directory; the weights of an ONNX file are float32.")
        from bert_jax.convert.onnx import export_model_to_onnx

        export_model_to_onnx(flags.workdir, flags.out)
        say(f"Wrote an ONNX graph to {flags.out}")
        return
    from bert_jax.convert.exports import export_model

    architecture = export_model(flags.workdir, flags.out, flags.license, flags.architecture, dtype=flags.dtype)
    say(f"Wrote a {architecture} and its model card to {flags.out}")
