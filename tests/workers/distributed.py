"""One of several processes that start a run as the command line does. Its argument is JSON: `workdir`, `processes`, `process`, `port`."""

import json
import sys
from pathlib import Path
from typing import Any

import jax


def main(arguments: dict[str, Any]) -> int:
    jax.distributed.initialize(f"127.0.0.1:{arguments['port']}", arguments["processes"], arguments["process"])
    from bert_jax.cli.program import run_command
    from bert_jax.config import RunConfig
    from bert_jax.stages.run import run

    return run_command(lambda: run(RunConfig(), Path(arguments["workdir"])))


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
