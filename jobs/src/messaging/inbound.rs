//! What people write, tap and set: heard, and with it what is queued for them judged anew.
//!
//! What a message means is the business of [`super::wishes`]; this room opens customer service windows, stops what is
//! queued at once, and tells the frontend where a question belongs.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Error, MessageClass, MessageId, Recipient, State, answer,
    health::{self, NewAlert},
    ledger::{Ledger, Sign},
    sealed,
    store::{self, MessageRow, StoredWebhook},
    trail::Trail,
    webhook::{Inbound, Person, Preference, Update, What},
    wishes::{
        self, CarrierTold, Channel, Class, Contact, Item, Question, Said, UserId, Verdict, changed_number,
        identity_changed,
    },
};
use crate::{
    evidence::By,
    outbound::{
        Phone,
        carrier::{NumberId, Scope},
    },
    queue::JobContext,
    vault::Vault,
    webhooks::{self, Emission},
};

/// Messages queued for one person that are judged anew when she says stop.
const QUEUED: i64 = 1000;

impl From<MessageClass> for Class {
    fn from(class: MessageClass) -> Self {
        match class {
            MessageClass::Otp => Self::Otp,
            MessageClass::Statutory => Self::Statutory,
            MessageClass::Transactional => Self::Transactional,
            MessageClass::Marketing => Self::Marketing,
        }
    }
}

/// Hears everything that people said in some updates, in the order of arrival.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub(super) async fn hear_all(
    tx: &mut PgConnection,
    ctx: &JobContext,
    told: &[(&StoredWebhook, &Update)],
    by: &By<'_>,
) -> Result<(), Error> {
    note_heard(tx, ctx, told).await?;
    let mut events = Vec::new();
    for (body, update) in told {
        match &update.what {
            What::Inbound(inbound) => {
                let at = inbound.at.unwrap_or(body.received_at).min(body.received_at);
                let number = update.number.as_deref().and_then(|number| NumberId::parse(number).ok());
                if let Some(event) = hear(tx, ctx, (inbound, at, number.as_ref()), by).await? {
                    events.push(event);
                }
            }
            What::Preference(preference) => {
                let at = preference.at.unwrap_or(body.received_at).min(body.received_at);
                prefer(tx, ctx, (preference, at), by).await?;
            }
            What::Status { .. } | What::Field { .. } | What::Unreadable => {}
        }
    }
    Ok(webhooks::emit_all(tx, Emission::of(ctx), ctx.business, events).await?)
}

/// One message; what the frontend is told of it.
async fn hear(
    tx: &mut PgConnection,
    ctx: &JobContext,
    (inbound, at, number): (&Inbound, DateTime<Utc>, Option<&NumberId>),
    by: &By<'_>,
) -> Result<Option<webhooks::Event>, Error> {
    let vault = &*ctx.deps.vault;
    let user_id = user_id_of(&inbound.from);
    if let Some((change, new)) = &inbound.change {
        let Some(old) = inbound.from.phone.clone().map(Contact::Phone) else { return Ok(None) };
        match (change.as_str(), new) {
            ("user_changed_number", Some(new)) => {
                let new = Contact::Phone(new.clone());
                changed_number(tx, vault, by, ctx.business, (&old, &new, at)).await?;
            }
            ("customer_identity_changed", _) => {
                identity_changed(tx, vault, by, ctx.business, (&old, at)).await?;
            }
            _ => return Ok(None),
        }
        if let Contact::Phone(phone) = &old {
            stop_queued(tx, ctx, phone).await?;
        }
        return Ok(None);
    }
    if inbound.from.phone.is_none() && user_id.is_none() {
        return Ok(None);
    }
    let said = match (&inbound.payload, &inbound.text) {
        (Some(payload), _) => Said::Payload(payload),
        (None, Some(text)) => Said::Text(text),
        (None, None) => Said::Nothing,
    };
    let came = wishes::Inbound {
        key: inbound.wamid.as_str(),
        phone: inbound.from.phone.as_ref(),
        user_id: user_id.as_ref(),
        said,
        at,
    };
    let heard = wishes::hear(tx, vault, by, ctx.business, &came).await?;
    if heard.repeated {
        return Ok(None);
    }
    if let (true, Some(phone)) = (heard.stops, &inbound.from.phone) {
        stop_queued(tx, ctx, phone).await?;
    }
    if let Some(phone) = &inbound.from.phone {
        answer::answer(tx, ctx, (phone, number), &heard).await?;
    }
    let answers = match &inbound.answers {
        Some(wamid) => {
            let marks = sealed::marks(tx, vault, ctx.business, wamid).await?;
            let places: Vec<i64> = marks.iter().map(|_| 1).collect();
            let found = store::find_attempts(tx, ctx.business, &[None], (&places, &marks)).await?;
            found.into_iter().flatten().next().map(|attempt| attempt.message)
        }
        None => None,
    };
    // Her words are hers: the frontend is told where a question belongs, and reads it here.
    Ok(Some(webhooks::Event {
        event_type: "messaging.inbound.received".to_owned(),
        object: heard.contact.map_or_else(|| "unknown".to_owned(), |contact| contact.to_string()),
        occurred_at: at,
        data: json!({
            "kind": inbound.kind,
            "route": heard.route.as_str(),
            "contact_id": heard.contact,
            "answers_message_id": answers,
            "answer_due": heard.answer.map(wishes::Answer::as_str),
        }),
    }))
}

