//! The hash tree of RFC 6962 section 2.1: leaves are hashed with a zero byte before them, inner nodes with a one, so
//! that neither can stand for the other.

use sha2::{Digest, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// Hash of a leaf's data (RFC 6962: `SHA-256(0x00 || d)`).
pub fn leaf_hash(data: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(data).finalize().into()
}

/// Hash of an inner node (RFC 6962: `SHA-256(0x01 || left || right)`).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The tree as far as it takes to let it grow: roots of its perfect subtrees, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds one leaf, given as its hash.
    pub fn push(&mut self, leaf: Hash) {
        self.push_telling(leaf, |_, _| {});
    }

    /// Adds one leaf, and tells of each perfect subtree that it completes: its level, from 1, and its root.
    pub fn push_telling(&mut self, leaf: Hash, mut told: impl FnMut(u32, Hash)) {
        let mut node = leaf;
        let mut level = 0;
        while self.size >> level & 1 == 1 {
            // An odd count on a level: its last subtree waits for this one.
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
            }
            level += 1;
            told(level, node);
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// Adds a perfect subtree of `2^level` leaves by its root; `false`, and nothing added, where the tree so far is no
    /// multiple of that.
    pub fn push_subtree(&mut self, level: u32, root: Hash) -> bool {
        let whole = 1_u64.checked_shl(level).filter(|leaves| self.size.is_multiple_of(*leaves));
        let Some(leaves) = whole else { return false };
        let mut node = root;
        let mut at = level;
        while self.size >> at & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
            }
            at += 1;
        }
        self.peaks.push(node);
        self.size += leaves;
        true
    }

    /// The root; of an empty tree the hash of nothing (RFC 6962).
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => Sha256::digest([]).into(),
            Some(last) => peaks.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

/// Root over `leaves` (hashes).
pub fn root(leaves: &[Hash]) -> Hash {
    let mut tree = Frontier::default();
    for leaf in leaves {
        tree.push(*leaf);
    }
    tree.root()
}

/// Largest power of two below `size`, which is 2 at least.
fn split(size: usize) -> usize {
    (size.next_power_of_two() >> 1).max(1)
}

/// The hashes that lead from leaf `index` to the root over `leaves` (RFC 6962 section 2.1.1); `None` past the end.
pub fn inclusion_proof(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let (mut leaves, mut index, mut proof) = (leaves, index, Vec::new());
    while leaves.len() > 1 {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            proof.push(root(right));
            leaves = left;
        } else {
            proof.push(root(left));
            index -= left.len();
            leaves = right;
        }
    }
    proof.reverse();
    Some(proof)
}

/// The hashes that show that the tree of the first `old` leaves became the one over `leaves` (RFC 6962 section 2.1.2);
/// `None` if `old` is zero or more than there are.
pub fn consistency_proof(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    if old == 0 || old > leaves.len() {
        return None;
    }
    let (mut leaves, mut old, mut whole, mut proof) = (leaves, old, true, Vec::new());
    while old < leaves.len() {
        let at = split(leaves.len());
        let (left, right) = leaves.split_at(at);
        if old <= at {
            proof.push(root(right));
            leaves = left;
        } else {
            proof.push(root(left));
            old -= at;
            whole = false;
            leaves = right;
        }
    }
    if !whole {
        proof.push(root(leaves));
    }
    proof.reverse();
    Some(proof)
}

/// Whether `proof` leads from `leaf` at `index` to the `root` of a tree of `size` (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(leaf: Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut place, mut last, mut node) = (index, size - 1, leaf);
    for step in proof {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            node = node_hash(step, &node);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(&node, step);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && node == *root
}

/// Whether `proof` shows that the tree of `old` leaves with `old_root` is the beginning of the one of `new` leaves with
/// `new_root` (RFC 9162 section 2.1.4.2).
pub fn verify_consistency(old: u64, old_root: &Hash, new: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    let mut steps = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { steps.next() };
    let Some(first) = first else { return false };
    let (mut place, mut last) = (old - 1, new - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let (mut before, mut after) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            before = node_hash(step, &before);
            after = node_hash(step, &after);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            after = node_hash(&after, step);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && before == *old_root && after == *new_root
}

#[cfg(test)]
mod tests {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    use super::*;

    /// The inputs and roots that implementations of RFC 6962 share (certificate-transparency's own test data).
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    #[test]
    fn roots_are_those_of_rfc_6962() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(root(&[])), empty);
        let hashes: Vec<_> = LEAVES.iter().map(|leaf| leaf_hash(&hex::decode(leaf).expect("hexadecimal"))).collect();
        for (count, wanted) in ROOTS.iter().enumerate() {
            assert_eq!(hex::encode(root(&hashes[..=count])), *wanted, "{} leaves", count + 1);
        }
    }

    #[test]
    fn roots_and_proofs_are_those_of_ct_merkle() {
        let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let ours = leaves(70);
        for count in 1..=70_usize {
            theirs.push(u32::try_from(count - 1).expect("small").to_be_bytes().to_vec());
            let here = &ours[..count];
            assert_eq!(theirs.root().as_bytes().as_slice(), root(here));
            for index in 0..count {
                let proof = inclusion_proof(here, index).expect("inside").concat();
                assert_eq!(theirs.prove_inclusion(index).as_bytes(), proof, "leaf {index} of {count}");
            }
            for old in 1..count {
                let proof = consistency_proof(here, old).expect("inside").concat();
                assert_eq!(theirs.prove_consistency(count - old).as_bytes(), proof, "{old} in {count}");
            }
        }
    }

    #[test]
    fn a_proof_holds_for_its_leaf_and_tree_and_no_other() {
        let all = leaves(33);
        for size in 1..=33_usize {
            let here = &all[..size];
            let top = root(here);
            for index in 0..size {
                let proof = inclusion_proof(here, index).expect("inside");
                let wide = |number: usize| u64::try_from(number).expect("small");
                assert!(verify_inclusion(here[index], wide(index), wide(size), &proof, &top));
                assert!(!verify_inclusion(leaf_hash(b"other"), wide(index), wide(size), &proof, &top));
                assert!(!verify_inclusion(here[index], wide(index) ^ 1, wide(size), &proof, &top) || size == 1);
                for bit in 0..proof.len() {
                    let mut bent = proof.clone();
                    bent[bit][31] ^= 1;
                    assert!(!verify_inclusion(here[index], wide(index), wide(size), &bent, &top));
                }
                let mut longer = proof.clone();
                longer.push([0; 32]);
                assert!(!verify_inclusion(here[index], wide(index), wide(size), &longer, &top));
            }
            for old in 1..=size {
                let proof = consistency_proof(here, old).expect("inside");
                let (old_size, new_size) = (u64::try_from(old).expect("small"), u64::try_from(size).expect("small"));
                let before = root(&here[..old]);
                assert!(verify_consistency(old_size, &before, new_size, &top, &proof), "{old} in {size}");
                assert!(!verify_consistency(old_size, &leaf_hash(b"other"), new_size, &top, &proof));
                for step in 0..proof.len() {
                    let mut bent = proof.clone();
                    bent[step][0] ^= 1;
                    assert!(!verify_consistency(old_size, &before, new_size, &top, &bent));
                }
            }
        }
        assert_eq!(inclusion_proof(&all, 33), None);
        assert_eq!(consistency_proof(&all, 0), None);
        assert_eq!(consistency_proof(&all, 34), None);
    }
}
