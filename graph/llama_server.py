"""The child process of the embedded language model: llama.cpp's server for one GGUF file."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

import xllamacpp  # type: ignore[import-untyped]

from graph.local_model import CONTEXT_WINDOW, KEY_VARIABLE

_AT_ONCE = 2
_MAX_THREADS = 8
_PROMPT_CACHE_MIB = 512
_WARNINGS_AND_WORSE = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one model on 127.0.0.1; print its port as a line of JSON; end when stdin closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    server = xllamacpp.Server(_parameters(options))
    port = int(server.listening_address.rpartition(":")[2])
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    # Not a return: the server's destructor would wait for answers that nobody reads any more.
    os._exit(0)


def _parameters(options: argparse.Namespace) -> xllamacpp.CommonParams:
    # One core is left over while tokens are made: llama.cpp's threads wait for each other at each
    # of them, and slow down tenfold where something else, such as this service, needs their cores.
    # A prompt is read in large steps, for which all cores pay, without busy waiting (poll).
    cores = min(os.cpu_count() or 1, _MAX_THREADS)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.model_alias = {options.name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.api_keys = [os.environ[KEY_VARIABLE]]
    parameters.n_ctx = _AT_ONCE * CONTEXT_WINDOW
    parameters.n_parallel = _AT_ONCE
    parameters.cpuparams.n_threads = max(1, cores - 1)
    parameters.cpuparams_batch.n_threads = cores
    parameters.cpuparams.poll = parameters.cpuparams_batch.poll = 0
    # What a request does not set. Small models loop; DRY keeps them from repeating whole phrases.
    parameters.sampling.temp = 0.1
    parameters.sampling.dry_multiplier = 0.8
    parameters.sampling.dry_allowed_length = 3
    parameters.sampling.dry_penalty_last_n = 1024
    parameters.cache_prompt = True
    parameters.cache_ram_mib = _PROMPT_CACHE_MIB
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.verbosity = _WARNINGS_AND_WORSE
    return parameters


if __name__ == "__main__":
    main()
