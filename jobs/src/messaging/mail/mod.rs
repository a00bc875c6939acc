//! Mail to people: what is written, from whom, and what comes back.
//!
//! **Sending.** Whoever sends a mail opens a transaction, records the attempt, takes a token for it ([`issue_token`]),
//! finds whom the mail comes from ([`identity_of`]) and writes it ([`compose`]); commits; and only then hands it to
//! [`crate::outbound::Mailer::send`]. What that answers decides: *accepted*, *refused*, *not sent* (it may be sent again,
//! with a token of its own) or *unknown* (it may not).
//!
//! **What comes back.** A mailbox, a Maildir or a webhook brings reports to [`receive_report`], which keeps each once,
//! sealed, before it is marked as read; `messaging.apply_mail_report` reads it again and folds it into the mail it is
//! about ([`fold`]). A report counts if it brings a token of ours, which nobody can guess, and names nobody else than the
//! recipient: a forged one suppresses nobody.
//!
//! **Identity.** A business may have an address and a signing key of its own ([`set_identity`]). Nothing is sent from an
//! address before somebody who reads its mail has shown the code that went there.

mod apply_report;
pub mod bounce;
mod compose;
mod fold;
mod identity;
mod identity_store;
mod leave;
mod receive;
mod report_store;
#[cfg(test)]
mod tests;
mod token;
mod verify_identity;
mod words;

pub use apply_report::ApplyMailReport;
pub use compose::{ComposeError, Draft, Identity, compose};
pub(super) use fold::close_address;
pub use fold::{Folded, fold};
pub use identity::{
    BadIdentity, IdentityInfo, NewIdentity, SigningKey, count_guess, find_identity, identity_of, list_identities,
    remove_identity, set_identity, verify_identity,
};
pub use leave::{Leaving, find_leaving, leave};
pub use receive::{Format, Kept, Source, receive_report};
pub use report_store::{Place, find_place, keep_place};
pub use token::{MailRef, MailToken, issue_token};
pub use verify_identity::VerifyMailIdentity;
pub use words::WordsError;
pub(super) use words::check as check_words;

pub(super) use identity::SEALED_IDENTITIES;
pub(super) use report_store::SEALED_REPORTS;
