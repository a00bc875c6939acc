//! Many consents at once: a batch of a list.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    messaging::wishes::{ContactId, Error},
    people::BusinessId,
};

/// Which of these marks, each with the place of its row, may not be brought back: `true` where she was erased, `false`
/// where she said herself that she wants no messages.
pub(in crate::messaging::wishes) async fn list_refusals(
    conn: &mut PgConnection,
    business: BusinessId,
    (places, marks): (&[i64], &[Vec<u8>]),
) -> Result<Vec<(i64, bool)>, Error> {
    let rows = sqlx::query!(
        r#"with asked as (
               select a.place, a.mark from unnest($2::bigint[], $3::bytea[]) as a (place, mark)
           )
           select a.place as "place!", true as "erased!"
           from asked a
           join muneem.messaging_erasures e on e.business_id = $1 and e.mark = a.mark and e.lifted_at is null
           union
           select a.place, false
           from asked a
           join muneem.messaging_contacts known on known.business_id = $1 and known.mark = a.mark
           join muneem.messaging_contacts c on c.business_id = $1 and c.group_id = known.group_id
           cross join lateral (
               select distinct on (one.scope, one.channel, one.cause) one.state
               from muneem.messaging_suppressions one
               where one.contact_id = c.contact_id and one.business_id = $1 and one.scope in ('all', 'marketing')
                   and one.cause in ('person', 'preference')
               order by one.scope, one.channel, one.cause, one.at desc, one.state desc, one.recorded_at desc
           ) s
           where s.state = 'set'"#,
        business.0,
        places,
        marks,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.place, row.erased)).collect())
}

/// Which of these marks, each with the place of its row, are contacts already.
pub(in crate::messaging::wishes) async fn find_many(
    conn: &mut PgConnection,
    business: BusinessId,
    (places, marks): (&[i64], &[Vec<u8>]),
) -> Result<Vec<(i64, ContactId)>, Error> {
    let rows = sqlx::query!(
        r#"select a.place as "place!", c.contact_id as "contact_id: ContactId"
           from unnest($2::bigint[], $3::bytea[]) as a (place, mark)
           join muneem.messaging_contacts c on c.business_id = $1 and c.mark = a.mark"#,
        business.0,
        places,
        marks,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.place, row.contact_id)).collect())
}

/// One row of a list, ready to be written.
pub(in crate::messaging::wishes) struct ImportedRow {
    pub(in crate::messaging::wishes) consent_id: Uuid,
    pub(in crate::messaging::wishes) contact: ContactId,
    pub(in crate::messaging::wishes) purpose: String,
    pub(in crate::messaging::wishes) state: &'static str,
    pub(in crate::messaging::wishes) wording_version: Option<String>,
    pub(in crate::messaging::wishes) language: Option<String>,
    pub(in crate::messaging::wishes) proof_sealed: Option<Vec<u8>>,
    pub(in crate::messaging::wishes) proof_sha256: Option<Vec<u8>>,
    pub(in crate::messaging::wishes) at: DateTime<Utc>,
}

/// Writes a batch with one statement; how many of them were not there yet.
pub(in crate::messaging::wishes) async fn insert_many(
    conn: &mut PgConnection,
    business: BusinessId,
    rows: &[ImportedRow],
    (now, recorder): (DateTime<Utc>, &str),
) -> Result<u64, Error> {
    Ok(sqlx::query!(
        "insert into muneem.messaging_consents
             (consent_id, business_id, contact_id, purpose, state, source, wording_version, language, proof_sealed,
              proof_sha256, at, recorded_at, recorded_by)
         select r.consent_id, $1, r.contact_id, r.purpose, r.state, 'import', r.wording_version, r.language,
             r.proof_sealed, r.proof_sha256, r.at, $11, $12
         from unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::bytea[],
             $10::timestamptz[])
             as r (consent_id, contact_id, purpose, state, wording_version, language, proof_sealed, proof_sha256, at)
         where not exists (
             select from muneem.messaging_consents c
             where c.contact_id = r.contact_id and c.purpose = r.purpose and c.state = r.state and c.source = 'import'
                 and c.at = r.at)",
        business.0,
        &rows.iter().map(|row| row.consent_id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.contact.0).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.purpose.clone()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.state.to_owned()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.wording_version.clone()).collect::<Vec<_>>() as &[Option<String>],
        &rows.iter().map(|row| row.language.clone()).collect::<Vec<_>>() as &[Option<String>],
        &rows.iter().map(|row| row.proof_sealed.clone()).collect::<Vec<_>>() as &[Option<Vec<u8>>],
        &rows.iter().map(|row| row.proof_sha256.clone()).collect::<Vec<_>>() as &[Option<Vec<u8>>],
        &rows.iter().map(|row| row.at).collect::<Vec<_>>(),
        now,
        recorder,
    )
    .execute(conn)
    .await?
    .rows_affected())
}
