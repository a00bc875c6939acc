use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Error, Sealed, bundle, store,
    tiles::{STEP, Span},
    tree::{Frontier, Hash},
};
use crate::queue::{Done, Job, JobContext, Lane, Settings};

/// Events looked at between two looks at the clock.
const PAGE: i32 = 4096;

/// Reads the whole log over: every leaf is what its columns say, every kept body has its digest, every business's chain
/// is whole, every stored subtree root is that of its leaves, and the last signed head is reached. The first thing that
/// does not hold is kept as the log's fork: nothing is signed or let go any more until somebody looks.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckLog {}

impl Job for CheckLog {
    const KIND: &'static str = "evidence.check_log";
    const LANE: Lane = Lane::Maintenance;
    const SETTINGS: Settings =
        Settings { max_attempts: 3, timeout: Duration::from_secs(6 * 3600), ..Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut db = ctx.deps.db.acquire().await?;
        let Some(head) = store::list_heads(&mut db, None, 1).await?.pop() else {
            return Ok(Done::Ack(Some(json!({ "checked": 0 }))));
        };
        let mut look = Look::default();
        while look.tree.size() < head.size && look.found.is_none() {
            if ctx.cancelled.is_cancelled() {
                return Ok(Done::Ack(Some(json!({ "checked": look.tree.size(), "of": head.size }))));
            }
            look.page(&mut db, head.size).await?;
            ctx.progress(look.tree.size(), head.size, "events").await?;
        }
        if look.uncovered().is_some() && !look.hear_of_retirement(&mut db, head.size).await? {
            // It may have been retired a moment ago, by an event that has no number yet: the next night tells.
            return Ok(Done::Ack(Some(json!({ "checked": look.tree.size(), "bodies": "in_doubt" }))));
        }
        if let Some(found) = look.end(&head.root) {
            let found = format!("the nightly check: {found}");
            tracing::error!(found, "the evidence log does not hold");
            return Err(Error::Forked(store::insert_fork(&mut db, head.size, head.size, &found).await?));
        }
        Ok(Done::Ack(Some(json!({ "checked": look.tree.size(), "retired": look.bodiless }))))
    }
}

/// What was seen so far.
#[derive(Default)]
struct Look {
    tree: Frontier,
    chains: HashMap<Option<Uuid>, (u64, Hash)>,
    bodiless: u64,
    /// The youngest event without a body.
    bodiless_until: Option<(DateTime<Utc>, u64)>,
    retired_before: Option<DateTime<Utc>>,
    found: Option<String>,
}

impl Look {
    async fn page(&mut self, db: &mut PgConnection, size: u64) -> Result<(), Error> {
        let from = self.tree.size();
        let most = i32::try_from(size - from).unwrap_or(PAGE).min(PAGE);
        let page = store::list_sealed(db, None, from, most).await?;
        let mut nodes = Vec::new();
        for sealed in &page {
            let seq = self.tree.size();
            if sealed.seq != seq {
                self.found = Some(format!("event {seq} is missing"));
                return Ok(());
            }
            if let Some(wrong) = self.event(sealed) {
                self.found = Some(format!("event {seq} {wrong}"));
                return Ok(());
            }
            self.tree.push_telling(sealed.hash, |level, root| {
                if level.is_multiple_of(STEP) {
                    nodes.push((level, ((seq + 1) >> level) - 1, root));
                }
            });
        }
        if page.is_empty() {
            self.found = Some(format!("event {from} is missing"));
        }
        let spans: Vec<_> =
            nodes.iter().map(|(level, place, _)| Span { level: *level, from: *place, to: *place + 1 }).collect();
        let stored = store::load_tiles(db, &spans).await?;
        let bent = nodes.iter().find(|(level, place, root)| {
            // One that is not kept yet is computed by the next start.
            stored.get(*level, *place).is_some_and(|stored| stored != *root)
        });
        if let Some((level, place, _)) = bent {
            self.found = Some(format!("the stored root of events {} and on is not theirs", place << level));
        }
        Ok(())
    }

    /// What is wrong with one event.
    fn event(&mut self, sealed: &Sealed) -> Option<&'static str> {
        let leaf = &sealed.leaf;
        if leaf.hash() != sealed.hash {
            return Some("is not what was sealed");
        }
        let (number, previous) = self.chains.get(&leaf.business_id).copied().unwrap_or((0, [0; 32]));
        if leaf.business_seq != number + 1 || leaf.previous != previous {
            return Some("does not follow the one before of its business");
        }
        self.chains.insert(leaf.business_id, (leaf.business_seq, sealed.hash));
        match &sealed.body {
            Some(body) if Hash::from(Sha256::digest(body)) != leaf.body_sha256 => {
                return Some("has a body that was changed");
            }
            Some(body) => self.retired_before = self.retired_before.max(bundle::retired_before(body)),
            None => {
                self.bodiless += 1;
                self.bodiless_until = self.bodiless_until.max(Some((leaf.at, sealed.seq)));
            }
        }
        None
    }

    /// What does not hold, once all was seen.
    fn end(&mut self, root: &Hash) -> Option<String> {
        if self.found.is_some() {
            return self.found.take();
        }
        if self.tree.root() != *root {
            return Some("the last signed head is not reached".to_owned());
        }
        self.uncovered().map(|seq| format!("event {seq} has no body, and no retirement covers it"))
    }

    /// The youngest event without a body that no retirement covers.
    fn uncovered(&self) -> Option<u64> {
        let (at, seq) = self.bodiless_until?;
        let covered = self.retired_before.is_some_and(|before| at < before);
        (!covered).then_some(seq)
    }

    /// Looks for a retirement after the head; `false` where one may still come.
    async fn hear_of_retirement(&mut self, db: &mut PgConnection, head: u64) -> Result<bool, Error> {
        let waits = store::load_standing(db).await?.unsealed_since.is_some();
        let mut from = head;
        loop {
            let page = store::list_sealed(db, None, from, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = last.seq + 1;
            for body in page.iter().filter_map(|sealed| sealed.body.as_deref()) {
                self.retired_before = self.retired_before.max(bundle::retired_before(body));
            }
        }
        Ok(self.uncovered().is_none() || !waits)
    }
}
