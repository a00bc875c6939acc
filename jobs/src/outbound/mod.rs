//! Everything outside this crate, as small traits: the binary implements them for real, tests as fakes that remember
//! what they were given.

mod anchor;
pub mod carrier;
mod chance;
mod clock;
pub mod kms;
pub mod mailer;
pub(crate) mod object_store;
pub mod webhook;

#[cfg(test)]
pub(crate) use anchor::MemoryAnchor;
pub use anchor::{Anchor, AnchorError, AnchorKind};
pub use carrier::{Carrier, Phone, Sender, Wamid};
pub use chance::Chance;
pub use clock::Clock;
pub use kms::{KeyManager, KmsError};
pub use mailer::{Email, Mail, MailOutcome, Mailer};
pub use object_store::{ObjectError, ObjectStore};
pub use webhook::WebhookSender;
