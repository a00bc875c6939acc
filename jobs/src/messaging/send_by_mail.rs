//! The way of mail: the same attempts, states and waits as by WhatsApp, with a mail server in the place of the carrier.
//!
//! A mail server answers at once, and for good: what it took it answers for, and there is no receipt but the report of a
//! failure. What is in doubt is judged as any other attempt, by the message's policy once its window is over.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::TimeDelta;
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Error, Language, MessageClass, MessageId, Reconcile, Reference, Send, State,
    campaign::{self, CampaignState},
    inbound::Asked,
    ledger::Ledger,
    mail::{self, Draft, MailRef},
    request,
    rules::{self, Next},
    sealed,
    send::{end, follow_the_dead, leave_out, rest_until, rests, stands_against, wait},
    store::Letter,
    trail::Trail,
    wishes::Channel,
};
use crate::{
    evidence::words,
    files,
    outbound::{Attachment, Email, Mail, MailOutcome, mailer::Fault},
    queue::{self, Done, Job, JobContext, NewJob},
};

/// A campaign that rests is looked at again so soon: ten thousand of its mails cost the queue little, and whoever lets it
/// go on is not kept waiting long.
const CAMPAIGN_LOOK: TimeDelta = TimeDelta::minutes(5);

/// Sends one message of the ledger by mail, at most once per attempt row: `messaging.send` for this way.
pub(super) async fn send(ctx: &JobContext, id: MessageId, letter: &Letter) -> Result<Done, Error> {
    match letter.state {
        State::Queued => {}
        State::Posting => return follow_the_dead(ctx, id).await,
        _ => return Ok(Done::OK),
    }
    if ctx.now() >= letter.expires_at {
        return end(ctx, id, (None, Some(super::EXPIRED)), "not_posted").await;
    }
    if let Some(campaign) = letter.campaign {
        let mut conn = ctx.begin_to_read().await?;
        let state = campaign::state_of(&mut conn, ctx.business, campaign).await?;
        drop(conn);
        match state {
            Some(state) if state.goes_out() => {}
            Some(CampaignState::Paused | CampaignState::Draft) => {
                return wait(ctx, id, ("campaign", None), ctx.now() + CAMPAIGN_LOOK).await;
            }
            _ => return leave_out(ctx, id, "campaign_stopped").await,
        }
    }
    if !ctx.deps.mailer.is_configured() {
        return leave_out(ctx, id, "no_mail_server").await;
    }
    if let Some(until) = rests(ctx, (letter.class, &letter.purpose), letter.not_before) {
        return rest_until(ctx, id, until).await;
    }
    // What sells must be as easy to leave as it was to join (RFC 8058): without a page to leave by it does not go.
    if letter.class == MessageClass::Marketing && ctx.deps.messaging.public_url.is_none() {
        return leave_out(ctx, id, "no_page_to_leave_by").await;
    }
    let attached = attached(ctx, id, letter).await?;
    let Some(Begun { number, mail }) = begin(ctx, id, letter, attached).await? else { return Ok(Done::OK) };
    ctx.step("messaging.mail_posting").await;
    let outcome = ctx.deps.mailer.send(&mail).await;
    ctx.step("messaging.mail_posted").await;
    record(ctx, (id, number), &outcome).await
}

/// The file that goes with it.
async fn attached(ctx: &JobContext, id: MessageId, letter: &Letter) -> Result<Vec<Attachment>, Error> {
    let (Some(digest), Some(filename)) = (&letter.document_digest, &letter.document_filename) else {
        return Ok(Vec::new());
    };
    let file = |source| Error::File(id, source);
    let mut conn = ctx.begin_to_read().await?;
    let located = files::locate(&mut conn, &ctx.deps.vault, digest).await.map_err(file)?;
    drop(conn);
    let content: Bytes = located.fetch(ctx.deps.objects.as_ref()).await.map_err(file)?;
    let attachment = Attachment::new(filename, request::mime_of(filename), content);
    Ok(vec![attachment.map_err(|error| Error::MessageMail(id, Box::new(error.into())))?])
}

/// An attempt that is committed, and the mail that it hands over.
struct Begun {
    number: i32,
    mail: Mail,
}

