//! Every statement of messaging on its own tables, by the table it is about.

mod accounts;
mod alerts;
mod attempts;
mod events;
mod holds;
mod limits;
mod messages;
mod templates;
mod webhooks;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Attempt, AttemptOutcome, Error, MessageId};
use crate::outbound::carrier::{MediaId, NumberId};

pub(super) use accounts::{
    App, Owned, Said, find_number, list_accounts, list_apps, note_said, owners_of, set_app, upsert_account,
};
pub(super) use alerts::{
    end_alert, find_open_alert, forget_pairs, insert_alert, list_alerts, list_senders, note_said_and_tell,
};
pub(super) use attempts::{AttemptRow, OwnAttempt, find_attempts, list_attempt_rows, upsert_attempts};
pub(super) use events::{NewEvent, find_heard_at, insert_events, list_events, list_statuses_of};
pub(super) use holds::{
    HoldRow, find_holds, insert_hold, list_holds, lock_hold, probe_hold, release_holds, strike_hold,
};
pub(super) use limits::{
    count_reached, hear_from, is_window_open, leave_unsynced, note_reached, pair_waits, push_pair, slow_down,
    take_pairs, take_places,
};
pub(super) use messages::{
    Envelope, Letter, MessageRow, NewRow, Place, find_message, insert_message, insert_messages, list_delivery,
    list_falling_back, list_held, list_messages, list_queued_for, list_siblings, load_envelopes, load_letter,
    load_spent, lock_messages, update_messages,
};
pub(super) use templates::{
    PulledTemplate, ToldTemplate, find_template, forget_templates, list_templates, note_template, note_template_gone,
    upsert_templates,
};
pub(super) use webhooks::{NewWebhook, StoredWebhook, insert_webhooks, list_webhooks};

/// The carrier's id of a file for a number, while it lives.
pub(super) async fn find_media(
    conn: &mut PgConnection,
    number: &NumberId,
    digest: &str,
    now: DateTime<Utc>,
) -> Result<Option<MediaId>, Error> {
    let media = sqlx::query_scalar!(
        r#"
        select media_id as "media: MediaId"
        from muneem.messaging_media
        where digest = $1 and phone_number_id = $2 and expires_at > $3
        "#,
        digest,
        number.as_str(),
        now,
    )
    .fetch_optional(conn)
    .await?;
    Ok(media)
}

/// Remembers the carrier's id of a file; the later upload wins.
pub(super) async fn upsert_media(
    conn: &mut PgConnection,
    number: &NumberId,
    digest: &str,
    media: &MediaId,
    expires_at: DateTime<Utc>,
) -> Result<(), Error> {
    sqlx::query!(
        r#"
        insert into muneem.messaging_media (digest, phone_number_id, media_id, expires_at)
        values ($1, $2, $3, $4)
        on conflict (digest, phone_number_id) do update
        set media_id = excluded.media_id, expires_at = excluded.expires_at
        "#,
        digest,
        number.as_str(),
        media.0,
        expires_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets the carrier's id of a file, so that the next attempt uploads it again.
pub(super) async fn delete_media(conn: &mut PgConnection, number: &NumberId, digest: &str) -> Result<(), Error> {
    sqlx::query!(
        "delete from muneem.messaging_media where digest = $1 and phone_number_id = $2",
        digest,
        number.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The attempts of a message, first to last.
pub(super) async fn list_attempts(conn: &mut PgConnection, id: MessageId) -> Result<Vec<Attempt>, Error> {
    let attempts = sqlx::query_as!(
        Attempt,
        r#"
        select number, outcome as "outcome: AttemptOutcome", http_status, error_code, error_details, trace, started_at,
            ended_at, adopted_at
        from muneem.messaging_attempts
        where message_id = $1
        order by number
        "#,
        id.0,
    )
    .fetch_all(conn)
    .await?;
    Ok(attempts)
}
