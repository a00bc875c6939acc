//! Whether a message may go: one table.

use serde_json::Value;
use sqlx::PgConnection;

use super::{
    Channel, Class, Contact, Error, contact,
    store::{self, Asked, Found, What},
};
use crate::{people::BusinessId, vault::Vault};
use chrono::{DateTime, Utc};

/// What may stand against a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// She was erased.
    Erased,
    /// She wants nothing any more, and said so on the channel that the message would go by, or for every channel.
    StoppedHere,
    /// She wants nothing any more, and said so on another channel.
    StoppedElsewhere,
    /// Nobody knows whether the number is still hers.
    Identity,
    /// The channel does not reach her.
    Channel,
    /// She wants nothing that sells.
    Marketing,
    /// She has not agreed to this purpose, took it back, or is to be asked anew.
    NoConsent,
}

impl Obstacle {
    /// All of them, the gravest first: of several, the first is the reason that is told.
    pub const ALL: [Self; 7] = [
        Self::Erased,
        Self::StoppedHere,
        Self::StoppedElsewhere,
        Self::Identity,
        Self::Channel,
        Self::Marketing,
        Self::NoConsent,
    ];
}

/// What an obstacle does to a class of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bearing {
    /// Nothing.
    Passes,
    /// It does not go.
    Stops,
    /// It does not go this way, unless there is no other.
    StopsUnlessLast,
}

use Bearing::{Passes, Stops, StopsUnlessLast};

/// What stops what: for each class, one bearing for each of [`Obstacle::ALL`].
///
/// - *Marketing* needs consent for its purpose (DPDP Act 2023 s.6(1)) and stops at every no (s.6(4); WhatsApp Business
///   Messaging Policy: opt-in first, every request to stop is honoured, on or off WhatsApp).
/// - *Transactional* rests on what she asked for when she gave her number (s.7(a)), until she says that she wants it no
///   more; a no to what sells does not touch it.
/// - *Statutory* rests on a legal duty to tell her (s.8(6)): consent is not asked. A no is honoured where it was said, by
///   taking another channel; where there is none, the duty outweighs it. It never goes to a number that may be somebody
///   else's, which would be a breach of its own, and not to an erased person: she is counted, not written to.
/// - *Codes* are asked for by the person herself at that moment (s.7(a)), so her earlier no does not stop them, nor an
///   erasure: with a code she proves that she is back. They stop at a number whose holder changed, because a code is
///   what an impostor wants, and at a channel that does not reach her.
pub const TABLE: [(Class, [Bearing; 7]); 4] = [
    //                      erased  here             elsewhere  identity  channel          marketing  no consent
    (Class::Marketing, [Stops, Stops, Stops, Stops, Stops, Stops, Stops]),
    (Class::Transactional, [Stops, Stops, Stops, Stops, Stops, Passes, Passes]),
    (Class::Statutory, [Stops, StopsUnlessLast, Passes, Stops, StopsUnlessLast, Passes, Passes]),
    (Class::Otp, [Passes, Passes, Passes, Stops, Stops, Passes, Passes]),
];

/// What the table says of one cell.
const fn bearing(class: Class, obstacle: Obstacle) -> Bearing {
    let row = match class {
        Class::Marketing => &TABLE[0].1,
        Class::Transactional => &TABLE[1].1,
        Class::Statutory => &TABLE[2].1,
        Class::Otp => &TABLE[3].1,
    };
    row[obstacle as usize]
}

/// Why a message does not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// She was erased.
    Erased,
    /// She wants nothing any more; of what a law demands: not by this channel.
    Stopped,
    /// Nobody knows whether the number is still hers.
    IdentityChanged,
    /// The channel does not reach her.
    ChannelClosed,
    /// She wants nothing that sells.
    MarketingStopped,
    /// She took her consent to this purpose back.
    Withdrawn,
    /// She changed her number: her consent is asked for anew.
    AskAgain,
    /// She never agreed to this purpose.
    NoConsent,
}

impl Reason {
    /// As it stands in HTTP and in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Erased => "erased",
            Self::Stopped => "stopped",
            Self::IdentityChanged => "identity_changed",
            Self::ChannelClosed => "channel_closed",
            Self::MarketingStopped => "marketing_stopped",
            Self::Withdrawn => "withdrawn",
            Self::AskAgain => "ask_again",
            Self::NoConsent => "no_consent",
        }
    }

    /// The same for the evidence.
    pub fn json(self) -> Value {
        Value::from(self.as_str())
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a message may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not.
    Skipped(Reason),
}

/// What is to be said, and how.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What kind of message it is.
    pub class: Class,
    /// What for: the word under which consent is kept.
    pub purpose: &'a str,
    /// The way it would go.
    pub channel: Channel,
    /// Whether the caller knows no other way to her; counts for what a law demands alone.
    pub last_way: bool,
}

/// One message to one contact.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Where it goes.
    pub to: &'a Contact,
    /// Other addresses that the caller knows to be the same person's: a no said there holds here.
    pub others: &'a [Contact],
    /// What it is.
    pub question: Question<'a>,
}

