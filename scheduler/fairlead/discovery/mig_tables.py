"""How GPUs can be cut, by product, for where the driver was not asked. What NVML says is always taken before this.

Numbers of A30, A100-40, H100-80, H100-94 and RTX PRO 6000 are those that `nvidia-smi mig -lgip` and `-lgipp` print. The
other products of the eight-unit family have its ids and placements by inference; a memory size that nobody published
is the profile's part of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from fairlead.model.hardware import Gpu
from fairlead.model.partitions import MigGeometry, MigProfile

_GIB = 1 << 30

# Of the eight-unit family, (id, first units, units, most, compute slices) each:
# 1g, 1g+me, 1g with twice the memory, 2g, 3g, 4g, 7g.
_EIGHT = (
    (19, (0, 1, 2, 3, 4, 5, 6), 1, 7, 1),
    (20, (0, 1, 2, 3, 4, 5, 6), 1, 1, 1),
    (15, (0, 2, 4, 6), 2, 4, 1),
    (14, (0, 2, 4), 2, 3, 2),
    (9, (0, 4), 4, 2, 3),
    (5, (0,), 4, 1, 4),
    (0, (0,), 8, 1, 7),
)


@dataclass(frozen=True, slots=True)
class _Engines:
    """Engines of each profile in the order of `_EIGHT`; no family has encoders."""

    copy: tuple[int, ...]
    decoders: tuple[int, ...]
    jpegs: tuple[int, ...]
    ofas: tuple[int, ...]


_NONE = (0,) * 7
_ONE_OFA = (0, 1, 0, 0, 0, 0, 1)
_AMPERE = _Engines((1, 1, 1, 2, 3, 4, 7), (0, 1, 1, 1, 2, 2, 5), _ONE_OFA, _ONE_OFA)
_HOPPER = _Engines((1, 1, 1, 2, 3, 4, 8), (1, 1, 1, 2, 3, 4, 7), (1, 1, 1, 2, 3, 4, 7), _ONE_OFA)
_BLACKWELL = _Engines((2, 2, 2, 3, 6, 8, 16), (1,) * 7, (1,) * 7, _ONE_OFA)
_UNKNOWN = _Engines(_NONE, _NONE, _NONE, _NONE)

_A100_SM = (14, 14, 14, 28, 42, 56, 98)
_H100_SM = (16, 16, 26, 32, 60, 64, 132)
_H200_SM = (16, 16, 0, 32, 0, 0, 132)
_B200_SM = (18, 18, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Family:
    """One product of the eight-unit family: the numbers in its profiles' names, which are GiB; bytes; SMs; engines.

    `gb` and `memory` are of instances of one, two, four and eight units.
    """

    pattern: str
    gb: tuple[int, int, int, int]
    memory: tuple[int, int, int, int]
    multiprocessors: tuple[int, ...]
    engines: _Engines


def _gib(*sizes: float) -> tuple[int, int, int, int]:
    one, two, four, seven = (round(size * 1024) << 20 for size in sizes)
    return one, two, four, seven


def _mib(*sizes: int) -> tuple[int, int, int, int]:
    one, two, four, seven = (size << 20 for size in sizes)
    return one, two, four, seven


def _parts(gigabytes: int) -> tuple[int, int, int, int]:
    whole = gigabytes * _GIB
    return whole // 8, whole // 4, whole // 2, whole


_FAMILIES = (
    _Family("A[18]00", (5, 10, 20, 40), _mib(4864, 9856, 19968, 40192), _A100_SM, _AMPERE),
    _Family("A[18]00", (10, 20, 40, 80), _gib(9.5, 19.5, 39.25, 78.5), _A100_SM, _AMPERE),
    _Family("H[18]00", (10, 20, 40, 80), _gib(9.75, 19.62, 39.5, 79.25), _H100_SM, _HOPPER),
    _Family("H[18]00", (12, 24, 47, 94), _gib(10.75, 21.62, 46.38, 93.12), _H100_SM, _HOPPER),
    _Family("H[18]00|GH200", (12, 24, 48, 96), _parts(96), _H100_SM, _HOPPER),
    _Family("H20", (12, 24, 48, 96), _parts(96), _NONE, _HOPPER),
    _Family("GH200", (18, 36, 72, 144), _parts(144), _NONE, _HOPPER),
    _Family("H200", (18, 35, 71, 141), _gib(16, 32.5, 70, 140), _H200_SM, _HOPPER),
    _Family("B200", (23, 45, 90, 180), _parts(180), _B200_SM, _BLACKWELL),
    _Family("GB200", (23, 47, 93, 186), _parts(186), _B200_SM, _BLACKWELL),
    _Family("B300", (34, 67, 135, 269), _parts(269), _NONE, _UNKNOWN),
    _Family("GB300", (35, 70, 139, 278), _parts(278), _NONE, _UNKNOWN),
)

# (id, name, first units, units, most, compute slices, SM, copy engines, DEC, ENC, JPEG, OFA)
_Row = tuple[int, str, tuple[int, ...], int, int, int, int, int, int, int, int, int]
_A30: tuple[_Row, ...] = (
    (14, "1g.6gb", (0, 1, 2, 3), 1, 4, 1, 14, 1, 1, 0, 0, 0),
    (21, "1g.6gb+me", (0, 1, 2, 3), 1, 1, 1, 14, 1, 1, 0, 1, 1),
    (5, "2g.12gb", (0, 2), 2, 2, 2, 28, 2, 2, 0, 0, 0),
    (6, "2g.12gb+me", (0, 2), 2, 1, 2, 28, 2, 2, 0, 1, 1),
    (0, "4g.24gb", (0,), 4, 1, 4, 56, 4, 4, 0, 1, 1),
)
_RTX_PRO_6000: tuple[_Row, ...] = (
    (14, "1g.24gb", (0, 3, 6, 9), 3, 4, 1, 46, 1, 1, 1, 1, 0),
    (21, "1g.24gb+me", (0, 3, 6, 9), 3, 1, 1, 46, 1, 1, 1, 1, 1),
    (47, "1g.24gb+gfx", (0, 3, 6, 9), 3, 4, 1, 46, 1, 1, 1, 1, 0),
    (65, "1g.24gb+me.all", (0, 3, 6, 9), 3, 1, 1, 46, 1, 4, 4, 4, 1),
    (67, "1g.24gb-me", (0, 3, 6, 9), 3, 4, 1, 46, 1, 0, 0, 0, 0),
    (5, "2g.48gb", (0, 6), 6, 2, 2, 94, 2, 2, 2, 2, 0),
    (35, "2g.48gb+gfx", (0, 6), 6, 2, 2, 94, 2, 2, 2, 2, 0),
    (64, "2g.48gb+me.all", (0, 6), 6, 1, 2, 94, 2, 4, 4, 4, 1),
    (66, "2g.48gb-me", (0, 6), 6, 2, 2, 94, 2, 0, 0, 0, 0),
    (0, "4g.96gb", (0,), 12, 1, 4, 188, 4, 4, 4, 4, 1),
    (32, "4g.96gb+gfx", (0,), 12, 1, 4, 188, 4, 4, 4, 4, 1),
)

_NAMED_GB = re.compile(r"(?<![0-9])(\d{2,3}) ?GB?(?![A-Za-z0-9])")
_WORD = r"(?<![A-Za-z0-9])(?:{})(?![0-9])"


@lru_cache(maxsize=256)
def profiles_of(model: str, memory_bytes: int = 0) -> tuple[MigProfile, ...]:
    """Return the profiles of a product, the largest first; () for one without MIG, or in doubt which of two it is.

    `memory_bytes` of the whole GPU tells products of one name apart; where it is 0 the name has to.

    >>> [p.name for p in profiles_of("NVIDIA A100-SXM4-40GB")][-2:]
    ['1g.5gb', '1g.5gb+me']
    """
    if re.search(_WORD.format("A30"), model):
        return _largest_first(_rows(_A30, {1: 5.81, 2: 11.69, 4: 23.5}))
    if "RTX PRO 6000" in model:
        server = "Server" in model
        return _largest_first(
            _rows(_RTX_PRO_6000, {3: 23.12, 6: 46.5, 12: 93.38} if server else {3: 23.62, 6: 47.38, 12: 95.0})
        )
    families = [f for f in _FAMILIES if re.search(_WORD.format(f.pattern), model)]
    family = _nearest(families, model, memory_bytes)
    return () if family is None else _largest_first(_eight(family))


def assumed(gpu: Gpu, *, enabled: bool) -> MigGeometry | None:
    """Return the geometry of an uncut GPU by its product, None for one that cannot be cut as far as is known."""
    profiles = profiles_of(gpu.model, gpu.memory_bytes)
    return MigGeometry(enabled=enabled, pending=enabled, profiles=profiles) if profiles else None


def _nearest(families: Sequence[_Family], model: str, memory_bytes: int) -> _Family | None:
    """Return the family whose memory is nearest, within an eighth; without a size, the only one there is."""
    said = [int(size) * _GIB for size in _NAMED_GB.findall(model)] if "GH200" not in model else []
    size = memory_bytes or (said[0] if said else 0)
    if not size and "NVL" in model:
        size = max((f.gb[3] for f in families if f.gb[3] in (94, 141)), default=0) * _GIB
    if not size:
        return families[0] if len(families) == 1 else None
    found = min(families, key=lambda f: abs(f.gb[3] * _GIB - size), default=None)
    return found if found is not None and 8 * abs(found.gb[3] * _GIB - size) <= size else None


def _eight(family: _Family) -> list[MigProfile]:
    one, two, four, seven = family.gb
    names = (
        f"1g.{one}gb",
        f"1g.{one}gb+me",
        f"1g.{two}gb",
        f"2g.{two}gb",
        f"3g.{four}gb",
        f"4g.{four}gb",
        f"7g.{seven}gb",
    )
    memory: dict[int, int] = dict(zip((1, 2, 4, 8), family.memory, strict=True))
    engines = family.engines
    return [
        MigProfile(
            id=number,
            name=names[at],
            size=size,
            starts=starts,
            most=most,
            memory_bytes=memory[size],
            multiprocessors=family.multiprocessors[at],
            compute=compute,
            copy_engines=engines.copy[at],
            decoders=engines.decoders[at],
            jpegs=engines.jpegs[at],
            ofas=engines.ofas[at],
        )
        for at, (number, starts, size, most, compute) in enumerate(_EIGHT)
    ]


def _rows(rows: Sequence[_Row], gib: dict[int, float]) -> list[MigProfile]:
    """`gib` is the memory of an instance by its units."""
    return [
        MigProfile(
            id=number,
            name=name,
            size=size,
            starts=starts,
            most=most,
            memory_bytes=round(gib[size] * _GIB),
            multiprocessors=sm,
            compute=compute,
            copy_engines=copy,
            decoders=decoders,
            encoders=encoders,
            jpegs=jpegs,
            ofas=ofas,
        )
        for number, name, starts, size, most, compute, sm, copy, decoders, encoders, jpegs, ofas in rows
    ]


def _largest_first(profiles: list[MigProfile]) -> tuple[MigProfile, ...]:
    return tuple(sorted(profiles, key=lambda p: (-p.size, p.id)))


def completed(geometry: MigGeometry, gpu: Gpu) -> MigGeometry:
    """Return the geometry with profiles, or their engines, from the tables where its source did not say.

    A profile that the source has is never changed where it says something, and none is added to those it has.
    """
    table = {p.id: p for p in profiles_of(gpu.model, gpu.memory_bytes)}
    if not geometry.profiles:
        return replace(geometry, profiles=tuple(table.values()))
    return replace(geometry, profiles=tuple(_completed(p, table.get(p.id)) for p in geometry.profiles))


def _completed(said: MigProfile, known: MigProfile | None) -> MigProfile:
    if known is None or (said.size, said.starts) != (known.size, known.starts):
        return said
    silent = not (said.decoders or said.encoders or said.jpegs or said.ofas or said.copy_engines)
    return replace(
        said,
        name=said.name or known.name,
        memory_bytes=said.memory_bytes or known.memory_bytes,
        multiprocessors=said.multiprocessors or known.multiprocessors,
        compute=said.compute or known.compute,
        copy_engines=known.copy_engines if silent else said.copy_engines,
        decoders=known.decoders if silent else said.decoders,
        encoders=known.encoders if silent else said.encoders,
        jpegs=known.jpegs if silent else said.jpegs,
        ofas=known.ofas if silent else said.ofas,
    )
