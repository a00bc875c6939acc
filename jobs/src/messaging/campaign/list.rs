//! People of a campaign out of a file: CSV of any length, checked to its last line before the first row is added.

use std::{collections::BTreeMap, io::Read};

use csv::StringRecord;
use serde::Serialize;
use sqlx::PgConnection;

use super::{Campaign, CampaignId, CampaignState, NewPerson, PEOPLE_AT_ONCE, add_people, read_person, store};
use crate::{
    evidence::By,
    messaging::{
        Error, Language,
        csv_list::{CsvList, Next},
        template,
    },
    people::BusinessId,
    vault::Vault,
};

/// A row that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadRow {
    /// Its first line, from 1.
    pub line: u64,
    /// The column; none: the whole row.
    pub column: Option<String>,
    /// What is wrong with it, and the mend. It never repeats the value.
    pub problem: String,
}

/// What became of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Rows of the list, without its header.
    pub rows: u64,
    /// People added to the campaign.
    pub added: u64,
    /// Rows of people who are in the campaign already, from this list or an earlier one.
    pub doubles: u64,
    /// Rows that do not fit.
    pub bad: u64,
    /// SHA-256 of the list.
    pub sha256: String,
}

/// Reads a whole list and adds nobody; every row that does not fit is told to `tell`.
///
/// Columns, in any order: `phone`, `language`, where people have one `mail` for what does not reach them by phone, and each parameter of the campaign's template by its name.
///
/// # Errors
/// [`Error::BadList`] where the file is none.
pub fn check_list(template: &str, source: impl Read, tell: &mut dyn FnMut(&BadRow)) -> Result<Loaded, Error> {
    let mut people = People::open(template, source)?;
    let mut done = Loaded::default();
    while let Some(read) = people.next()? {
        done.rows += 1;
        if let Err(bad) = read {
            done.bad += 1;
            tell(&bad);
        }
    }
    done.sha256 = people.list.sha256();
    Ok(done)
}

/// Adds the people of a list to a draft, [`PEOPLE_AT_ONCE`] at a time, each part in a transaction of its own. Whoever is
/// in the campaign already is left out and counted, so a load that was broken off can simply be run again.
///
/// With `skip_bad` rows that do not fit are told to `tell` and left out. Without, [`check_list`] found none, and one that
/// does not fit now ends the load. `progress` hears after each part what was done so far.
///
/// # Errors
/// As [`add_people`]; [`Error::BadList`].
#[expect(clippy::too_many_arguments, reason = "a list is read, added and told of")]
pub async fn load_list<R: Read + Send>(
    conn: &mut PgConnection,
    vault: &Vault,
    (business, id): (BusinessId, CampaignId),
    (source, skip_bad): (R, bool),
    by: &By<'_>,
    tell: &mut (dyn FnMut(&BadRow) + Send),
    progress: &mut (dyn FnMut(&Loaded) + Send),
) -> Result<Loaded, Error> {
    let campaign = store::find(conn, Some(business), id).await?.ok_or(Error::NoSuchCampaign)?;
    if campaign.state != CampaignState::Draft {
        return Err(Error::CampaignBegun);
    }
    let Campaign { template, .. } = campaign;
    let mut people = People::open(&template, source)?;
    let mut done = Loaded::default();
    let mut part = Vec::with_capacity(PEOPLE_AT_ONCE);
    loop {
        let read = people.next()?;
        let ended = read.is_none();
        match read {
            Some(Ok(person)) => part.push(person),
            Some(Err(bad)) if skip_bad => {
                done.bad += 1;
                tell(&bad);
            }
            Some(Err(bad)) => {
                let line = bad.line;
                tell(&bad);
                return Err(Error::BadList(format!("changed at line {line} while it was read: run the load again")));
            }
            None => {}
        }
        done.rows += u64::from(!ended);
        if part.len() == PEOPLE_AT_ONCE || (ended && !part.is_empty()) {
            let some = add_people(conn, vault, (business, id), &part, by).await?;
            done.added += some.added;
            done.doubles += some.doubles;
            part.clear();
            progress(&done);
        }
        if ended {
            done.sha256 = people.list.sha256();
            return Ok(done);
        }
    }
}

/// The people of a list, row by row.
struct People<'a, R> {
    list: CsvList<R>,
    template: &'a str,
    phone: usize,
    mail: Option<usize>,
    language: usize,
    /// Parameters and where they stand.
    parameters: Vec<(String, usize)>,
    record: StringRecord,
}

