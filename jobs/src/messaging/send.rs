use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    AttemptOutcome, Error, Language, MessageClass, MessageId, Reconcile, Reference, State, accounts,
    holds::{self, Gate, Line},
    inbound::{self, Asked},
    ledger::{self, Ledger},
    limits::{self, Place},
    request,
    rules::{self, Next},
    sealed, send_by_mail,
    store::{self, Envelope},
    template::{self, May},
    trail::Trail,
};
use crate::{
    evidence::words,
    files,
    outbound::{
        Sender,
        carrier::{DocumentHeader, Failure, Media, MediaId, OutgoingMessage, Refusal, SendOutcome, UploadError},
    },
    queue::{self, Done, Job, JobContext, Lane, NewJob, Settings},
};

/// The carrier keeps an upload for thirty days; a message may lie in our queue for a day after we looked.
const MEDIA_LIFE: TimeDelta = TimeDelta::days(30 - 2);

/// What the carrier says of words of one's own outside the window (Cloud API error 131047).
const WINDOW_CLOSED: i64 = 131_047;

/// A template that is not approved yet is looked at again after this time; the carrier's word wakes its messages before.
pub(super) const TEMPLATE_LOOK: TimeDelta = TimeDelta::minutes(15);

/// After its attempt was committed. A machine that slept in between comes back when the attempt may long be judged.
const LATEST_POST: TimeDelta = TimeDelta::seconds(10);

