//! Asking for a message.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Address, Content, DEFAULT_LIFE, Error, FALLS_BACK_AFTER, Free, Header, Language, MessageClass, MessageId,
    NewMessage, Reconcile, Send,
    mail::{self, WordsError},
    quiet, sealed,
    store::{self, NewRow, Place},
    template::BadParameter,
};
use crate::{
    evidence::{Act, By, Object, words},
    outbound::{Chance, Clock, carrier::NumberId},
    people::BusinessId,
    queue::{self, NewJob},
    vault::Vault,
};

/// Asks for a message, in the caller's transaction: the row and the job that sends it appear on commit or not at all.
///
/// Where it has several ways, this is the first of them that there is: a business without a WhatsApp number takes the
/// next. The others follow by `messaging.fall_back`.
///
/// # Errors
/// [`Error::NoAccount`], [`Error::NoSuchNumber`], [`Error::BadParameter`], [`Error::BadDocument`], [`Error::BadMessage`], [`Error::WindowClosed`],
/// [`Error::Vault`]: nothing was written.
pub async fn request(
    conn: &mut PgConnection,
    vault: &Vault,
    clock: &dyn Clock,
    chance: &dyn Chance,
    new: &NewMessage,
) -> Result<MessageId, Error> {
    new.content.check().map_err(|(field, mend)| Error::BadParameter { field, mend })?;
    check_document(new)?;
    let now = clock.now();
    check_frame(new, now)?;
    let number = match &new.from {
        Some(own) => {
            let owned = store::list_accounts(conn, Some(new.business)).await?;
            let known = owned.into_iter().map(|account| account.number).find(|number| number == own);
            Some(known.ok_or(Error::NoSuchNumber)?)
        }
        None => store::find_number(conn, new.business).await?,
    };
    let has_number = number.is_some();
    let open = |way: &&Address| has_number || matches!(way, Address::Email(_));
    let way = new.to.ways().iter().position(|way| open(&way)).ok_or(Error::NoAccount)?;
    if new.content.is_free()
        && let (Some(number), Some(Address::Phone(phone))) = (&number, new.to.ways().get(way))
    {
        let marks = sealed::persons(conn, vault, new.business, phone).await?;
        if !store::is_window_open(conn, number, &marks, now).await? {
            return Err(Error::WindowClosed);
        }
    }
    let ways = new.to.ways().len();
    let begins_at = new.not_before.map_or(now, |at| at.max(now));
    let expires_at = new.expires_at.unwrap_or(begins_at + DEFAULT_LIFE);
    // The other way needs some time of its own before the end.
    let life = expires_at - begins_at;
    if ways > 1 && new.falls_back_after.is_some_and(|wait| wait >= life) {
        let mend = "must end before the message does: name a later expires_at, or a shorter wait";
        return Err(Error::BadMessage { field: "fall_back_after_secs", mend });
    }
    let falls_back_after = new.falls_back_after.unwrap_or(FALLS_BACK_AFTER.min(life / 2));
    let id = MessageId(chance.uuid_v7(now));
    let personal = sealed::seal_message(conn, vault, (new.business, id), (&new.to, way), &new.content).await?;
    let row = NewRow {
        business: new.business,
        id,
        number: number.as_ref().filter(|_| personal.phone.is_some()),
        personal,
        template: new.content.template(),
        language: new.language.as_str(),
        document: new.document.as_ref(),
        purpose: &new.purpose,
        class: new.content.class(),
        policy: new.policy,
        campaign: None,
        place: Place {
            delivery: id,
            way: i16::try_from(way).unwrap_or(0),
            ways: i16::try_from(ways).unwrap_or(1),
            falls_back_after,
            fall_back_at: (way + 1 < ways).then(|| begins_at + falls_back_after),
        },
        not_before: new.not_before,
        expires_at,
        now,
    };
    store::insert_message(conn, &row, None).await?;
    plan(conn, new.business, (id, row.class), (row.not_before, row.expires_at)).await?;
    Ok(id)
}

/// The same for somebody who is named: that she asked is on record, without whom she wrote to or what.
///
/// # Errors
/// As [`request`].
pub async fn ask(conn: &mut PgConnection, vault: &Vault, new: &NewMessage, by: &By<'_>) -> Result<MessageId, Error> {
    let id = request(conn, vault, &At(by.now), by.chance, new).await?;
    let object = id.to_string();
    let ways: Vec<_> = new.to.ways().iter().map(|way| way.channel().as_str()).collect();
    let asked = Act {
        word: words::MESSAGE_ASKED,
        business: Some(new.business),
        object: Object { kind: "message", id: &object },
        details: json!({ "template": new.content.template(), "purpose": new.purpose, "ways": ways }),
    };
    by.record(conn, asked).await?;
    Ok(id)
}

/// The instant of an act.
struct At(DateTime<Utc>);

impl Clock for At {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}

/// Plans the job that sends a message, and the one that ends it where that job is gone: cancelled, or given up.
pub(super) async fn plan(
    conn: &mut PgConnection,
    business: BusinessId,
    (id, class): (MessageId, MessageClass),
    (not_before, expires_at): (Option<DateTime<Utc>>, DateTime<Utc>),
) -> Result<(), Error> {
    let send = NewJob::of(business, &Send { message_id: id })?.lane(class.lane());
    let send = match not_before {
        Some(at) => send.run_at(at),
        None => send,
    };
    queue::enqueue(conn, &send).await?;
    let expire = Reconcile { message_id: id, attempt: None };
    queue::enqueue(conn, &NewJob::of(business, &expire)?.run_at(expires_at)).await?;
    Ok(())
}