/// Commits the attempt, and with it what comes back of it and the look at what became of it. Nothing when the message is
/// no longer to be sent.
async fn begin(
    ctx: &JobContext,
    id: MessageId,
    letter: &Letter,
    attachments: Vec<Attachment>,
) -> Result<Option<Begun>, Error> {
    let (now, vault, of) = (ctx.now(), &*ctx.deps.vault, (ctx.business, id));
    let mut tx = ctx.begin().await?;
    if let Some(campaign) = letter.campaign
        && !campaign::state_of(&mut tx, ctx.business, campaign).await?.is_some_and(CampaignState::goes_out)
    {
        return Err(Error::Waiting { message: id, until: now, why: "its campaign was halted this moment" });
    }
    let mut trail = Trail::of(ctx, Send::KIND);
    let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], now).await?;
    let to = sealed::open_letter(&mut tx, vault, of, letter).await?;
    let ways = sealed::open_ways(&mut tx, vault, of, letter.ways_sealed.as_deref()).await?;
    let asked = Asked {
        to: super::wishes::Contact::Email(to.clone()),
        others: ways.map(|ways| ways.others(Channel::Mail)).unwrap_or_default(),
        channel: Channel::Mail,
        class: letter.class,
        purpose: &letter.purpose,
        last_way: !letter.has_more,
    };
    if let Some(because) = stands_against(&mut tx, ctx, ledger.get(id)?, &asked).await? {
        ledger.skip(id, because, &mut trail);
        ledger.write(&mut tx, ctx).await?;
        trail.write(&mut tx).await?;
        tx.commit().await?;
        return Ok(None);
    }
    let attempts = ledger.get(id)?.attempts.last().map_or(1, |last| last.number + 1);
    let reference = Reference::new(id, attempts, ctx.deps.chance.as_ref());
    let Some(number) = ledger.begin(id, &reference, (ctx.job, ctx.attempt)) else { return Ok(None) };
    let mail = written(&mut tx, ctx, (id, number), (to, letter), attachments).await?;
    ledger.write(&mut tx, ctx).await?;
    let look_at = now + rules::delta(ctx.deps.messaging.unknown_window);
    let reconcile = NewJob::of(ctx.business, &Reconcile { message_id: id, attempt: Some(number) })?;
    queue::enqueue(&mut tx, &reconcile.key(format!("{id}/{number}")).run_at(look_at)).await?;
    trail.note(words::MESSAGE_ATTEMPTED, id, json!({ "attempt": number, "channel": "mail" }));
    trail.write(&mut tx).await?;
    tx.commit().await?;
    Ok(Some(Begun { number, mail }))
}

/// The mail in clear, with a token of this attempt's own.
async fn written(
    tx: &mut PgConnection,
    ctx: &JobContext,
    (id, number): (MessageId, i32),
    (to, letter): (Email, &Letter),
    attachments: Vec<Attachment>,
) -> Result<Mail, Error> {
    let vault = &*ctx.deps.vault;
    let content = sealed::open_content(tx, vault, (ctx.business, id), &letter.params_sealed).await?;
    let params: BTreeMap<_, _> = content.parameters().into_iter().collect();
    let with = (&*ctx.deps.clock, &*ctx.deps.chance);
    let token = mail::issue_token(tx, with, ctx.business, MailRef::Message(id, number), &to).await?;
    let identity = mail::identity_of(tx, vault, ctx.business).await?;
    let base = ctx.deps.messaging.public_url.as_deref().filter(|_| letter.class == MessageClass::Marketing);
    let leave = base.map(|base| format!("{base}/r/leave/{}", token.leaving().expose()));
    let language: Language = letter.language.parse().map_err(|_| Error::Unreadable(id, "language"))?;
    let draft = Draft {
        id: id.0,
        token: Some(&token),
        to,
        words: &letter.template,
        params: &params,
        language,
        attachments,
        unsubscribe: leave.as_deref(),
    };
    mail::compose(&identity, draft).map_err(|error| Error::MessageMail(id, Box::new(error)))
}

/// Writes down what the mail server said; a late holder's transaction is refused by its lease.
async fn record(ctx: &JobContext, attempt: (MessageId, i32), outcome: &MailOutcome) -> Result<Done, Error> {
    let (id, _) = attempt;
    let by = ctx.by(Send::KIND);
    let mut tx = ctx.begin().await?;
    let mut trail = Trail::of(ctx, Send::KIND);
    let mut ledger = Ledger::lock(&mut tx, ctx.business, [id], ctx.now()).await?;
    let next = ledger.answer_mail(attempt, outcome, &mut trail);
    if let MailOutcome::Refused(failure) = outcome
        && failure.status.as_deref().is_some_and(|status| Fault::of_status(status) == Fault::Address)
    {
        mail::close_address(&mut tx, ctx, id, &by).await?;
    }
    ledger.write(&mut tx, ctx).await?;
    trail.write(&mut tx).await?;
    if let Some(Next::Again(pause)) = next {
        tx.commit().await?;
        let until = ctx.now() + rules::delta(pause);
        return Err(Error::Waiting { message: id, until, why: "the mail server did not take it now" });
    }
    ctx.complete(&mut tx, None).await?;
    tx.commit().await?;
    Ok(Done::Acked)
}