/// Posts one message to the carrier, at most once per attempt row.
///
/// Steps: look whether it may go now, upload the file (remembered, so repeating is harmless), take a place in the number's
/// rate, commit the attempt as `posting`, POST, record what came of it. A run that finds its job's attempt `posting`
/// follows a worker that died: nobody knows whether its bytes left, so it leaves it to the `messaging.reconcile` that was
/// planned with the attempt, and posts nothing.
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
        let Some(envelope) = store::load_envelopes(&mut conn, ctx.business, &[id.0]).await?.pop() else {
            let letter = store::load_letter(&mut conn, ctx.business, id).await?.ok_or(Error::NoMessage(id))?;
            drop(conn);
            return send_by_mail::send(ctx, id, &letter).await;
        };
        match envelope.state {
            State::Queued => {}
            State::Posting => {
                drop(conn);
                return follow_the_dead(ctx, id).await;
            }
            _ => return Ok(Done::OK),
        }
        if ctx.now() >= envelope.expires_at {
            drop(conn);
            return end(ctx, id, (None, Some(super::EXPIRED)), "not_posted").await;
        }
        if let Some(rest) = rests(ctx, (envelope.class, &envelope.purpose), envelope.not_before) {
            drop(conn);
            return rest_until(ctx, id, rest).await;
        }
        let line =
            Line::new(&envelope.number, &envelope.waba_id, envelope.own_app, (&envelope.template, &envelope.language));
        let gate = holds::gate(&mut conn, (ctx.business, envelope.class), &line, ctx.now()).await?;
        let probes = match gate {
            Gate::Open(probes) => probes,
            Gate::Held { scope, code, until } => {
                drop(conn);
                return wait(ctx, id, (&scope, code), until).await;
            }
        };
        let account = (ctx.business, envelope.waba_id.as_str());
        let words = (envelope.template.as_str(), envelope.language.as_str());
        let may = if words.0.starts_with(holds::FREE) {
            May::Send
        } else {
            template::may_send(&mut conn, account, words, envelope.class).await?
        };
        match may {
            May::Send => {}
            May::NotNow { .. } => {
                drop(conn);
                return wait(ctx, id, ("template", None), ctx.now() + TEMPLATE_LOOK).await;
            }
            May::Never { .. } => {
                drop(conn);
                return leave_out(ctx, id, "template_is_marketing").await;
            }
        }
        let (vault, of) = (&*ctx.deps.vault, (ctx.business, id));
        let (to, content) = sealed::open_message(&mut conn, vault, of, &envelope).await?;
        let ways = sealed::open_ways(&mut conn, vault, of, envelope.ways_sealed.as_deref()).await?;
        if content.is_free() {
            let marks = sealed::persons(&mut conn, vault, ctx.business, &to).await?;
            if !store::is_window_open(&mut conn, &envelope.number, &marks, ctx.now()).await? {
                drop(conn);
                return end(ctx, id, (Some(WINDOW_CLOSED), Some("she has not written within 24 hours")), "not_posted")
                    .await;
            }
        }
        let person = sealed::person(&mut conn, &ctx.deps.vault, ctx.business, &to).await?;
        let sender = accounts::sender_of(&mut conn, &ctx.deps.vault, ctx.business, &envelope.number).await?;
        drop(conn);
        let header = match upload(ctx, id, &sender, &envelope).await? {
            Uploaded::Nothing => None,
            Uploaded::Media(header) => Some(header),
            Uploaded::Refused(refusal) => return upload_refused(ctx, id, &refusal).await,
        };
        ctx.step("messaging.uploaded").await;

        let from = limits::From {
            business: ctx.business,
            number: &envelope.number,
            portfolio: &envelope.portfolio,
            daily_recipients: envelope.daily_recipients,
            urgent: envelope.class == super::MessageClass::Otp,
        };
        let at = match limits::ask(ctx, from, &[person]).await?.first() {
            Some(Place::At(at)) => *at,
            Some(Place::Later { scope, wait: after }) => {
                return wait(ctx, id, (scope, None), ctx.now() + rules::delta(*after)).await;
            }
            None => return Ok(Done::OK),
        };
        let language: Language = envelope.language.parse().map_err(|_| Error::Unreadable(id, "language"))?;
        // A way that nothing can go by is none.
        let has_more = envelope.has_more && ctx.deps.mailer.is_configured();
        let asked = Asked::by_whatsapp(&to, (envelope.class, &envelope.purpose), (ways.as_ref(), has_more));
        let Some(begun) = begin(ctx, id, asked, &probes).await? else { return Ok(Done::OK) };
        let message = OutgoingMessage { to, reference: begun.reference.0, body: content.body(language, header) };
        ctx.step("messaging.posting").await;
        let latest = Instant::now() + LATEST_POST.to_std().unwrap_or_default();
        let late = "held up on this machine before it was posted";
        let in_time = limits::wait_for(ctx, from, at, latest).await? && ctx.now() - begun.at <= LATEST_POST;
        let outcome = if in_time {
            ctx.deps.carrier.send(&sender, &message).await
        } else {
            SendOutcome::NotSent(Failure::new(late))
        };
        ctx.step("messaging.posted").await;
        record(ctx, (id, begun.number), (&envelope, &probes), &outcome).await
    }
}

enum Uploaded {
    Nothing,
    Media(DocumentHeader),
    Refused(Refusal),
}

/// Hands the file over unless the carrier still has it.
async fn upload(ctx: &JobContext, id: MessageId, sender: &Sender, envelope: &Envelope) -> Result<Uploaded, Error> {
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
    let media = Media { content, mime_type: request::mime_of(filename), filename: filename.clone() };
    let uploaded_at = ctx.now();
    match ctx.deps.carrier.upload_media(sender, &media).await {
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
    match rules::after_refusal(refusal.class, 1, refusal.retry_after) {
        Next::Never => end(ctx, id, (Some(refusal.code), Some(&refusal.details)), "not_posted").await,
        Next::Hold(scope, own) => {
            let mut tx = ctx.begin().await?;
            let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], ctx.now()).await?;
            let sign = ledger::Sign {
                message: id,
                code: refusal.code,
                class: refusal.class,
                retry_after: refusal.retry_after,
            };
            let by = ctx.by(Send::KIND);
            let held = holds::react(&mut tx, ctx.business, &[(&sign, &ledger.get(id)?.message)], &by).await?;
            ledger.waits(id, scope.as_str(), Some(refusal.code));
            ledger.write(&mut tx, ctx).await?;
            tx.commit().await?;
            let until = held.get(&id).copied().unwrap_or(ctx.now() + rules::delta(own));
            Err(Error::Waiting { message: id, until, why: "the carrier holds the sender" })
        }
        Next::Again(_) | Next::Reconcile => Err(Error::Upload(id, Box::new(UploadError::Refused(refusal.clone())))),
    }
}

