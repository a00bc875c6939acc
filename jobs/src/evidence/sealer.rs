//! The one who numbers, signs and lays down.
//!
//! Any number of processes may run it: one has the lead (a row with a lease and a fencing number), the others follow.
//! Numbering happens in the database, in a function that the app role may call and not bend; this side only reads
//! leaves, computes the root, signs it with a key that the database never sees, and anchors it. Everything it needs
//! of the database is in single statements and short transactions, so that a transaction pooler fits; for the same
//! reason it changes no role: the functions carry theirs (`security definer`).
//!
//! Before each signature it asks the anchors what was signed last. A log that is shorter than that, or has another
//! root at that size, was restored from a backup or changed: nothing is signed any more until somebody looks.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use chrono::{DateTime, Duration, Utc};
use sqlx::PgConnection;

use super::{
    Error,
    note::{BadNote, Checkpoint, Signer25519},
    store,
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
        /// Anchors that did not take it; they get the next one.
        missed: Vec<String>,
    },
}

/// Seals, signs and anchors: one for each process.
pub struct Sealer {
    signer: Signer25519,
    anchors: Vec<Arc<dyn Anchor>>,
    holder: String,
    lead: Option<(i64, DateTime<Utc>)>,
    tree: Frontier,
    roots: BTreeMap<u64, Hash>,
    signed_at: Option<DateTime<Utc>>,
    laid_at: HashMap<&'static str, DateTime<Utc>>,
}

impl Sealer {
    /// One that signs with this key; `holder` is unique among processes.
    pub fn new(signer: Signer25519, anchors: Vec<Arc<dyn Anchor>>, holder: String) -> Self {
        Self {
            signer,
            anchors,
            holder,
            lead: None,
            tree: Frontier::default(),
            roots: BTreeMap::new(),
            signed_at: None,
            laid_at: HashMap::new(),
        }
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
        if fence != before {
            // Somebody else may have signed meanwhile.
            self.signed_at = None;
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
        let since = match self.signed_at {
            Some(at) => Some(at),
            None => store::find_signed_at(db).await?,
        };
        self.signed_at = since;
        let last_size = self.roots.last_key_value().map_or(0, |(size, _)| *size);
        let due = match since {
            None => true,
            Some(at) => now >= at + SIGN_ANYWAY || now < at || (size != last_size && now >= at + SIGN_GROWN),
        };
        let (signed, missed) = if due { self.sign(db, fence, size, now).await? } else { (None, Vec::new()) };
        Ok(Turn::Sealed { events, signed, missed })
    }

    async fn sign(
        &mut self,
        db: &mut PgConnection,
        fence: i64,
        size: u64,
        now: DateTime<Utc>,
    ) -> Result<(Option<Checkpoint>, Vec<String>), Error> {
        let missed = self.remember(db, size).await?;
        if !missed.is_empty() {
            // Who cannot remember must not vouch.
            return Ok((None, missed));
        }
        self.grow(db, size).await?;
        let head = Checkpoint { size, root: self.tree.root(), at: now };
        let note = self.signer.sign(&head);
        let kept = store::keep_checkpoint(db, fence, &head, &note).await?;
        self.roots.insert(size, head.root);
        while self.roots.len() > REMEMBERED {
            self.roots.pop_first();
        }
        self.signed_at = Some(now);
        let mut missed = Vec::new();
        for anchor in &self.anchors {
            let kind = anchor.kind();
            let every = Duration::from_std(anchor.every()).unwrap_or(Duration::MAX);
            if self.laid_at.get(kind).is_some_and(|at| *at <= now && now < *at + every) {
                continue;
            }
            match anchor.lay(size, &note).await {
                Ok(proof) => {
                    store::insert_anchor(db, kept, kind, &proof).await?;
                    self.laid_at.insert(kind, now);
                }
                Err(error) => missed.push(chain(&error)),
            }
        }
        Ok((Some(head), missed))
    }

    /// Compares the log with every head that was signed before, as the anchors and the database remember it.
    async fn remember(&mut self, db: &mut PgConnection, size: u64) -> Result<Vec<String>, Error> {
        let mut notes = Vec::new();
        let mut missed = Vec::new();
        for anchor in &self.anchors {
            match anchor.latest().await {
                Ok(note) => notes.extend(note.map(|note| (anchor.kind(), note))),
                Err(error) => missed.push(chain(&error)),
            }
        }
        notes.extend(store::find_note(db).await?.map(|note| ("database", note)));
        for (kind, note) in notes {
            let head = match self.signer.verifier().open(&note) {
                Ok(head) => head,
                Err(BadNote::OtherKey) => return Err(Error::OtherKey(kind.to_owned())),
                Err(bad) => {
                    let found = format!("the last checkpoint in `{kind}` {bad}");
                    return Err(Error::Forked(store::insert_fork(db, size, 0, &found).await?));
                }
            };
            let fits = head.size <= size && self.root_at(db, head.size).await? == head.root;
            if !fits {
                let found = format!("`{kind}` holds a checkpoint of {} leaves that this log contradicts", head.size);
                return Err(Error::Forked(store::insert_fork(db, size, head.size, &found).await?));
            }
        }
        Ok(missed)
    }

    /// The root that this log had at `size`: from memory, or computed from the leaves anew.
    async fn root_at(&mut self, db: &mut PgConnection, size: u64) -> Result<Hash, Error> {
        if let Some(root) = self.roots.get(&size) {
            return Ok(*root);
        }
        if size >= self.tree.size() {
            self.grow(db, size).await?;
            self.roots.insert(size, self.tree.root());
            return Ok(self.tree.root());
        }
        let mut tree = Frontier::default();
        store::extend(db, &mut tree, size).await?;
        self.roots.insert(size, tree.root());
        Ok(tree.root())
    }

    /// Takes in the leaves up to `size`. The first time it looks the whole log over.
    async fn grow(&mut self, db: &mut PgConnection, size: u64) -> Result<(), Error> {
        store::extend(db, &mut self.tree, size).await
    }
}

/// An error and its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
