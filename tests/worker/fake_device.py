"""A CUDA device that is not there: tensors on it have shapes, types and places, and no numbers.

Under `FakeDevice`, what lies on `cuda:0` is torch's fake tensor and what lies on the CPU is real, so that schedules and
tokenizers count as ever. Whatever makes the device wait for the processor, or the other way round, is written down with
the line that asked for it; a CPU tensor among the device's raises, as it does on a real one.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).parents[2]
PLACE = torch.device("cuda:0")
HALF = (torch.float16, torch.bfloat16)
_WAITS = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim")
_HEAVY = ("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product")
_COPIES = ("_to_copy", "copy_")


@dataclass(frozen=True)
class Finding:
    """One operation that costs more than it looks like, and the line that asked for it."""

    kind: str  # waits, copies, promotes
    operation: str
    asked_by: str  # the innermost line of craft's
    made_by: str  # the innermost line of craft's or a library's

    def __str__(self) -> str:
        return f"{self.kind}: {self.operation} by {self.made_by}, asked by {self.asked_by}"


class Watch(TorchDispatchMode):
    """Sends what touches the device to the fake one, the rest to the CPU; writes down what a step should not do."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.found: list[Finding] = []
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: PLR0911
        kwargs = kwargs or {}
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        place = kwargs.get("device") or next((one for one in args if isinstance(one, torch.device)), None)
        name = func.name().removeprefix("aten::").partition(".")[0]
        is_there = any(isinstance(one, FakeTensor) for one in given)
        goes_there = place is not None and torch.device(place).type == PLACE.type
        if name in ("pin_memory", "_pin_memory"):
            return given[0]
        if not is_there and not goes_there:
            with _disable_current_modes():
                return func(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            return self._attention(*args, **kwargs)
        with self:  # in inference mode nobody has done so before
            made = func.decompose(*args, **kwargs) if func.namespace == "aten" else NotImplemented
        if made is not NotImplemented:
            return made
        self.operations += 1
        if name in _WAITS:
            self._note("waits", name)
        if name == "_local_scalar_dense":
            return _a_number(given[0].dtype)
        if name == "equal":
            return True
        if name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1]):
            self._note("waits", "an index by what is true")
            with self.fake:
                return func(args[0], list(_all_chosen(args[1])))
        if is_there and place is not None and not goes_there:
            self._note("waits", f"{name} to the CPU")
            with _disable_current_modes():
                return torch.zeros(given[0].shape, dtype=kwargs.get("dtype") or given[0].dtype)
        is_unwaited = bool(kwargs.get("non_blocking", name == "copy_" and len(args) > 2 and args[2]))
        if name in _COPIES and any(one.device.type == "cpu" for one in given):
            source = next(one for one in given if one.device.type == "cpu")
            if not is_unwaited:
                self._note("copies", f"{name} of {tuple(source.shape)} to the device")
            if name == "copy_":
                return given[0]
            with self.fake:
                return torch.empty(source.shape, dtype=kwargs.get("dtype") or source.dtype, device=place)
        with self.fake:
            made = func(*args, **kwargs)
        self._check(name, given, made)
        return made

    def _attention(self, query: Any, key: Any, value: Any, mask: Any = None, *_: Any, **named: Any) -> torch.Tensor:
        """As a kernel of the device's does it, in one piece; torch would choose one by asking the driver."""
        mask = named.get("attn_mask", mask)
        assert {query.device, key.device, value.device} == {PLACE}, "attention over two devices"
        assert query.dtype == key.dtype == value.dtype, "attention between two types"
        assert mask is None or (mask.device == PLACE and mask.dtype in (torch.bool, query.dtype)), "another mask"
        if query.dtype == torch.float32:
            self._note("promotes", f"attention of {tuple(query.shape)} in fp32")
        with self.fake:
            return query.new_empty(*query.shape[:-1], value.shape[-1])

    def _check(self, name: str, given: Sequence[torch.Tensor], made: Any) -> None:
        """Whether a product is computed in single precision beside half ones."""
        if not isinstance(made, torch.Tensor) or made.dtype != torch.float32:
            return
        if name in _HEAVY or name.startswith("_scaled_dot_product"):
            self._note("promotes", f"{name} of {tuple(made.shape)} in fp32")
        elif any(one.dtype in HALF for one in given) and made.numel() > 1 and _lines()[1].startswith("craftd"):
            self._note("promotes", f"{name} of {tuple(made.shape)}")

    def _note(self, kind: str, operation: str) -> None:
        asked, made = _lines()
        self.found.append(Finding(kind, operation, asked, made))


def _all_chosen(places: Sequence[torch.Tensor | None]) -> Iterator[torch.Tensor | None]:
    """As many as may be true: nobody knows how many are."""
    for one in places:
        if one is not None and one.dtype == torch.bool:
            yield from [one.new_zeros(one.numel(), dtype=torch.long)] * one.ndim
        else:
            yield one


def _a_number(dtype: torch.dtype) -> bool | int | float:
    """What is read of the device: one that no check minds."""
    if dtype == torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


def _lines() -> tuple[str, str]:
    frame: FrameType | None = sys._getframe(2)
    asked = made = ""
    while frame is not None and not asked:
        path, line = frame.f_code.co_filename, frame.f_lineno
        if "/craftd/" in path:
            asked = f"{Path(path).relative_to(ROOT / 'daemon')}:{line}"
        if not made and ("/craftd/" in path or "/diffusers/" in path or "/transformers/" in path):
            made = asked or f"{path.rpartition('site-packages/')[2]}:{line}"
        frame = frame.f_back
    return asked, made or asked


@contextmanager
def fake_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """While it holds, this thread has a device `cuda:0`."""
    for name in ("Event", "Stream"):
        monkeypatch.setattr(torch.cuda, name, _Unhurried)
    monkeypatch.setattr(torch.cuda, "current_stream", _Unhurried)
    monkeypatch.setattr(nn.Module, "to", _to)
    watch = Watch()
    with _no_driver_asked(), watch.fake, watch:
        yield watch


@contextmanager
def _no_driver_asked() -> Iterator[None]:
    """While it holds, torch's own code asks the CPU, which does nothing, to make `cuda:0` the current device.

    A torch that was built without CUDA has nobody there to ask, and brackets and views ask before anybody can tell them
    that the tensor is a fake.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    asked = (ctypes.c_void_p * 2).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    before = asked[1]
    asked[1] = asked[0]
    try:
        yield
    finally:
        asked[1] = before


class _Unhurried:
    """A stream, or an event of one, that nobody ever waits for."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def _to(network: nn.Module, *asked: Any, **named: Any) -> nn.Module:
    """`Module.to`, which torch's own cannot do with fake tensors."""
    device, dtype, _, memory_format = torch._C._nn._parse_to(*asked, **named)
    for module in network.modules():
        for holder in (module._parameters, module._buffers):
            for name, one in holder.items():
                if one is not None:
                    holder[name] = _there(one, device, dtype, memory_format)
    return network


def _there(one: torch.Tensor, device: Any, dtype: torch.dtype | None, memory_format: torch.memory_format | None) -> Any:
    kind = dtype if dtype is not None and one.is_floating_point() else one.dtype
    is_laid_out = memory_format is not None and one.ndim == 4
    laid = {"memory_format": memory_format} if is_laid_out else {}
    made = torch.empty(one.shape, dtype=kind, device=device or one.device, **laid)
    return nn.Parameter(made, requires_grad=False) if isinstance(one, nn.Parameter) else made
