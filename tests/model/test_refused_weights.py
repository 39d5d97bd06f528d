"""Weights that are no plain ESM-2's are told by their names: families, quantised ones, adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from esm import ESM2
from esm2_reference import hugging_face_config, hugging_face_state, save_fair_esm, save_hugging_face, sharp_esm2
from safetensors.torch import save_file
from test_refused_files import refusal, saved
from torch import Tensor

from virnucpro.errors import ModelError
from virnucpro.model.weights import open_checkpoint

LAYER = "encoder.layer.0.attention.self.query"


@pytest.fixture(scope="module")
def model() -> ESM2:
    return sharp_esm2(layers=2, dim=32, heads=2)


def fair_esm_keys(*keys: str) -> dict[str, Tensor]:
    return {key: torch.ones(2, 2) for key in ("embed_tokens.weight", *keys)}


def hugging_face_keys(*keys: str) -> dict[str, Tensor]:
    return {key: torch.ones(2, 2) for key in ("embeddings.word_embeddings.weight", *keys)}


@pytest.mark.parametrize(
    ("weights", "family"),
    [
        (hugging_face_keys("embeddings.token_type_embeddings.weight", LAYER + ".weight"), "BERT (ProtBert"),
        (
            {"shared.weight": torch.ones(2), "encoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(2)},
            "T5 (ProtT5",
        ),
        (
            {
                "encoder.embed_tokens.weight": torch.ones(2, 2),
                "encoder.block.0.layer.0.SelfAttention.q.weight": torch.ones(2, 2),
            },
            "T5 (ProtT5",
        ),
        (
            {
                f"encoder.{key}": value
                for key, value in fair_esm_keys("layers.0.row_self_attention.layer.q.bias").items()
            },
            "the MSA transformer",
        ),
        ({"trunk.blocks.0.x": torch.ones(2), "esm_s_combine": torch.ones(2)}, "ESMFold"),
        (
            {f"esm.{key}": value for key, value in hugging_face_keys(LAYER + ".weight").items()}
            | {"esm_s_combine": torch.ones(2), "trunk.blocks.0.x": torch.ones(2)},
            "ESMFold",
        ),
        ({"embed.weight": torch.ones(2), "transformer.blocks.0.attn.out_proj.weight": torch.ones(2)}, "ESM C or ESM3"),
        (fair_esm_keys("layers.0.input_layernorm.weight"), "Llama"),
        ({"transformer.h.0.attn.c_attn.weight": torch.ones(2)}, "GPT-2"),
    ],
)
def test_other_families_by_their_names(weights: dict[str, Tensor], family: str, tmp_path: Path) -> None:
    for content in (weights, {"model": weights}):
        (tmp_path / "model.pt").write_bytes(saved(content))
        message = refusal(tmp_path / "model.pt")
        assert message.startswith(f"a model of another family, {family}")
        assert message.endswith("give an ESM-2 checkpoint, or an official name such as esm2_t33_650M_UR50D")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "bert"}, "another family, BERT (ProtBert"),
        ({"model_type": "t5"}, "another family, T5 (ProtT5"),
        ({"model_type": "esmc"}, "another family, ESM C or ESM3"),
        ({"position_embedding_type": "absolute"}, "not the ESM-1v of 2 layers of width 32 that it says"),
        ({"is_folding_model": True}, "another family, ESMFold"),
        ({"vocab_size": 446}, "vocab_size is 446, but ESM-2 has 33"),
        ({"is_decoder": True}, "is_decoder is True, but ESM-2 has False"),
        ({"model_type": "ESMplusplus"}, "another family, ESM C or ESM3"),
        ({"model_type": "mamba", "vocab_size": 50280}, "another family, mamba: vocab_size is 50280, but ESM-2 has 33"),
    ],
)
def test_other_families_by_their_settings(
    changes: dict[str, object], expected: str, tmp_path: Path, model: ESM2
) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny")
    (folder / "config.json").write_text(json.dumps(hugging_face_config(model, **changes)))
    message = refusal(folder)
    assert expected in message and "damaged" not in message and "download" not in message


@pytest.mark.parametrize(
    ("extra", "package"),
    [
        (
            {f"esm.{LAYER}.SCB": torch.ones(32), f"esm.{LAYER}.weight": torch.ones(32, 32).char()},
            "bitsandbytes, 8 bits",
        ),
        (
            {
                f"esm.{LAYER}.weight": torch.ones(512, 1).byte(),
                f"esm.{LAYER}.weight.absmax": torch.ones(16),
                f"esm.{LAYER}.weight.quant_state.bitsandbytes__nf4": torch.ones(9).byte(),
            },
            "bitsandbytes, 4 bits",
        ),
        ({f"esm.{LAYER}.qweight": torch.ones(4).int(), f"esm.{LAYER}.qzeros": torch.ones(4).int()}, "GPTQ or AWQ"),
        (
            {
                f"esm.{LAYER}.weight": torch.ones(32, 32).to(torch.float8_e4m3fn),
                f"esm.{LAYER}.weight_scale": torch.ones(1),
            },
            "scales beside its weights",
        ),
    ],
)
def test_quantised_weights(extra: dict[str, Tensor], package: str, tmp_path: Path, model: ESM2) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny", "bin")
    torch.save(hugging_face_state(model) | extra, folder / "pytorch_model.bin")
    assert refusal(folder).startswith(f"quantised ({package}), which is not read; give the weights from before")


def test_weights_of_8_bits_without_scales(tmp_path: Path, model: ESM2) -> None:
    weights = {"layers.0.fc1.weight": torch.ones(128, 32).to(torch.float8_e4m3fn)}
    path = save_fair_esm(model, tmp_path / "odd.pt", **weights)
    assert refusal(path).startswith("'encoder.sentence_encoder.layers.0.fc1.weight' is quantised (torch.float8_e4m3fn)")


LORA = {
    f"base_model.model.esm.{LAYER}.lora_A.weight": torch.ones(4, 32),
    f"base_model.model.esm.{LAYER}.lora_B.weight": torch.ones(32, 4),
}
MERGE = "merge it into its base first: PeftModel.from_pretrained(base, '{path}').merge_and_unload().save_pretrained("


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_a_peft_adapter(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (save_file if name.endswith("safetensors") else torch.save)(LORA, folder / name)
    settings = {"peft_type": "LORA", "base_model_name_or_path": "facebook/esm2_t6_8M_UR50D"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    message = refusal(folder)
    assert message.startswith("a PEFT adapter (LORA, for facebook/esm2_t6_8M_UR50D), not a whole model; ")
    assert MERGE.format(path=folder) in message
    with pytest.raises(ModelError, match=r"a PEFT adapter \(LORA, for facebook"):
        open_checkpoint(folder / name)
    (folder / "adapter_config.json").unlink()
    message = refusal(folder / name)
    assert message.startswith("a PEFT adapter (LoRA), not a whole model; ")
    assert MERGE.format(path=folder) in message


def test_an_adapter_beside_a_whole_model(tmp_path: Path, model: ESM2) -> None:
    folder = save_hugging_face(model, tmp_path / "tiny")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "facebook/esm2_t6_8M_UR50D"}')
    assert refusal(folder).startswith(
        "a PEFT adapter for facebook/esm2_t6_8M_UR50D beside a whole model; move adapter_"
    )


@pytest.mark.parametrize("prefix", ["base_model.model.", "module.base_model.model."])
def test_a_model_with_an_adapter_that_is_not_merged(prefix: str, tmp_path: Path, model: ESM2) -> None:
    state = {
        f"{prefix}{key.replace('query.', 'query.base_layer.')}": value
        for key, value in hugging_face_state(model).items()
    }
    torch.save(state | {f"{prefix}esm.{LAYER}.lora_A.default.weight": torch.ones(4, 32)}, tmp_path / "mine.pt")
    assert refusal(tmp_path / "mine.pt").startswith(
        "a model with a PEFT adapter (LoRA) that is not merged into it; where it was made, merge it: "
        "model.merge_and_unload().save_pretrained('merged')"
    )


def test_prompts_are_an_adapter_too(tmp_path: Path) -> None:
    torch.save({"prompt_embeddings": torch.ones(20, 32)}, tmp_path / "mine.pt")
    assert refusal(tmp_path / "mine.pt").startswith("a PEFT adapter of learned prompts, which cannot be merged")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING", "base_model_name_or_path": "base"}')
    assert refusal(tmp_path).startswith("a PEFT adapter (PROMPT_TUNING, for base) of learned prompts, which cannot be")
