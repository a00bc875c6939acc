//! Proofs for one event, and for the growth of the log, checked before they are handed out.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::{
    Error, Sealed, SignedHead, store,
    tiles::{self, Span, Tiles},
    tree::{Hash, verify_consistency, verify_inclusion},
};

/// What leads from an event to a signed head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The last signed head.
    pub head: SignedHead,
    /// Hashes from the event's leaf up to the root (RFC 6962 section 2.1.1).
    pub path: Vec<Hash>,
}

/// The proof that an event lies under the last signed head; `None` where no head covers it yet. Reads a few hundred
/// hashes, however long the log is.
///
/// # Errors
/// [`Error::Unproven`] when what is stored does not lead there.
pub async fn prove_inclusion(db: &mut PgConnection, sealed: &Sealed) -> Result<Option<Inclusion>, Error> {
    let Some(head) = store::list_heads(db, None, 1).await?.pop() else { return Ok(None) };
    if sealed.seq >= head.size {
        return Ok(None);
    }
    let tiles = store::load_tiles(db, &tiles::spans(sealed.seq, head.size)).await?;
    let leaf = sealed.leaf.hash();
    let path = tiles
        .inclusion_proof(sealed.seq, head.size)
        .filter(|path| verify_inclusion(leaf, sealed.seq, head.size, path, &head.root));
    match path {
        Some(path) => Ok(Some(Inclusion { head, path })),
        None => Err(Error::Unproven(format!("event {}", sealed.seq))),
    }
}

/// The proof that the log of one signed head grew out of that of an older one (RFC 6962 section 2.1.2); `None` where no
/// head was signed over one of these sizes, or `old` is larger.
///
/// # Errors
/// [`Error::Unproven`] when what is stored does not lead there.
pub async fn prove_growth(db: &mut PgConnection, old: u64, new: u64) -> Result<Option<Vec<Hash>>, Error> {
    if old == 0 || old > new {
        return Ok(None);
    }
    let (Some(before), Some(after)) = (store::find_root(db, old).await?, store::find_root(db, new).await?) else {
        return Ok(None);
    };
    let tiles = store::load_tiles(db, &tiles::spans(old - 1, new)).await?;
    let path = tiles.consistency_proof(old, new).filter(|path| verify_consistency(old, &before, new, &after, path));
    path.map(Some).ok_or_else(|| Error::Unproven(format!("the growth from {old} to {new} events")))
}

/// Proofs of many events and heads under one head: what neighbours share is read once.
pub struct Prover {
    head: SignedHead,
    tiles: Tiles,
    read: BTreeSet<Span>,
}

impl Prover {
    /// Proves what lies under this head.
    pub fn under(head: SignedHead) -> Self {
        Self { head, tiles: Tiles::default(), read: BTreeSet::new() }
    }

    /// The head.
    pub fn head(&self) -> &SignedHead {
        &self.head
    }

    async fn read(&mut self, db: &mut PgConnection, index: u64) -> Result<(), Error> {
        let spans = tiles::spans(index, self.head.size);
        let missing: Vec<_> = spans.iter().copied().filter(|span| !self.read.contains(span)).collect();
        // Leaves and roots far behind are not needed again.
        let passed: Vec<_> =
            self.read.iter().copied().filter(|span| span.level == 0 && !spans.contains(span)).collect();
        for span in passed {
            self.read.remove(&span);
            self.tiles.forget(span);
        }
        if !missing.is_empty() {
            self.tiles.extend(store::load_tiles(db, &missing).await?);
            self.read.extend(missing);
        }
        Ok(())
    }

    /// The path of an event; `None` where the head does not cover it. Cheapest in the order of numbers.
    ///
    /// # Errors
    /// [`Error::Unproven`] when what is stored does not lead there.
    pub async fn path(&mut self, db: &mut PgConnection, sealed: &Sealed) -> Result<Option<Vec<Hash>>, Error> {
        let SignedHead { size, root, .. } = self.head;
        if sealed.seq >= size {
            return Ok(None);
        }
        self.read(db, sealed.seq).await?;
        let leaf = sealed.leaf.hash();
        let path = self.tiles.inclusion_proof(sealed.seq, size);
        let path = path.filter(|path| verify_inclusion(leaf, sealed.seq, size, path, &root));
        path.map(Some).ok_or_else(|| Error::Unproven(format!("event {}", sealed.seq)))
    }

    /// How the tree of an older head grew into this one's; nothing for an empty one.
    ///
    /// # Errors
    /// [`Error::Unproven`] when what is stored does not lead there.
    pub async fn growth(&mut self, db: &mut PgConnection, old: &SignedHead) -> Result<Vec<Hash>, Error> {
        if old.size == 0 {
            return Ok(Vec::new());
        }
        self.read(db, old.size - 1).await?;
        let path = self.tiles.consistency_proof(old.size, self.head.size);
        let path = path.filter(|path| verify_consistency(old.size, &old.root, self.head.size, &self.head.root, path));
        path.ok_or_else(|| Error::Unproven(format!("the growth from {} to {} events", old.size, self.head.size)))
    }
}
