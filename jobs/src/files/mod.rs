//! Files: PDFs, packages, archives. They lie sealed in the object store, named by the SHA-256 of what lies there; a row
//! of `muneem.files_objects` holds a file's own key, sealed, says what it is and how long it is kept.
//!
//! A file's key comes of its content and a secret of its business, so that equal bytes of a business are one file, and
//! an attempt that died before its row leaves nothing that the next one does not take up. Without keys nobody learns
//! from the store what is in a file, nor whether a document that she has is among them: a digest of the content would
//! tell. Whose row is deleted is a file that nobody can open, wherever copies of it lie.

mod error;
mod sealed;
mod store;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use zeroize::Zeroizing;

use crate::{
    Deps,
    outbound::{ObjectStore, kms::KeyBytes},
    people::BusinessId,
    vault::{Cell, Class, IndexColumn, Key, SealedColumn, Vault},
};

pub use error::Error;

const TABLE: &str = "muneem.files_objects";

/// What files seal: their keys, not themselves, so that a new key of the vault touches no file.
pub const SEALED: &[SealedColumn] =
    &[SealedColumn::of_row(TABLE, "key_sealed", Key { column: "digest", kind: "text" })];

/// SHA-256 in lower-case hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A file that lies in the object store, to be recorded in the transaction that refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name: SHA-256 of what lies in the store, in lower-case hexadecimal.
    pub digest: String,
    /// Whose it is.
    pub business: BusinessId,
    /// Size of its content.
    pub size_bytes: i64,
    /// For example `application/pdf`.
    pub media_type: &'static str,
    /// Its key, sealed for its row.
    key_sealed: Vec<u8>,
}

/// Seals bytes and puts them into the object store. Call it before the transaction that [`record`]s them: bytes without
/// a row open to nobody, a row without bytes would be a loss. Holds a connection of the pool until the key is at hand,
/// none while it stores.
///
/// # Errors
/// When the store, the vault or the database fails.
pub async fn put(deps: &Deps, business: BusinessId, media_type: &'static str, content: Bytes) -> Result<Stored, Error> {
    let mut conn = deps.db.acquire().await?;
    let (stored, sealed) = seal(&mut conn, &deps.vault, business, media_type, content).await?;
    drop(conn);
    deps.objects.put_if_absent(&stored.digest, sealed).await?;
    Ok(stored)
}

/// The sealed bytes of a file, to be put into the object store under its digest before the transaction that
/// [`record`]s it commits. For whoever has a connection already and must not wait for a second one.
///
/// # Errors
/// When the vault or the database fails.
pub async fn seal(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    media_type: &'static str,
    content: Bytes,
) -> Result<(Stored, Bytes), Error> {
    let key = key_of(conn, vault, business, &content).await?;
    let size_bytes = i64::try_from(content.len()).unwrap_or(i64::MAX);
    let sealed = Bytes::from(sealed::seal(&key, &content));
    let digest = digest_of(&sealed);
    let key_sealed = vault.seal(conn, Class::Document, &cell(business, &digest), &key[..]).await?;
    Ok((Stored { digest, business, size_bytes, media_type, key_sealed }, sealed))
}

/// The key for a content: the same for the same bytes of a business, as long as its index key lasts. Whoever knows the
/// content and not that key learns nothing of it.
async fn key_of(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    content: &[u8],
) -> Result<KeyBytes, Error> {
    // Of a column that is stored nowhere: its indexes are secrets.
    let column = IndexColumn { business_id: business, table: TABLE, column: "content_key" };
    let digest = digest_of(content);
    let mut hash = Sha256::new_with_prefix(b"muneem.files.key.1");
    // An index is half an HMAC.
    for half in ["1", "2"] {
        let index = vault.index(&mut *conn, &column, &format!("{half}:{digest}")).await?;
        hash.update(index.digest);
    }
    Ok(Zeroizing::new(hash.finalize().into()))
}

fn cell<'a>(business: BusinessId, digest: &'a str) -> Cell<'a> {
    Cell { business_id: business, table: TABLE, column: "key_sealed", row: digest }
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
    record_at(conn, stored, keep_until, deps.clock.now()).await
}

/// [`record`], for whoever has no jobs to run.
///
/// # Errors
/// The database fails.
pub async fn record_at(
    conn: &mut PgConnection,
    stored: &Stored,
    keep_until: Option<NaiveDate>,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    store::upsert(conn, stored, keep_until, now).await
}

/// A file whose row was found and whose key is at hand.
pub struct Located {
    digest: String,
    key: Option<KeyBytes>,
}

impl std::fmt::Debug for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Located").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Finds the row of a file, and opens its key.
///
/// # Errors
/// [`Error::Missing`] when there is no such row; when the vault or the database fails.
pub async fn locate(conn: &mut PgConnection, vault: &Vault, digest: &str) -> Result<Located, Error> {
    let found = store::find(&mut *conn, digest).await?.ok_or_else(|| Error::Missing(digest.to_owned()))?;
    let key = match found {
        store::Found { business: Some(business), key_sealed: Some(sealed) } => {
            let key = vault.open(conn, &cell(business, digest), &sealed).await?;
            let key = <[u8; 32]>::try_from(key.as_slice()).map_err(|_| Error::Unreadable(digest.to_owned()))?;
            Some(Zeroizing::new(key))
        }
        // Put before files were sealed.
        _ => None,
    };
    Ok(Located { digest: digest.to_owned(), key })
}

impl Located {
    /// Fetches the file and opens it. Hold no connection meanwhile: the store may be far away.
    ///
    /// # Errors
    /// [`Error::Missing`] when the bytes are gone, [`Error::Unreadable`] when they are not what was put there.
    pub async fn fetch(&self, objects: &dyn ObjectStore) -> Result<Bytes, Error> {
        let lying = objects.get(&self.digest).await?.ok_or_else(|| Error::Missing(self.digest.clone()))?;
        let Some(key) = &self.key else { return Ok(lying) };
        sealed::open(key, &lying).map(Bytes::from).map_err(|_| Error::Unreadable(self.digest.clone()))
    }
}
