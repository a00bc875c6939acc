//! Whom a message is for, and by which ways it may reach her.

use serde::{Deserialize, Serialize};

use super::{
    Error, MessageId,
    wishes::{Channel, Contact},
};
use crate::outbound::{Email, Phone};

/// Where one way leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// WhatsApp, to this number.
    Phone(Phone),
    /// Mail, to this address.
    Email(Email),
}

impl Address {
    /// The way itself.
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Phone(_) => Channel::Whatsapp,
            Self::Email(_) => Channel::Mail,
        }
    }

    /// The same as whom the wishes know.
    pub(super) fn contact(&self) -> Contact {
        match self {
            Self::Phone(phone) => Contact::Phone(phone.clone()),
            Self::Email(email) => Contact::Email(email.clone()),
        }
    }
}

/// One person, with the ways to her in the order in which they are taken: the next one where the one before did not
/// reach her. Each channel is there once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(Vec<Address>);

impl From<Phone> for Recipient {
    fn from(phone: Phone) -> Self {
        Self(vec![Address::Phone(phone)])
    }
}

impl From<Email> for Recipient {
    fn from(email: Email) -> Self {
        Self(vec![Address::Email(email)])
    }
}

impl From<Address> for Recipient {
    fn from(way: Address) -> Self {
        Self(vec![way])
    }
}

/// As it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Phone(String),
    Email(String),
}

impl Recipient {
    /// The same person, by this way where none before reached her. A channel that is there already stays as it is.
    #[must_use]
    pub fn or(mut self, next: impl Into<Self>) -> Self {
        for address in next.into().0 {
            if self.0.iter().all(|known| known.channel() != address.channel()) {
                self.0.push(address);
            }
        }
        self
    }

    /// Her ways, the first to be taken first: never none.
    pub fn ways(&self) -> &[Address] {
        &self.0
    }

    /// As it is sealed.
    pub(super) fn kept(&self) -> Vec<u8> {
        let ways: Vec<_> = self
            .0
            .iter()
            .map(|way| match way {
                Address::Phone(phone) => Kept::Phone(phone.as_e164().to_owned()),
                Address::Email(email) => Kept::Email(email.expose()),
            })
            .collect();
        serde_json::to_vec(&ways).expect("texts by name are JSON")
    }

    /// Reads what [`Self::kept`] wrote.
    pub(super) fn read(id: MessageId, kept: &[u8]) -> Result<Self, Error> {
        let unreadable = || Error::Unreadable(id, "ways");
        let ways: Vec<Kept> = serde_json::from_slice(kept).map_err(|_| unreadable())?;
        let ways: Option<Vec<_>> = ways
            .into_iter()
            .map(|way| match way {
                Kept::Phone(text) => Phone::parse(&text).ok().map(Address::Phone),
                Kept::Email(text) => Email::parse(&text).ok().map(Address::Email),
            })
            .collect();
        ways.filter(|ways| !ways.is_empty()).map(Self).ok_or_else(unreadable)
    }

    /// Who else she is: her addresses but the one on `channel`.
    pub(super) fn others(&self, channel: Channel) -> Vec<Contact> {
        self.0.iter().filter(|way| way.channel() != channel).map(Address::contact).collect()
    }
}