/// An attempt that is committed and not yet posted.
struct Begun {
    number: i32,
    reference: Reference,
    at: DateTime<Utc>,
}

/// Commits the attempt, before any byte of it leaves, and with it the look at what became of it: this job may be gone
/// by then. Nothing when the message is no longer to be sent.
async fn begin(ctx: &JobContext, id: MessageId, asked: Asked<'_>, probes: &[Uuid]) -> Result<Option<Begun>, Error> {
    let now = ctx.now();
    let mut tx = ctx.begin().await?;
    let mut trail = Trail::of(ctx, Send::KIND);
    let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], now).await?;
    if let Some(because) = stands_against(&mut tx, ctx, ledger.get(id)?, &asked).await? {
        ledger.skip(id, because, &mut trail);
        ledger.write(&mut tx, ctx).await?;
        trail.write(&mut tx).await?;
        tx.commit().await?;
        return Ok(None);
    }
    if !probes.is_empty() && !holds::probe(&mut tx, probes, now).await? {
        tx.rollback().await?;
        // Somebody else finds out; a moment later the hold is gone or goes on.
        let until = now + TimeDelta::seconds(5);
        return Err(Error::Waiting { message: id, until, why: "another message finds out whether a hold is over" });
    }
    let attempts = ledger.get(id)?.attempts.last().map_or(1, |last| last.number + 1);
    let reference = Reference::new(id, attempts, ctx.deps.chance.as_ref());
    let Some(number) = ledger.begin(id, &reference, (ctx.job, ctx.attempt)) else { return Ok(None) };
    ledger.write(&mut tx, ctx).await?;
    let look_at = now + rules::delta(ctx.deps.messaging.unknown_window);
    let reconcile = NewJob::of(ctx.business, &Reconcile { message_id: id, attempt: Some(number) })?;
    queue::enqueue(&mut tx, &reconcile.key(format!("{id}/{number}")).run_at(look_at)).await?;
    trail.note(words::MESSAGE_ATTEMPTED, id, json!({ "attempt": number }));
    trail.write(&mut tx).await?;
    tx.commit().await?;
    Ok(Some(Begun { number, reference, at: now }))
}

/// Why a message is not to go now, though it was to go when it was asked for: she may have said stop in between, or has
/// it by another way.
pub(super) async fn stands_against(
    conn: &mut PgConnection,
    ctx: &JobContext,
    entry: &ledger::Entry,
    asked: &Asked<'_>,
) -> Result<Option<&'static str>, Error> {
    let row = &entry.message;
    if row.delivery.is_some() {
        let siblings = store::list_siblings(conn, &[row.message_id.0]).await?;
        if let Some(because) = otherwise(row.way, siblings.iter().map(|(_, way, state)| (*way, *state))) {
            return Ok(Some(because));
        }
    }
    Ok(inbound::judge(conn, ctx, std::slice::from_ref(asked)).await?.into_iter().flatten().next())
}

/// Those of many messages that are not to go, because another way reached the person or was taken and may.
pub(super) async fn reached_otherwise(
    conn: &mut PgConnection,
    ledger: &Ledger,
    ids: &[MessageId],
) -> Result<BTreeMap<MessageId, &'static str>, Error> {
    let mut several = Vec::new();
    for id in ids {
        let row = &ledger.get(*id)?.message;
        if row.delivery.is_some() {
            several.push((row.message_id, row.way));
        }
    }
    if several.is_empty() {
        return Ok(BTreeMap::new());
    }
    let asked: Vec<_> = several.iter().map(|(id, _)| id.0).collect();
    let siblings = store::list_siblings(conn, &asked).await?;
    let found = several.into_iter().filter_map(|(id, way)| {
        let own = siblings.iter().filter(|(of, ..)| *of == id).map(|(_, way, state)| (*way, *state));
        Some((id, otherwise(way, own)?))
    });
    Ok(found.collect())
}

