//! Files by digest: PDFs, packages, archives. The bytes lie in the object store, named by their SHA-256; a row of
//! `muneem.files_objects` says what they are and how long they are kept. Equal bytes are one file.

mod error;
mod store;

use bytes::Bytes;
use chrono::NaiveDate;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use crate::{Deps, outbound::ObjectStore};

pub use error::Error;

/// SHA-256 in lower-case hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A file that lies in the object store, to be recorded in the transaction that refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256 in lower-case hexadecimal.
    pub digest: String,
    /// Its size.
    pub size_bytes: i64,
    /// For example `application/pdf`.
    pub media_type: &'static str,
}

/// Puts bytes into the object store. Call it before the transaction that [`record`]s them: bytes without a row are
/// swept up, a row without bytes would be a loss.
///
/// # Errors
/// When the store fails.
pub async fn put(deps: &Deps, media_type: &'static str, bytes: Bytes) -> Result<Stored, Error> {
    let stored =
        Stored { digest: digest_of(&bytes), size_bytes: i64::try_from(bytes.len()).unwrap_or(i64::MAX), media_type };
    deps.objects.put_if_absent(&stored.digest, bytes).await?;
    Ok(stored)
}

/// Records a stored file and until when it is kept: the later day wins when it is there already.
///
/// # Errors
/// When the database fails.
pub async fn record(
    conn: &mut PgConnection,
    deps: &Deps,
    stored: &Stored,
    keep_until: Option<NaiveDate>,
) -> Result<(), Error> {
    store::upsert(conn, stored, keep_until, deps.clock.now()).await
}

/// Fetches a file by digest; its content is checked against it.
///
/// # Errors
/// [`Error::Missing`] when the bytes are gone.
pub async fn load(objects: &dyn ObjectStore, digest: &str) -> Result<Bytes, Error> {
    objects.get(digest).await?.ok_or_else(|| Error::Missing(digest.to_owned()))
}
