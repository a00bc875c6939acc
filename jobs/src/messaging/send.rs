use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AttemptOutcome, Error, Language, MessageId, Reconcile, Reference, State,
    ledger::{self, Locked},
    rules::{self, Next},
    sealed,
    store::{self, Ending, Envelope, Reason},
    trail::Trail,
};
use crate::{
    evidence::words,
    files,
    outbound::carrier::{DocumentHeader, Failure, Media, MediaId, OutgoingMessage, Refusal, SendOutcome, UploadError},
    queue::{self, Done, Job, JobContext, Lane, NewJob, Settings},
};

/// The carrier keeps an upload for thirty days; a message may lie in our queue for a day after we looked.
const MEDIA_LIFE: TimeDelta = TimeDelta::days(30 - 2);

/// After its attempt was committed. A machine that slept in between comes back when the attempt may long be judged.
const LATEST_POST: TimeDelta = TimeDelta::seconds(10);

/// Posts one message to the carrier, at most once per attempt row.
///
/// Steps: look, upload the file (remembered, so repeating is harmless), commit the attempt as `posting`, POST, record
/// what came of it. A run that finds its job's attempt `posting` follows a worker that died: nobody knows whether its
/// bytes left, so it leaves it to the `messaging.reconcile` that was planned with the attempt, and posts nothing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// The message.
    pub message_id: MessageId,
}

impl Send {
    /// From its beginning an attempt's job has ended after this time, or died: its time-out, and a margin.
    pub(super) const LONGEST_RUN: Duration = Duration::from_secs(Self::SETTINGS.timeout.as_secs() + 20);
}

impl Job for Send {
    const KIND: &'static str = "messaging.send";
    const LANE: Lane = Lane::Transactional;
    const SETTINGS: Settings = Settings { timeout: Duration::from_secs(90), ..Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.message_id;
        let mut conn = ctx.begin_to_read().await?;
        let envelope = store::load_envelope(&mut conn, ctx.business, id).await?;
        let last = store::find_last_attempt(&mut conn, id).await?;
        drop(conn);
        match envelope.state {
            State::Queued => {}
            State::Posting => return follow_the_dead(ctx, id).await,
            _ => return Ok(Done::OK),
        }
        if ctx.now() >= envelope.expires_at {
            return give_up(ctx, id, &Reason { error_details: Some(super::EXPIRED), ..Reason::default() }).await;
        }
        let header = match upload(ctx, id, &envelope).await? {
            Uploaded::Nothing => None,
            Uploaded::Media(header) => Some(header),
            Uploaded::Refused(refusal) => return upload_refused(ctx, id, &refusal).await,
        };
        ctx.step("messaging.uploaded").await;

        let number = last.as_ref().map_or(1, |last| last.number + 1);
        let reference = Reference::new(id, number, ctx.deps.chance.as_ref());
        let message = outgoing(ctx, id, &envelope, &reference, header).await?;
        let Some(begun_at) = begin_attempt(ctx, (id, number), &reference).await? else { return Ok(Done::OK) };
        ctx.step("messaging.posting").await;
        let outcome = if ctx.now() - begun_at > LATEST_POST {
            SendOutcome::NotSent(Failure::new("held up on this machine before it was posted"))
        } else {
            ctx.deps.carrier.send(&envelope.number, &message).await
        };
        ctx.step("messaging.posted").await;
        record(ctx, id, number, &envelope, &outcome).await
    }
}

/// The words and the recipient, for the wire.
async fn outgoing(
    ctx: &JobContext,
    id: MessageId,
    envelope: &Envelope,
    reference: &Reference,
    header: Option<DocumentHeader>,
) -> Result<OutgoingMessage, Error> {
    let mut conn = ctx.begin_to_read().await?;
    let (to, content) = sealed::open_message(&mut conn, &ctx.deps.vault, (ctx.business, id), envelope).await?;
    let language: Language = envelope.language.parse().map_err(|_| Error::Unreadable(id, "language"))?;
    Ok(OutgoingMessage { to, reference: reference.0.clone(), template: content.fill(language, header) })
}

