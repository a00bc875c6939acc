//! What somebody holds from outside: signed heads as they were laid down, mails, and time stamps of an authority.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use muneem_jobs::evidence::timestamp;

use crate::mime;

/// What a log's name begins with, and so a note.
const NAME: &str = "muneem-evidence-";
/// Largest file that is read.
const LARGEST: u64 = 4 * 1024 * 1024;
/// Deepest folder below the one that was named.
const DEEPEST: u8 = 4;
/// Endings of files that are taken from a folder.
const ENDINGS: [&str; 6] = ["note", "txt", "eml", "tsr", "tst", "der"];

/// One thing that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A signed head, as text.
    Head(String),
    /// A time stamp: `TimeStampResp` or token, DER.
    Stamp(Vec<u8>),
}

/// Reads a file, or every file of a folder that looks like one; each with its name.
///
/// # Errors
/// A file cannot be read, or a named one holds neither head nor time stamp.
pub fn read(path: &Path) -> anyhow::Result<Vec<(String, Held)>> {
    if !path.is_dir() {
        return Ok(vec![(path.display().to_string(), read_file(path)?)]);
    }
    let mut files = Vec::new();
    walk(path, DEEPEST, &mut files)?;
    files.sort();
    if files.is_empty() {
        bail!("{} holds no file ending in .{}", path.display(), ENDINGS.join(", ."));
    }
    files.into_iter().map(|file| Ok((file.display().to_string(), read_file(&file)?))).collect()
}

fn walk(folder: &Path, deeper: u8, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let shown = folder.display();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {shown}"))? {
        let path = entry.with_context(|| format!("cannot read {shown}"))?.path();
        if path.is_dir() && deeper > 0 {
            walk(&path, deeper - 1, files)?;
        } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) {
            files.push(path);
        }
    }
    Ok(())
}

fn read_file(file: &Path) -> anyhow::Result<Held> {
    let shown = file.display();
    let size = std::fs::metadata(file).with_context(|| format!("cannot read {shown}"))?.len();
    if size > LARGEST {
        bail!("{shown} is no head or time stamp: it has {size} bytes");
    }
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    if timestamp::is_token(&bytes) || timestamp::token_in(&bytes).is_ok() {
        return Ok(Held::Stamp(bytes));
    }
    let text = String::from_utf8_lossy(&bytes);
    let note = note_in(&text).or_else(|| note_in(&mime::read(lines_as_sent(&text).as_bytes()).text));
    note.map(Held::Head).with_context(|| format!("{shown} holds neither a signed head nor a time stamp"))
}

/// A mail that was saved with the line ends of this machine, as it came.
fn lines_as_sent(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

/// The first signed note in a text, whatever stands around it, and in front of its lines where the text was quoted.
pub fn note_in(text: &str) -> Option<String> {
    let bare = |line: &str| line.trim_start_matches(['>', ' ', '\t']).trim_end().to_owned();
    let lines: Vec<_> = text.lines().map(bare).collect();
    let is_size =
        |line: Option<&String>| line.is_some_and(|line| !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()));
    let first = (0..lines.len()).find(|at| lines[*at].starts_with(NAME) && is_size(lines.get(at + 1)))?;
    let length = lines[first..].iter().take(16).position(|line| line.starts_with('\u{2014}'))?;
    Some(lines[first..=first + length].iter().map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use muneem_jobs::evidence::note::{Checkpoint, Signer25519};

    use super::*;

    fn note() -> (Signer25519, String) {
        let signer = Signer25519::new(&[1; 32]);
        let at = DateTime::from_timestamp(1_764_000_000, 0).expect("an instant");
        let note = signer.sign(&Checkpoint { size: 7, root: [3; 32], at });
        (signer, note)
    }

    #[test]
    fn a_note_is_found_in_whatever_it_was_kept_in() {
        let (signer, note) = note();
        let quoted: String = note.lines().map(|line| format!("> {line}\r\n")).collect();
        for kept in [
            note.clone(),
            note.replace('\n', "\r\n"),
            format!("Dear all,\n\n{note}---\n"),
            format!("On Monday:\r\n{quoted}"),
        ] {
            let found = note_in(&kept).unwrap_or_else(|| panic!("{kept}"));
            assert_eq!(found, note);
            signer.verifier().open(&found).expect("still signed");
        }
        assert_eq!(note_in("muneem-evidence-1\nno number\n"), None);
        assert_eq!(note_in(""), None);
    }

    #[test]
    fn a_folder_is_read_whole_and_what_is_nothing_is_named() {
        let (_, note) = note();
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("0")).expect("made");
        std::fs::write(dir.path().join("0/1.note"), &note).expect("written");
        std::fs::write(dir.path().join("README"), "not looked at").expect("written");
        let held = read(dir.path()).expect("read");
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].1, Held::Head(note));
        let error = read(&dir.path().join("README")).expect_err("no head");
        assert!(error.to_string().contains("README"), "{error}");
    }
}
