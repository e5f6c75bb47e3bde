"""Counter-based random numbers: each value is a hash of its key, and does not depend on earlier draws.

Every number is addressed by *what it is for* (episode, step, row, slot). So single and vectorised environments agree
to the bit, and row ``i`` of a generated market is the same in a market of any size. The mixer is the finaliser of
SplitMix64 (Steele, Lea and Flood, 2014). All integer arithmetic is modulo 2**64, so hashes, and the uniform numbers and
integers made from them, are the same on every platform.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bounded", "hash64", "normal", "normal_cdf", "permute", "rehash64", "text_key", "uniform"]

U64 = NDArray[np.uint64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB
_S30, _S27, _S31, _S11 = (np.uint64(shift) for shift in (30, 27, 31, 11))
_U_GOLDEN, _U_M1, _U_M2 = (np.uint64(constant) for constant in (_GOLDEN, _M1, _M2))
_FEISTEL_ROUNDS = 6
_FEW = 12
"""Up to this many numbers are permuted again one by one, which is faster than in a short array."""


def hash64(*parts: int | np.integer | NDArray[np.integer]) -> U64:
    """Hashes integers and arrays of them, element by element, to uniform 64-bit numbers.

    Args:
        *parts: Integers (tags, seeds), also NumPy's, and integer arrays of at least one dimension, broadcast against
          each other. Order matters.

    Returns:
        uint64 array of the broadcast shape; shape (1,) if every part is a single integer.
    """
    prefix = 0
    state: U64 | None = None
    for part in parts:
        if state is not None:
            state = rehash64(state, part)
        elif isinstance(part, np.ndarray):
            state = rehash64(part.astype(np.uint64, copy=False), prefix)
        else:
            prefix = _mix_int(((prefix ^ (operator.index(part) & _MASK)) + _GOLDEN) & _MASK)
    return np.full((1,), prefix, dtype=np.uint64) if state is None else state


def rehash64(keys: U64, part: int | np.integer | NDArray[np.integer]) -> U64:
    """Hashes one more part: ``rehash64(hash64(a, b), c)`` is ``hash64(a, b, c)``, and the first hash can be reused."""
    state = keys ^ _as_u64(part)
    state += _U_GOLDEN
    _mix_in_place(state, np.empty_like(state))
    return state


def uniform(keys: U64) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each key, exact to 53 bits."""
    return (keys >> _S11).astype(np.float64) * 2.0**-53


def bounded(keys: U64, n: int | NDArray[np.integer]) -> NDArray[np.int64]:
    """Uniform integers in [0, n), one for each key; ``n`` below 2**53."""
    return (uniform(keys) * n).astype(np.int64)


def normal(keys: U64) -> NDArray[np.float64]:
    """Standard normal numbers, one for each key (Box and Muller, 1958)."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform(keys)))
    return radius * np.cos(2.0 * np.pi * uniform(hash64(keys, 1)))


def normal_cdf(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability that a standard normal number lies below each of the values, of any shape."""
    erf = np.fromiter((math.erf(value) for value in (values / math.sqrt(2)).ravel()), np.float64, values.size)
    return 0.5 * (1 + erf.reshape(values.shape))


