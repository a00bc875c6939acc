//! Proofs from stored roots of subtrees: a few hundred hashes for a log of any length.
//!
//! Besides the leaves, the root of every perfect subtree of 256, 256², 256³… leaves is kept, as C2SP tlog-tiles does.
//! Along the path of one leaf, and along the right edge of the tree, the 256 hashes of one tile on each of those levels
//! give every root that a proof of RFC 6962 is made of. What is stored is not believed: a proof is checked against the
//! signed root before it leaves the house.

use std::collections::BTreeMap;

use super::tree::{Hash, node_hash};

/// Levels between two that are stored: a tile has `2^8` hashes.
pub const STEP: u32 = 8;

/// Consecutive roots on one stored level: leaves on level 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// 0, 8, 16…
    pub level: u32,
    /// The first, counted in subtrees of this level.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
}

/// Stored roots, as many as a proof needs.
#[derive(Clone, Debug, Default)]
pub struct Tiles(BTreeMap<(u32, u64), Hash>);

impl Tiles {
    /// Takes in one root.
    pub fn insert(&mut self, level: u32, place: u64, hash: Hash) {
        self.0.insert((level, place), hash);
    }

    /// Takes in the roots of others.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Lets go of a span.
    pub fn forget(&mut self, span: Span) {
        for place in span.from..span.to {
            self.0.remove(&(span.level, place));
        }
    }

    /// A stored root, if it is here.
    pub fn get(&self, level: u32, place: u64) -> Option<Hash> {
        self.0.get(&(level, place)).copied()
    }

    /// Root of the perfect subtree of `2^level` leaves that begins at leaf `place * 2^level`.
    fn subtree(&self, level: u32, place: u64) -> Option<Hash> {
        if level.is_multiple_of(STEP) {
            return self.get(level, place);
        }
        let left = self.subtree(level - 1, place * 2)?;
        let right = self.subtree(level - 1, place * 2 + 1)?;
        Some(node_hash(&left, &right))
    }

    /// Root over leaves `from` to before `to`, where `from` is a multiple of the least power of two that holds them.
    fn range(&self, from: u64, to: u64) -> Option<Hash> {
        let mut at = from;
        let mut peaks = Vec::new();
        while at < to {
            let level = (to - at).ilog2();
            peaks.push(self.subtree(level, at >> level)?);
            at += 1 << level;
        }
        let last = peaks.pop()?;
        Some(peaks.into_iter().rev().fold(last, |right, left| node_hash(&left, &right)))
    }

