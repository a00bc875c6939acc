use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{
    Bound, Error, FALL_BACK_AFTER, FallBackOtp, KEPT, OtpId, OtpState, To, mark_of, new_code,
    store::{self, CodeState, NewCode, OtpRow},
    to_cell,
};
use crate::{
    messaging::{
        self, Content, Language, NewMessage, Policy, SignInCode,
        mail::{self, Draft},
        wishes::{self, Channel, Class, Contact, Item, Question, Verdict},
    },
    outbound::{Email, Mail, MailOutcome, Phone},
    queue::{self, Done, Job, JobContext, Lane, NewJob, Settings},
};

/// `messaging.send_otp`: makes a code and sends it by the first way that is open.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendOtp {
    /// The request.
    pub otp_id: OtpId,
}

impl Job for SendOtp {
    const KIND: &'static str = "messaging.send_otp";
    const LANE: Lane = Lane::Otp;
    const SETTINGS: Settings = OTP_SETTINGS;
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        send_from(ctx, self.otp_id, 0).await
    }
}

/// Somebody waits at a screen: what fails is tried again soon.
pub(super) const OTP_SETTINGS: Settings = Settings {
    timeout: Duration::from_secs(60),
    backoff: Duration::from_secs(1),
    backoff_max: Duration::from_secs(15),
    ..Settings::DEFAULT
};

/// Sends a code by the first way that is open, from the `from`-th on.
///
/// By WhatsApp, code and message are one transaction. Mail knows no such thing: the code is committed as `sending`, then
/// handed over, then settled; a worker that dies in between took the code with her, and the next run makes another in its
/// place.
pub(super) async fn send_from(ctx: &JobContext, otp_id: OtpId, from: i16) -> Result<Done, Error> {
    let mut hop = from;
    loop {
        let mut tx = ctx.begin().await?;
        if hop == 0 {
            store::tidy(&mut tx, ctx.now(), ctx.now() - KEPT).await?;
        }
        let row = store::lock_otp(&mut tx, ctx.business, otp_id).await?;
        let live = row.filter(|row| row.state == OtpState::Open && ctx.now() < row.expires_at);
        let way = live.as_ref().and_then(|row| row.channels.get(usize::try_from(hop).ok()?).copied());
        let (Some(row), Some(channel)) = (live, way) else {
            // Over, or no way left.
            store::forget_address(&mut tx, otp_id).await?;
            ctx.complete(&mut tx, None).await?;
            tx.commit().await?;
            return Ok(Done::Acked);
        };
        let codes = store::list_codes(&mut tx, otp_id).await?;
        match codes.iter().find(|code| code.hop == hop).map(|code| code.state) {
            Some(CodeState::Planned | CodeState::Sent) => {
                ctx.complete(&mut tx, None).await?;
                tx.commit().await?;
                return Ok(Done::Acked);
            }
            Some(CodeState::Failed | CodeState::Skipped) => {
                hop += 1;
                continue;
            }
            Some(CodeState::Sending) | None => {}
        }
        let sending = Sending { ctx, otp_id, hop, row: &row };
        let to = sending.recipients(&mut tx).await?;
        if let Err(why) = sending.is_open(&mut tx, channel, &to).await? {
            sending.write(&mut tx, channel, (CodeState::Skipped, Some(why)), None).await?;
            tx.commit().await?;
            hop += 1;
            continue;
        }
        match (channel, &to) {
            (Channel::Whatsapp, (Some(phone), _)) => return sending.by_whatsapp(tx, phone).await,
            (Channel::Mail, (_, Some(email))) => {
                if let Some(done) = sending.by_mail(tx, email).await? {
                    return Ok(done);
                }
                hop += 1;
            }
            _ => return Err(Error::Unreadable(otp_id)),
        }
    }
}

/// One code on its way.
struct Sending<'a> {
    ctx: &'a JobContext,
    otp_id: OtpId,
    hop: i16,
    row: &'a OtpRow,
}

