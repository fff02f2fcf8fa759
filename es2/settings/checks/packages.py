"""The optional packages that a config asks for and this machine must have."""

from importlib.util import find_spec

from es2.errors import UserError
from es2.settings.study import Config


def check_backend_here(config: Config) -> None:
    """Raise where answers are to be vLLM's and it is not installed. Imports nothing of it."""
    if config.generation.backend == "vllm" and find_spec("vllm") is None:
        raise UserError(
            "generation.backend: the package vllm is not installed; install it in the study's environment, or write "
            "transformers"
        )