def permute(keys: U64, positions: NDArray[np.integer], n: int) -> NDArray[np.int64]:
    """The images of positions under a random permutation of ``range(n)`` that depends on the key.

    The first ``k`` positions of one key give ``k`` draws without replacement. The permutation is never built, and no
    loop over rows is needed. Each image is computed by a Feistel network over ``Z_a x Z_b``, with ``a * b`` at least
    ``n`` and close to it. The network is applied again until the result is below ``n`` (Black and Rogaway, 2002).

    Not all permutations of a small range are equally frequent. Each value is equally likely at each position, to within
    6 %; but for ``n`` from 5 to 20, two given values at two given positions can be about a third more or less
    frequent than in a uniform permutation. For larger ``n`` the differences shrink. More rounds would shrink them
    too, but would change every episode of ``JobRec-v0``.

    Args:
        keys: uint64 of at least one dimension, broadcast against ``positions``.
        positions: Integers in [0, n).
        n: Size of the permuted range, at least 1.

    Returns:
        int64 array of the broadcast shape; distinct for distinct positions of one key.
    """
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    # The part of a round's hash that is the same for all positions of a key is computed once, at the keys' own shape.
    keys = keys[(None,) * max(np.ndim(positions) - np.ndim(keys), 0)]
    rounds = np.arange(_FEISTEL_ROUNDS).reshape(-1, *[1] * np.ndim(keys))
    round_keys = hash64(keys[None], rounds)
    values = _feistel(round_keys, positions.astype(np.uint64), a, b)
    # The places are found on one flat axis: with several axes, numpy takes ten times as long.
    outside = np.flatnonzero(values >= n)
    if len(outside):
        where = np.unravel_index(outside, values.shape)
        of_all_rounds: tuple[Any, ...] = (slice(None), *where)
        keys_outside = np.broadcast_to(round_keys, (_FEISTEL_ROUNDS, *values.shape))[of_all_rounds]
        walked = values[where]
        pending = np.arange(len(walked))
        while len(pending) > _FEW:
            walked[pending] = moved = _feistel(keys_outside[:, pending], walked[pending], a, b)
            pending = pending[moved >= n]
        for place in pending.tolist():
            walked[place] = _walked(keys_outside[:, place].tolist(), int(walked[place]), a, b, n)
        values[where] = walked
    return values.view(np.int64)  # all are below `n`


def text_key(text: str) -> int:
    """A stable 64-bit key of a text (FNV-1a), the same in every process, unlike ``hash``."""
    key = 0xCBF29CE484222325
    for byte in text.encode():
        key = ((key ^ byte) * 0x100000001B3) & _MASK
    return key


def _feistel(round_keys: U64, values: U64, a: int, b: int) -> U64:
    """One pass over ``Z_a x Z_b``; ``round_keys`` (rounds, ...) against ``values`` (...)."""
    moduli = np.uint64(a), np.uint64(b)
    left = values // moduli[1]
    halves = [left, values - left * moduli[1]]
    spare = np.empty(np.broadcast_shapes(round_keys.shape[1:], values.shape), np.uint64)
    for number, key in enumerate(round_keys):
        side = number % 2
        modulus = moduli[side]
        shift = key ^ halves[1 - side]
        shift += _U_GOLDEN
        _mix_in_place(shift, spare)
        # The remainder is computed from a quotient: numpy's `//` by one number is many times faster than its `%`.
        np.floor_divide(shift, modulus, out=spare)
        spare *= modulus
        shift -= spare
        # `shift` and the half are below the modulus, so one subtraction reduces their sum. Where the sum is below the
        # modulus already, the difference wraps around to a huge number, and the minimum keeps the sum.
        shift += halves[side]
        np.subtract(shift, modulus, out=spare)
        halves[side] = np.minimum(shift, spare, out=shift)
    return halves[0] * moduli[1] + halves[1]


def _walked(round_keys: list[int], value: int, a: int, b: int, n: int) -> int:
    """:func:`_feistel` of one value, again and again until it lands below ``n``."""
    moduli = a, b
    while value >= n:
        halves = [value // b, value % b]
        for number, key in enumerate(round_keys):
            side = number % 2
            shift = _mix_int(((key ^ halves[1 - side]) + _GOLDEN) & _MASK)
            halves[side] = (halves[side] + shift) % moduli[side]
        value = halves[0] * b + halves[1]
    return value


def _as_u64(part: int | np.integer | NDArray[np.integer]) -> U64 | np.uint64:
    return np.uint64(part & _MASK) if isinstance(part, int) else part.astype(np.uint64, copy=False)


def _mix_in_place(x: U64, spare: U64) -> None:
    x ^= np.right_shift(x, _S30, out=spare)
    x *= _U_M1
    x ^= np.right_shift(x, _S27, out=spare)
    x *= _U_M2
    x ^= np.right_shift(x, _S31, out=spare)


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 30)) * _M1) & _MASK
    x = ((x ^ (x >> 27)) * _M2) & _MASK
    return x ^ (x >> 31)