async fn prefer(
    tx: &mut PgConnection,
    ctx: &JobContext,
    (preference, at): (&Preference, DateTime<Utc>),
    by: &By<'_>,
) -> Result<(), Error> {
    // Another category is not known yet; the body keeps it.
    if preference.category != "marketing_messages" {
        return Ok(());
    }
    let stop = match preference.value.as_str() {
        "stop" => true,
        "resume" | "signup" => false,
        _ => return Ok(()),
    };
    let user_id = user_id_of(&preference.from);
    let phone = preference.from.phone.as_ref();
    let told = wishes::Preference { phone, user_id: user_id.as_ref(), stop, at };
    let stops = wishes::hear_preference(tx, &ctx.deps.vault, by, ctx.business, &told).await?;
    if let (true, Some(phone)) = (stops, phone) {
        stop_queued(tx, ctx, phone).await?;
    }
    Ok(())
}

fn user_id_of(person: &Person) -> Option<UserId> {
    person.user_id.as_deref().and_then(|id| UserId::parse(id).ok())
}

/// One message to be judged.
pub(super) struct Asked<'a> {
    /// Where it would go.
    pub(super) to: Contact,
    /// Who else she is.
    pub(super) others: Vec<Contact>,
    pub(super) channel: Channel,
    pub(super) class: MessageClass,
    pub(super) purpose: &'a str,
    /// No other way follows.
    pub(super) last_way: bool,
}

impl<'a> Asked<'a> {
    /// A message by WhatsApp; `ways` are all that lead to her, where there are several.
    pub(super) fn by_whatsapp(
        to: &Phone,
        (class, purpose): (MessageClass, &'a str),
        (ways, has_more): (Option<&Recipient>, bool),
    ) -> Self {
        Self {
            to: Contact::Phone(to.clone()),
            others: ways.map(|ways| ways.others(Channel::Whatsapp)).unwrap_or_default(),
            channel: Channel::Whatsapp,
            class,
            purpose,
            last_way: !has_more,
        }
    }
}

/// Whether messages may go to these people, asked in the transaction that begins their attempts; why not.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub(super) async fn judge(
    tx: &mut PgConnection,
    ctx: &JobContext,
    people: &[Asked<'_>],
) -> Result<Vec<Option<&'static str>>, Error> {
    let items: Vec<_> = people
        .iter()
        .map(|asked| Item {
            to: &asked.to,
            others: &asked.others,
            question: Question {
                class: asked.class.into(),
                purpose: asked.purpose,
                channel: asked.channel,
                last_way: asked.last_way,
            },
        })
        .collect();
    let verdicts = wishes::judge_each(tx, &ctx.deps.vault, ctx.business, &items, ctx.now()).await?;
    Ok(verdicts
        .into_iter()
        .map(|verdict| match verdict {
            Verdict::Allowed => None,
            Verdict::Skipped(reason) => Some(reason.as_str()),
        })
        .collect())
}

