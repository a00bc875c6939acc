//! Bundles as zip files: written from the database, read from anywhere.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use muneem_jobs::{
    evidence::{
        self,
        bundle::{Broken, Check, FORM, Manifest, Verdict, event_line, receipt_line},
        note::Verifier,
    },
    people::BusinessId,
};
use sqlx::PgConnection;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

/// Files of a bundle, in the order in which they are written and checked.
const FILES: [&str; 5] = ["manifest.json", "notes.jsonl", "leaves.bin", "events.jsonl", "receipts.jsonl"];
/// Events taken from the database at a time.
const PAGE: i32 = 4096;
/// Largest `manifest.json` that is read.
const LARGEST_MANIFEST: u64 = 64 * 1024;
/// Most bytes of leaf hashes that are read: a hundred million events.
const LARGEST_LEAVES: u64 = 3_200_000_000;

/// Writes a bundle about one business or about all to `file`, which must not be there yet and appears complete or not
/// at all. Answers how many events it holds.
///
/// # Errors
/// The database or the disk fails.
pub async fn export(
    db: &mut PgConnection,
    key: &Verifier,
    business: Option<BusinessId>,
    file: &Path,
    mut told: impl FnMut(u64, u64),
) -> anyhow::Result<u64> {
    if file.exists() {
        bail!("{} is there already: name another file", file.display());
    }
    let mut draft = PathBuf::from(file);
    draft.as_mut_os_string().push(".part");
    let open = File::create(&draft).with_context(|| format!("cannot write {}", draft.display()))?;
    let mut zip = ZipWriter::new(BufWriter::new(open));
    let packed = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(true);
    let plain = packed.compression_method(CompressionMethod::Stored);

    zip.start_file(FILES[0], packed)?;
    let manifest =
        Manifest { form: FORM.to_owned(), key: key.to_vkey(), business: business.map(|business| business.0) };
    zip.write_all(&serde_json::to_vec_pretty(&manifest)?)?;
    // Heads first: what is sealed while this runs lies behind them.
    zip.start_file(FILES[1], packed)?;
    let notes = evidence::list_notes(db).await?;
    if notes.is_empty() {
        bail!("no head of the log is signed yet: `muneem serve` signs one within seconds");
    }
    for note in &notes {
        writeln!(zip, "{}", serde_json::to_string(note)?)?;
    }
    let size = evidence::load_standing(db).await?.size;
    zip.start_file(FILES[2], plain)?;
    let page = u64::from(PAGE.unsigned_abs());
    let mut seq = 0;
    while seq < size {
        let hashes = evidence::list_hashes(db, seq, size.min(seq + page)).await?;
        if hashes.is_empty() {
            bail!("leaf {seq} of the log is missing in the database");
        }
        for hash in &hashes {
            zip.write_all(hash)?;
        }
        seq += u64::try_from(hashes.len()).unwrap_or(0);
    }
    zip.start_file(FILES[3], packed)?;
    let mut events = 0;
    let mut from = 0;
    while from < size {
        let some = evidence::list_sealed(db, business, from, PAGE).await?;
        let Some(last) = some.last() else { break };
        from = last.seq + 1;
        for sealed in some.iter().filter(|sealed| sealed.seq < size) {
            zip.write_all(event_line(sealed)?.as_bytes())?;
            events += 1;
        }
        told(from.min(size), size);
    }
    zip.start_file(FILES[4], packed)?;
    for receipt in evidence::list_receipts(db).await? {
        // One that was laid down while this ran is of a head that the bundle does not hold.
        if notes.contains(&receipt.note) {
            zip.write_all(receipt_line(&receipt)?.as_bytes())?;
        }
    }
    let open = zip.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    open.sync_all()?;
    std::fs::rename(&draft, file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(events)
}

/// Checks the bundle in `file` against `key` and against signed heads that the caller holds from outside. Opens nothing
/// but these files.
///
/// # Errors
/// [`Broken`] names the first item that does not hold; anything else: the file cannot be read as a bundle.
pub fn verify(file: &Path, key: Option<&Verifier>, heads: &[PathBuf]) -> anyhow::Result<Verdict> {
    let open = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut zip = ZipArchive::new(BufReader::new(open)).with_context(|| format!("{} is no bundle", file.display()))?;
    let mut names: Vec<_> =
        zip.file_names().map(|name| name.map(|name| name.into_owned())).collect::<Result<_, _>>()?;
    names.sort_unstable();
    let mut wanted = FILES.to_vec();
    wanted.sort_unstable();
    if let Some(missing) = wanted.iter().find(|name| !names.iter().any(|there| there == **name)) {
        return Err(gone(missing).into());
    }
    if let Some(other) = names.iter().find(|name| !wanted.contains(&name.as_str())) {
        return Err(Broken { item: other.clone(), problem: "does not belong into a bundle".to_owned() }.into());
    }
    let mut manifest = Vec::new();
    zip.by_name(FILES[0])?.take(LARGEST_MANIFEST).read_to_end(&mut manifest).map_err(|_| damaged(FILES[0]))?;
    let mut check = Check::new(&manifest, key)?;
    for head in heads {
        let name = head.display().to_string();
        let note = std::fs::read_to_string(head).with_context(|| format!("cannot read {name}"))?;
        check.outside_head(&name, &note)?;
    }
    check.notes(BufReader::new(zip.by_name(FILES[1])?))?;
    let mut leaves = Vec::new();
    zip.by_name(FILES[2])?.take(LARGEST_LEAVES).read_to_end(&mut leaves).map_err(|_| damaged(FILES[2]))?;
    check.leaves(&leaves)?;
    drop(leaves);
    check.events(BufReader::with_capacity(1 << 18, zip.by_name(FILES[3])?))?;
    Ok(check.receipts(BufReader::new(zip.by_name(FILES[4])?))?)
}

fn gone(name: &str) -> Broken {
    Broken { item: name.to_owned(), problem: "is missing".to_owned() }
}

fn damaged(name: &str) -> Broken {
    Broken {
        item: name.to_owned(),
        problem: "is damaged: its bytes do not have the checksum they were packed with".to_owned(),
    }
}
