"""The optional packages, and which of them an ImportError is due to."""

from __future__ import annotations

from importlib.util import find_spec

# Import names of the packages of all extras but `dev` (always there when tests run) and `docs`; tokenizers comes with transformers.
OPTIONAL = (
    "accelerate", "bitsandbytes", "deepspeed", "flash_attn", "gemmi", "huggingface_hub", "matplotlib", "mini3di", "peft",
    "pyarrow", "rdkit", "scipy", "selfies", "tensorboard", "tokenizers", "transformers", "wandb", "zstandard",
)  # fmt: skip


def absent_package(error: BaseException | None) -> str | None:
    """Return the optional package whose absence caused the error, or None if the cause is something else."""
    while error is not None:
        package = error.name.split(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else ""
        if package in OPTIONAL and find_spec(package) is None:
            return package
        error = error.__cause__ or error.__context__
    return None
