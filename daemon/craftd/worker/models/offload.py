"""Weights that lie in the host's memory and come to the device while a network, or a block of one, computes.

Weights are never written to, so that leaving copies nothing back: the host's own tensors take their places again. That
holds with LoRAs too, whose slots stay on the device and whose merged weights only take the place of a model's for a
call (`craftd.worker.lora.merge`). diffusers' group offloading knows the tensors of the beginning alone, and would lose
those that LoRAs put in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from craft_protos import rungs
from torch import nn

from craftd import offload
from craftd.offload import NetworkSize
from craftd.worker.lora.layer import held_bytes
from craftd.worker.models import sharing

Bring = Callable[[torch.Tensor], torch.Tensor]  # to the device
_LARGEST_SHARE = 8  # a block of more than an eighth of its network comes in pieces


class Fetching(Protocol):
    """How weights come, and how a call that needs those on their way waits for them."""

    place: torch.device

    def bring(self, tensor: torch.Tensor) -> torch.Tensor: ...

    def begin(self, guest: Guest) -> None:
        """Have it come while something else computes."""
        ...

    def wait(self, guest: Guest) -> None:
        """Until it is there."""
        ...


class Guest:
    """Modules whose weights come to the device and leave it together."""

    def __init__(self, modules: Sequence[nn.Module], *, is_whole: bool = True) -> None:
        self._modules = modules
        self._is_whole = is_whole  # with what lies within them
        self._home: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def is_there(self) -> bool:
        return bool(self._home)

    def come(self, bring: Bring) -> None:
        for tensor in self._tensors():
            self._home.append((tensor, tensor.data))
            tensor.data = bring(tensor.data)

    def leave(self) -> None:
        for tensor, own in self._home:
            tensor.data = own
        self._home = []

    def record(self, stream: Any) -> None:
        """Its memory is used by that stream too."""
        for tensor, _ in self._home:
            tensor.data.record_stream(stream)

    def _tensors(self) -> Iterator[torch.Tensor]:
        seen: set[int] = set()
        for module in self._modules:
            for tensor in (*module.parameters(self._is_whole), *module.buffers(self._is_whole)):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield tensor


@dataclass
class InTurn:
    """Brings what is needed when it is needed: of devices without streams."""

    place: torch.device

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.place)

    def begin(self, guest: Guest) -> None:
        """It comes when it is needed."""

    def wait(self, guest: Guest) -> None:
        if not guest.is_there:
            guest.come(self.bring)


class Ahead(InTurn):
    """Of CUDA: the next block comes on a stream of its own while one computes."""

    def __init__(self, place: torch.device) -> None:
        super().__init__(place)
        cuda: Any = torch.cuda
        self._cuda, self._stream = cuda, cuda.Stream(place)
        self._arrived: dict[int, Any] = {}

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.place, non_blocking=True)

    def begin(self, guest: Guest) -> None:
        with self._cuda.stream(self._stream):
            guest.come(self.bring)
            self._arrived[id(guest)] = self._stream.record_event()

    def wait(self, guest: Guest) -> None:
        super().wait(guest)
        if (event := self._arrived.pop(id(guest), None)) is not None:
            current = self._cuda.current_stream(self.place)
            current.wait_event(event)
            guest.record(current)


@dataclass
class Train:
    """The blocks of a network: one is there while it computes, the one that followed it the last time is on its way."""

    fetching: Fetching
    _follows: dict[int, Guest] = field(default_factory=dict)
    _last: Guest | None = None

    def enter(self, guest: Guest) -> None:
        if self._last is not None:
            self._follows[id(self._last)] = guest
        self._last = guest
        self.fetching.wait(guest)
        follower = self._follows.get(id(guest))
        if follower is not None and not follower.is_there:
            self.fetching.begin(follower)

    def end(self) -> None:
        """Send away the one that came for a next call."""
        if self._last is not None and (follower := self._follows.get(id(self._last))) is not None:
            follower.leave()


@dataclass(frozen=True)
class Passenger:
    """A network that comes and goes: what lies outside its blocks, and those."""

    outside: Guest
    blocks: Train

    def leave(self) -> None:
        self.outside.leave()
        self.blocks.end()


@dataclass
class Shelf:
    """Networks of which one is on the device at a time: another one's coming sends it away."""

    fetching: Fetching
    _there: Passenger | None = None

    def call(self, passenger: Passenger) -> None:
        """Have it there."""
        if self._there is not passenger:
            self.clear()
        self._there = passenger
        self.fetching.wait(passenger.outside)

    def clear(self) -> None:
        if self._there is not None:
            self._there.leave()
        self._there = None