type Recipients = (Option<Phone>, Option<Email>);

impl Sending<'_> {
    async fn recipients(&self, tx: &mut PgConnection) -> Result<Recipients, Error> {
        let unreadable = || Error::Unreadable(self.otp_id);
        let sealed = self.row.to_sealed.as_deref().ok_or_else(unreadable)?;
        let row = self.otp_id.to_string();
        let plain = self.ctx.deps.vault.open(tx, &to_cell(self.ctx.business, &row), sealed).await?;
        let to: To = serde_json::from_slice(&plain).map_err(|_| unreadable())?;
        let phone = to.phone.map(|text| Phone::parse(&text)).transpose().map_err(|_| unreadable())?;
        let email = to.email.map(|text| Email::parse(&text)).transpose().map_err(|_| unreadable())?;
        Ok((phone, email))
    }

    /// Whether a code may go this way and there is one; else why not, in one word.
    async fn is_open(
        &self,
        tx: &mut PgConnection,
        channel: Channel,
        to: &Recipients,
    ) -> Result<Result<(), &'static str>, Error> {
        let there = match channel {
            Channel::Whatsapp => messaging::store::find_number(tx, self.ctx.business).await?.is_some(),
            Channel::Mail => self.ctx.deps.mailer.is_configured(),
        };
        if !there {
            return Ok(Err("no_way"));
        }
        let contact = match (channel, to) {
            (Channel::Whatsapp, (Some(phone), _)) => Contact::Phone(phone.clone()),
            (Channel::Mail, (_, Some(email))) => Contact::Email(email.clone()),
            _ => return Err(Error::Unreadable(self.otp_id)),
        };
        let question = Question { class: Class::Otp, purpose: &self.row.purpose, channel, last_way: false };
        let item = Item { to: &contact, others: &[], question };
        match wishes::judge(tx, &self.ctx.deps.vault, self.ctx.business, &item, self.ctx.now()).await? {
            Verdict::Allowed => Ok(Ok(())),
            Verdict::Skipped(reason) => Ok(Err(reason.as_str())),
        }
    }

    /// A fresh code with its keyed hash.
    async fn fresh(&self, tx: &mut PgConnection) -> Result<(SecretString, Vec<u8>), Error> {
        let code = new_code(&*self.ctx.deps.chance, self.row.digits);
        let bound = Bound {
            business: self.ctx.business,
            otp_id: self.otp_id,
            phone: self.row.phone_mark.as_deref(),
            email: self.row.email_mark.as_deref(),
            purpose: &self.row.purpose,
        };
        let mark = mark_of(tx, &self.ctx.deps.vault, &bound, &code).await?;
        Ok((code, mark))
    }

    async fn write(
        &self,
        tx: &mut PgConnection,
        channel: Channel,
        (state, reason): (CodeState, Option<&str>),
        sent: Option<(&[u8], Option<messaging::MessageId>)>,
    ) -> Result<(), Error> {
        let now = self.ctx.now();
        let new = NewCode {
            code_id: self.ctx.deps.chance.uuid_v7(now),
            hop: self.hop,
            channel,
            mark: sent.map(|(mark, _)| mark),
            message: sent.and_then(|(_, message)| message),
            state,
            reason,
        };
        store::upsert_code(tx, (self.ctx.business, self.otp_id), &new, now).await
    }

    fn is_last(&self) -> bool {
        usize::try_from(self.hop).is_ok_and(|hop| hop + 1 >= self.row.channels.len())
    }

    async fn by_whatsapp(&self, mut tx: sqlx::Transaction<'_, sqlx::Postgres>, phone: &Phone) -> Result<Done, Error> {
        let deps = &self.ctx.deps;
        let (code, mark) = self.fresh(&mut tx).await?;
        let content = Content::SignInCode(SignInCode { code: code.expose_secret().to_owned() });
        // One that may have arrived is not sent again: the next way brings a fresh one, which is why it is no way of the
        // same message.
        let why = (Policy::AtMostOnce, "messaging.otp");
        let words = (content, Language::of(&self.row.language));
        let message = NewMessage {
            expires_at: Some(self.row.expires_at),
            ..NewMessage::new(self.ctx.business, phone.clone(), words, why)
        };
        let message = messaging::request(&mut tx, &deps.vault, &*deps.clock, &*deps.chance, &message).await?;
        self.write(&mut tx, Channel::Whatsapp, (CodeState::Planned, None), Some((&mark, Some(message)))).await?;
        if self.is_last() {
            store::forget_address(&mut tx, self.otp_id).await?;
        } else {
            let next = FallBackOtp { otp_id: self.otp_id, hop: self.hop };
            let job = NewJob::of(self.ctx.business, &next)?.run_at(self.ctx.now() + FALL_BACK_AFTER);
            queue::enqueue(&mut tx, &job).await?;
        }
        self.ctx.step("messaging.otp_planned").await;
        self.ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Done::Acked)
    }

    /// Nothing where the mail server will not have it and the next way is to be tried.
    async fn by_mail(
        &self,
        mut tx: sqlx::Transaction<'_, sqlx::Postgres>,
        email: &Email,
    ) -> Result<Option<Done>, Error> {
        let (code, mark) = self.fresh(&mut tx).await?;
        let mail = self.mail(&mut tx, email, &code).await?;
        self.write(&mut tx, Channel::Mail, (CodeState::Sending, None), Some((&mark, None))).await?;
        tx.commit().await?;
        self.ctx.step("messaging.otp_mail_sending").await;
        let outcome = self.ctx.deps.mailer.send(&mail).await;
        self.ctx.step("messaging.otp_mail_sent").await;
        let mut tx = self.ctx.begin().await?;
        let (settled, reason) = match &outcome {
            MailOutcome::Accepted => (CodeState::Sent, None),
            MailOutcome::Unknown(_) => (CodeState::Sent, Some("unknown")),
            MailOutcome::Refused(_) => (CodeState::Failed, Some("refused")),
            // Nothing left this machine: the code is as good as never made, and another takes its place.
            MailOutcome::NotSent(failure) if self.is_last() => {
                return Err(Error::NotMailed(self.otp_id, failure.clone()));
            }
            MailOutcome::NotSent(_) => (CodeState::Failed, Some("not_sent")),
        };
        let failed = settled == CodeState::Failed;
        store::set_code_state(&mut tx, (self.otp_id, self.hop), (settled, reason, failed), self.ctx.now()).await?;
        if failed && !self.is_last() {
            tx.commit().await?;
            return Ok(None);
        }
        // A mail that was taken has no sign to wait for.
        store::forget_address(&mut tx, self.otp_id).await?;
        self.ctx.complete(&mut tx, None).await?;
        tx.commit().await?;
        Ok(Some(Done::Acked))
    }

    async fn mail(&self, tx: &mut PgConnection, to: &Email, code: &SecretString) -> Result<Mail, Error> {
        let identity = mail::identity_of(tx, &self.ctx.deps.vault, self.ctx.business).await?;
        let minutes = (self.row.expires_at - self.ctx.now()).num_minutes().max(1).to_string();
        let params = BTreeMap::from([
            ("business_name", identity.name.clone()),
            ("code", code.expose_secret().to_owned()),
            ("minutes", minutes),
        ]);
        let draft = Draft {
            id: self.ctx.deps.chance.uuid_v7(self.ctx.now()),
            // A code that comes back is over before anybody reads the report.
            token: None,
            to: to.clone(),
            words: "one_time_code",
            params: &params,
            language: Language::of(&self.row.language),
            attachments: Vec::new(),
            unsubscribe: None,
        };
        mail::compose(&identity, draft).map_err(|_| Error::Unreadable(self.otp_id))
    }
}