enum Uploaded {
    Nothing,
    Media(DocumentHeader),
    Refused(Refusal),
}

/// Hands the file over unless the carrier still has it.
async fn upload(ctx: &JobContext, id: MessageId, envelope: &Envelope) -> Result<Uploaded, Error> {
    let (Some(digest), Some(filename)) = (&envelope.document_digest, &envelope.document_filename) else {
        return Ok(Uploaded::Nothing);
    };
    let header = |media: MediaId| Uploaded::Media(DocumentHeader { media, filename: filename.clone() });
    let mut conn = ctx.begin_to_read().await?;
    if let Some(media) = store::find_media(&mut conn, &envelope.number, digest, ctx.now()).await? {
        return Ok(header(media));
    }
    let file = |source| Error::File(id, source);
    let located = files::locate(&mut conn, &ctx.deps.vault, digest).await.map_err(file)?;
    drop(conn);
    let content = located.fetch(ctx.deps.objects.as_ref()).await.map_err(file)?;
    let media = Media { content, mime_type: "application/pdf", filename: filename.clone() };
    let uploaded_at = ctx.now();
    match ctx.deps.carrier.upload_media(&envelope.number, &media).await {
        Ok(media) => {
            let mut tx = ctx.begin().await?;
            store::upsert_media(&mut tx, &envelope.number, digest, &media, uploaded_at + MEDIA_LIFE).await?;
            tx.commit().await?;
            Ok(header(media))
        }
        Err(UploadError::Refused(refusal)) => Ok(Uploaded::Refused(refusal)),
        Err(failed @ UploadError::Failed(_)) => Err(Error::Upload(id, Box::new(failed))),
    }
}

/// Nothing was sent, so only what holds for ever or holds the sender decides; the rest is the queue's backoff.
async fn upload_refused(ctx: &JobContext, id: MessageId, refusal: &Refusal) -> Result<Done, Error> {
    let details = Some(refusal.details.as_str());
    let reason = Reason { error_code: Some(refusal.code), error_details: details, ..Reason::default() };
    match rules::after_refusal(refusal.class, 1, refusal.retry_after) {
        Next::Never => give_up(ctx, id, &reason).await,
        Next::Hold(scope, wait) => {
            let mut tx = ctx.begin().await?;
            if store::lock_message(&mut tx, ctx.business, id).await? == State::Queued {
                let reason = Reason { held_scope: Some(scope.as_str()), ..reason };
                store::set_state(&mut tx, id, State::Queued, &reason, ctx.now()).await?;
            }
            tx.commit().await?;
            Err(waiting(ctx, id, wait, "the carrier holds the sender"))
        }
        Next::Again(_) | Next::Reconcile => Err(Error::Upload(id, Box::new(UploadError::Refused(refusal.clone())))),
    }
}

/// Commits the attempt, before any byte of it leaves, and with it the look at what became of it: this job may be gone
/// by then. Nothing when the message is no longer to be sent, else the attempt's beginning.
async fn begin_attempt(
    ctx: &JobContext,
    attempt: (MessageId, i32),
    reference: &Reference,
) -> Result<Option<DateTime<Utc>>, Error> {
    let (id, number) = attempt;
    let now = ctx.now();
    let mut tx = ctx.begin().await?;
    if store::lock_message(&mut tx, ctx.business, id).await? != State::Queued {
        return Ok(None);
    }
    store::insert_attempt(&mut tx, ctx, attempt, reference, now).await?;
    store::set_state(&mut tx, id, State::Posting, &Reason::default(), now).await?;
    let look_at = now + rules::delta(ctx.deps.messaging.unknown_window);
    let reconcile = NewJob::of(ctx.business, &Reconcile { message_id: id, attempt: Some(number) })?;
    queue::enqueue(&mut tx, &reconcile.key(format!("{id}/{number}")).run_at(look_at)).await?;
    let mut trail = Trail::of(ctx, Send::KIND);
    trail.note(words::MESSAGE_ATTEMPTED, id, json!({ "attempt": number }));
    trail.write(&mut tx).await?;
    tx.commit().await?;
    Ok(Some(now))
}