/// What the other ways say against this one: one of them reached her, or a later one was taken and came to something.
fn otherwise(own: i16, siblings: impl Iterator<Item = (i16, State)>) -> Option<&'static str> {
    let mut because = None;
    for (way, state) in siblings {
        match state {
            State::Delivered | State::Read => return Some("reached_elsewhere"),
            State::Failed | State::Skipped => {}
            _ if way > own => because = Some("fell_back"),
            _ => {}
        }
    }
    because
}

/// Until when a message rests by our own rule: before it may begin, or in the quiet hours of what it is about.
pub(super) fn rests(
    ctx: &JobContext,
    (class, purpose): (MessageClass, &str),
    not_before: Option<DateTime<Utc>>,
) -> Option<DateTime<Utc>> {
    let now = ctx.now();
    let quiet = ctx.deps.messaging.quiet_hours.until(class, purpose, now);
    not_before.filter(|at| *at > now).max(quiet)
}

/// Lets a message rest, and says so to people.
pub(super) async fn rest_until(ctx: &JobContext, id: MessageId, until: DateTime<Utc>) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], ctx.now()).await?;
    ledger.waits(id, "quiet_hours", None);
    ledger.rest(id, until);
    ledger.write(&mut tx, ctx).await?;
    tx.commit().await?;
    Err(Error::Waiting { message: id, until, why: "it is not to be sent at this hour" })
}

/// Writes down what came of the POST; a late holder's transaction is refused by its lease.
async fn record(
    ctx: &JobContext,
    attempt: (MessageId, i32),
    (envelope, probes): (&Envelope, &[Uuid]),
    outcome: &SendOutcome,
) -> Result<Done, Error> {
    let (id, _) = attempt;
    let by = ctx.by(Send::KIND);
    let mut tx = ctx.begin().await?;
    let mut trail = Trail::of(ctx, Send::KIND);
    let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], ctx.now()).await?;
    let mark = ledger::mark_of(&mut tx, &ctx.deps.vault, ctx.business, outcome).await?;
    let next = ledger.answer(attempt, outcome, mark.as_deref(), &mut trail);
    if let SendOutcome::Accepted(accepted) = outcome {
        let accepted = [(attempt, accepted.wamid.clone())];
        ledger::apply_early(&mut tx, ctx, &mut ledger, &accepted, &mut trail).await?;
        if !probes.is_empty() {
            holds::release(&mut tx, ctx.business, probes, "carried", &by).await?;
        }
    }
    // A media id that the carrier has forgotten is refused as a bad parameter: never offer it again.
    if let (SendOutcome::Refused(refusal), Some(digest)) = (outcome, &envelope.document_digest)
        && refusal.code == 100
    {
        store::delete_media(&mut tx, &envelope.number, digest).await?;
    }
    let signs: Vec<_> = ledger
        .signs()
        .iter()
        .map(|sign| Ok((sign, &ledger.get(sign.message)?.message)))
        .collect::<Result<_, Error>>()?;
    let held = holds::react(&mut tx, ctx.business, &signs, &by).await?;
    react_to_limits(&mut tx, ctx, &signs).await?;
    inbound::note_recipients(&mut tx, ctx, &signs, &by).await?;
    ledger.write(&mut tx, ctx).await?;
    trail.write(&mut tx).await?;
    let until = match next {
        Some(Next::Again(wait)) => ctx.now() + rules::delta(wait),
        Some(Next::Hold(_, wait)) => held.get(&id).copied().unwrap_or(ctx.now() + rules::delta(wait)),
        Some(Next::Never | Next::Reconcile) | None => {
            ctx.complete(&mut tx, None).await?;
            tx.commit().await?;
            return Ok(Done::Acked);
        }
    };
    tx.commit().await?;
    Err(Error::Waiting { message: id, until, why: "the carrier did not take it now" })
}

