//! Consents out of a list that somebody kept elsewhere: CSV, read as it comes, checked to its last line.

use std::{collections::HashMap, io::Read};

use chrono::{DateTime, SubsecRound, Utc};
use csv::StringRecord;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{
    ConsentId, ConsentState, Contact, ContactId, Error, NewConsent, Source, UserId,
    consents::seal_proof,
    contact,
    model::recorder,
    store::{self, ImportedRow, NewContact},
};
use crate::{
    evidence::{Act, By, Object, words},
    messaging::csv_list::{CsvList, Next},
    outbound::{Email, Phone},
    people::BusinessId,
    vault::{Vault, screen},
};

/// Rows that are looked up and written together.
const BATCH: usize = 500;

/// The columns of a list, in any order; the first three are one address, of which each row has one.
const COLUMNS: [&str; 9] =
    ["phone", "email", "user_id", "purpose", "state", "at", "language", "wording_version", "proof"];

/// How a list is taken.
#[derive(Clone, Copy, Debug)]
pub struct Import {
    /// Rows that are in order are written although others are not.
    pub partial: bool,
}

/// A row that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RefusedRow {
    /// Its first line, from 1.
    pub line: u64,
    /// The column; none: the whole row.
    pub column: Option<&'static str>,
    /// What is wrong with it. It never repeats the value.
    pub problem: String,
}

/// What became of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Imported {
    /// Rows of the list, without its header.
    pub rows: u64,
    /// Those that were written; none where others were refused, unless parts are taken.
    pub written: u64,
    /// Those that were there already.
    pub known: u64,
    /// Those that were refused, for whatever reason.
    pub refused: u64,
    /// Of these: the person was erased.
    pub erased: u64,
    /// Of these: the person said that she wants no messages.
    pub stopped: u64,
    /// SHA-256 of the list, as the evidence names it.
    pub sha256: String,
}

/// Takes a list of consents in one transaction, with evidence of its digest and counts. Every row that is off is told to
/// `refused`, by line; then nothing is written, unless the caller takes parts. A row that would bring somebody back who was
/// erased, or who said that she wants no messages, is refused: a list is not her word.
///
/// Law: DPDP Act 2023 s.6(10), s.12(3).
///
/// # Errors
/// [`Error::BadList`] where the file is none; then nothing was written.
#[expect(clippy::too_many_arguments, reason = "a list is read, checked, written and told of")]
pub async fn import<R: Read + Send>(
    conn: &mut PgConnection,
    vault: &Vault,
    by: &By<'_>,
    (business, how): (BusinessId, Import),
    source: R,
    refused: &mut (dyn FnMut(&RefusedRow) + Send),
) -> Result<Imported, Error> {
    let mut list = CsvList::open(source).map_err(Error::BadList)?;
    let columns = Columns::read(list.header())?;
    let mut tx = conn.begin().await?;
    let mut batch = Batch { business, rows: Vec::with_capacity(BATCH), done: Imported::default() };
    let mut record = StringRecord::new();
    loop {
        let (line, read) = match list.next(&mut record).map_err(Error::BadList)? {
            Next::Row(line) => (line, columns.row(&record, by.now)),
            Next::Off(line, problem) => (line, Err((None, problem.to_owned()))),
            Next::End => break,
        };
        match read {
            Ok(row) => {
                batch.done.rows += 1;
                batch.rows.push((line, row));
            }
            Err((column, problem)) => batch.refuse(refused, &RefusedRow { line, column, problem }),
        }
        if batch.rows.len() == BATCH {
            batch.write(&mut tx, vault, by, refused).await?;
        }
    }
    batch.write(&mut tx, vault, by, refused).await?;
    let mut done = batch.done;
    done.sha256 = list.sha256();
    if done.refused > 0 && !how.partial {
        tx.rollback().await?;
        return Ok(Imported { written: 0, known: 0, ..done });
    }
    let id = business.to_string();
    let details = json!({ "rows": done.rows, "written": done.written, "known": done.known, "refused": done.refused,
        "erased": done.erased, "stopped": done.stopped, "sha256": done.sha256, "partial": how.partial });
    let object = Object { kind: "business", id: &id };
    by.record(&mut tx, Act { word: words::CONSENTS_IMPORTED, business: Some(business), object, details }).await?;
    tx.commit().await?;
    Ok(done)
}

