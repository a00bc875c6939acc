//! The one who numbers, signs and lays down.
//!
//! Any number of processes may run it: one has the lead (a row with a lease and a fencing number), the others follow.
//! Numbering happens in the database, in a function that the app role may call and not bend; this side only reads
//! leaves, computes the root, signs it with a key that the database never sees, and anchors it. Everything it needs
//! of the database is in single statements and short transactions, so that a transaction pooler fits; for the same
//! reason it changes no role: the functions carry theirs (`security definer`).
//!
//! Before its first signature, and before each head that it lays down, it asks the anchors what was signed last. A log
//! that is shorter than that, or has another root at that size, was restored from a backup or changed: nothing is signed
//! any more until somebody looks. An anchor that fails is told of and tried again ([`super::AnchorState`]); events are
//! numbered and heads signed all the same.
//!
//! A start reads the stored roots of subtrees and the last leaves, not the log. What it notices: a log that does not lead
//! to the heads that anchors and database hold, by its length or by any stored root. A leaf that was changed under a
//! stored root is noticed by the nightly `evidence.check_log`, and by whoever verifies a bundle.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Duration, Utc};
use sqlx::PgConnection;

use super::{
    Error,
    anchoring::{AnchorState, Anchors, Answer, Head},
    note::{BadNote, Checkpoint, Signer25519},
    store,
    tiles::{STEP, frontier_spans},
    tree::{Frontier, Hash},
};
use crate::outbound::Anchor;

/// Events sealed at a time.
pub const BATCH: i32 = 4096;
/// How long the lead lasts without being asked for again.
const LEASE_SECS: f64 = 30.0;
/// How often it is asked for again.
const RENEW: Duration = Duration::seconds(10);
/// How often a growing log gets a signed head.
const SIGN_GROWN: Duration = Duration::seconds(10);
/// How often it gets one regardless, so that silence is seen.
const SIGN_ANYWAY: Duration = Duration::hours(1);
/// Heads remembered, by size.
const REMEMBERED: usize = 64;

/// What one turn came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Another process has the lead.
    Following,
    /// So many events were numbered; the head that was signed, if one was.
    Sealed {
        /// How many.
        events: u64,
        /// The new head.
        signed: Option<Checkpoint>,
        /// Anchors that do not do as asked, and what they say.
        failing: Vec<String>,
    },
}

/// Seals, signs and anchors: one for each process.
pub struct Sealer {
    signer: Signer25519,
    anchors: Anchors,
    holder: String,
    lead: Option<(i64, DateTime<Utc>)>,
    tree: Frontier,
    roots: BTreeMap<u64, Hash>,
    signed_at: Option<DateTime<Utc>>,
    last: Option<Head>,
}

impl Sealer {
    /// One that signs with this key; `holder` is unique among processes.
    pub fn new(signer: Signer25519, anchors: Vec<Arc<dyn Anchor>>, holder: String) -> Self {
        Self {
            signer,
            anchors: Anchors::new(anchors),
            holder,
            lead: None,
            tree: Frontier::default(),
            roots: BTreeMap::new(),
            signed_at: None,
            last: None,
        }
    }

    /// How each anchor stands, as far as this process knows.
    pub fn anchor_states(&self) -> Vec<AnchorState> {
        self.anchors.states()
    }

    /// Numbers what waits, and signs a head when one is due at `now`. Call it a few times a second.
    ///
    /// # Errors
    /// [`Error::Forked`] for good; [`Error::LostLead`] and the database for now.
    pub async fn turn(&mut self, db: &mut PgConnection, now: DateTime<Utc>) -> Result<Turn, Error> {
        if let Some(fork) = store::find_fork(db).await? {
            return Err(Error::Forked(fork));
        }
        let Some(fence) = self.lead(db, now).await? else { return Ok(Turn::Following) };
        let outcome = self.work(db, fence, now).await;
        if outcome.is_err() {
            self.lead = None;
        }
        outcome
    }

    async fn lead(&mut self, db: &mut PgConnection, now: DateTime<Utc>) -> Result<Option<i64>, Error> {
        if let Some((fence, since)) = self.lead
            && since <= now
            && now < since + RENEW
        {
            return Ok(Some(fence));
        }
        let before = self.lead.map(|(fence, _)| fence);
        self.lead = store::lead(db, &self.holder, LEASE_SECS).await?.map(|fence| (fence, now));
        let fence = self.lead.map(|(fence, _)| fence);
        if let Some(fence) = fence
            && Some(fence) != before
        {
            // Somebody else may have signed and laid down meanwhile, and the database may be another.
            self.signed_at = None;
            self.tree = Frontier::default();
            self.roots.clear();
            self.last = store::find_head(db).await?;
            self.anchors.take_lead(&store::list_anchor_states(db).await?);
        }
        Ok(fence)
    }

    async fn work(&mut self, db: &mut PgConnection, fence: i64, now: DateTime<Utc>) -> Result<Turn, Error> {
        let mut events = 0;
        loop {
            let some = store::seal(db, fence, BATCH).await?;
            events += some;
            if some < u64::from(BATCH.unsigned_abs()) {
                break;
            }
        }
        let size = store::load_size(db).await?;
        self.hear(db, fence, size, now).await?;
        let since = match self.signed_at {
            Some(at) => Some(at),
            None => store::find_signed_at(db).await?,
        };
        self.signed_at = since;
        let last_size = self.last.as_ref().map_or(0, |last| last.size);
        let due = match since {
            None => true,
            Some(at) => now >= at + SIGN_ANYWAY || now < at || (size != last_size && now >= at + SIGN_GROWN),
        };
        // Who cannot remember must not vouch.
        let signed = if due && self.anchors.may_sign() { Some(self.sign(db, fence, size, now).await?) } else { None };
        self.anchors.start(self.last.as_ref(), now);
        for state in self.anchors.due_for_writing(now) {
            store::note_anchor(db, fence, &state).await?;
        }
        Ok(Turn::Sealed { events, signed, failing: self.anchors.failing() })
    }