/// Writes down what came of the POST; a late holder's transaction is refused by its lease.
async fn record(
    ctx: &JobContext,
    id: MessageId,
    number: i32,
    envelope: &Envelope,
    outcome: &SendOutcome,
) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    let state = store::lock_message(&mut tx, ctx.business, id).await?;
    let open = store::find_outcome(&mut tx, id, number).await? == Some(AttemptOutcome::Posting);
    let mut locked = Locked { business: ctx.business, message: id, attempt: number, state };
    let mut trail = Trail::of(ctx, Send::KIND);
    match outcome {
        SendOutcome::Accepted(accepted) => {
            ledger::accept(&mut tx, ctx, &mut locked, accepted, &mut trail).await?;
            trail.write(&mut tx).await?;
            ctx.complete(&mut tx, None).await?;
            tx.commit().await?;
            Ok(Done::Acked)
        }
        // A webhook was faster than the answer and knows better; another attempt may even be under way.
        _ if state != State::Posting || !open => {
            if let Some((fate, ending)) = fate_of(outcome).filter(|_| open) {
                store::end_attempt(&mut tx, (id, number), fate, &ending, ctx.now()).await?;
                let word = if fate == AttemptOutcome::Unknown { words::OUTCOME_UNKNOWN } else { words::ATTEMPT_FAILED };
                trail.note(word, id, came_to(number, fate, ending.error_code));
            }
            trail.write(&mut tx).await?;
            ctx.complete(&mut tx, None).await?;
            tx.commit().await?;
            Ok(Done::Acked)
        }
        SendOutcome::Unknown(failure) => {
            ledger::leave_unknown(&mut tx, ctx, (id, number), failure, &mut trail).await?;
            trail.write(&mut tx).await?;
            ctx.complete(&mut tx, None).await?;
            tx.commit().await?;
            Ok(Done::Acked)
        }
        SendOutcome::NotSent(failure) => {
            let ending = ledger::ending_of(failure);
            store::end_attempt(&mut tx, (id, number), AttemptOutcome::NotSent, &ending, ctx.now()).await?;
            let reason = Reason { error_details: Some(&failure.what), ..Reason::default() };
            store::set_state(&mut tx, id, State::Queued, &reason, ctx.now()).await?;
            let failures = store::find_last_attempt(&mut tx, id).await?.map_or(1, |last| last.not_sent);
            trail.note(words::ATTEMPT_FAILED, id, came_to(number, AttemptOutcome::NotSent, failure.code));
            trail.write(&mut tx).await?;
            tx.commit().await?;
            let wait = rules::after_not_sent(usize::try_from(failures).unwrap_or(1));
            Err(waiting(ctx, id, wait, "the carrier could not be reached"))
        }
        SendOutcome::Refused(refusal) => {
            let ending = refused_with(refusal);
            store::end_attempt(&mut tx, (id, number), AttemptOutcome::Refused, &ending, ctx.now()).await?;
            trail.note(words::ATTEMPT_FAILED, id, came_to(number, AttemptOutcome::Refused, Some(refusal.code)));
            let refusals = store::find_last_attempt(&mut tx, id).await?.map_or(1, |last| last.refused);
            let next = rules::after_refusal(refusal.class, usize::try_from(refusals).unwrap_or(1), refusal.retry_after);
            let mut reason =
                Reason { error_code: Some(refusal.code), error_details: Some(&refusal.details), ..Reason::default() };
            let (wait, why) = match next {
                Next::Again(wait) => (wait, "the carrier asks to come later"),
                Next::Hold(scope, wait) => {
                    reason.held_scope = Some(scope.as_str());
                    (wait, "the carrier holds the sender")
                }
                Next::Never | Next::Reconcile => {
                    // A media id that the carrier has forgotten is refused as a bad parameter: never offer it again.
                    if let Some(digest) = envelope.document_digest.as_ref().filter(|_| refusal.code == 100) {
                        store::delete_media(&mut tx, &envelope.number, digest).await?;
                    }
                    store::set_state(&mut tx, id, State::Failed, &reason, ctx.now()).await?;
                    trail.note(words::MESSAGE_FAILED, id, json!({ "why": "refused", "code": refusal.code }));
                    trail.write(&mut tx).await?;
                    ctx.complete(&mut tx, None).await?;
                    tx.commit().await?;
                    tracing::warn!(messaging.message_id = %id, code = refusal.code, "the carrier refused a message for good");
                    return Ok(Done::Acked);
                }
            };
            store::set_state(&mut tx, id, State::Queued, &reason, ctx.now()).await?;
            trail.write(&mut tx).await?;
            tx.commit().await?;
            Err(waiting(ctx, id, wait, why))
        }
    }
}

