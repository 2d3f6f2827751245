"""Names that other projects use for our settings and options, so that users of DPLM keep their commands; the native name is logged.

Each translation is a line in a table here and nowhere else. Messages about a translated option name the one that was typed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from protlig_dd.checkpoints.pointers import list_checkpoints
from protlig_dd.errors import ConfigError

log = logging.getLogger(__name__)

_RENAMED = {
    "datamodule.max_tokens": "train.tokens_per_batch",
    "datamodule.data_dir": "data.path",
    "datamodule.max_len": "tracks.protein.max_length",
    "datamodule.num_workers": "train.prefetch",
    "trainer.devices": "train.devices",
    "trainer.accumulate_grad_batches": "train.accumulation",
    "trainer.max_steps": "train.steps",
    "trainer.gradient_clip_val": "train.optim.clip_norm",
    "trainer.val_check_interval": "train.validate_every",
    "train.lr": "train.optim.lr",
    "train.seed": "seed",
    "model.gradient_ckpt": "model.activation_checkpointing",
    "model.pretrained_model_name_or_path": "train.init_from",
    "eval.rmsd_interval": "evaluation.preview_every",
    "eval.rmsd_samples": "evaluation.preview_samples",
    "init_from": "train.init_from",
    "distributed": "train.distributed",
}
_PRECISIONS = dict.fromkeys(("16", "16-mixed", "fp16"), "fp16") | {"bf16": "bf16", "bf16-mixed": "bf16"}
_PRECISIONS |= dict.fromkeys(("32", "32-true", "fp32"), "fp32")
_SHORT = ("init_from", "distributed")
"""Our own short names, which are not logged."""

FLAGS = {
    "--model_name": "--model",
    "--checkpoint_path": "--model",
    "--sampling_strategy": "--strategy",
    "--unmasking_strategy": "--unmasking",
    "--max_iter": "--steps",
    "--num_seqs": "--num",
    "--seq_lens": "--length",
    "--seq_len": "--length",
    "--saveto": "--out",
    "--batch_size": "--batch-size",
    "--input_fasta_path": "--protein",
    "--output_dir": "--out",
}
"""Options of other projects' commands, and our names for them."""
_TASKS = {"sequence_generation": ["--task", "sequence"], "backbone_generation": ["--unconditional", "--generate", "structure"]}
"""DPLM-2's names of tasks that have another one here."""
_NEEDLESS = {"--bit_model": "the checkpoint itself says whether it models bits"}
WITHOUT = {
    "--save_pdb": "structure tokens of DPLM-2 are not decoded to coordinates here; leave it out",
    "--cond_position": "write --task inpainting --length N --fix 1-4=ALVE, with positions counted from 1",
    "--cond_seq": "write --task inpainting --length N --fix 1-4=ALVE, with positions counted from 1",
    "--motif_aa": "give one problem at a time, as --task scaffold --motif NAME --protein FILE.pdb",
    "--motif_struct": "give one problem at a time, as --task scaffold --motif NAME --protein FILE.pdb",
    "--input_pdb_folder": "DPLM-2's structure tokenizer is not here; protlig tokenize FOLDER --track 3di makes other tokens",
}
"""Options without a counterpart, and what to do."""
_FILES = (".csv", ".jsonl", ".fasta", ".smi", ".sdf", ".pdb")
"""Endings of samples; `--saveto` with any other is the folder that it is in the original."""
_INPUTS = {"--task", "--protein", "--ligand", "--infill", "--structure", "--unconditional"}


