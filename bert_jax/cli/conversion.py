"""The commands import and export."""

import argparse

from bert_jax.cli.arguments import Add, anywhere, disk, say


def add_conversion_commands(add: Add) -> None:
    """Adds import and export."""
    command = add(
        "import",
        _import,
        "make a model directory of a BERT from elsewhere",
        "google-bert/bert-base-chinese runs/bert-base-chinese",
        "downloads/bert-base-chinese runs/bert-base-chinese",
    )
    command.add_argument(
        "source", metavar="SOURCE", help="a Hugging Face directory, a name on its hub, or a directory with Google's TensorFlow checkpoint"
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="the new directory")
    command.add_argument("--initialize-missing", action="store_true", help="start heads that SOURCE lacks from random numbers")
    command = add(
        "export",
        _export,
        "make a Hugging Face directory, or an ONNX file, of a trained model",
        "runs/demo/pretrain exported --license apache-2.0",
        "runs/demo/finetune classifier.onnx",
    )
    command.add_argument("workdir", metavar="WORKDIR", type=anywhere, help="the directory of a trained stage, or of an imported model")
    command.add_argument("out", metavar="OUT", type=disk, help="the new directory, or a new file NAME.onnx")
    command.add_argument(
        "--architecture", default="", metavar="CLASS", help="write the heads of this class of transformers alone, such as BertForMaskedLM"
    )
    command.add_argument("--license", default="", metavar="NAME", help="for the model card, such as apache-2.0 or cc-by-sa-4.0")


def _import(flags: argparse.Namespace) -> None:
    from bert_jax.convert.imports import import_model, summary

    say(f"{summary(import_model(flags.source, flags.workdir, flags.initialize_missing))}\n{flags.workdir} is ready")


def _export(flags: argparse.Namespace) -> None:
    if flags.out.suffix == ".onnx":
        from bert_jax.convert.onnx import export_model_to_onnx

        export_model_to_onnx(flags.workdir, flags.out)
        say(f"{flags.out} is an ONNX graph")
        return
    from bert_jax.convert.exports import export_model

    say(f"{flags.out} holds a {export_model(flags.workdir, flags.out, flags.license, flags.architecture)} and its model card")
