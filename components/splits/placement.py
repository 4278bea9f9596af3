"""Places groups in bins (splits, folds) so that patches and groups of every class come near their targets.

The algorithm, in integers throughout so that every platform gives the same answer:

1. Each group becomes a vector of shares: of the patches of each class, of the groups that hold each class, of
   all patches and of all groups. The cost of a placement is the sum over bins and entries of (sum - target)^2
   / ratio: the chi-square distance, under which a small bin may miss its target by less than a large one.
2. Free groups with equal counts are interchangeable and travel in blocks that shrink down to single groups,
   so that 220,000 one-image groups are about a thousand decisions.
3. Greedy: rarest class first, then large before small (by powers of two; within one the seed decides), each
   to the bin that raises the cost least.
4. Improvement: moves, then swaps, as long as they bring a class to a bin that lacks it or lower the cost.
5. Where a class is still missing from a bin that requires it, an exact search looks for any placement that
   has all classes, and steps 3 and 4 are repeated around what it found.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from components.core.array_types import Bools, Integers

_SCALE = 1 << 20  # a share of 1; squares times weights stay below 2^62
_MAX_STEPS = 400
_MAX_SWAP_ITEMS = 512  # swaps look at pairs; with more items than this single moves are fine enough
_MAX_SEARCH_NODES = 20_000
_FREE = -1


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is to be placed; rows are sorted by group, so that the order of input does not matter.

    Attributes:
        names: Group ids, sorted.
        counts: int64 [groups, classes], patches of each class.
        ratios: Target of each bin, in any unit (integers; only their proportions count).
        seed: Decides between groups of about equal size.
        fixed: int64 [groups], bin of a group that may not move, -1 for a free one.
        required: bool [classes, bins]: this bin needs at least one group with this class.
        balanced: bool [groups]: False for fixed groups that are extra, outside the target shares.
    """

    names: Sequence[str]
    counts: Integers
    ratios: Sequence[int]
    seed: int
    fixed: Integers
    required: Bools
    balanced: Bools

    def take(self, rows: Integers) -> Problem:
        """The same for some of the groups: intp [groups to keep], ascending."""
        return dataclasses.replace(
            self,
            names=[self.names[row] for row in rows],
            counts=self.counts[rows],
            fixed=self.fixed[rows],
            balanced=self.balanced[rows],
        )


def apportion(problem: Problem) -> tuple[Integers, Bools]:
    """Places every free group.

    Args:
        problem: What is to be placed.

    Returns:
        int64 [groups], the bin of each group; bool [classes, bins], what is required but could not be had.
    """
    items = _Items.of(problem)
    state = _place(_State.of(problem, items), items)
    if state.missing().any():
        seeds = _search_cover(_State.of(problem, items), items)
        if seeds is not None:
            start = _State.of(problem, items)
            for item, bin_ in seeds.items():
                start.put(item, bin_)
            state = _place(start, items)
    bins = problem.fixed.copy()
    for members, bin_ in zip(items.members, state.bins, strict=True):
        bins[members] = bin_
    return bins, state.missing()


@dataclasses.dataclass(frozen=True)
class _Items:
    """Blocks of interchangeable free groups, in the order in which they are placed.

    Attributes:
        members: intp [groups of the item] for each item, rows of the problem.
        shares: int64 [items, features], see `_shares`.
        holds: int64 [items, classes], how many of the item's groups hold the class.
    """

    members: list[Integers]
    shares: Integers
    holds: Integers

    @classmethod
    def of(cls, problem: Problem) -> _Items:
        free = np.flatnonzero(problem.fixed == _FREE)
        shares = _shares(problem)
        if not len(free):
            return cls([], shares[:0], problem.counts[:0])
        ranks = np.array([_rank(problem.seed, problem.names[row]) for row in free], dtype=np.uint64)
        profiles = np.unique(problem.counts[free], axis=0, return_inverse=True)[1].reshape(-1)
        order = np.lexsort((free, ranks, profiles))
        borders = np.flatnonzero(np.diff(profiles[order])) + 1
        blocks = [block for profile in np.split(order, borders) for block in _blocks(profile)]

        present = problem.counts > 0
        rarity = np.argsort(np.argsort(present.sum(axis=0), kind="stable"), kind="stable")
        first = free[[block[0] for block in blocks]]
        sizes = np.array([len(block) for block in blocks])[:, None]
        block_shares, block_holds = shares[first] * sizes, present[first] * sizes
        rarest = np.where(present[first], rarity, len(rarity)).min(axis=1, initial=len(rarity))
        magnitude = [int(total).bit_length() for total in block_shares.sum(axis=1)]
        keys = sorted(
            range(len(blocks)),
            key=lambda i: (rarest[i], -magnitude[i], int(ranks[blocks[i][0]]), int(first[i])),
        )
        return cls([free[blocks[i]] for i in keys], block_shares[keys], block_holds[keys])