/// Where each column stands in a row.
struct Columns([Option<usize>; COLUMNS.len()]);

/// A row as it reads.
#[derive(Debug)]
struct Row {
    contact: Contact,
    purpose: String,
    state: ConsentState,
    at: DateTime<Utc>,
    language: Option<String>,
    wording_version: Option<String>,
    proof: Option<String>,
}

type Off = (Option<&'static str>, String);

impl Columns {
    fn read(header: &StringRecord) -> Result<Self, Error> {
        let mut places = [None; COLUMNS.len()];
        for (at, name) in header.iter().enumerate() {
            let name = name.trim().to_ascii_lowercase();
            let Some(known) = COLUMNS.iter().position(|column| *column == name) else {
                let known = COLUMNS.join(", ");
                return Err(Error::BadList(format!("has a column {} that is none of: {known}", at + 1)));
            };
            if places[known].replace(at).is_some() {
                return Err(Error::BadList(format!("has the column {} twice", COLUMNS[known])));
            }
        }
        let has = |name| COLUMNS.iter().zip(&places).any(|(column, place)| *column == name && place.is_some());
        if !(has("phone") || has("email") || has("user_id")) {
            return Err(Error::BadList("has no column phone, email or user_id".to_owned()));
        }
        for needed in ["purpose", "state", "at"] {
            if !has(needed) {
                return Err(Error::BadList(format!("has no column {needed}")));
            }
        }
        Ok(Self(places))
    }

    fn row(&self, record: &StringRecord, now: DateTime<Utc>) -> Result<Row, Off> {
        let field = |name: &str| {
            let place = COLUMNS.iter().position(|column| *column == name).and_then(|known| self.0[known]);
            place.and_then(|place| record.get(place)).map(str::trim).filter(|text| !text.is_empty())
        };
        let off = |column: &'static str, problem: &dyn std::fmt::Display| (Some(column), problem.to_string());
        let mut contacts = Vec::new();
        if let Some(text) = field("phone") {
            contacts.push(Contact::Phone(Phone::parse(text).map_err(|error| off("phone", &error))?));
        }
        if let Some(text) = field("email") {
            contacts.push(Contact::Email(Email::parse(text).map_err(|error| off("email", &error))?));
        }
        if let Some(text) = field("user_id") {
            contacts.push(Contact::UserId(UserId::parse(text).map_err(|error| off("user_id", &error))?));
        }
        let (Some(contact), true) = (contacts.pop(), contacts.is_empty()) else {
            return Err((None, "has no address, or several: one of phone, email, user_id in each row".to_owned()));
        };
        let needed = |name| field(name).ok_or_else(|| off(name, &"is missing"));
        let state = match needed("state")? {
            "given" => ConsentState::Given,
            "withdrawn" => ConsentState::Withdrawn,
            _ => return Err(off("state", &"is neither given nor withdrawn")),
        };
        let at = DateTime::parse_from_rfc3339(needed("at")?)
            .map_err(|_| off("at", &"is not an instant such as 2026-11-23T12:00:00+05:30"))?;
        let owned = |name| field(name).map(str::to_owned);
        let row = Row {
            contact,
            purpose: needed("purpose")?.to_owned(),
            state,
            at: at.with_timezone(&Utc).trunc_subsecs(6),
            language: owned("language"),
            wording_version: owned("wording_version"),
            proof: owned("proof"),
        };
        if let Some(found) = row.proof.as_deref().and_then(screen::find) {
            return Err(off("proof", &found.problem()));
        }
        match row.as_consent().check(now) {
            Err(Error::BadField { field, problem, mend }) => {
                let column = COLUMNS.into_iter().find(|column| *column == field);
                Err((column, format!("{problem}: {mend}")))
            }
            _ => Ok(row),
        }
    }
}

impl Row {
    fn as_consent(&self) -> NewConsent<'_> {
        NewConsent {
            purpose: &self.purpose,
            state: self.state,
            source: Source::Import,
            wording_version: self.wording_version.as_deref(),
            language: self.language.as_deref(),
            proof: self.proof.as_deref(),
            at: self.at,
        }
    }
}

struct Batch {
    business: BusinessId,
    rows: Vec<(u64, Row)>,
    done: Imported,
}

impl Batch {
    /// A row that never got as far as being looked up.
    fn refuse(&mut self, refused: &mut (dyn FnMut(&RefusedRow) + Send), row: &RefusedRow) {
        self.done.rows += 1;
        self.done.refused += 1;
        refused(row);
    }