    /// The hashes that lead from leaf `index` to the root over the first `size` (RFC 6962 section 2.1.1); `None` where
    /// a needed root is not here.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size {
            return None;
        }
        let (mut from, mut to, mut proof) = (0, size, Vec::new());
        while to - from > 1 {
            let middle = from + split(to - from);
            if index < middle {
                proof.push(self.range(middle, to)?);
                to = middle;
            } else {
                proof.push(self.range(from, middle)?);
                from = middle;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// The hashes that show that the tree of the first `old` leaves became the one over `size` (RFC 6962 section
    /// 2.1.2); `None` where a needed root is not here, or `old` is zero or beyond.
    pub fn consistency_proof(&self, old: u64, size: u64) -> Option<Vec<Hash>> {
        if old == 0 || old > size {
            return None;
        }
        let (mut from, mut to, mut whole, mut proof) = (0, size, true, Vec::new());
        while old < to {
            let middle = from + split(to - from);
            if old <= middle {
                proof.push(self.range(middle, to)?);
                to = middle;
            } else {
                proof.push(self.range(from, middle)?);
                from = middle;
                whole = false;
            }
        }
        if !whole {
            proof.push(self.range(from, to)?);
        }
        proof.reverse();
        Some(proof)
    }

    /// The root over the first `size` leaves.
    pub fn root(&self, size: u64) -> Option<Hash> {
        self.range(0, size)
    }
}

/// Largest power of two below `size`, which is 2 at least.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The spans that a proof about leaf `index` needs in a tree of `size`: on each stored level the tile in its path and
/// the one at the right edge. For a consistency proof the leaf is the old tree's last.
pub fn spans(index: u64, size: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut level = 0;
    loop {
        // Complete subtrees of this level.
        let count = size >> level;
        if count == 0 {
            break;
        }
        let (path, edge) = (index >> level >> STEP, (count - 1) >> STEP);
        for tile in [Some(path), Some(edge).filter(|edge| *edge != path)].into_iter().flatten() {
            let (from, to) = (tile << STEP, ((tile + 1) << STEP).min(count));
            if from < to {
                spans.push(Span { level, from, to });
            }
        }
        level += STEP;
    }
    spans
}

/// Spans of stored roots that together make up a log of `size`, the highest level first: what a start reads.
pub fn frontier_spans(size: u64) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut level = (0..u64::BITS).step_by(STEP as usize).rfind(|level| size >> level > 0).unwrap_or(0);
    let mut covered = 0_u64;
    loop {
        let (from, to) = (covered >> level, size >> level);
        if from < to {
            spans.push(Span { level, from, to });
            covered = to << level;
        }
        if level == 0 {
            return spans;
        }
        level -= STEP;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tree::{self, Frontier, leaf_hash};

    fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    /// Every stored root of a log, as the sealer keeps them.
    fn stored(leaves: &[Hash]) -> BTreeMap<(u32, u64), Hash> {
        let mut all = BTreeMap::new();
        let mut tree = Frontier::default();
        for leaf in leaves {
            all.insert((0, tree.size()), *leaf);
            let after = tree.size() + 1;
            tree.push_telling(*leaf, |level, root| {
                if level.is_multiple_of(STEP) {
                    all.insert((level, (after >> level) - 1), root);
                }
            });
        }
        all
    }

    fn take(all: &BTreeMap<(u32, u64), Hash>, spans: &[Span]) -> Tiles {
        let mut tiles = Tiles::default();
        for span in spans {
            for place in span.from..span.to {
                tiles.insert(span.level, place, all[&(span.level, place)]);
            }
        }
        tiles
    }

    fn wide(number: usize) -> u64 {
        u64::try_from(number).expect("small")
    }

    #[test]
    fn proofs_from_tiles_are_those_from_all_leaves() {
        let leaves = leaves(1100);
        let all = stored(&leaves);
        for size in [1_usize, 2, 3, 255, 256, 257, 511, 512, 513, 767, 768, 1000, 1100] {
            let here = &leaves[..size];
            for index in (0..size).step_by(7).chain([size - 1]) {
                let tiles = take(&all, &spans(wide(index), wide(size)));
                assert_eq!(
                    tiles.inclusion_proof(wide(index), wide(size)),
                    tree::inclusion_proof(here, index),
                    "leaf {index} of {size}"
                );
                let old = index + 1;
                assert_eq!(
                    tiles.consistency_proof(wide(old), wide(size)),
                    tree::consistency_proof(here, old),
                    "{old} in {size}"
                );
                assert_eq!(tiles.root(wide(size)), Some(tree::root(here)));
            }
            assert_eq!(Tiles::default().inclusion_proof(wide(size), wide(size)), None);
        }
    }

    #[test]
    fn proofs_reach_over_several_levels_of_tiles_and_read_little() {
        let size = 70_000_usize;
        let leaves = leaves(wide(size));
        let all = stored(&leaves);
        let root = tree::root(&leaves);
        for index in [0, 255, 256, 65_535, 65_536, 69_999_usize] {
            let spans = spans(wide(index), wide(size));
            assert!(spans.iter().map(|span| span.to - span.from).sum::<u64>() <= 6 * 256, "{spans:?}");
            let tiles = take(&all, &spans);
            let proof = tiles.inclusion_proof(wide(index), wide(size)).expect("enough was read");
            assert!(tree::verify_inclusion(leaves[index], wide(index), wide(size), &proof, &root), "{index}");
            let old = wide(index) + 1;
            let proof = tiles.consistency_proof(old, wide(size)).expect("enough was read");
            let before = tree::root(&leaves[..=index]);
            assert!(tree::verify_consistency(old, &before, wide(size), &root, &proof), "{old}");
        }
    }

    #[test]
    fn a_start_needs_the_stored_roots_alone() {
        for size in [0_u64, 1, 255, 256, 257, 65_535, 65_536, 65_800] {
            let leaves = leaves(size);
            let all = stored(&leaves);
            let mut tree = Frontier::default();
            let spans = frontier_spans(size);
            for span in &spans {
                for place in span.from..span.to {
                    assert!(tree.push_subtree(span.level, all[&(span.level, place)]));
                }
            }
            assert_eq!((tree.size(), tree.root()), (size, tree::root(&leaves)), "{size}");
            assert!(spans.iter().map(|span| span.to - span.from).sum::<u64>() <= 3 * 256, "{size}: {spans:?}");
        }
    }
}
