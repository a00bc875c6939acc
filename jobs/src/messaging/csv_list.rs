//! A list as somebody else's program wrote it: CSV in UTF-8, read as it comes, so that a list of any length takes little
//! memory, and no row longer than a row may be.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use csv::StringRecord;
use sha2::{Digest, Sha256};

/// Longest field and longest row, in bytes.
const FIELD_MAX: usize = 64 * 1024;
const ROW_MAX: u64 = 1024 * 1024;
/// What the reader may take ahead of the row it is in.
const AHEAD: u64 = 128 * 1024;
/// Most columns.
const COLUMNS_MAX: usize = 200;

/// A list that is being read.
pub(super) struct CsvList<R> {
    reader: csv::Reader<BufReader<Watched<R>>>,
    header: StringRecord,
    left: Arc<AtomicU64>,
}

/// What stands next in a list; lines count from 1.
pub(super) enum Next {
    /// A row, in the record that was handed in.
    Row(u64),
    /// A row that is none, and why. It never repeats what stands there.
    Off(u64, &'static str),
    /// Nothing more.
    End,
}

impl<R: Read> CsvList<R> {
    /// Reads the header. A mark of byte order is left out; a list in UTF-16 is refused by it.
    ///
    /// # Errors
    /// Why it is no such list, to stand behind `the list`.
    pub(super) fn open(source: R) -> Result<Self, String> {
        let left = Arc::new(AtomicU64::new(ROW_MAX + AHEAD));
        let watched = Watched { source, sha256: Sha256::new(), left: Arc::clone(&left) };
        let mut reader = BufReader::with_capacity(64 * 1024, watched);
        let unread = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => error.to_string(),
            _ => "cannot be read".to_owned(),
        };
        let start = reader.fill_buf().map_err(unread)?;
        if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
            return Err("is UTF-16: save it as CSV in UTF-8".to_owned());
        }
        if start.starts_with(&[0xef, 0xbb, 0xbf]) {
            reader.consume(3);
        }
        let mut reader = csv::ReaderBuilder::new().buffer_capacity(8 * 1024).from_reader(reader);
        let header = reader.headers().map_err(|error| broken(&error))?.clone();
        if header.len() > COLUMNS_MAX {
            return Err(format!("has more than {COLUMNS_MAX} columns"));
        }
        Ok(Self { reader, header, left })
    }

    /// The names of its columns, as they stand there.
    pub(super) fn header(&self) -> &StringRecord {
        &self.header
    }

    /// Reads the next row. It is read as text: what is not UTF-8 costs its row, what is not CSV the list.
    ///
    /// # Errors
    /// Why it is no list any more, to stand behind `the list`.
    pub(super) fn next(&mut self, record: &mut StringRecord) -> Result<Next, String> {
        self.left.store(ROW_MAX + AHEAD, Ordering::Relaxed);
        let more = match self.reader.read_record(record) {
            Ok(more) => more,
            Err(error) => {
                let why = match error.kind() {
                    csv::ErrorKind::Utf8 { .. } => "is not UTF-8",
                    csv::ErrorKind::UnequalLengths { .. } => "has another number of fields than the header",
                    _ => return Err(broken(&error)),
                };
                return Ok(Next::Off(error.position().map_or(0, csv::Position::line), why));
            }
        };
        if !more {
            return Ok(Next::End);
        }
        let line = record.position().map_or(0, csv::Position::line);
        Ok(if *record == self.header {
            Next::Off(line, "repeats the header")
        } else if record.iter().any(|field| field.len() > FIELD_MAX) {
            Next::Off(line, "has a field of more than 64 KB")
        } else {
            Next::Row(line)
        })
    }

    /// SHA-256 of all that was read.
    pub(super) fn sha256(self) -> String {
        hex::encode(self.reader.into_inner().into_inner().sha256.finalize())
    }
}

fn broken(error: &csv::Error) -> String {
    let at = error.position().map(|at| format!(", at line {}", at.line())).unwrap_or_default();
    let what = match error.kind() {
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
        csv::ErrorKind::Io(_) => "cannot be read".to_owned(),
        csv::ErrorKind::Utf8 { .. } => "has a header that is not UTF-8".to_owned(),
        _ => "is not CSV".to_owned(),
    };
    format!("{what}{at}")
}

/// Reads no more of a row than a row may have, and keeps the digest of what was read.
struct Watched<R> {
    source: R,
    sha256: Sha256,
    left: Arc<AtomicU64>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into)?;
        self.sha256.update(&into[..count]);
        if into[..count].contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "holds NUL, as UTF-16 does: save it as CSV in UTF-8",
            ));
        }
        let left = self.left.load(Ordering::Relaxed).checked_sub(u64::try_from(count).unwrap_or(u64::MAX));
        let Some(left) = left else {
            let why = "has a row of more than 1 MB: a quotation mark is not closed";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        };
        self.left.store(left, Ordering::Relaxed);
        Ok(count)
    }
}