class Offloading:
    """A pipeline's networks, offloaded as far as a rung says; it may go further down later."""

    def __init__(self, pipe: Any, denoiser: str, fetching: Fetching) -> None:
        self.rung = rungs.NONE
        self._pipe = pipe
        self._networks = {name: one for name, one in pipe.components.items() if isinstance(one, nn.Module)}
        self.denoiser = denoiser
        self._fetching = fetching
        self._shelf = Shelf(fetching)
        self._handles: list[Any] = []
        self._guests: list[Guest] = []

    @property
    def sizes(self) -> Mapping[str, NetworkSize]:
        return {name: size_of(network) for name, network in self._networks.items()}

    @property
    def peak_bytes(self) -> int:
        return offload.peak(self.rung, self.sizes, self.denoiser)

    def descend(self) -> bool:
        """One rung further down; False where there is none."""
        rung = offload.next_after(self.rung)
        if rung is not None:
            self.go_to(rung)
        return rung is not None

    def go_to(self, rung: str) -> None:
        """Every network lies in the host's memory afterwards, but for what this rung keeps on the device."""
        self._undo()
        self.rung = rung
        if rung != rungs.NONE:
            sharing.release(self._pipe)  # what others hold of it stays where it is
        staying = {rungs.NONE: set(self._networks), rungs.ENCODERS: {self.denoiser}}.get(rung, set())
        for name, network in self._networks.items():
            if name in staying:
                network.to(self._place)
                continue
            network.to("cpu")
            self._take(network, by_blocks=rung == rungs.BLOCKS)

    @property
    def _place(self) -> torch.device:
        return self._fetching.place

    def _take(self, network: nn.Module, *, by_blocks: bool) -> None:
        network.__dict__["_hf_hook"] = _Place(self._place)
        _pin(network, self._place)
        blocks = blocks_of(network) if by_blocks else []
        inside = {id(module) for block in blocks for module in block.modules()}
        outside = Guest([module for module in network.modules() if id(module) not in inside], is_whole=False)
        passenger = Passenger(outside, Train(self._fetching))
        self._guests.append(outside)
        for entry in (network, *network.children()):  # an autoencoder's decode is no forward
            self._handles.append(entry.register_forward_pre_hook(lambda *_: self._shelf.call(passenger)))
        for block in blocks:
            self._ride(passenger.blocks, block, Guest([block]))

    def _ride(self, train: Train, block: nn.Module, guest: Guest) -> None:
        self._guests.append(guest)
        self._handles += [
            block.register_forward_pre_hook(lambda *_: train.enter(guest)),
            block.register_forward_hook(lambda *_: guest.leave(), always_call=True),
        ]

    def _undo(self) -> None:
        self._shelf.clear()
        for guest in self._guests:
            guest.leave()
        for handle in self._handles:
            handle.remove()
        self._handles, self._guests = [], []
        for network in self._networks.values():
            network.__dict__.pop("_hf_hook", None)


class _Place:
    """By this diffusers' pipelines know where a network computes whose weights are elsewhere; it does nothing."""

    def __init__(self, place: torch.device) -> None:
        self.execution_device = place

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return args, kwargs


def begin(pipe: Any, denoiser: str, place: torch.device) -> Offloading:
    """For a device; nothing is offloaded yet."""
    return Offloading(pipe, denoiser, Ahead(place) if place.type == "cuda" else InTurn(place))


def size_of(network: nn.Module) -> NetworkSize:
    blocks = blocks_of(network)
    total = held_bytes([network])
    within = [held_bytes([block]) for block in blocks]
    return NetworkSize(total, max(within, default=0), total - held_bytes(blocks))


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Its repeated blocks, in pieces where they are large. What is in none of them stays while the network computes."""
    return list(_blocks(network, held_bytes([network]) // _LARGEST_SHARE))


def _blocks(module: nn.Module, most_bytes: int) -> Iterator[nn.Module]:
    for child in module.children():
        candidates: Iterable[nn.Module] = child if isinstance(child, nn.ModuleList) else ()
        for block in candidates:
            pieces = list(_blocks(block, most_bytes)) if held_bytes([block]) > most_bytes else []
            yield from pieces or [block]
        if not isinstance(child, nn.ModuleList):
            yield from _blocks(child, most_bytes)


def _pin(network: nn.Module, place: torch.device) -> None:
    """Memory that does not move is read by a CUDA device while it computes."""
    if place.type != "cuda":
        return
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.pin_memory()
