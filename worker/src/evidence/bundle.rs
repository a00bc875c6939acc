//! Bundles as zip files: written from the database, read from anywhere.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use muneem_jobs::{
    evidence::{
        self, Prover,
        bundle::{Broken, Check, FORM, Manifest, Verdict, event_line, growth_line, receipt_line},
        note::Verifier,
        timestamp::Roots,
    },
    people::BusinessId,
};
use sqlx::PgConnection;
use zip::{CompressionMethod, ZipArchive, ZipWriter, write::SimpleFileOptions};

use super::held::{self, Held};

/// Files of a bundle, in the order in which they are written and checked.
const FILES: [&str; 5] = ["manifest.json", "notes.jsonl", "leaves.bin", "events.jsonl", "receipts.jsonl"];
/// In place of `leaves.bin` in a bundle about one business.
const GROWTH: &str = "growth.jsonl";
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
    let heads = match business {
        Some(_) => evidence::list_anchored_heads(db).await?,
        None => Vec::new(),
    };
    let notes = match business {
        Some(_) => heads.iter().map(|head| head.note.clone()).collect(),
        None => evidence::list_notes(db).await?,
    };
    if notes.is_empty() {
        bail!("no head of the log is signed yet: `muneem serve` signs one within seconds");
    }
    for note in &notes {
        writeln!(zip, "{}", serde_json::to_string(note)?)?;
    }
    let size = evidence::load_standing(db).await?.size;
    let mut prover = heads.last().cloned().map(Prover::under);
    if let Some(prover) = &mut prover {
        zip.start_file(GROWTH, packed)?;
        let (last, mut shown) = (prover.head().size, BTreeSet::new());
        for head in heads.iter().filter(|head| head.size < last) {
            if shown.insert(head.size) {
                let path = prover.growth(db, head).await?;
                zip.write_all(growth_line(head.size, &path)?.as_bytes())?;
            }
        }
    } else {
        zip.start_file(FILES[2], plain)?;
        write_leaves(db, size, &mut zip).await?;
    }
    zip.start_file(FILES[3], packed)?;
    let mut events = 0;
    let mut from = 0;
    while from < size {
        let some = evidence::list_sealed(db, business, from, PAGE).await?;
        let Some(last) = some.last() else { break };
        from = last.seq + 1;
        for sealed in some.iter().filter(|sealed| sealed.seq < size) {
            let path = match &mut prover {
                Some(prover) => prover.path(db, sealed).await?,
                None => None,
            };
            zip.write_all(event_line(sealed, path.as_deref())?.as_bytes())?;
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

/// The leaf hash of every event of the log.
async fn write_leaves(db: &mut PgConnection, size: u64, zip: &mut impl Write) -> anyhow::Result<()> {
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
    Ok(())
}

/// What a bundle is checked against, all of it from outside.
#[derive(Default)]
pub struct Against<'a> {
    /// The log's public key; none: the bundle's own.
    pub key: Option<&'a Verifier>,
    /// Files and folders with signed heads, mails, time stamps.
    pub held: &'a [PathBuf],
    /// Roots that time stamps are believed by.
    pub roots: Option<Roots>,
}

/// Checks the bundle in `file`. Opens nothing but it and the files that are held.
///
/// # Errors
/// [`Broken`] names the first item that does not hold; anything else: the file cannot be read as a bundle.
pub fn verify(file: &Path, against: Against<'_>) -> anyhow::Result<Verdict> {
    let open = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut zip = ZipArchive::new(BufReader::new(open)).with_context(|| format!("{} is no bundle", file.display()))?;
    let mut names: Vec<_> =
        zip.file_names().map(|name| name.map(|name| name.into_owned())).collect::<Result<_, _>>()?;
    names.sort_unstable();
    if !names.iter().any(|name| name == FILES[0]) {
        return Err(gone(FILES[0]).into());
    }
    let mut manifest = Vec::new();
    zip.by_name(FILES[0])?.take(LARGEST_MANIFEST).read_to_end(&mut manifest).map_err(|_| damaged(FILES[0]))?;
    let mut check = Check::new(&manifest, against.key)?;
    let mut wanted = FILES.to_vec();
    if check.is_of_one_business() {
        wanted[2] = GROWTH;
    }
    wanted.sort_unstable();
    if let Some(missing) = wanted.iter().find(|name| !names.iter().any(|there| there == **name)) {
        return Err(gone(missing).into());
    }
    if let Some(other) = names.iter().find(|name| !wanted.contains(&name.as_str())) {
        return Err(Broken { item: other.clone(), problem: "does not belong into a bundle".to_owned() }.into());
    }
    if let Some(roots) = against.roots {
        check.trust(roots);
    }
    for path in against.held {
        for (name, held) in held::read(path)? {
            match held {
                Held::Head(note) => check.outside_head(&name, &note)?,
                Held::Stamp(bytes) => check.outside_stamp(&name, &bytes)?,
            }
        }
    }
    check.notes(BufReader::new(zip.by_name(FILES[1])?))?;
    if check.is_of_one_business() {
        check.growth(BufReader::new(zip.by_name(GROWTH)?))?;
    } else {
        let mut leaves = Vec::new();
        zip.by_name(FILES[2])?.take(LARGEST_LEAVES).read_to_end(&mut leaves).map_err(|_| damaged(FILES[2]))?;
        check.leaves(&leaves)?;
    }
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
