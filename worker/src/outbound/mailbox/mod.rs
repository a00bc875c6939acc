//! Reads back what came of mail: a mailbox by IMAP and a Maildir, looked into now and then.
//!
//! Each mail is kept in Postgres, sealed and once, before it is marked as seen or moved: whoever is killed in between
//! finds it again and knows it. Several processes may look into the same mailbox; what one has kept is a repetition for
//! the other.

mod imap;
mod maildir;

use std::{path::PathBuf, sync::Arc, time::Duration};

use muneem_jobs::{
    messaging::{
        self,
        mail::{Format, Kept, Place, Source, bounce, keep_place, receive_report},
    },
    outbound::{Chance, Clock},
    vault::Vault,
};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub use imap::{Imap, Settings};

/// Mails of one look; the rest waits for the next, which follows at once.
const AT_ONCE: usize = 100;
/// So much of each mail is fetched and kept.
const LARGEST: usize = bounce::LARGEST;

/// Keeps what is read.
#[derive(Clone)]
pub struct Keeper {
    /// Connections of the app role.
    pub db: PgPool,
    /// Seals what is kept.
    pub vault: Arc<Vault>,
    /// Time of receipt.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub chance: Arc<dyn Chance>,
}

/// The places that reports are read from.
pub struct Reader {
    /// Where they are kept.
    pub keeper: Keeper,
    /// A directory.
    pub maildir: Option<PathBuf>,
    /// A mailbox.
    pub imap: Option<Imap>,
    /// Time between two looks.
    pub every: Duration,
}

/// A mailbox that could not be read; free of what its server said, which may name people.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server was not reached, is not whom it says, or did not do as asked.
    #[error("imap: {0}")]
    Imap(&'static str),
    /// The look took too long.
    #[error("imap: time-out")]
    Slow,
    /// The directory or a file in it.
    #[error("maildir: {0}")]
    Maildir(&'static str, #[source] std::io::Error),
    /// What was read could not be kept.
    #[error("a report could not be kept")]
    Keep(#[from] messaging::Error),
    /// The database failed.
    #[error("a report could not be kept")]
    Database(#[from] sqlx::Error),
    /// Certificates that nobody can believe the server by.
    #[error("`messaging.mail.imap.tls_roots_file`: {0}")]
    Roots(String),
}

impl Keeper {
    /// Keeps one mail, and how far its mailbox was read; both or neither.
    async fn keep(&self, source: Source, raw: &[u8], place: Option<(&str, Place)>) -> Result<Kept, Error> {
        let mut tx = self.db.begin().await?;
        let with = (&*self.clock, &*self.chance);
        let kept = receive_report(&mut tx, &self.vault, with, (source, Format::Rfc822), raw).await?;
        if let Some((mailbox, place)) = place {
            keep_place(&mut tx, mailbox, place, self.clock.now()).await?;
        }
        tx.commit().await?;
        Ok(kept)
    }
}

impl Reader {
    /// Looks until `end`. What fails is in the log, and tried again at the next look.
    pub async fn run(&self, end: CancellationToken) {
        loop {
            let full = match self.look().await {
                Ok(read) => read >= AT_ONCE,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "reports of mail could not be read");
                    false
                }
            };
            let pause = if full { Duration::ZERO } else { self.every };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = end.cancelled() => return,
            }
        }
    }

    /// Looks once; how many mails were read.
    ///
    /// # Errors
    /// A place cannot be read; what was read before is kept. The other place was read all the same.
    pub async fn look(&self) -> Result<usize, Error> {
        let from_maildir = match &self.maildir {
            Some(dir) => maildir::look(dir, &self.keeper).await,
            None => Ok(0),
        };
        let from_imap = match &self.imap {
            Some(imap) => imap.look(&self.keeper).await,
            None => Ok(0),
        };
        Ok(from_maildir? + from_imap?)
    }
}