    /// Takes in what anchors answered: what they hold is compared with the log, receipts are kept.
    async fn hear(&mut self, db: &mut PgConnection, fence: i64, size: u64, now: DateTime<Utc>) -> Result<(), Error> {
        for answer in self.anchors.collect(now).await {
            match answer {
                Answer::Holds { slot, note } => {
                    if let Some(note) = note {
                        let place = self.anchors.name_of(slot).to_owned();
                        self.compare(db, fence, size, (&place, &note)).await?;
                    }
                    self.anchors.agrees(slot);
                }
                Answer::Took { slot, head, proof } => {
                    let (kind, name) = (self.anchors.kind_of(slot), self.anchors.name_of(slot));
                    store::insert_anchor(db, head.checkpoint_id, (kind.as_str(), name), &proof).await?;
                    self.anchors.took(slot, &head, now);
                }
            }
        }
        Ok(())
    }

    async fn sign(
        &mut self,
        db: &mut PgConnection,
        fence: i64,
        size: u64,
        now: DateTime<Utc>,
    ) -> Result<Checkpoint, Error> {
        if let Some(last) = store::find_head(db).await? {
            self.compare(db, fence, size, ("database", &last.note)).await?;
        }
        self.grow(db, fence, size).await?;
        let head = Checkpoint { size, root: self.tree.root(), at: now };
        let note = self.signer.sign(&head);
        let checkpoint_id = store::keep_checkpoint(db, fence, &head, &note).await?;
        self.roots.insert(size, head.root);
        while self.roots.len() > REMEMBERED {
            self.roots.pop_first();
        }
        self.signed_at = Some(now);
        self.last = Some(Head { checkpoint_id, size, note });
        Ok(head)
    }

    /// Compares the log with a head that was signed before, as `place` remembers it.
    async fn compare(
        &mut self,
        db: &mut PgConnection,
        fence: i64,
        size: u64,
        (place, note): (&str, &str),
    ) -> Result<(), Error> {
        let head = match self.signer.verifier().open(note) {
            Ok(head) => head,
            Err(BadNote::OtherKey) => return Err(Error::OtherKey(place.to_owned())),
            Err(bad) => {
                let found = format!("the last checkpoint in `{place}` {bad}");
                return Err(Error::Forked(store::insert_fork(db, size, 0, &found).await?));
            }
        };
        let fits = head.size <= size && self.root_at(db, fence, size, head.size).await? == Some(head.root);
        if !fits {
            let found = format!("`{place}` holds a checkpoint of {} leaves that this log contradicts", head.size);
            return Err(Error::Forked(store::insert_fork(db, size, head.size, &found).await?));
        }
        Ok(())
    }

    /// The root that this log of `size` had at `at`: from memory, or from its stored roots and leaves.
    async fn root_at(&mut self, db: &mut PgConnection, fence: i64, size: u64, at: u64) -> Result<Option<Hash>, Error> {
        if let Some(root) = self.roots.get(&at) {
            return Ok(Some(*root));
        }
        self.grow(db, fence, size).await?;
        let tree = if at == self.tree.size() { Some(self.tree.clone()) } else { stored_tree(db, at).await? };
        let root = tree.map(|tree| tree.root());
        if let Some(root) = root {
            self.roots.insert(at, root);
        }
        Ok(root)
    }

    /// Takes in the leaves up to `size`, and keeps the root of each subtree that they complete. The first time it
    /// begins where the stored roots end.
    async fn grow(&mut self, db: &mut PgConnection, fence: i64, size: u64) -> Result<(), Error> {
        if self.tree.size() > size {
            let found = format!("this process has seen {} leaves and the log holds {size}", self.tree.size());
            return Err(Error::Forked(store::insert_fork(db, size, self.tree.size(), &found).await?));
        }
        if self.tree.size() == 0 && size > 0 {
            let covered = store::load_covered(db).await?.min(size >> STEP << STEP);
            // Where one is missing they are all computed anew: what is there stays, and must fit.
            self.tree = stored_tree(db, covered).await?.unwrap_or_default();
        }
        store::extend(db, fence, &mut self.tree, size).await
    }

    /// Waits until no anchor is asked or given anything.
    #[cfg(test)]
    pub(super) async fn settle(&self) {
        self.anchors.settle().await;
    }
}

/// The tree of the first `size` leaves from stored roots; `None` where one of them is missing.
async fn stored_tree(db: &mut PgConnection, size: u64) -> Result<Option<Frontier>, Error> {
    let spans = frontier_spans(size);
    let tiles = store::load_tiles(db, &spans).await?;
    let mut tree = Frontier::default();
    for span in &spans {
        for place in span.from..span.to {
            let Some(root) = tiles.get(span.level, place) else { return Ok(None) };
            tree.push_subtree(span.level, root);
        }
    }
    Ok(Some(tree))
}

/// An error and its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