/// What an attempt came to, for the evidence.
fn came_to(attempt: i32, outcome: AttemptOutcome, code: Option<i64>) -> Value {
    json!({ "attempt": attempt, "outcome": outcome, "code": code })
}

/// What an answer that is no receipt makes of its attempt.
fn fate_of(outcome: &SendOutcome) -> Option<(AttemptOutcome, Ending<'_>)> {
    match outcome {
        SendOutcome::Accepted(_) => None,
        SendOutcome::Refused(refusal) => Some((AttemptOutcome::Refused, refused_with(refusal))),
        SendOutcome::NotSent(failure) => Some((AttemptOutcome::NotSent, ledger::ending_of(failure))),
        SendOutcome::Unknown(failure) => Some((AttemptOutcome::Unknown, ledger::ending_of(failure))),
    }
}

fn refused_with(refusal: &Refusal) -> Ending<'_> {
    Ending {
        http_status: Some(refusal.http_status),
        error_code: Some(refusal.code),
        error_details: Some(&refusal.details),
        trace: refusal.trace.as_deref(),
        ..Ending::default()
    }
}

/// The forerunner died between committing its attempt and recording the answer. Another job's attempt is none of ours:
/// that job lives, or the attempt's own reconciliation follows it.
async fn follow_the_dead(ctx: &JobContext, id: MessageId) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    let state = store::lock_message(&mut tx, ctx.business, id).await?;
    let last = store::find_last_attempt(&mut tx, id).await?;
    let own =
        last.filter(|last| state == State::Posting && last.outcome == AttemptOutcome::Posting && last.job == ctx.job);
    if let Some(attempt) = own {
        let failure = Failure::new("the worker died while posting");
        let mut trail = Trail::of(ctx, Send::KIND);
        ledger::leave_unknown(&mut tx, ctx, (id, attempt.number), &failure, &mut trail).await?;
        trail.write(&mut tx).await?;
    }
    ctx.complete(&mut tx, None).await?;
    tx.commit().await?;
    Ok(Done::Acked)
}

async fn give_up(ctx: &JobContext, id: MessageId, reason: &Reason<'_>) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    if store::lock_message(&mut tx, ctx.business, id).await? == State::Queued {
        store::set_state(&mut tx, id, State::Failed, reason, ctx.now()).await?;
        let mut trail = Trail::of(ctx, Send::KIND);
        trail.note(words::MESSAGE_FAILED, id, json!({ "why": "not_posted", "code": reason.error_code }));
        trail.write(&mut tx).await?;
    }
    ctx.complete(&mut tx, None).await?;
    tx.commit().await?;
    tracing::warn!(messaging.message_id = %id, code = reason.error_code, "a message failed before it was posted");
    Ok(Done::Acked)
}

fn waiting(ctx: &JobContext, message: MessageId, wait: Duration, why: &'static str) -> Error {
    Error::Waiting { message, until: ctx.now() + rules::delta(wait), why }
}
