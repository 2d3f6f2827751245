"""The packages that extras of protlig_dd bring, and what a test that lacks one is skipped with."""

from __future__ import annotations

from importlib.util import find_spec

# Import names of what the extras bring, without `dev` (a test run has it) and `docs`; tokenizers comes with transformers.
OPTIONAL = (
    *(
        "accelerate",
        "bitsandbytes",
        "deepspeed",
        "flash_attn",
        "gemmi",
        "huggingface_hub",
        "matplotlib",
        "mini3di",
        "peft",
    ),
    *("pyarrow", "rdkit", "scipy", "tensorboard", "tokenizers", "transformers", "wandb", "zstandard"),
)


def absent_package(error: BaseException | None) -> str | None:
    """Return the optional package whose absence caused an ImportError, or None if the cause is another one."""
    while error is not None:
        package = error.name.split(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else ""
        if package in OPTIONAL and find_spec(package) is None:
            return package
        error = error.__cause__ or error.__context__
    return None
