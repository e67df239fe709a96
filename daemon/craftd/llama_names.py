"""Text encoders' tensors have llama.cpp's names in GGUF files; here they get those that transformers gives them.

Of T5's encoder, and of Qwen 2 and 3, whose tensors are otherwise the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_BLOCK = re.compile(r"(?:enc\.)?blk\.(\d{1,4})\.(\w+)")


@dataclass(frozen=True)
class _Names:
    """llama.cpp's name -> transformers'. `block`: what is before the names inside a block."""

    whole: Mapping[str, str]
    block: str
    inside: Mapping[str, str]

    def of(self, name: str) -> str:
        """Without its last word, "weight" or "bias". One that is not known stays."""
        found = _BLOCK.fullmatch(name)
        if found is None:
            return self.whole.get(name, name)
        inner = self.inside.get(found[2])
        return name if inner is None else f"{self.block}.{found[1]}.{inner}"


_T5 = _Names(
    {"token_embd": "shared", "enc.output_norm": "encoder.final_layer_norm"},
    "encoder.block",
    {
        "attn_norm": "layer.0.layer_norm",
        **{f"attn_{one}": f"layer.0.SelfAttention.{one}" for one in "qkvo"},
        "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
        "ffn_norm": "layer.1.layer_norm",
        "ffn_gate": "layer.1.DenseReluDense.wi_0",
        "ffn_up": "layer.1.DenseReluDense.wi_1",
        "ffn_down": "layer.1.DenseReluDense.wo",
    },
)
_QWEN = _Names(
    {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"},
    "model.layers",
    {
        "attn_norm": "input_layernorm",
        **{f"attn_{one}": f"self_attn.{one}_proj" for one in "qkv"},
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm",
        **{f"ffn_{one}": f"mlp.{one}_proj" for one in ("gate", "up", "down")},
    },
)
_ARCHITECTURES = {"t5": _T5, "t5encoder": _T5, "qwen2": _QWEN, "qwen3": _QWEN}


def renamed(architecture: str, name: str) -> str:
    """`architecture`: general.architecture of the file; names of others, as of transformers of pictures, stay."""
    names = _ARCHITECTURES.get(architecture)
    stem, dot, last = name.rpartition(".")
    return name if names is None or not dot else f"{names.of(stem)}.{last}"
