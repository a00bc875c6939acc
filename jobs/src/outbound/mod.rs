//! Everything outside this crate, as small traits: the binary implements them for real, tests as fakes that remember
//! what they were given.

mod anchor;
pub mod carrier;
mod chance;
mod clock;
mod dkim;
mod email;
pub mod kms;
mod mail;
pub mod mailer;
pub(crate) mod object_store;
pub mod webhook;

#[cfg(test)]
pub(crate) use anchor::MemoryAnchor;
pub use anchor::{Anchor, AnchorError, AnchorKind};
pub use carrier::{Carrier, Phone, Sender, Wamid};
pub use chance::Chance;
pub use clock::Clock;
pub use dkim::{Algorithm, BadDkimKey, DkimKey};
pub use email::{Email, NotAnEmail};
pub use kms::{KeyManager, KmsError};
pub(crate) use mail::breaks_a_header;
pub use mail::{Attachment, BadMail, LARGEST_ATTACHMENTS, Mail, MailSender};

pub use mailer::{MailOutcome, Mailer};
pub use object_store::{ObjectError, ObjectStore};
pub use webhook::WebhookSender;
