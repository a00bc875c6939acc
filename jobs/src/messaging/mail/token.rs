//! What cannot be guessed of a mail: it goes out in the Message-ID and the return path, and whoever reports something of
//! the mail brings it back.
//!
//! 128 bits of chance for each attempt. Kept is a digest of them, and a digest of the recipient's address under them: a
//! reader of the table learns neither, and a report that brings the token is checked against the address without opening
//! anything.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::{
    messaging::{Error, MailId, MessageId},
    outbound::{Chance, Clock, Email},
    people::BusinessId,
};

/// Reports come within days, complaints within weeks.
const KEPT: TimeDelta = TimeDelta::days(120);
/// Letters of a token.
pub(super) const LETTERS: usize = 26;
/// RFC 4648 section 6, in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The token of one attempt to send one mail. Shows itself to nobody.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MailToken([u8; 16]);

impl fmt::Debug for MailToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailToken(…)")
    }
}

impl MailToken {
    #[cfg(test)]
    pub(super) const fn of(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    fn made(chance: &dyn Chance) -> Self {
        let mut bytes = [0; 16];
        chance.fill(&mut bytes);
        Self(bytes)
    }

    /// As it stands in headers: 26 letters and digits.
    pub fn expose(&self) -> String {
        let bits = u128::from_be_bytes(self.0);
        let letter = |place: usize| {
            // The last letter holds three bits, the others five.
            let shift = 123_i32 - 5 * i32::try_from(place).unwrap_or(0);
            let five = if shift >= 0 { bits >> shift } else { bits << -shift } & 31;
            char::from(ALPHABET[usize::try_from(five).unwrap_or(0)])
        };
        (0..LETTERS).map(letter).collect()
    }

    /// Reads what [`Self::expose`] wrote; capitals are what some servers make of it.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != LETTERS {
            return None;
        }
        let mut bits: u128 = 0;
        for (place, byte) in text.bytes().enumerate() {
            let five = ALPHABET.iter().position(|known| *known == byte.to_ascii_lowercase())?;
            let five = u128::try_from(five).ok()?;
            if place < LETTERS - 1 {
                bits = (bits << 5) | five;
            } else if five & 3 == 0 {
                bits = (bits << 3) | (five >> 2);
            } else {
                return None;
            }
        }
        Some(Self(bits.to_be_bytes()))
    }

    /// Every token in a text, the first sixteen: runs of letters and digits that read as one.
    pub(super) fn all_in(text: &str) -> Vec<Self> {
        let runs = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        runs.filter_map(Self::parse).take(16).collect()
    }

    /// What stands at the end of the link by which she leaves, of the same letters. Nobody makes the token of it.
    pub fn leaving(&self) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(b"muneem leave");
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&whole[..16]);
        Self(bytes)
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    fn mark(&self, to: &Email) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(to.expose().to_lowercase().as_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// Which mail of ours it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailRef {
    /// To somebody of staff.
    Staff(MailId),
    /// To a person, on the channel `mail` of a message: which attempt of it.
    Message(MessageId, i32),
}

impl MailRef {
    pub(super) fn columns(self) -> (&'static str, Uuid, Option<i32>) {
        match self {
            Self::Staff(id) => ("staff", id.0, None),
            Self::Message(id, attempt) => ("message", id.0, Some(attempt)),
        }
    }
}

/// What is known of a token that came back.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) business: BusinessId,
    pub(super) of: MailRef,
    recipient_mark: Vec<u8>,
}

/// How the recipients that a report names agree with whom the mail went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It names her.
    Named,
    /// It names nobody.
    Silent,
    /// It names others alone: a forged report, or one of whoever she has her mail forwarded to.
    Others,
}

impl Known {
    pub(super) fn fit(&self, token: &MailToken, named: &[Email]) -> Fit {
        let is_her = |email: &Email| bool::from(token.mark(email).ct_eq(&self.recipient_mark));
        match named {
            [] => Fit::Silent,
            named if named.iter().any(is_her) => Fit::Named,
            _ => Fit::Others,
        }
    }
}

