"""What changes of a layer's own weight add to it, in fp32; the formulas are those that LyCORIS publishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from craftd.worker.lora import weightforms

_LEAST_NORM = 1e-8
_BLOCKS = 3  # dimensions of diag-OFT's blocks; BOFT's have the factors before them


@dataclass(frozen=True)
class OfWeight:
    """One layer's change, of a form of `weightforms`. At strength 0 it is off, whatever it rescales."""

    form: str
    tensors: Mapping[str, torch.Tensor]
    scale: float = 1.0  # of GLoRA: alpha / rank
    constraint: float = 0.0  # of OFT: the most that its generator's norm may be; 0: it has none

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def change(self, weight: torch.Tensor, strength: float) -> torch.Tensor:
        if not strength:
            return torch.zeros_like(weight)
        parts = {name: tensor.to(weight.device).float() for name, tensor in self.tensors.items()}
        if self.form == weightforms.DIFF:
            return strength * parts["diff"].view_as(weight)
        if self.form == weightforms.IA3:
            return strength * weight * parts["ia3"].view(self._along(weight))
        if self.form == weightforms.OFT:
            return self._turned(weight, parts, strength) - weight
        return strength * self.scale * _general(weight, parts)

    def _along(self, weight: torch.Tensor) -> list[int]:
        """The shape in which (IA)3's numbers lie along the dimension that they scale."""
        scaled = 1 if "on_input" in self.tensors else 0
        return [-1 if dim == scaled else 1 for dim in range(weight.ndim)]

    def _turned(self, weight: torch.Tensor, parts: Mapping[str, torch.Tensor], strength: float) -> torch.Tensor:
        """Each block of outputs is turned by Cayley's transform of a skew-symmetric matrix (Qiu et al. 2023)."""
        skew = parts["oft_blocks"] - parts["oft_blocks"].mT
        norm = torch.linalg.vector_norm(skew) + _LEAST_NORM
        if self.constraint and norm > self.constraint:
            skew = skew * (self.constraint / norm)
        one = torch.eye(skew.shape[-1], device=weight.device)
        turn = torch.linalg.solve(one - skew, one + skew)  # the two commute
        by_degrees = one + strength * (turn - one)
        turned = _in_blocks(by_degrees.mT, weight) if skew.ndim == _BLOCKS else _butterfly(by_degrees, weight)
        if "rescale" not in parts:
            return turned
        return turned * parts["rescale"].view(-1, *[1] * (weight.ndim - 1))


def _in_blocks(turns: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    count, side, _side = turns.shape
    return torch.bmm(turns, weight.reshape(count, side, -1)).view_as(weight)


def _butterfly(factors: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """One factor after another, each of outputs that lie twice as far apart (Liu et al. 2024)."""
    side = factors.shape[-1]
    found = weight.flatten(1)
    for place, turns in enumerate(factors):
        apart = 2**place * (side // 2)
        paired = found.view(-1, 2, apart, found.shape[1]).transpose(1, 2).reshape(found.shape)
        turned = _in_blocks(turns, paired)
        found = turned.view(-1, apart, 2, found.shape[1]).transpose(1, 2).reshape(found.shape)
    return found.view_as(weight)


def _general(weight: torch.Tensor, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The weight times a product, and a product beside it (Chavan et al. 2023)."""
    a1, a2, b1, b2 = (parts[name].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    own = torch.einsum("oi...,ir->or...", weight, a1)
    return torch.einsum("or...,ri->oi...", own, a2) + (b1 @ b2).view_as(weight)
