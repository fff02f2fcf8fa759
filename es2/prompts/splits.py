"""Splits by near-twin cluster over all prompt sets together (method.md §3).

A cluster is a connected component of the graph that joins two prompts whose content words have a Jaccard
index of at least 0.5. It goes whole to one split, in every set that holds a part of it; a set that lacks that
split drops its part.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from es2.errors import UserError
from es2.prompts.cleaning import content_words, drop_duplicates

NEAR_TWIN = 0.5
SPLITS = ("defence", "attack", "validation", "test")
REST = "rest"
_BLOCK = 1000  # rows of the Jaccard matrix at a time: memory stays small with 10,000 prompts
_HEAVY = 0.05  # a family of paraphrases above this share of a split would make it say one thing many times
_DROPPED, _UNUSED = "dropped_near_twin", "unused"


@dataclass(frozen=True)
class _Group:
    """The part of one cluster that lies in one set."""

    cluster: int
    rank: str  # seeded hash of the cluster: the order in which clusters are placed
    size: int
    source: str  # the source of most of its prompts


def jaccard_blocks(texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (row, column, Jaccard index) of all pairs row < column that share a content word, in blocks."""
    sets = [content_words(text) for text in texts]
    column_of: dict[str, int] = {}
    columns = [column_of.setdefault(word, len(column_of)) for words in sets for word in sorted(words)]
    lengths = np.array([len(words) for words in sets], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ones = np.ones(len(columns), dtype=np.int32)
    shape = (len(sets), max(len(column_of), 1))
    has = csr_matrix((ones, np.array(columns, dtype=np.int64), starts), shape=shape)
    transposed = has.T.tocsr()
    for start in range(0, len(sets), _BLOCK):
        shared = (has[start : start + _BLOCK] @ transposed).tocoo()
        rows, columns_, common = shared.row + start, shared.col, shared.data
        upper = rows < columns_
        rows, columns_, common = rows[upper], columns_[upper], common[upper]
        yield rows, columns_, common / (lengths[rows] + lengths[columns_] - common)


def cluster_prompts(texts: Sequence[str], keys: Sequence[str], threshold: float = NEAR_TWIN) -> np.ndarray:
    """Return the near-twin cluster of each text: int64 [n], numbered from 0 in the order of their least keys.

    `keys` are the prompts' ids; with them the numbers do not depend on the order of the texts.
    """
    n = len(texts)
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    twins = [(r[j >= threshold], c[j >= threshold]) for r, c, j in jaccard_blocks(texts)]
    rows, columns = (np.concatenate(part) for part in zip(*twins, strict=True))
    graph = csr_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    least = pd.Series(list(keys)).groupby(component).min().sort_values()
    number = {old: new for new, old in enumerate(least.index)}
    return np.array([number[old] for old in component], dtype=np.int64)


def split_sets(
    prompts: pd.DataFrame, wanted: Mapping[str, Mapping[str, int | str]], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Assign every prompt to a split of its set.

    `prompts` has the columns prompt_id, prompt, set, label and source; `wanted` gives for each set the size
    of its splits, a number or `rest`. Returns the prompts that have a split, with the columns cluster and
    split, and the summary (set, split, n, asked; also the numbers left out, by reason). Inside a split the
    rows stand in a seeded order, so that the first n are a fair sample.

    The larger set is served first. The result depends on texts, sizes and seed, not on the order of rows or a
    generator's state. A size is missed only where no cluster that is left fits: then n and asked differ.
    Raises UserError for a set that is empty or too small for what its splits ask.
    """
    distinct = prompts.drop_duplicates(["set", "prompt_id"]).groupby("set").size()
    for name in wanted:
        if distinct.get(name, 0) == 0:
            raise UserError(f"prompt_sets.{name}: no prompt was read: give it a source that holds prompts.")
    ranked = sorted(wanted, key=lambda name: (-distinct[name], name))
    kept = drop_duplicates(prompts, ranked)
    kept = kept.assign(cluster=cluster_prompts(list(kept.prompt), list(kept.prompt_id)), split="")
    groups = _groups(kept, seed)
    taken: dict[int, str] = {}
    for name in ranked:
        assigned = _assign(name, groups.get(name, []), wanted[name], taken, int(distinct[name]))
        mine = kept["set"] == name
        kept.loc[mine, "split"] = kept.loc[mine, "cluster"].map(assigned)
        taken.update({c: s for c, s in assigned.items() if s in SPLITS and c not in taken})
    return _used(kept, wanted, seed), _summary(prompts, kept, wanted)


def _hash(seed: int, key: str) -> str:
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def _groups(prompts: pd.DataFrame, seed: int) -> dict[str, list[_Group]]:
    """Return each set's parts of clusters, in the seeded order."""
    keys = prompts.groupby("cluster")["prompt_id"].min()
    groups: dict[str, list[_Group]] = defaultdict(list)
    for (name, cluster), rows in prompts.groupby(["set", "cluster"])["source"]:
        counts = rows.value_counts()
        source = min(counts.index[counts == counts.max()])
        groups[name].append(_Group(int(cluster), _hash(seed, keys[cluster]), len(rows), source))
    return {name: sorted(parts, key=lambda group: group.rank) for name, parts in groups.items()}


def _assign(
    name: str,
    groups: list[_Group],
    wanted: Mapping[str, int | str],
    taken: Mapping[int, str],
    distinct: int,
) -> dict[int, str]:
    """Return the split of each cluster of one set; `dropped_near_twin` or `unused` where it gets none.

    `taken` holds the splits that larger sets gave, `distinct` counts the set's prompts, repeats too.
    """
    fixed = {split: int(wanted[split]) for split in SPLITS if wanted.get(split, REST) != REST}
    rest = next((split for split in SPLITS if wanted.get(split) == REST), None)
    room = dict(fixed)
    result: dict[int, str] = {}
    free: list[_Group] = []
    for group in groups:
        split = taken.get(group.cluster)
        if split is None:
            free.append(group)
        elif split == rest or group.size <= room.get(split, 0):
            _put(group, split, room, result)
        else:
            result[group.cluster] = _DROPPED
    available = sum(group.size for group in groups if result.get(group.cluster) != _DROPPED)
    asked = sum(fixed.values()) + (rest is not None)
    if available < asked:
        raise UserError(
            f"prompt_sets.{name}: its splits ask for {asked} prompts and there are {available} "
            f"({distinct - available} more repeat prompts of a larger set, or are near-twins of prompts "
            "in another split of it): ask for fewer or add a source."
        )
    _fill(free, fixed, rest, room, result)
    if empty := [s for s in (*fixed, rest) if s and wanted[s] != 0 and s not in result.values()]:
        raise UserError(f"prompt_sets.{name}.splits.{empty[0]}: no near-twin cluster fits: change the sizes.")
    return result


def _put(group: _Group, split: str, room: dict[str, int], result: dict[int, str]) -> None:
    result[group.cluster] = split
    if split in room:
        room[split] -= group.size


def _fill(
    free: list[_Group],
    fixed: Mapping[str, int],
    rest: str | None,
    room: dict[str, int],
    result: dict[int, str],
) -> None:
    """Place the clusters that no larger set has placed.

    First those that are heavy for every split, into the widest; then each source's share; then whatever fits.
    """
    sizes = {**fixed, **({rest: sum(group.size for group in free) - sum(fixed.values())} if rest else {})}
    widest = max(sizes, key=lambda split: sizes[split])
    for group in sorted(free, key=lambda group: (-group.size, group.rank)):
        if _HEAVY * sizes[widest] < group.size <= room.get(widest, 0):
            _put(group, widest, room, result)
    for split in fixed:
        left = [group for group in free if group.cluster not in result]
        quota = _shares(left, room[split])
        for group in left:
            if group.size <= min(quota[group.source], max(1, _HEAVY * sizes[split])):
                quota[group.source] -= group.size
                _put(group, split, room, result)
    for split in fixed:
        for group in free:
            if group.cluster not in result and group.size <= room[split]:
                _put(group, split, room, result)
    for group in free:
        result.setdefault(group.cluster, rest or _UNUSED)


def _shares(groups: Sequence[_Group], size: int) -> dict[str, int]:
    """Divide `size` among the sources in proportion to their prompts, by largest remainders."""
    counts: dict[str, int] = defaultdict(int)
    for group in groups:
        counts[group.source] += group.size
    total = sum(counts.values()) or 1
    exact = {source: size * count / total for source, count in sorted(counts.items())}
    shares = {source: int(value) for source, value in exact.items()}
    by_remainder = sorted(exact, key=lambda source: shares[source] - exact[source])
    for source in by_remainder[: size - sum(shares.values())]:
        shares[source] += 1
    return shares


def _used(kept: pd.DataFrame, wanted: Mapping[str, object], seed: int) -> pd.DataFrame:
    """Return the rows that have a split, in the order of sets, splits and seeded hash."""
    used = kept[kept["split"].isin(SPLITS)]
    place_of_set = {name: place for place, name in enumerate(wanted)}
    keys = pd.DataFrame({"set": used["set"].map(place_of_set), "split": used["split"].map(SPLITS.index)})
    keys["hash"] = [_hash(seed, key) for key in used["prompt_id"]]
    return used.loc[keys.sort_values(["set", "split", "hash"]).index].reset_index(drop=True)


def _summary(read: pd.DataFrame, kept: pd.DataFrame, wanted: Mapping[str, Mapping[str, int | str]]) -> pd.DataFrame:
    """Count each set's splits beside what was asked, and what was left out for which reason."""
    rows: list[dict[str, object]] = []
    for name, sizes in wanted.items():
        mine = kept.loc[kept["set"] == name, "split"]
        for split in (split for split in SPLITS if split in sizes):
            rows.append({"set": name, "split": split, "n": int((mine == split).sum()), "asked": sizes[split]})
        left_out = {
            "dropped_duplicate": int((read["set"] == name).sum()) - len(mine),
            _DROPPED: int((mine == _DROPPED).sum()),
            _UNUSED: int((mine == _UNUSED).sum()),
        }
        rows.extend({"set": name, "split": reason, "n": n, "asked": ""} for reason, n in left_out.items())
    return pd.DataFrame(rows, columns=["set", "split", "n", "asked"])