/// Makes the token of one attempt and keeps what is needed to know it again, in the transaction that records the
/// attempt. Each attempt has its own.
///
/// # Errors
/// The database fails.
pub async fn issue_token(
    tx: &mut PgConnection,
    (clock, chance): (&dyn Clock, &dyn Chance),
    business: BusinessId,
    of: MailRef,
    to: &Email,
) -> Result<MailToken, Error> {
    let (token, now) = (MailToken::made(chance), clock.now());
    let (kind, id, attempt) = of.columns();
    sqlx::query!(
        "insert into muneem.messaging_mail_tokens
             (token_sha256, business_id, of_kind, of_id, attempt, recipient_mark, created_at, leave_sha256)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        &token.digest()[..],
        business.0,
        kind,
        id,
        attempt,
        &token.mark(to)[..],
        now,
        &token.leaving().digest()[..],
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from muneem.messaging_mail_tokens
         where token_sha256 in (
             select token_sha256
             from muneem.messaging_mail_tokens
             where created_at < $1
             order by created_at
             limit 4
             for update skip locked
         )",
        now - KEPT,
    )
    .execute(tx)
    .await?;
    Ok(token)
}

/// The message that a link to leave by came with.
pub(super) async fn find_leaving(
    conn: &mut PgConnection,
    leaving: &MailToken,
) -> Result<Option<(BusinessId, MessageId)>, Error> {
    let row = sqlx::query!(
        r#"select business_id as "business: BusinessId", of_id
           from muneem.messaging_mail_tokens
           where leave_sha256 = $1 and of_kind = 'message'"#,
        &leaving.digest()[..],
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.business, MessageId(row.of_id))))
}

/// The first of these tokens that is one of ours.
pub(super) async fn find_token(
    conn: &mut PgConnection,
    tokens: &[MailToken],
) -> Result<Option<(MailToken, Known)>, Error> {
    for token in tokens {
        let row = sqlx::query!(
            r#"select business_id as "business: BusinessId", of_kind, of_id, attempt, recipient_mark
               from muneem.messaging_mail_tokens
               where token_sha256 = $1"#,
            &token.digest()[..],
        )
        .fetch_optional(&mut *conn)
        .await?;
        let Some(row) = row else { continue };
        let of = match (row.of_kind.as_str(), row.attempt) {
            ("message", Some(attempt)) => MailRef::Message(MessageId(row.of_id), attempt),
            _ => MailRef::Staff(MailId(row.of_id)),
        };
        let known = Known { business: row.business, of, recipient_mark: row.recipient_mark };
        return Ok(Some((token.clone(), known)));
    }
    Ok(None)
}

/// Before when a token is of no use.
pub(super) fn oldest(now: DateTime<Utc>) -> DateTime<Utc> {
    now - KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is_one() {
        for bytes in [[0; 16], [255; 16], *b"0123456789abcdef"] {
            let token = MailToken::of(bytes);
            let text = token.expose();
            assert_eq!(text.len(), LETTERS);
            assert_eq!(MailToken::parse(&text), Some(token.clone()));
            assert_eq!(MailToken::parse(&text.to_uppercase()), Some(token));
        }
        assert_eq!(
            MailToken::of(*b"0123456789abcdef").expose(),
            "gaytemzugu3doobzmfrggzdfmy",
            "RFC 4648, without padding"
        );
        for bad in [
            "",
            "gaytemzugu3doobzmfrggzdfm",
            "gaytemzugu3doobzmfrggzdfmyy",
            "gaytemzugu3doobzmfrggzdfmz",
            "01aytemzugu3doobzmfrggzdfmy",
        ] {
            assert_eq!(MailToken::parse(bad), None, "{bad}");
        }
        assert_eq!(
            MailToken::all_in(
                "<gaytemzugu3doobzmfrggzdfmy@x.in> bounces+GAYTEMZUGU3DOOBZMFRGGZDFMY@x xgaytemzugu3doobzmfrggzdfmy"
            )
            .len(),
            2
        );
        assert_eq!(format!("{:?}", MailToken::of([1; 16])), "MailToken(…)");
    }

    #[test]
    fn a_report_fits_whom_the_mail_went_to() {
        let email = |text: &str| Email::parse(text).expect("an address");
        let token = MailToken::of([9; 16]);
        let known = Known {
            business: BusinessId(Uuid::nil()),
            of: MailRef::Staff(MailId(Uuid::nil())),
            recipient_mark: token.mark(&email("Asha@example.in")).to_vec(),
        };
        let asha = email("asha@EXAMPLE.in");
        assert_eq!(known.fit(&token, &[]), Fit::Silent);
        assert_eq!(known.fit(&token, &[email("b@example.in"), asha.clone()]), Fit::Named);
        assert_eq!(known.fit(&token, &[email("b@example.in")]), Fit::Others);
        assert_eq!(known.fit(&MailToken::of([8; 16]), &[asha]), Fit::Others);
    }
}