/// Whether one message may go, with one statement: call it in the transaction that begins each attempt, since a no may
/// have come after the message was asked for.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn judge(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    item: &Item<'_>,
    now: DateTime<Utc>,
) -> Result<Verdict, Error> {
    let verdicts = judge_each(conn, vault, business, std::slice::from_ref(item), now).await?;
    Ok(verdicts.into_iter().next().unwrap_or(Verdict::Skipped(Reason::NoConsent)))
}

/// Whether one message may go to each of many contacts, with one statement for all; verdicts in their order. Call it with
/// some thousands at a time.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn judge_all(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    (contacts, question): (&[Contact], Question<'_>),
    now: DateTime<Utc>,
) -> Result<Vec<Verdict>, Error> {
    let items: Vec<_> = contacts.iter().map(|to| Item { to, others: &[], question }).collect();
    judge_each(conn, vault, business, &items, now).await
}

/// Whether each of many messages may go, with one statement for all; verdicts in their order.
///
/// # Errors
/// The vault is sealed, or the database fails.
pub async fn judge_each(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    items: &[Item<'_>],
    now: DateTime<Utc>,
) -> Result<Vec<Verdict>, Error> {
    let mut asked = Asked::default();
    for (item, place) in items.iter().zip(0_i64..) {
        let addresses = std::iter::once((item.to, true)).chain(item.others.iter().map(|other| (other, false)));
        for (contact, addressed) in addresses {
            for mark in contact::marks(conn, vault, business, contact).await? {
                asked.places.push(place);
                asked.marks.push(mark);
                asked.addressed.push(addressed);
                asked.purposes.push(item.question.purpose.to_owned());
            }
        }
    }
    let mut found: Vec<Vec<Found>> = items.iter().map(|_| Vec::new()).collect();
    for one in store::list_standing(conn, business, &asked, now).await? {
        if let Some(of) = usize::try_from(one.place).ok().and_then(|place| found.get_mut(place)) {
            of.push(one);
        }
    }
    Ok(items.iter().zip(&found).map(|(item, found)| decide(&item.question, found)).collect())
}

/// What stands against it, the gravest first, and the first that the table says stops it.
fn decide(question: &Question<'_>, found: &[Found]) -> Verdict {
    let consent = consent_of(found);
    let stops = |obstacle: Obstacle| match bearing(question.class, obstacle) {
        Passes => false,
        Stops => true,
        StopsUnlessLast => !question.last_way,
    };
    for obstacle in Obstacle::ALL {
        let stands = match obstacle {
            Obstacle::NoConsent => consent.is_some(),
            other => found.iter().any(|one| obstacle_of(question.channel, one) == Some(other)),
        };
        if !stands || !stops(obstacle) {
            continue;
        }
        return Verdict::Skipped(match obstacle {
            Obstacle::Erased => Reason::Erased,
            Obstacle::StoppedHere | Obstacle::StoppedElsewhere => Reason::Stopped,
            Obstacle::Identity => Reason::IdentityChanged,
            Obstacle::Channel => Reason::ChannelClosed,
            Obstacle::Marketing => Reason::MarketingStopped,
            Obstacle::NoConsent => consent.unwrap_or(Reason::NoConsent),
        });
    }
    Verdict::Allowed
}

/// Which obstacle one thing that was found is to a message by this channel.
fn obstacle_of(channel: Channel, one: &Found) -> Option<Obstacle> {
    let here = one.channel.is_none_or(|said| said == channel);
    match one.what {
        What::Erased => Some(Obstacle::Erased),
        What::All if here => Some(Obstacle::StoppedHere),
        What::All => Some(Obstacle::StoppedElsewhere),
        What::Marketing => Some(Obstacle::Marketing),
        // Another address of hers says nothing about this one.
        What::Channel => (here && one.addressed).then_some(Obstacle::Channel),
        What::Identity => (here && one.addressed).then_some(Obstacle::Identity),
        What::Given | What::Withdrawn | What::AskAgain => None,
    }
}

/// Why there is no consent; nothing where there is. It must have been given for the address that is written to or one that
/// the carrier knows to be the same, and not have been taken back later under any address of hers.
fn consent_of(found: &[Found]) -> Option<Reason> {
    let words = found.iter().filter(|one| matches!(one.what, What::Given | What::Withdrawn | What::AskAgain));
    let given = words.clone().filter(|one| one.what == What::Given && one.addressed).map(|one| one.at).max();
    let against = words.filter(|one| one.what != What::Given).max_by_key(|one| one.at);
    match (given, against) {
        (Some(given), Some(against)) if against.at < given => None,
        (Some(_), None) => None,
        (_, Some(against)) if against.what == What::AskAgain => Some(Reason::AskAgain),
        (_, Some(_)) => Some(Reason::Withdrawn),
        (None, None) => Some(Reason::NoConsent),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn found(what: What, channel: Option<Channel>) -> Found {
        Found { place: 0, what, channel, addressed: true, at: DateTime::UNIX_EPOCH }
    }

    /// What was found for each obstacle, on a message by WhatsApp.
    fn standing(obstacle: Obstacle) -> Vec<Found> {
        let given = found(What::Given, None);
        let against = match obstacle {
            Obstacle::Erased => found(What::Erased, None),
            Obstacle::StoppedHere => found(What::All, Some(Channel::Whatsapp)),
            Obstacle::StoppedElsewhere => found(What::All, Some(Channel::Mail)),
            Obstacle::Identity => found(What::Identity, Some(Channel::Whatsapp)),
            Obstacle::Channel => found(What::Channel, Some(Channel::Whatsapp)),
            Obstacle::Marketing => found(What::Marketing, None),
            Obstacle::NoConsent => return Vec::new(),
        };
        vec![given, against]
    }

    fn question(class: Class, last_way: bool) -> Question<'static> {
        Question { class, purpose: "marketing.offers", channel: Channel::Whatsapp, last_way }
    }

    #[test]
    fn every_cell_of_the_table_is_walked_and_under_review() {
        let mut grid = String::new();
        for (row, (class, bearings)) in TABLE.iter().enumerate() {
            assert_eq!(Class::ALL[row], *class, "the rows stand in the order of the classes");
            for (obstacle, written) in Obstacle::ALL.iter().zip(bearings) {
                assert_eq!(bearing(*class, *obstacle), *written);
                let of = standing(*obstacle);
                let verdicts = [false, true].map(|last| decide(&question(*class, last), &of));
                let allowed = verdicts.map(|verdict| verdict == Verdict::Allowed);
                let expected = match written {
                    Passes => [true, true],
                    Stops => [false, false],
                    StopsUnlessLast => [false, true],
                };
                assert_eq!(allowed, expected, "{class:?} {obstacle:?}");
                let said = match verdicts[0] {
                    Verdict::Allowed => "goes".to_owned(),
                    Verdict::Skipped(reason) if allowed[1] => format!("{reason}, unless it is the last way"),
                    Verdict::Skipped(reason) => reason.to_string(),
                };
                let _ = writeln!(grid, "{:<14} {:<18} {said}", class.as_str(), format!("{obstacle:?}"));
            }
            // Where nothing stands against it, it goes.
            assert_eq!(decide(&question(*class, false), &[found(What::Given, None)]), Verdict::Allowed);
        }
        insta::assert_snapshot!("judged", grid);
    }

    #[test]
    fn of_several_reasons_the_gravest_is_told() {
        let all: Vec<_> = Obstacle::ALL.iter().rev().flat_map(|obstacle| standing(*obstacle)).collect();
        let told = |found: &[Found]| decide(&question(Class::Marketing, false), found);
        assert_eq!(told(&all), Verdict::Skipped(Reason::Erased));
        let rest: Vec<_> = all.into_iter().filter(|one| one.what != What::Erased).collect();
        assert_eq!(told(&rest), Verdict::Skipped(Reason::Stopped));
    }

    #[test]
    fn a_closed_channel_or_doubtful_number_of_another_address_says_nothing_of_this_one() {
        for what in [What::Channel, What::Identity] {
            let other = Found { addressed: false, ..found(what, Some(Channel::Whatsapp)) };
            let mail = found(what, Some(Channel::Mail));
            for one in [other, mail] {
                let verdict = decide(&question(Class::Transactional, false), &[one]);
                assert_eq!(verdict, Verdict::Allowed, "{what:?}");
            }
        }
        let no = Found { addressed: false, ..found(What::All, None) };
        assert_eq!(decide(&question(Class::Transactional, false), &[no]), Verdict::Skipped(Reason::Stopped));
    }

    #[test]
    fn the_later_word_counts_and_at_one_instant_the_one_that_forbids() {
        let at = |secs| DateTime::from_timestamp(secs, 0).expect("an instant");
        let said = |what, secs, addressed| Found { at: at(secs), addressed, ..found(what, None) };
        let reason = |found: &[Found]| decide(&question(Class::Marketing, false), found);
        let (no, ask) = (Verdict::Skipped(Reason::Withdrawn), Verdict::Skipped(Reason::AskAgain));
        for (given, against, verdict) in [
            (said(What::Given, 2, true), said(What::Withdrawn, 1, true), Verdict::Allowed),
            (said(What::Given, 1, true), said(What::Withdrawn, 2, true), no),
            (said(What::Given, 1, true), said(What::Withdrawn, 1, true), no),
            // Taken back under her other address.
            (said(What::Given, 1, true), said(What::Withdrawn, 2, false), no),
            (said(What::Given, 1, true), said(What::AskAgain, 2, true), ask),
            // Agreed to under another address alone.
            (said(What::Given, 2, false), said(What::Withdrawn, 1, false), no),
        ] {
            assert_eq!(reason(&[given, against]), verdict);
        }
        assert_eq!(reason(&[said(What::Given, 1, false)]), Verdict::Skipped(Reason::NoConsent));
    }
}
