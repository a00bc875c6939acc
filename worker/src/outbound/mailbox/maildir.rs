//! A Maildir: what is new lies in `new/`, and goes to `cur/` when it was kept.

use std::{ffi::OsString, io, path::Path};

use muneem_jobs::messaging::mail::Source;
use tokio::{fs, io::AsyncReadExt};

use super::{AT_ONCE, Error, Keeper, LARGEST};

/// Reads what is new, at most [`AT_ONCE`] of it; how much that was.
pub(super) async fn look(dir: &Path, keeper: &Keeper) -> Result<usize, Error> {
    let failed = |what| move |error| Error::Maildir(what, error);
    let (new, cur) = (dir.join("new"), dir.join("cur"));
    let mut names = Vec::new();
    let mut entries = fs::read_dir(&new).await.map_err(failed("`new` cannot be listed"))?;
    while let Some(entry) = entries.next_entry().await.map_err(failed("`new` cannot be listed"))? {
        // Not through links: what they lead to was not delivered here.
        if entry.file_type().await.is_ok_and(|kind| kind.is_file()) {
            names.push(entry.file_name());
        }
    }
    // Names begin with the time of delivery.
    names.sort();
    names.truncate(AT_ONCE);
    for name in &names {
        let from = new.join(name);
        let raw = match head_of(&from).await {
            Ok(raw) => raw,
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::Maildir("a mail cannot be read", error)),
        };
        keeper.keep(Source::Maildir, &raw, None).await?;
        let mut seen = OsString::from(name);
        seen.push(":2,S");
        match fs::rename(&from, cur.join(seen)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Maildir("a mail that was read cannot be moved to `cur`", error));
            }
            _ => {}
        }
    }
    Ok(names.len())
}

async fn head_of(file: &Path) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    let most = u64::try_from(LARGEST).unwrap_or(u64::MAX);
    fs::File::open(file).await?.take(most).read_to_end(&mut raw).await?;
    Ok(raw)
}