def native_overrides(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the config named by `experiment=`, or None, and all other overrides under their native names.

    Raises:
        ConfigError: for an unknown precision, or a checkpoint to go on from (`resumed_run` takes that out).
    """
    config, native = None, list[str]()
    for override in _of_one_length(overrides):
        key, _, value = override.partition("=")
        if key == "experiment":
            config = _experiment(value)
            _tell(override, f"CONFIG {config}")
            continue
        for new in _translated(key, value):
            native.append(new)
            if new != override and key not in _SHORT:
                _tell(override, new)
    return config, native


def _translated(key: str, value: str) -> list[str]:
    if key in _RENAMED:
        renamed = [f"{_RENAMED[key]}={value}"]
        return [*renamed, "train.batch_size=null"] if key == "datamodule.max_tokens" else renamed
    if key == "ckpt_path":
        if value in _NEWEST:
            return []
        raise ConfigError(f"ckpt_path={value}: means to go on with a training; that is done by protlig train in its run folder")
    if key == "trainer.limit_train_batches":
        if not value.isdigit() or value == "0":
            raise ConfigError(f"{key}: found '{value}', expected a number of batches; steps are counted here, not epochs: train.steps=...")
        return [f"train.steps={value}"]
    if key == "trainer.precision":
        if value not in _PRECISIONS:
            raise ConfigError(f"trainer.precision: found '{value}', expected one of {', '.join(_PRECISIONS)}")
        return [f"train.precision={_PRECISIONS[value]}"]
    if key == "trainer.fast_dev_run":
        return ["train.steps=1", "train.log_every=1"] if value.lower() == "true" else []
    return [f"{key}={value}"]


def _experiment(name: str) -> str:
    """Return our name of an experiment: dplm/dplm_150m is dplm/150m here, dplm2/dplm2_650m is dplm2/650m."""
    family, _, size = name.rpartition("/")
    return f"{family}/{size.removeprefix(f'{family}_')}" if family else name


def _of_one_length(overrides: Sequence[str]) -> list[str]:
    """Return overrides of which one decides the number of steps, as in the original.

    `trainer.fast_dev_run` does before all others. `trainer.limit_train_batches` is the length of an epoch there: where the number of steps is
    given too, an epoch has no meaning.
    """
    keys = [override.partition("=")[0] for override in overrides]
    if not {"trainer.max_steps", "train.steps", "train.tokens"} & set(keys):
        kept = list(overrides)
    else:
        kept = [override for key, override in zip(keys, overrides, strict=True) if key != "trainer.limit_train_batches"]
        for override in set(overrides) - set(kept):
            _tell(override, "nothing: the number of steps is given, and there are no epochs here")
    return sorted(kept, key=lambda override: override.startswith("trainer.fast_dev_run="))


_NEWEST = ("", "null", "last")
"""Values of `ckpt_path=` that mean what `protlig train` does anyway: going on from the last checkpoint of its run folder."""


def resumed_run(overrides: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the run folder that `ckpt_path=` names, which means to go on with its training, or None; and all other overrides.

    Args:
        overrides: a run folder, its last checkpoint or the pointer to it may be named; a file of another framework has no state to go on from.

    Raises:
        ConfigError: for anything else, with the way to start from weights.
    """
    named = [override.partition("=")[2] for override in overrides if override.startswith("ckpt_path=")]
    others = [override for override in overrides if not override.startswith("ckpt_path=")]
    if not named or named[-1] in _NEWEST:
        return None, others
    path = Path(named[-1])
    folder = path.parent.parent if path.parent.name == "checkpoints" else path
    found = list_checkpoints(folder / "checkpoints")
    if not found or (path != folder and path.name not in (found[-1].name, "last.json")):
        wanted = f"its last one, {found[-1].name}" if found else "a run folder of protlig train"
        raise ConfigError(
            f"ckpt_path={path}: means to go on with a training at its step and with its optimiser; expected {wanted}; to start at step 0 with "
            f"weights only, write train.init_from={folder if found else path}"
        )
    _tell(f"ckpt_path={path}", f"going on in {folder}")
    return folder, others


def native_flags(arguments: Sequence[str]) -> list[str]:
    """Return command-line arguments with other projects' options replaced by ours. The folder of `--saveto` is made, as the original does.

    Raises:
        ConfigError: for an option without a counterpart.
    """
    native, typed = list[str](), [word for argument in arguments for word in argument.split("=", 1) if word]
    task = typed[typed.index("--task") + 1] if "--task" in typed[:-1] else ""
    before = ""
    for argument in arguments:
        flag, sep, value = argument.partition("=")
        if flag in WITHOUT:
            raise ConfigError(f"{flag}: {WITHOUT[flag]}")
        if flag in _NEEDLESS:
            _tell(flag, f"nothing: {_NEEDLESS[flag]}")
        elif before == "--saveto" and not argument.startswith("-"):
            native.append(_output(argument, task))
        elif before == "--task" and argument in _TASKS:
            _tell(f"--task {argument}", " ".join(_TASKS[argument]))
            native[-1:] = _TASKS[argument]
        else:
            own = _own_flag(flag, task)
            if own != flag:
                _tell(flag, own)
            native.append(f"{own}{sep}{_output(value, task) if flag == '--saveto' and sep else value}")
        before = argument
    if {"--seq_lens", "--seq_len"} & set(typed) and not _INPUTS & set(native):
        _tell("a length without --task", "--unconditional")
        native.append("--unconditional")
    return native


def _own_flag(flag: str, task: str) -> str:
    """Return our name of an option."""
    return "--structure" if flag == "--input_fasta_path" and task == "inverse_folding" else FLAGS.get(flag, flag)


def _output(value: str, task: str) -> str:
    """Return the file of `--saveto`: the value itself, or a FASTA file named after the task in the folder that it names."""
    if Path(value).suffix in _FILES:
        return value
    Path(value).mkdir(parents=True, exist_ok=True)
    file = f"{value.rstrip('/')}/{task or 'samples'}.fasta"
    _tell(f"--saveto {value}", f"--out {file}")
    return file


def as_typed(text: str, arguments: Sequence[str]) -> str:
    """Return a message with the names of options and settings that were typed in place of ours.

    >>> as_typed("--num: found 0, expected 1 or more", ["sample", "--num_seqs", "0"])
    '--num_seqs: found 0, expected 1 or more'
    """
    words = [argument.partition("=") for argument in arguments]
    task = next((arguments[i + 1] for i, word in enumerate(arguments[:-1]) if word == "--task"), "")
    for key, _, value in words:
        native = _own_flag(key, task) if key.startswith("--") else _RENAMED.get(key, key)
        if native != key:
            ends = r"(?![\w-])" if key.startswith("--") else r"(?=[:.=])"
            text = re.sub(rf"(?<![\w.-]){re.escape(native)}{ends}", key, text)
        if key == "experiment":
            text = text.replace(f"config '{_experiment(value)}'", f"experiment={value}")
    return text


_told: set[str] = set()


def _tell(found: str, native: str) -> None:
    """Log the native name of a setting or option, once."""
    if found not in _told:
        _told.add(found)
        log.info("%s is understood as %s", found, native)
