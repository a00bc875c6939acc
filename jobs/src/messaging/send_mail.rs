use std::{collections::BTreeMap, time::Duration};

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{
    Error, MailId,
    mail::{self, Draft, Identity, MailRef},
    mail_store::{self, MailRow, MailState},
    staff::{house_of, language_of, params_cell},
};
use crate::{
    outbound::{Mail, MailOutcome},
    people,
    queue::{Done, Job, JobContext, Lane, Settings},
};

/// Ended mails are kept so long for whoever asks what became of one.
const KEPT: TimeDelta = TimeDelta::days(30);

/// `messaging.send_mail`: hands one mail to the mail server, and never one in doubt again.
///
/// Steps: commit the mail as `sending`, hand it over, record what came of it. A run that finds it `sending` follows a
/// worker that died in between: nobody knows whether it was taken, so it ends as `unknown`. Whoever waits for a code
/// asks for another.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendMail {
    /// The mail.
    pub mail_id: MailId,
}

impl Job for SendMail {
    const KIND: &'static str = "messaging.send_mail";
    const LANE: Lane = Lane::Transactional;
    const SETTINGS: Settings = Settings {
        timeout: Duration::from_secs(90),
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        ..Settings::DEFAULT
    };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let id = self.mail_id;
        let mut tx = ctx.begin_for_all().await?;
        mail_store::forget_mails(&mut tx, ctx.now() - KEPT).await?;
        let row = mail_store::lock_mail(&mut tx, ctx.business, id).await?;
        let end = match row.state {
            MailState::Sending => Some((MailState::Unknown, "the worker died while sending")),
            MailState::Queued if ctx.now() >= row.expires_at => Some((MailState::Expired, "too late to be of use")),
            MailState::Queued => None,
            _ => return Ok(Done::OK),
        };
        if let Some((state, why)) = end {
            mail_store::set_mail_state(&mut tx, id, state, Some(why), ctx.now()).await?;
            ctx.complete(&mut tx, None).await?;
            tx.commit().await?;
            return Ok(Done::Acked);
        }
        let Some(mail) = written(&mut tx, ctx, id, &row).await? else {
            mail_store::set_mail_state(&mut tx, id, MailState::Refused, Some("nobody to write to"), ctx.now()).await?;
            ctx.complete(&mut tx, None).await?;
            tx.commit().await?;
            return Ok(Done::Acked);
        };
        mail_store::set_mail_state(&mut tx, id, MailState::Sending, None, ctx.now()).await?;
        tx.commit().await?;
        ctx.step("messaging.mail_sending").await;
        let outcome = ctx.deps.mailer.send(&mail).await;
        ctx.step("messaging.mail_sent").await;
        record(ctx, id, outcome).await
    }
}

/// The mail in clear, with a token of this attempt's own. `None`: she has left, or has no address any more.
async fn written(tx: &mut PgConnection, ctx: &JobContext, id: MailId, row: &MailRow) -> Result<Option<Mail>, Error> {
    let unreadable = |what| Error::MailUnreadable(id, what);
    let contact = people::open_contact(tx, &ctx.deps.vault, row.staff_id).await;
    let contact = contact.map_err(|error| Error::Staff(Box::new(error)))?;
    let Some((contact, to)) = contact.and_then(|contact| contact.email.clone().map(|to| (contact, to))) else {
        return Ok(None);
    };
    let sealed = row.params_sealed.as_deref().ok_or(unreadable("parameters"))?;
    let plain = ctx.deps.vault.open(tx, &params_cell(ctx.business, &id.to_string()), sealed).await?;
    let params: BTreeMap<String, String> = serde_json::from_slice(&plain).map_err(|_| unreadable("parameters"))?;
    let with = (&*ctx.deps.clock, &*ctx.deps.chance);
    let token = mail::issue_token(tx, with, ctx.business, MailRef::Staff(id), &to).await?;
    // About her access, from whoever runs the console: no business's own address, and nobody to answer to.
    let house = Identity { name: house_of(&contact), from: None, reply_to: None, dkim: None };
    let draft = Draft {
        id: id.0,
        token: Some(&token),
        to,
        words: &row.template,
        params: &params,
        language: language_of(&contact),
        attachments: Vec::new(),
        unsubscribe: None,
    };
    let written = mail::compose(&house, draft).map_err(|error| Error::MailWords(id, Box::new(error)))?;
    Ok(Some(written))
}

async fn record(ctx: &JobContext, id: MailId, outcome: MailOutcome) -> Result<Done, Error> {
    let (state, failure) = match outcome {
        MailOutcome::Accepted => (MailState::Accepted, None),
        MailOutcome::Refused(failure) => (MailState::Refused, Some(failure)),
        MailOutcome::Unknown(failure) => (MailState::Unknown, Some(failure)),
        MailOutcome::NotSent(failure) => (MailState::Queued, Some(failure)),
    };
    let mut tx = ctx.begin_for_all().await?;
    let why = failure.as_ref().map(ToString::to_string);
    mail_store::set_mail_state(&mut tx, id, state, why.as_deref(), ctx.now()).await?;
    if let Some(failure) = failure.filter(|_| state == MailState::Queued) {
        tx.commit().await?;
        return Err(Error::MailNotSent(id, failure));
    }
    if state != MailState::Accepted {
        tracing::warn!(messaging.mail_id = %id, why, "a mail was not taken, or nobody can tell");
    }
    ctx.complete(&mut tx, None).await?;
    tx.commit().await?;
    Ok(Done::Acked)
}