/// Leaves out whatever is queued for a person and may no longer go.
async fn stop_queued(tx: &mut PgConnection, ctx: &JobContext, phone: &Phone) -> Result<(), Error> {
    let marks = sealed::persons(tx, &ctx.deps.vault, ctx.business, phone).await?;
    let queued = store::list_queued_for(tx, ctx.business, &marks, QUEUED).await?;
    if queued.is_empty() {
        return Ok(());
    }
    let asked: Vec<_> = queued
        .iter()
        .map(|(_, class, purpose, has_more)| Asked::by_whatsapp(phone, (*class, purpose), (None, *has_more)))
        .collect();
    let verdicts = judge(tx, ctx, &asked).await?;
    let mut trail = Trail::of(ctx, "messaging.apply_webhook");
    let ids = queued.iter().map(|(id, ..)| *id);
    let mut ledger = Ledger::lock(tx, ctx.business, ids, ctx.now()).await?;
    for ((id, ..), verdict) in queued.iter().zip(verdicts) {
        if let Some(because) = verdict {
            ledger.skip(*id, because, &mut trail);
        }
    }
    ledger.write(tx, ctx).await?;
    trail.write(tx).await
}

/// What refusals and failures say about recipients.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub(super) async fn note_recipients(
    tx: &mut PgConnection,
    ctx: &JobContext,
    signs: &[(&Sign, &MessageRow)],
    by: &By<'_>,
) -> Result<(), Error> {
    use crate::outbound::carrier::Class as Of;
    for (sign, row) in signs {
        if !matches!(sign.class, Of::Recipient(_)) {
            continue;
        }
        if matches!(sign.class, Of::Recipient(Scope::Country)) {
            note_country(tx, ctx, row, by).await?;
        }
        let to = phone_of(tx, &ctx.deps.vault, ctx, row.message_id).await?;
        let told = CarrierTold { code: sign.code, at: by.now };
        wishes::carrier_said(tx, &ctx.deps.vault, by, ctx.business, (&Contact::Phone(to), told)).await?;
    }
    Ok(())
}

/// A whole country that an account may not write to is nobody's fault among those who live there: a person should see it,
/// once (Cloud API error 130497).
async fn note_country(tx: &mut PgConnection, ctx: &JobContext, row: &MessageRow, by: &By<'_>) -> Result<(), Error> {
    let event = "COUNTRY_REFUSED";
    let Some(waba_id) = &row.waba_id else { return Ok(()) };
    let open = store::find_open_alert(tx, ctx.business, ("account_countries", waba_id)).await?;
    if open.as_deref() == Some(event) {
        return Ok(());
    }
    let alert = NewAlert {
        field: "account_countries",
        about: waba_id,
        event,
        severity: "critical",
        details: "the carrier does not let this account write to people of some country: messages to them fail",
        at: by.now,
    };
    health::note_alert(tx, ctx.business, &alert, by).await
}

async fn phone_of(tx: &mut PgConnection, vault: &Vault, ctx: &JobContext, id: MessageId) -> Result<Phone, Error> {
    let envelope = store::load_envelopes(tx, ctx.business, &[id.0]).await?.pop().ok_or(Error::NoMessage(id))?;
    Ok(sealed::open_message(tx, vault, (ctx.business, id), &envelope).await?.0)
}

/// Opens the customer service windows of those who wrote.
async fn note_heard(tx: &mut PgConnection, ctx: &JobContext, told: &[(&StoredWebhook, &Update)]) -> Result<(), Error> {
    let mut heard = Vec::new();
    for (body, update) in told {
        let (What::Inbound(inbound), Some(number)) = (&update.what, &update.number) else { continue };
        // What the system says about somebody is not said by her.
        let Some(phone) = inbound.from.phone.as_ref().filter(|_| inbound.kind != "system") else { continue };
        let mark = sealed::person(tx, &ctx.deps.vault, ctx.business, phone).await?;
        // A phone's clock may run ahead; nobody wrote after her words arrived.
        let at = inbound.at.unwrap_or(body.received_at).min(body.received_at);
        heard.push((number.clone(), mark, at));
    }
    if heard.is_empty() { Ok(()) } else { store::hear_from(tx, ctx.business, &heard).await }
}

/// Whether a message has come to its end without being delivered: then its code, if it carried one, takes another way.
pub(super) const fn is_lost(state: State) -> bool {
    matches!(state, State::Failed | State::Skipped)
}