impl<'a, R: Read> People<'a, R> {
    fn open(template: &'a str, source: R) -> Result<Self, Error> {
        let list = CsvList::open(source).map_err(Error::BadList)?;
        let words = template::library().find(template, Language::En);
        let words = words.ok_or(Error::BadCampaign("template", "is none that is known here any more"))?;
        let wanted: Vec<&str> = ["phone", "mail", "language"]
            .into_iter()
            .chain(words.parameters.iter().map(|one| one.name.as_str()))
            .collect();
        let mut places = BTreeMap::new();
        for (at, name) in list.header().iter().enumerate() {
            let name = name.trim().to_ascii_lowercase();
            let Some(known) = wanted.iter().find(|column| **column == name) else {
                let wanted = wanted.join(", ");
                return Err(Error::BadList(format!("has a column {} that is none of: {wanted}", at + 1)));
            };
            if places.insert(*known, at).is_some() {
                return Err(Error::BadList(format!("has the column {known} twice")));
            }
        }
        let place =
            |name: &str| places.get(name).copied().ok_or_else(|| Error::BadList(format!("has no column {name}")));
        let parameters = words.parameters.iter().map(|one| Ok((one.name.clone(), place(&one.name)?)));
        let parameters = parameters.collect::<Result<_, Error>>()?;
        let (phone, mail, language) = (place("phone")?, places.get("mail").copied(), place("language")?);
        Ok(Self { list, template, phone, mail, language, parameters, record: StringRecord::new() })
    }

    fn next(&mut self) -> Result<Option<Result<NewPerson, BadRow>>, Error> {
        let line = match self.list.next(&mut self.record).map_err(Error::BadList)? {
            Next::Row(line) => line,
            Next::Off(line, problem) => {
                return Ok(Some(Err(BadRow { line, column: None, problem: problem.to_owned() })));
            }
            Next::End => return Ok(None),
        };
        let field = |place: usize| self.record.get(place).unwrap_or_default().trim();
        let parameters = self.parameters.iter().map(|(name, place)| (name.clone(), field(*place).to_owned())).collect();
        let read =
            read_person(self.template, (field(self.phone), self.mail.map(field)), field(self.language), parameters);
        Ok(Some(read.map_err(|bad| BadRow {
            line,
            column: Some(bad.field.into_owned()),
            problem: bad.problem.into_owned(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "phone,language,customer_name,order_number,business_name\n";

    fn checked(text: &[u8]) -> Result<(Loaded, Vec<String>), String> {
        let mut told = Vec::new();
        let mut tell = |bad: &BadRow| {
            told.push(format!("{} {} {}", bad.line, bad.column.as_deref().unwrap_or("-"), bad.problem));
        };
        let done = check_list("order_ready", text, &mut tell).map_err(|error| error.to_string())?;
        Ok((done, told))
    }

    #[test]
    fn every_row_that_does_not_fit_is_told_by_line_and_column_and_none_is_repeated() {
        let text = format!(
            "\u{feff}{HEADER}98123 45678,hi,आशा वर्मा,ORD-1,Sharma Mobiles\n\
             98123-call,hi,Asha,ORD-1,Sharma Mobiles\n\
             9812345679,xx,Asha,ORD-1,Sharma Mobiles\n\
             9812345679,en,www.evil.example,ORD-1,Sharma Mobiles\n\
             9812345679,en,Asha,ORD 1,\n\
             9812345679,en,Asha,ORD-1\n\
             \"+91 98123 45670\",en-IN,\"Verma, Asha\",ORD-2,Sharma Mobiles\n"
        );
        let (done, told) = checked(text.as_bytes()).expect("a list");
        assert_eq!((done.rows, done.bad, done.added), (7, 5, 0));
        assert!(told[0].starts_with("3 phone the phone number holds a letter"), "{told:?}");
        assert!(told[1].starts_with("4 language is no language"), "{told:?}");
        assert_eq!(told[2], "5 customer_name must be a name, not an address");
        assert!(told[3].starts_with("6 order_number must be letters, digits"), "{told:?}");
        assert_eq!(told[4], "7 - has another number of fields than the header");
        let all = told.concat();
        assert!(!all.contains("call") && !all.contains("evil") && !all.contains("98123"), "{all}");
    }

    #[test]
    fn a_list_without_its_columns_is_none() {
        for (text, why) in [
            ("phone,customer_name\n", "has no column order_number"),
            ("phone,language,name\n", "has a column 3 that is none of: phone, mail, language, customer_name"),
            ("phone,phone\n", "has the column phone twice"),
            ("p\0h\n", "NUL"),
        ] {
            let told = checked(text.as_bytes()).expect_err(text);
            assert!(told.contains(why), "{text}: {told}");
        }
        assert!(checked(&[0xff, 0xfe, 0x70]).expect_err("UTF-16").contains("UTF-16"));
    }

    #[test]
    fn a_list_of_any_length_is_read_without_being_held() {
        // Ten million rows would not fit; what is read here comes from nowhere.
        struct Rows(u64);
        impl Read for Rows {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                let row = match self.0 {
                    0 => HEADER.to_owned(),
                    20_001 => return Ok(0),
                    n => format!("98{n:08},en,Asha,ORD-{n},Sharma Mobiles\n"),
                };
                self.0 += 1;
                into[..row.len()].copy_from_slice(row.as_bytes());
                Ok(row.len())
            }
        }
        let done = check_list("order_ready", Rows(0), &mut |bad| panic!("{bad:?}")).expect("a list");
        assert_eq!((done.rows, done.bad), (20_000, 0));
    }
}