    /// Looks the rows up and writes those that may be written, with a few statements for all.
    async fn write(
        &mut self,
        tx: &mut PgConnection,
        vault: &Vault,
        by: &By<'_>,
        refused: &mut (dyn FnMut(&RefusedRow) + Send),
    ) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        let (mut places, mut marks) = (Vec::new(), Vec::new());
        for ((_, row), place) in rows.iter().zip(0_i64..) {
            for mark in contact::marks(tx, vault, self.business, &row.contact).await? {
                places.push(place);
                marks.push(mark);
            }
        }
        let kept_out: HashMap<i64, bool> = store::list_refusals(tx, self.business, (&places, &marks))
            .await?
            .into_iter()
            .fold(HashMap::new(), |mut all, (place, erased)| {
                *all.entry(place).or_insert(false) |= erased;
                all
            });
        let mut wanted = Vec::with_capacity(rows.len());
        for ((line, row), place) in rows.into_iter().zip(0_i64..) {
            let problem = match (kept_out.get(&place), row.state) {
                (Some(true), _) => "was erased: only she herself comes back",
                (Some(false), ConsentState::Given) => "said that she wants no messages: only she herself takes it back",
                _ => {
                    wanted.push((place, row));
                    continue;
                }
            };
            self.done.refused += 1;
            if kept_out.get(&place) == Some(&true) {
                self.done.erased += 1;
            } else {
                self.done.stopped += 1;
            }
            refused(&RefusedRow { line, column: None, problem: problem.to_owned() });
        }
        let contacts = self.contacts(tx, vault, by, (&places, &marks), &wanted).await?;
        let mut ready = Vec::with_capacity(wanted.len());
        for (place, row) in wanted {
            let Some(contact) = contacts.get(&place).copied() else { return Err(sqlx::Error::RowNotFound.into()) };
            let consent_id = ConsentId(by.chance.uuid_v7(by.now));
            let proof = match &row.proof {
                None => None,
                Some(proof) => Some(seal_proof(tx, vault, self.business, consent_id, proof).await?),
            };
            let (proof_sealed, proof_sha256) = proof.map(|(sealed, digest)| (sealed, digest.to_vec())).unzip();
            ready.push(ImportedRow {
                consent_id: consent_id.0,
                contact,
                purpose: row.purpose,
                state: row.state.as_str(),
                wording_version: row.wording_version,
                language: row.language,
                proof_sealed,
                proof_sha256,
                at: row.at,
            });
        }
        let recorder = recorder(&by.actor);
        let written = store::insert_many(tx, self.business, &ready, (by.now.trunc_subsecs(6), &recorder)).await?;
        self.done.written += written;
        self.done.known += u64::try_from(ready.len()).unwrap_or(0).saturating_sub(written);
        Ok(())
    }

    /// The contact of each row, made where there is none.
    #[expect(clippy::too_many_arguments, reason = "rows with their marks")]
    async fn contacts(
        &self,
        tx: &mut PgConnection,
        vault: &Vault,
        by: &By<'_>,
        (places, marks): (&[i64], &[Vec<u8>]),
        rows: &[(i64, Row)],
    ) -> Result<HashMap<i64, ContactId>, Error> {
        let mut known: HashMap<_, _> =
            store::find_many(tx, self.business, (places, marks)).await?.into_iter().collect();
        for (place, row) in rows {
            if known.contains_key(place) {
                continue;
            }
            vault.hold_equal(tx, &contact::column(self.business), &row.contact.canonical(), "").await?;
            let contact_id = ContactId(by.chance.uuid_v7(by.now));
            let sealed = contact::seal(tx, vault, self.business, contact_id, &row.contact).await?;
            let mark = contact::mark(tx, vault, self.business, &row.contact).await?;
            let new = NewContact { contact_id, kind: row.contact.kind(), mark: &mark, sealed: &sealed };
            store::insert_contact(tx, self.business, &new, by.now.trunc_subsecs(6)).await?;
            // Not ours where the list, or somebody beside us, had it a moment ago.
            let found = contact::find(tx, vault, self.business, &row.contact).await?.ok_or(sqlx::Error::RowNotFound)?;
            known.insert(*place, found.contact_id);
        }
        Ok(known)
    }
}