def _rank(seed: int, name: str) -> int:
    # surrogatepass: ids from undecodable file names hold lone surrogates
    digest = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def _blocks(rows: Integers) -> list[Integers]:
    """Cuts interchangeable groups into blocks of at most 1/64 of what is left, down to single groups."""
    blocks, start = [], 0
    while start < len(rows):
        size = max(1, (len(rows) - start) // 64)
        blocks.append(rows[start : start + size])
        start += size
    return blocks


def _shares(problem: Problem) -> Integers:
    """Each group's part of every total, in units of 1/_SCALE.

    Returns:
        int64 [groups, features]; features are patches of each class, groups with each class, all patches, all groups.
    """
    counts = problem.counts
    ones = np.ones((len(counts), 1), np.int64)
    parts = np.hstack([counts, counts > 0, counts.sum(axis=1, keepdims=True), ones]).astype(np.int64)
    parts[~problem.balanced] = 0
    totals = np.maximum(parts.sum(axis=0), 1)
    return np.where(parts > 0, np.maximum(parts * _SCALE // totals, 1), 0)


@dataclasses.dataclass
class _State:
    """A placement under construction.

    Attributes:
        items: What is placed.
        bins: int64 [items], -1 where not yet placed.
        off: int64 [features, bins], sum of shares minus target.
        weights: int64 [bins], 64 / ratio.
        present: int64 [classes, bins], groups with the class.
        required: bool [classes, bins], see `Problem`.
    """

    items: _Items
    bins: Integers
    off: Integers
    weights: Integers
    present: Integers
    required: Bools

    @classmethod
    def of(cls, problem: Problem, items: _Items) -> _State:
        ratios = np.array(problem.ratios, dtype=np.int64)
        shares = _shares(problem)
        off = -(shares.sum(axis=0)[:, None] * ratios // ratios.sum())
        present = np.zeros((problem.counts.shape[1], len(ratios)), np.int64)
        for bin_ in range(len(ratios)):
            here = problem.fixed == bin_
            off[:, bin_] += shares[here].sum(axis=0)
            present[:, bin_] = (problem.counts[here] > 0).sum(axis=0)
        bins = np.full(len(items.members), _FREE, np.int64)
        return cls(items, bins, off, 64 * ratios.sum() // ratios, present, problem.required)

    def missing(self) -> Bools:
        """Bool [classes, bins]: required and not there."""
        missing: Bools = self.required & (self.present == 0)
        return missing

    def put(self, item: int, bin_: int) -> None:
        """Moves an item to a bin, from wherever it is."""
        old = self.bins[item]
        if old != _FREE:
            self.off[:, old] -= self.items.shares[item]
            self.present[:, old] -= self.items.holds[item]
        self.off[:, bin_] += self.items.shares[item]
        self.present[:, bin_] += self.items.holds[item]
        self.bins[item] = bin_


def _place(state: _State, items: _Items) -> _State:
    """Steps 3 and 4 of the algorithm, in place: each free item to its best bin, then moves and swaps."""
    movable = np.flatnonzero(state.bins == _FREE)
    squares = (items.shares**2).sum(axis=1)
    for item in movable:
        rise = state.weights * (2 * (items.shares[item] @ state.off) + squares[item])
        state.put(item, int(rise.argmin()))
    for _ in range(_MAX_STEPS):
        if not (_move(state, squares) or _swap(state, squares)):
            break
    return state


def _move(state: _State, squares: Integers) -> bool:
    """Does the best single move, if any: first to bring classes where they miss, then to lower the cost."""
    if not len(state.bins):
        return False
    shares, holds, rows = state.items.shares, state.items.holds, np.arange(len(state.bins))
    pull = 2 * (shares @ state.off)
    enter = state.weights * (pull + squares[:, None])
    leave = state.weights[state.bins] * (squares - pull[rows, state.bins])
    cost = enter + leave[:, None]
    has = (holds > 0).astype(np.int64)
    last = (has > 0) & (holds == state.present.T[state.bins]) & state.required.T[state.bins]
    gaps = last.sum(axis=1)[:, None] - has @ state.missing().astype(np.int64)
    cost[rows, state.bins] = gaps[rows, state.bins] = 0
    fewest = gaps.min()
    better = (gaps == fewest) if fewest < 0 else (gaps == 0) & (cost < 0)
    if not better.any():
        return False
    item, bin_ = divmod(int(np.where(better, cost, np.iinfo(np.int64).max).argmin()), cost.shape[1])
    state.put(item, bin_)
    return True


def _swap(state: _State, squares: Integers) -> bool:
    """Does the best exchange of two items that lowers the cost and makes no class miss, if there is one."""
    shares, holds = state.items.shares, state.items.holds
    if len(shares) > _MAX_SWAP_ITEMS:
        return False
    found: tuple[int, int, int] | None = None
    for first in range(len(state.weights)):
        for second in range(first + 1, len(state.weights)):
            here, there = np.flatnonzero(state.bins == first), np.flatnonzero(state.bins == second)
            if not len(here) or not len(there):
                continue
            slope = state.weights * state.off
            pull = shares @ (2 * (slope[:, first] - slope[:, second]))
            apart = squares[here][:, None] + squares[there] - 2 * (shares[here] @ shares[there].T)
            cost = pull[there] - pull[here][:, None] + (state.weights[first] + state.weights[second]) * apart
            # A class would be missing if the leaving item holds its last groups and the other has none.
            ours, theirs = holds[here][:, None, :], holds[there][None, :, :]
            alone_here = (ours == state.present[:, first]) & state.required[:, first] & (ours > 0)
            alone_there = (theirs == state.present[:, second]) & state.required[:, second] & (theirs > 0)
            if alone_here.any() or alone_there.any():
                breaks = (alone_here & (theirs == 0)).any(axis=2) | (alone_there & (ours == 0)).any(axis=2)
                cost = np.where(breaks, 0, cost)
            best = int(cost.argmin())
            i, j = divmod(best, cost.shape[1])
            if cost[i, j] < 0 and (found is None or cost[i, j] < found[0]):
                found = (int(cost[i, j]), int(here[i]), int(there[j]))
    if found is None:
        return False
    _, i, j = found
    first, second = int(state.bins[i]), int(state.bins[j])
    state.put(i, second)
    state.put(j, first)
    return True


def _search_cover(state: _State, items: _Items) -> dict[int, int] | None:
    """Looks for any choice of items that leaves no required class missing.

    Complete (None then means that there is none) unless it takes more than `_MAX_SEARCH_NODES` steps: the
    problem is a graph colouring and may not be solvable in reasonable time, but data sets have few kinds of
    groups.
    """
    kinds: dict[bytes, list[int]] = {}
    for item in reversed(range(len(items.members))):  # small ones first: they disturb the balance least
        kinds.setdefault((items.holds[item] > 0).tobytes(), []).append(item)
    chosen: dict[int, int] = {}
    nodes = 0

    def search(missing: Bools) -> bool:
        nonlocal nodes
        nodes += 1
        if not missing.any():
            return True
        if nodes > _MAX_SEARCH_NODES:
            return False
        useful = [(bits, members) for bits, members in kinds.items() if members]
        masks = [np.frombuffer(bits, dtype=bool) for bits, _ in useful]
        supply = sum(mask * len(members) for mask, (_, members) in zip(masks, useful, strict=True))
        if not np.all(missing.sum(axis=1) <= supply):
            return False
        slack = np.where(missing.any(axis=1), supply - missing.sum(axis=1), np.iinfo(np.int64).max)
        class_ = int(slack.argmin())
        bin_ = int(np.flatnonzero(missing[class_])[0])
        for mask, (_, members) in zip(masks, useful, strict=True):
            if mask[class_]:
                item = members.pop(0)
                chosen[item] = bin_
                after = missing.copy()
                after[mask, bin_] = False
                if search(after):
                    return True
                del chosen[item]
                members.insert(0, item)
        return False

    return chosen if search(state.missing()) else None
