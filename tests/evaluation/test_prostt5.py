"""ProstT5 on a tiny random model with its vocabulary: letters in upper case, answers in order, and absent weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from protlig_dd.errors import CheckpointError, DownloadError
from protlig_dd.evaluation.prostt5 import find_prostt5, prostt5

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def make(folder: Path, *, prefix: str = "<AA2fold>") -> Path:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra hf)")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed (extra hf)")
    symbols = ["<pad>", "</s>", "<unk>", prefix, *LETTERS, "X", *LETTERS.lower()]
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({s: i for i, s in enumerate(symbols)}, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=[prefix], **names).save_pretrained(folder)
    torch.manual_seed(1)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(vocab_size=len(symbols), decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **shape)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_answers_are_upper_case_and_in_the_order_asked(tmp_path: Path) -> None:
    translate = prostt5(str(make(tmp_path)), local_only=True)
    sequences = ["MKTAYIAKQR", "GGU", "ACDEFGH"]
    answers = translate(sequences)
    assert len(answers) == 3 and all(set("".join(answer)) <= set(LETTERS + "X") for answer in answers)
    assert all(answer for answer in answers)
    assert translate(["GGX"]) == translate(["GGU"]), "rare letters are X"


def test_a_model_without_the_prefix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not know '<AA2fold>'"):
        prostt5(str(make(tmp_path, prefix="<other>")), local_only=True)


def test_absent_weights_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed (extra hf)")
    translate, reason = find_prostt5(str(tmp_path / "none"), local_only=True)
    assert translate is None and "ProstT5's weights are not at hand" in reason and "\n" not in reason
    with pytest.raises(DownloadError, match="not at hand"):
        prostt5("Rostlab/ProstT5", local_only=True)


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would ask again for a minute and a half, with a dozen lines, before it looks among the files that are here."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra hf)")
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra hf)")
    asked = []

    def unreachable(*_: object, **settings: object) -> None:
        raise ConnectionError("no network")

    def read(*_: object, local_files_only: bool, **settings: object) -> None:
        asked.append(local_files_only)
        raise OSError("not among the cached files")

    monkeypatch.setattr(hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", read)
    translate, reason = find_prostt5("Rostlab/ProstT5")
    assert translate is None and "not among the cached files" in reason and asked == [True]