/// The number that a message of this business goes out from, for the way of this place.
pub(super) async fn number_for(
    conn: &mut PgConnection,
    business: BusinessId,
    way: &Address,
) -> Result<Option<NumberId>, Error> {
    match way {
        Address::Phone(_) => store::find_number(conn, business).await,
        Address::Email(_) => Ok(None),
    }
}

/// What stands around the words.
fn check_frame(new: &NewMessage, now: DateTime<Utc>) -> Result<(), Error> {
    let bad = |field, mend| Err(Error::BadMessage { field, mend });
    if !quiet::is_purpose(&new.purpose) {
        return bad("purpose", "must be two words such as shop.order_ready");
    }
    if new.expires_at.is_some_and(|end| end <= now || new.not_before.is_some_and(|from| end <= from)) {
        return bad("expires_at", "must lie ahead, and after not_before");
    }
    if new.not_before.is_some_and(|from| from > now + chrono::TimeDelta::days(366)) {
        return bad("not_before", "must lie within a year");
    }
    if new
        .falls_back_after
        .is_some_and(|wait| wait < chrono::TimeDelta::seconds(1) || wait > chrono::TimeDelta::days(7))
    {
        return bad("fall_back_after_secs", "must be 1 second to 7 days");
    }
    let mails = new.to.ways().iter().any(|way| matches!(way, Address::Email(_)));
    if !mails {
        return Ok(());
    }
    check_mail(&new.content, new.language).map_err(|(field, mend)| match &*field {
        "mail" => Error::BadMessage {
            field: "channels",
            mend: "hold mail, and these words exist for WhatsApp alone: leave it out, or take other words",
        },
        _ => Error::BadParameter { field, mend },
    })
}

/// Whether something can be said by mail: its words exist for it, and hold no parameter that they do not get.
///
/// # Errors
/// The parameter, or `mail`, and the mend.
pub(super) fn check_mail(content: &Content, language: Language) -> Result<(), BadParameter> {
    let params: BTreeMap<_, _> = content.parameters().into_iter().collect();
    match mail::check_words(content.template(), language, &params) {
        Ok(()) => Ok(()),
        Err(WordsError::Missing { parameter, .. }) => {
            Err((parameter.into(), "is missing: the mail's words name it".into()))
        }
        Err(WordsError::BadLink { parameter, .. }) => Err((parameter.into(), "must begin with https://".into())),
        Err(WordsError::Unknown(_) | WordsError::Broken(_)) => {
            Err(("mail".into(), "is no way for these words: they exist for WhatsApp alone".into()))
        }
    }
}

/// The words say whether there is a file; its name must look like a file's on the recipient's phone.
fn check_document(new: &NewMessage) -> Result<(), Error> {
    let words = new.content.words(new.language);
    let endings: &[&str] = match (&new.content, words.map(|words| &words.header)) {
        (Content::Free(Free::File { .. }), _) => &[".pdf", ".png", ".jpg", ".jpeg"],
        (_, Some(Header::Document)) => &[".pdf"],
        (_, Some(Header::Image)) => &[".png", ".jpg", ".jpeg"],
        (_, Some(Header::None | Header::Text(_)) | None) => &[],
    };
    let mend = match (endings, &new.document) {
        ([], None) => return Ok(()),
        ([], Some(_)) => "takes no document",
        (_, None) => "needs a document",
        (endings, Some(document)) => {
            let name = &document.filename;
            let plain = name.chars().all(|character| !character.is_control() && !matches!(character, '/' | '\\' | '"'));
            let fits = endings.iter().any(|ending| name.ends_with(ending));
            if plain && (5..=200).contains(&name.len()) && fits {
                return Ok(());
            }
            match endings {
                [".pdf"] => "needs a document named like INV-1042.pdf",
                [".pdf", ..] => "needs a file named like a.pdf, a.png or a.jpg",
                _ => "needs a picture named like a.png or a.jpg",
            }
        }
    };
    Err(Error::BadDocument { template: new.content.template().to_owned(), mend })
}

/// What a file is, by its name and its first bytes, which must agree: the carrier looks at both (Cloud API error 131053).
///
/// # Errors
/// What it must be.
pub fn kind_of(filename: &str, bytes: &[u8]) -> Result<&'static str, &'static str> {
    let ending = filename.rsplit_once('.').map(|(_, ending)| ending);
    let begins: &[u8] = match ending {
        Some("pdf") => b"%PDF-",
        Some("png") => b"\x89PNG\r\n\x1a\n",
        Some("jpg" | "jpeg") => b"\xff\xd8\xff",
        _ => return Err("must be named .pdf, .png, .jpg or .jpeg"),
    };
    if bytes.starts_with(begins) {
        Ok(mime_of(filename))
    } else {
        Err("is not what its name says: send the file itself")
    }
}

/// The MIME type of a file by its name: what [`request`] lets through has one.
pub(super) fn mime_of(filename: &str) -> &'static str {
    match filename.rsplit_once('.').map(|(_, ending)| ending) {
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        _ => "application/pdf",
    }
}
