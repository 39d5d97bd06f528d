"""What weights are that cannot run here, told from their names: other families, adapters, quantised ones."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

#: What to do with a model that is of no family that runs here.
ADVICE: Final = "give an ESM-2 checkpoint, or an official name such as esm2_t33_650M_UR50D"
_BERT: Final = "BERT (ProtBert and its like)"
_T5: Final = "T5 (ProtT5, Ankh and their like)"
_ESM_C: Final = "ESM C or ESM3"
#: ``model_type`` in config.json -> family.
CONFIG_FAMILIES: Final = MappingProxyType(
    {
        "bert": _BERT,
        "roberta": "RoBERTa",
        "albert": "ALBERT (ProtAlbert)",
        "xlnet": "XLNet (ProtXLNet)",
        "electra": "ELECTRA (ProtElectra)",
        "t5": _T5,
        "esmc": _ESM_C,
        "esmplusplus": _ESM_C,
        "esm3": _ESM_C,
        "gpt2": "GPT-2 (ProtGPT2)",
        "llama": "Llama",
    }
)
#: A name that only this family has -> family; the first that is found counts.
_FAMILIES: Final = (
    (re.compile(r"(^|\.)(trunk\.(blocks|structure_module)\.|esm_s_combine$)"), "ESMFold"),
    (re.compile(r"(^|\.)(msa_position_embedding|layers\.\d+\.row_self_attention\.)"), "the MSA transformer"),
    (re.compile(r"(^|\.)transformer\.blocks\.\d+\.(attn|ffn|geom_attn)\."), _ESM_C),
    (re.compile(r"(^|\.)(encoder|decoder)\.block\.\d+\.layer\.\d+\."), _T5),
    (re.compile(r"(^|\.)embeddings\.token_type_embeddings\.weight$"), _BERT),
    (re.compile(r"(^|\.)(gvp_encoder|encoder\.gvp_)"), "ESM-IF1"),
    (re.compile(r"(^|\.)layers\.\d+\.(input_layernorm|mlp\.gate_proj)\."), "Llama and its like"),
    (re.compile(r"(^|\.)h\.\d+\.(attn|ln_1)\."), "GPT-2 and its like"),
    (re.compile(r"(^|\.)layers\.\d+\.self_attn\.bias_k$"), "ESM-1"),
)
#: Names inside an encoder that adapters put there -> what they are.
_ADAPTERS: Final = (
    (re.compile(r"(^|[._])lora_"), "LoRA"),
    (re.compile(r"(^|[._])ia3_"), "IA3"),
    (re.compile(r"(^|[._])(hada|lokr|oft|boft|vera|randlora|fourierft|hra|miss|bone)_"), "a relative of LoRA"),
    (re.compile(r"\.base_layer\.|\.modules_to_save\."), "layers wrapped by PEFT"),
)
_PROMPTS: Final = re.compile(r"^(prompt_embeddings|prompt_encoder|base_model\.prompt_encoder)(\.|$)")
#: Names that packages for fewer bits put beside a weight -> package.
_QUANTISED: Final = (
    (re.compile(r"\.weight\.(absmax|quant_map|nested_absmax|quant_state\..+)$"), "bitsandbytes, 4 bits"),
    (re.compile(r"\.(SCB|weight_format)$"), "bitsandbytes, 8 bits"),
    (re.compile(r"\.(qweight|qzeros|g_idx)$"), "GPTQ or AWQ"),
    (re.compile(r"\.(weight_scale|weight_scale_inv|input_scale|weight_packed)$"), "scales beside its weights"),
    (re.compile(r"\._packed_params|\.(scale|zero_point)$"), "torch.ao"),
    (re.compile(r"\.weight\.?_(data|scale|shift|meta|qtype)$"), "quanto or HQQ"),
)


def family_of(keys: Iterable[str]) -> str | None:
    """The family, none of those that run here, that weights of these names are of; None where they tell none."""
    names = list(keys)
    return next((family for pattern, family in _FAMILIES if any(map(pattern.search, names))), None)


def adapter_of(keys: Iterable[str]) -> str | None:
    """The adapter that has parts among these names."""
    names = list(keys)
    return next((kind for pattern, kind in _ADAPTERS if any(map(pattern.search, names))), None)


def has_prompts(keys: Iterable[str]) -> bool:
    """Whether an adapter's prompts are among these names."""
    return any(map(_PROMPTS.search, keys))


def quantised_by(keys: Iterable[str]) -> str | None:
    """The package that has quantised weights of these names."""
    names = list(keys)
    return next((package for pattern, package in _QUANTISED if any(map(pattern.search, names))), None)


def name_of(key: object) -> str:
    """A foreign key as a name. What is neither text nor number is not asked for its text, which may be anything."""
    return str(key) if isinstance(key, str | int) else f"<{type(key).__name__}>"
