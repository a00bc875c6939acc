//! Leaving: the link of a mail that sells, one click or one button (RFC 8058).

use sqlx::PgConnection;

use super::token::{self, MailToken};
use crate::{
    evidence::By,
    messaging::{
        Error, Language, MessageId, sealed, store,
        wishes::{self, Contact},
    },
    people::BusinessId,
    vault::Vault,
};

/// A mail that somebody would have no more of.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    business: BusinessId,
    message: MessageId,
    /// The language of the mail.
    pub language: Language,
}

/// The mail that the token at the end of a link belongs to; nothing where it is none of ours, or too old.
///
/// # Errors
/// The database fails.
pub async fn find_leaving(conn: &mut PgConnection, token: &str) -> Result<Option<Leaving>, Error> {
    let Some(token) = MailToken::parse(token) else { return Ok(None) };
    let Some((business, message)) = token::find_leaving(conn, &token).await? else { return Ok(None) };
    let letter = store::load_letter(conn, business, message).await?;
    Ok(letter.map(|letter| Leaving { business, message, language: Language::of(&letter.language) }))
}

/// Takes its recipient at her word: no more of what the mail was for, or of anything that sells. Again is no effect.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn leave(
    tx: &mut PgConnection,
    vault: &Vault,
    leaving: Leaving,
    everything: bool,
    by: &By<'_>,
) -> Result<(), Error> {
    let Leaving { business, message, .. } = leaving;
    let letter = store::load_letter(tx, business, message).await?.ok_or(Error::NoMessage(message))?;
    let to = sealed::open_letter(tx, vault, (business, message), &letter).await?;
    let purpose = (!everything).then_some(letter.purpose.as_str());
    match wishes::one_click(tx, vault, by, business, (&Contact::Email(to), purpose)).await {
        Ok(_) | Err(wishes::Error::Erased) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
