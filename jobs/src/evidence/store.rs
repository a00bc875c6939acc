use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, Event};

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
