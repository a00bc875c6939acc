use chrono::{DateTime, Utc};
use sqlx::{PgConnection, postgres::types::PgInterval};
use uuid::Uuid;

use super::{
    AnchorState, Error, Event, Receipt, Sealed, SignedHead, Standing,
    anchoring::Head,
    leaf::Leaf,
    note::Checkpoint,
    tiles::{STEP, Span, Tiles},
    tree::{Frontier, Hash},
};

pub(super) async fn insert_event(db: &mut PgConnection, event: &Event<'_>, body: &[u8]) -> Result<(), Error> {
    // Columns that the writer may not name are filled by their defaults: transaction and instant.
    sqlx::query!(
        "insert into muneem.evidence_events (event_id, business_id, body) values ($1, $2, $3)",
        event.event_id.0,
        event.business_id.map(|business| business.0),
        body,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn insert_events(
    db: &mut PgConnection,
    ids: &[Uuid],
    businesses: &[Option<Uuid>],
    bodies: &[Vec<u8>],
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.evidence_events (event_id, business_id, body)
         select u.event_id, u.business_id, u.body
         from unnest($1::uuid[], $2::uuid[], $3::bytea[]) as u (event_id, business_id, body)",
        ids,
        businesses as &[Option<Uuid>],
        bodies,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// SQLSTATE of a fencing number that is not the lead's any more.
const LOST_LEAD: &str = "MN021";
/// SQLSTATEs of a log that went back in time.
const WENT_BACK: [&str; 2] = ["MN022", "MN023"];

fn told(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.code()).as_deref() {
        Some(LOST_LEAD) => Error::LostLead,
        Some(code) if WENT_BACK.contains(&code) => {
            Error::Forked(error.as_database_error().map_or("", |error| error.message()).to_owned())
        }
        _ => Error::Database(error),
    }
}

fn wide(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn narrow(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The fencing number, if the lead is ours.
pub(super) async fn lead(db: &mut PgConnection, holder: &str, lease_secs: f64) -> Result<Option<i64>, Error> {
    Ok(sqlx::query_scalar!("select muneem.evidence_lead($1, make_interval(secs => $2))", holder, lease_secs)
        .fetch_one(db)
        .await?)
}

/// How many events got their number.
pub(super) async fn seal(db: &mut PgConnection, fence: i64, most: i32) -> Result<u64, Error> {
    let sealed = sqlx::query_scalar!(r#"select muneem.evidence_seal($1, $2) as "sealed!""#, fence, most)
        .fetch_one(db)
        .await
        .map_err(told)?;
    Ok(u64::from(sealed.unsigned_abs()))
}

/// How many leaves the log has.
pub(super) async fn load_size(db: &mut PgConnection) -> Result<u64, Error> {
    Ok(wide(sqlx::query_scalar!("select size from muneem.evidence_head").fetch_one(db).await?))
}

/// Leaves taken from the database at a time.
const PAGE: u64 = 16_384;

/// Adds leaves to `tree` until it has `size`, and keeps the roots of the subtrees that they complete.
///
/// # Errors
/// [`Error::Forked`] if one of them is not there.
pub(super) async fn extend(db: &mut PgConnection, fence: i64, tree: &mut Frontier, size: u64) -> Result<(), Error> {
    while tree.size() < size {
        let (from, to) = (tree.size(), size.min(tree.size() + PAGE));
        // A copy: what cannot be kept is read again.
        let mut grown = tree.clone();
        let mut nodes = Vec::new();
        for leaf in list_hashes(db, from, to).await? {
            let after = grown.size() + 1;
            grown.push_telling(leaf, |level, root| {
                if level.is_multiple_of(STEP) {
                    nodes.push((level, (after >> level) - 1, root));
                }
            });
        }
        if grown.size() != to {
            return Err(Error::Forked(format!("leaf {} is missing", grown.size())));
        }
        keep_nodes(db, fence, &nodes).await?;
        *tree = grown;
    }
    Ok(())
}

async fn keep_nodes(db: &mut PgConnection, fence: i64, nodes: &[(u32, u64, Hash)]) -> Result<(), Error> {
    if nodes.is_empty() {
        return Ok(());
    }
    let levels: Vec<i16> = nodes.iter().map(|(level, ..)| i16::try_from(*level).unwrap_or(i16::MAX)).collect();
    let places: Vec<i64> = nodes.iter().map(|(_, place, _)| narrow(*place)).collect();
    let hashes: Vec<Vec<u8>> = nodes.iter().map(|(.., hash)| hash.to_vec()).collect();
    sqlx::query!("select muneem.evidence_keep_nodes($1, $2, $3, $4)", fence, &levels, &places, &hashes)
        .execute(db)
        .await
        .map_err(told)?;
    Ok(())
}

/// How many leaves lie under stored subtree roots.
pub(super) async fn load_covered(db: &mut PgConnection) -> Result<u64, Error> {
    let step = i16::try_from(STEP).unwrap_or(i16::MAX);
    let nodes = sqlx::query_scalar!(
        r#"select coalesce(max(place) + 1, 0) as "nodes!" from muneem.evidence_nodes where level = $1"#,
        step
    )
    .fetch_one(db)
    .await?;
    Ok(wide(nodes) << STEP)
}

/// The stored roots of these spans, as many as there are.
pub(super) async fn load_tiles(db: &mut PgConnection, spans: &[Span]) -> Result<Tiles, Error> {
    let mut tiles = Tiles::default();
    let digest = |bytes: Vec<u8>, place: i64| {
        Hash::try_from(bytes).map_err(|_| Error::Forked(format!("the hash at {place} is no digest")))
    };
    for span in spans.iter().filter(|span| span.level == 0) {
        for (seq, hash) in (span.from..).zip(list_hashes(db, span.from, span.to).await?) {
            tiles.insert(0, seq, hash);
        }
    }
    let above: Vec<_> = spans.iter().filter(|span| span.level > 0).collect();
    if above.is_empty() {
        return Ok(tiles);
    }
    let levels: Vec<i16> = above.iter().map(|span| i16::try_from(span.level).unwrap_or(i16::MAX)).collect();
    let froms: Vec<i64> = above.iter().map(|span| narrow(span.from)).collect();
    let tos: Vec<i64> = above.iter().map(|span| narrow(span.to)).collect();
    let nodes = sqlx::query!(
        "select n.level, n.place, n.hash
         from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as s (level, first, behind)
         join muneem.evidence_nodes n on n.level = s.level and n.place >= s.first and n.place < s.behind",
        &levels,
        &froms,
        &tos,
    )
    .fetch_all(db)
    .await?;
    for row in nodes {
        tiles.insert(u32::try_from(row.level).unwrap_or(0), wide(row.place), digest(row.hash, row.place)?);
    }
    Ok(tiles)
}

/// Leaf hashes from `from` to before `to`, fewer where the log ends.
pub(super) async fn list_hashes(db: &mut PgConnection, from: u64, to: u64) -> Result<Vec<Hash>, Error> {
    let leaves = sqlx::query!(
        "select seq, leaf from muneem.evidence_leaves where seq >= $1 and seq < $2 order by seq",
        narrow(from),
        narrow(to),
    )
    .fetch_all(&mut *db)
    .await?;
    leaves
        .into_iter()
        .zip(from..)
        // What follows a gap does not belong to it.
        .take_while(|(row, seq)| wide(row.seq) == *seq)
        .map(|(row, _)| row.leaf.try_into().map_err(|_| Error::Forked(format!("leaf {} is no digest", row.seq))))
        .collect()
}

/// The last signed head.
pub(super) async fn find_head(db: &mut PgConnection) -> Result<Option<Head>, Error> {
    let row = sqlx::query!(
        "select checkpoint_id, size, note from muneem.evidence_checkpoints order by checkpoint_id desc limit 1"
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Head { checkpoint_id: row.checkpoint_id, size: wide(row.size), note: row.note }))
}

/// When the last head was signed.
pub(super) async fn find_signed_at(db: &mut PgConnection) -> Result<Option<DateTime<Utc>>, Error> {
    Ok(sqlx::query_scalar!("select at from muneem.evidence_checkpoints order by checkpoint_id desc limit 1")
        .fetch_optional(db)
        .await?)
}

/// Keeps a signed head; its number.
pub(super) async fn keep_checkpoint(
    db: &mut PgConnection,
    fence: i64,
    head: &Checkpoint,
    note: &str,
) -> Result<i64, Error> {
    sqlx::query_scalar!(
        r#"select muneem.evidence_keep_checkpoint($1, $2, $3, $4) as "kept!""#,
        fence,
        narrow(head.size),
        head.root.as_slice(),
        note,
    )
    .fetch_one(db)
    .await
    .map_err(told)
}

/// Keeps the receipt of an anchor, given by kind and name; again is no change.
pub(super) async fn insert_anchor(
    db: &mut PgConnection,
    checkpoint_id: i64,
    (kind, name): (&str, &str),
    proof: &[u8],
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.evidence_anchors (checkpoint_id, kind, anchor, proof) values ($1, $2, $3, $4)
         on conflict do nothing",
        checkpoint_id,
        kind,
        name,
        proof,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes how an anchor stands.
pub(super) async fn note_anchor(db: &mut PgConnection, fence: i64, state: &AnchorState) -> Result<(), Error> {
    sqlx::query!(
        "select muneem.evidence_note_anchor($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        fence,
        state.name,
        state.kind,
        state.outside,
        state.laid_id,
        state.laid_at,
        state.failing_since,
        i32::try_from(state.failures).unwrap_or(i32::MAX),
        state.problem,
        state.retry_at,
        state.seen_at,
    )
    .execute(db)
    .await
    .map_err(told)?;
    Ok(())
}

/// How each anchor stands that the sealer ever spoke of, by name.
pub(super) async fn list_anchor_states(db: &mut PgConnection) -> Result<Vec<AnchorState>, Error> {
    let rows = sqlx::query!(
        r#"select s.anchor, s.kind, s.outside, s.laid_id, c.size as "laid_size?", s.laid_at, s.failing_since, s.failures,
               s.problem, s.retry_at, s.seen_at
           from muneem.evidence_anchor_states s
           left join muneem.evidence_checkpoints c on c.checkpoint_id = s.laid_id
           order by s.anchor"#
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| AnchorState {
            name: row.anchor,
            kind: row.kind,
            outside: row.outside,
            laid_id: row.laid_id,
            laid_size: row.laid_size.map(wide),
            laid_at: row.laid_at,
            failing_since: row.failing_since,
            failures: u32::try_from(row.failures).unwrap_or(0),
            problem: row.problem,
            retry_at: row.retry_at,
            seen_at: row.seen_at,
        })
        .collect())
}

/// What was found, if the log went back in time.
pub(super) async fn find_fork(db: &mut PgConnection) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!("select anchor from muneem.evidence_forks").fetch_optional(db).await?)
}

/// Keeps what was found, for good; the first finding stays.
pub(super) async fn insert_fork(
    db: &mut PgConnection,
    size: u64,
    anchored_size: u64,
    found: &str,
) -> Result<String, Error> {
    sqlx::query!(
        "insert into muneem.evidence_forks (size, anchored_size, anchor) values ($1, $2, $3) on conflict do nothing",
        narrow(size),
        narrow(anchored_size),
        found,
    )
    .execute(db)
    .await?;
    Ok(found.to_owned())
}

/// How the log stands.
pub(super) async fn load_standing(db: &mut PgConnection) -> Result<Standing, Error> {
    let row = sqlx::query!(
        r#"select h.size, muneem.evidence_unsealed_since() as unsealed_since,
               (select f.anchor from muneem.evidence_forks f) as forked,
               (select max(c.at) from muneem.evidence_checkpoints c) as signed_at
           from muneem.evidence_head h"#
    )
    .fetch_one(db)
    .await?;
    Ok(Standing {
        size: wide(row.size),
        unsealed_since: row.unsealed_since,
        signed_at: row.signed_at,
        forked: row.forked,
    })
}

/// Makes the partitions of the coming months; how many.
pub(super) async fn make_months(db: &mut PgConnection) -> Result<i32, Error> {
    Ok(sqlx::query_scalar!(r#"select muneem.evidence_make_months() as "made!""#).fetch_one(db).await?)
}

/// Sealed events from `from_seq` on, with their bodies where they are kept.
pub(super) async fn list_sealed(
    db: &mut PgConnection,
    business: Option<Uuid>,
    from_seq: u64,
    most: i32,
) -> Result<Vec<Sealed>, Error> {
    let rows = sqlx::query_as!(
        SealedRow,
        r#"select seq as "seq!", event_id as "event_id!", business_id, business_seq as "business_seq!",
               previous as "previous!", at as "at!", body_sha256 as "body_sha256!", leaf as "leaf!", body
           from muneem.evidence_page($1, $2, $3)"#,
        business,
        narrow(from_seq),
        most,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(SealedRow::read).collect()
}

struct SealedRow {
    seq: i64,
    event_id: Uuid,
    business_id: Option<Uuid>,
    business_seq: i64,
    previous: Vec<u8>,
    at: DateTime<Utc>,
    body_sha256: Vec<u8>,
    leaf: Vec<u8>,
    body: Option<Vec<u8>>,
}

impl SealedRow {
    fn read(self) -> Result<Sealed, Error> {
        let digest = |bytes: Vec<u8>| Hash::try_from(bytes).map_err(|_| Error::Forked(format!("leaf {}", self.seq)));
        Ok(Sealed {
            seq: wide(self.seq),
            leaf: Leaf {
                event_id: self.event_id,
                business_id: self.business_id,
                business_seq: wide(self.business_seq),
                previous: digest(self.previous)?,
                at: self.at,
                body_sha256: digest(self.body_sha256)?,
            },
            hash: digest(self.leaf)?,
            body: self.body,
        })
    }
}

/// Sealed events below the number `before`, the newest first: the business's own number where one is named, else the
/// log's.
pub(super) async fn list_newest(
    db: &mut PgConnection,
    business: Option<Uuid>,
    before: Option<u64>,
    most: i32,
) -> Result<Vec<Sealed>, Error> {
    let rows = sqlx::query_as!(
        SealedRow,
        r#"select seq as "seq!", event_id as "event_id!", business_id, business_seq as "business_seq!",
               previous as "previous!", at as "at!", body_sha256 as "body_sha256!", leaf as "leaf!", body
           from muneem.evidence_list($1, $2, $3)"#,
        business,
        before.map(narrow),
        most,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(SealedRow::read).collect()
}

/// The number of an event in the log, of one business or of all.
pub(super) async fn find_seq(db: &mut PgConnection, business: Option<Uuid>, event: Uuid) -> Result<Option<u64>, Error> {
    let seq = sqlx::query_scalar!("select muneem.evidence_find($1, $2)", event, business as Option<Uuid>)
        .fetch_one(db)
        .await?;
    Ok(seq.map(wide))
}

/// The smallest number, among those of a business, of its events with ids from the first to the second.
pub(super) async fn find_first_between(
    db: &mut PgConnection,
    business: Uuid,
    (from, to): (Uuid, Uuid),
) -> Result<Option<u64>, Error> {
    let number =
        sqlx::query_scalar!("select muneem.evidence_find_first($1, $2, $3)", business, from, to).fetch_one(db).await?;
    Ok(number.map(wide))
}

/// Signed heads whose number lies below `before`, the newest first.
pub(super) async fn list_heads(
    db: &mut PgConnection,
    before: Option<i64>,
    most: i64,
) -> Result<Vec<SignedHead>, Error> {
    let rows = sqlx::query_as!(
        HeadRow,
        "select checkpoint_id, size, root, note, at
         from muneem.evidence_checkpoints
         where checkpoint_id < coalesce($1, 9223372036854775807)
         order by checkpoint_id desc
         limit $2",
        before,
        most,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(HeadRow::read).collect()
}

struct HeadRow {
    checkpoint_id: i64,
    size: i64,
    root: Vec<u8>,
    note: String,
    at: DateTime<Utc>,
}

impl HeadRow {
    fn read(self) -> Result<SignedHead, Error> {
        Ok(SignedHead {
            checkpoint_id: self.checkpoint_id,
            size: wide(self.size),
            root: self.root.try_into().map_err(|_| Error::Forked("a kept root is no digest".to_owned()))?,
            note: self.note,
            at: self.at,
        })
    }
}

/// Heads that an anchor took, and the last one, the oldest first.
pub(super) async fn list_anchored_heads(db: &mut PgConnection) -> Result<Vec<SignedHead>, Error> {
    let rows = sqlx::query_as!(
        HeadRow,
        "select checkpoint_id, size, root, note, at
         from muneem.evidence_checkpoints c
         where exists (select from muneem.evidence_anchors a where a.checkpoint_id = c.checkpoint_id)
             or c.checkpoint_id = (select max(l.checkpoint_id) from muneem.evidence_checkpoints l)
         order by c.checkpoint_id"
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(HeadRow::read).collect()
}

/// Root of a signed head over so many leaves.
pub(super) async fn find_root(db: &mut PgConnection, size: u64) -> Result<Option<Hash>, Error> {
    let root = sqlx::query_scalar!(
        "select root from muneem.evidence_checkpoints where size = $1 order by checkpoint_id desc limit 1",
        narrow(size),
    )
    .fetch_optional(db)
    .await?;
    root.map(|root| root.try_into().map_err(|_| Error::Forked("a kept root is no digest".to_owned()))).transpose()
}

/// Lets go of the bodies of whole months that ended longer ago than `keep`; the instant before which they went.
pub(super) async fn retire_months(db: &mut PgConnection, keep: PgInterval) -> Result<Option<DateTime<Utc>>, Error> {
    sqlx::query_scalar!("select muneem.evidence_retire_months($1)", keep).fetch_one(db).await.map_err(told)
}

/// Every signed note, the oldest first.
pub(super) async fn list_notes(db: &mut PgConnection) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar!("select note from muneem.evidence_checkpoints order by checkpoint_id").fetch_all(db).await?)
}

/// Receipts of anchors, the oldest first: size of the log, which anchor, what it answered.
pub(super) async fn list_receipts(db: &mut PgConnection) -> Result<Vec<Receipt>, Error> {
    let rows = sqlx::query!(
        "select c.note, a.kind, a.anchor, a.proof
         from muneem.evidence_anchors a
         join muneem.evidence_checkpoints c on c.checkpoint_id = a.checkpoint_id
         order by a.checkpoint_id, a.kind, a.anchor"
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Receipt { note: row.note, kind: row.kind, anchor: row.anchor, proof: row.proof })
        .collect())
}
