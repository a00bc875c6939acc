use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Error, Event, Receipt, Sealed, Standing,
    leaf::Leaf,
    note::Checkpoint,
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

/// Adds leaves to `tree` until it has `size`.
///
/// # Errors
/// [`Error::Forked`] if one of them is not there.
pub(super) async fn extend(db: &mut PgConnection, tree: &mut Frontier, size: u64) -> Result<(), Error> {
    while tree.size() < size {
        let (from, to) = (tree.size(), size.min(tree.size() + PAGE));
        let leaves = sqlx::query!(
            "select seq, leaf from muneem.evidence_leaves where seq >= $1 and seq < $2 order by seq",
            narrow(from),
            narrow(to),
        )
        .fetch_all(&mut *db)
        .await?;
        for row in leaves {
            let leaf: Hash =
                row.leaf.try_into().map_err(|_| Error::Forked(format!("leaf {} is no digest", row.seq)))?;
            if wide(row.seq) != tree.size() {
                break;
            }
            tree.push(leaf);
        }
        if tree.size() != to {
            return Err(Error::Forked(format!("leaf {} is missing", tree.size())));
        }
    }
    Ok(())
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
        .map(|row| row.leaf.try_into().map_err(|_| Error::Forked(format!("leaf {} is no digest", row.seq))))
        .collect()
}

/// The last signed note.
pub(super) async fn find_note(db: &mut PgConnection) -> Result<Option<String>, Error> {
    Ok(sqlx::query_scalar!("select note from muneem.evidence_checkpoints order by checkpoint_id desc limit 1")
        .fetch_optional(db)
        .await?)
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

/// Keeps the receipt of an anchor.
pub(super) async fn insert_anchor(
    db: &mut PgConnection,
    checkpoint_id: i64,
    kind: &str,
    proof: &[u8],
) -> Result<(), Error> {
    sqlx::query!(
        "insert into muneem.evidence_anchors (checkpoint_id, kind, proof) values ($1, $2, $3)",
        checkpoint_id,
        kind,
        proof,
    )
    .execute(db)
    .await?;
    Ok(())
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

/// Makes the partitions of the coming months.
pub(super) async fn make_months(db: &mut PgConnection) -> Result<(), Error> {
    sqlx::query_scalar!("select muneem.evidence_make_months()").fetch_one(db).await?;
    Ok(())
}

/// Sealed events from `from_seq` on, with their bodies where they are kept.
pub(super) async fn list_sealed(
    db: &mut PgConnection,
    business: Option<Uuid>,
    from_seq: u64,
    most: i32,
) -> Result<Vec<Sealed>, Error> {
    let rows = sqlx::query!(
        r#"select seq as "seq!", event_id as "event_id!", business_id, business_seq as "business_seq!",
               previous as "previous!", at as "at!", body_sha256 as "body_sha256!", leaf as "leaf!", body
           from muneem.evidence_page($1, $2, $3)"#,
        business,
        narrow(from_seq),
        most,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let digest = |bytes: Vec<u8>| Hash::try_from(bytes).map_err(|_| Error::Forked(format!("leaf {}", row.seq)));
            Ok(Sealed {
                seq: wide(row.seq),
                leaf: Leaf {
                    event_id: row.event_id,
                    business_id: row.business_id,
                    business_seq: wide(row.business_seq),
                    previous: digest(row.previous)?,
                    at: row.at,
                    body_sha256: digest(row.body_sha256)?,
                },
                hash: digest(row.leaf)?,
                body: row.body,
            })
        })
        .collect()
}

/// Every signed note, the oldest first.
pub(super) async fn list_notes(db: &mut PgConnection) -> Result<Vec<String>, Error> {
    Ok(sqlx::query_scalar!("select note from muneem.evidence_checkpoints order by checkpoint_id").fetch_all(db).await?)
}

/// Receipts of anchors, the oldest first: size of the log, which anchor, what it answered.
pub(super) async fn list_receipts(db: &mut PgConnection) -> Result<Vec<Receipt>, Error> {
    let rows = sqlx::query!(
        "select c.note, a.kind, a.proof
         from muneem.evidence_anchors a
         join muneem.evidence_checkpoints c on c.checkpoint_id = a.checkpoint_id
         order by a.checkpoint_id, a.kind"
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| Receipt { note: row.note, kind: row.kind, proof: row.proof }).collect())
}