/// What the carrier's word about its limits means for those who send next.
pub(super) async fn react_to_limits(
    conn: &mut PgConnection,
    ctx: &JobContext,
    signs: &[(&ledger::Sign, &store::MessageRow)],
) -> Result<(), Error> {
    for (sign, row) in signs {
        let wait = match rules::after_refusal(sign.class, 1, sign.retry_after) {
            Next::Again(wait) => wait,
            _ => continue,
        };
        match sign.code {
            // Throughput of the number, or its upgrade: everybody slows down.
            130_429 | 131_057 => {
                if let Some(number) = &row.number {
                    store::slow_down(conn, number, wait).await?;
                }
            }
            131_056 => {
                if let (Some(number), Some(mark)) = (&row.number, &row.to_mark) {
                    store::push_pair(conn, (ctx.business, number), mark, wait).await?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The forerunner died between committing its attempt and recording the answer. Another job's attempt is none of ours:
/// that job lives, or the attempt's own reconciliation follows it.
pub(super) async fn follow_the_dead(ctx: &JobContext, id: MessageId) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], ctx.now()).await?;
    let entry = ledger.get(id)?;
    let posting = entry.message.state == State::Posting;
    let own =
        entry.attempts.last().filter(|last| posting && last.outcome == AttemptOutcome::Posting && last.job == ctx.job);
    if let Some(number) = own.map(|own| own.number) {
        let mut trail = Trail::of(ctx, Send::KIND);
        ledger.leave_unknown((id, number), &Failure::new("the worker died while posting"), &mut trail);
        ledger.write(&mut tx, ctx).await?;
        trail.write(&mut tx).await?;
    }
    ctx.complete(&mut tx, None).await?;
    tx.commit().await?;
    Ok(Done::Acked)
}

/// Leaves a message out that must not go.
pub(super) async fn leave_out(ctx: &JobContext, id: MessageId, because: &'static str) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    let mut trail = Trail::of(ctx, Send::KIND);
    let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], ctx.now()).await?;
    ledger.skip(id, because, &mut trail);
    ledger.write(&mut tx, ctx).await?;
    trail.write(&mut tx).await?;
    ctx.complete(&mut tx, None).await?;
    tx.commit().await?;
    Ok(Done::Acked)
}

/// Ends a message that was never posted.
pub(super) async fn end(
    ctx: &JobContext,
    id: MessageId,
    reason: (Option<i64>, Option<&str>),
    why: &str,
) -> Result<Done, Error> {
    let mut tx = ctx.begin().await?;
    let mut trail = Trail::of(ctx, Send::KIND);
    let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], ctx.now()).await?;
    ledger.fail(id, reason, why, &mut trail);
    ledger.write(&mut tx, ctx).await?;
    trail.write(&mut tx).await?;
    ctx.complete(&mut tx, None).await?;
    tx.commit().await?;
    tracing::warn!(messaging.message_id = %id, code = reason.0, "a message failed before it was posted");
    Ok(Done::Acked)
}

/// Puts a message off that may not go now, and says for people what it waits for.
pub(super) async fn wait(
    ctx: &JobContext,
    id: MessageId,
    (scope, code): (&str, Option<i64>),
    until: DateTime<Utc>,
) -> Result<Done, Error> {
    // A place in the rate is a matter of moments; who waits longer says so.
    if until - ctx.now() > TimeDelta::seconds(30) {
        let mut tx = ctx.begin().await?;
        let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], ctx.now()).await?;
        ledger.waits(id, scope, code);
        ledger.write(&mut tx, ctx).await?;
        tx.commit().await?;
    }
    Err(Error::Waiting { message: id, until, why: "it may not be sent now" })
}
