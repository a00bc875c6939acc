//! Columns of the frontend's own, registered so that they are sealed anew with ours, and looked after daily: a column
//! that is not as it was when it was registered is closed, and says what to do.

use chrono::{DateTime, SubsecRound, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection, PgConnection, PgPool, pool::PoolConnection};
use zeroize::Zeroizing;

use super::{Class, Error, Vault, canonical, canonical::NotCanonical, host_store as store, strays, walk::Place};
use crate::{
    evidence::{self, Actor, Event, EventId, Object, Word, words},
    outbound::Chance,
    people::BusinessId,
    queue::{Done, Job, JobContext, Lane, Settings, Slots},
};

crate::id_type! {
    /// A registered column of a frontend.
    ColumnId
}

/// How values are written before they are indexed: equal people then have equal indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A phone number, in E.164.
    Phone,
    /// An e-mail address, its domain in lower case.
    Email,
    /// A GSTIN, in capitals, its check character right.
    Gstin,
    /// As it stands.
    Exact,
}

impl Form {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Phone, Self::Email, Self::Gstin, Self::Exact];

    /// As it stands in the table, in HTTP and in commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Email => "email",
            Self::Gstin => "gstin",
            Self::Exact => "exact",
        }
    }

    /// `value` written so.
    ///
    /// # Errors
    /// It is none of its kind.
    pub fn canonical(self, value: &str) -> Result<String, NotCanonical> {
        match self {
            Self::Phone => canonical::phone(value),
            Self::Email => canonical::email(value),
            Self::Gstin => canonical::gstin(value),
            Self::Exact => Ok(value.to_owned()),
        }
    }

    pub(super) fn canonical_bytes(self, value: &[u8]) -> Option<Zeroizing<String>> {
        let value = std::str::from_utf8(value).ok()?;
        self.canonical(value).ok().map(Zeroizing::new)
    }
}

impl std::str::FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|form| form.as_str() == text)
            .ok_or_else(|| format!("no form `{text}`: take phone, email, gstin or exact"))
    }
}

/// Where a frontend's column has its blind index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostIndex {
    /// Column of the digest, 16 bytes.
    pub column: String,
    /// Column of the version beside it, an integer.
    pub version_column: String,
    /// How values are written before they are indexed.
    pub form: Form,
}

/// A column to be registered.
#[derive(Clone, Debug)]
pub struct NewColumn {
    /// Whose values: those of others in the same column are registered for them.
    pub business: BusinessId,
    /// `schema.table`, as in every sealed value.
    pub table: String,
    /// The column, of type bytea.
    pub column: String,
    /// What kind of values.
    pub class: Class,
    /// The column that is the `row` of each value.
    pub key: String,
    /// Where it is indexed, if it is.
    pub index: Option<HostIndex>,
}

/// A registered column of a frontend.
#[derive(Clone, Debug, Serialize)]
pub struct HostColumn {
    /// Its id.
    pub column_id: ColumnId,
    /// Whose values.
    pub business_id: BusinessId,
    /// Schema of the table.
    pub table_schema: String,
    /// The table, without its schema.
    pub table_name: String,
    /// The column.
    pub column_name: String,
    /// What kind of values.
    pub class: String,
    /// The column that is the `row` of each value.
    pub key_column: String,
    /// `uuid`, `smallint`, `integer` or `bigint`.
    pub key_type: String,
    /// Where it is indexed.
    pub index: Option<HostIndex>,
    /// Whether it is as it was when it was registered.
    pub sound: bool,
    /// What is off, and what to do.
    pub finding: Option<String>,
    /// When somebody last looked.
    pub checked_at: DateTime<Utc>,
}

impl HostColumn {
    /// `schema.table.column`
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.table_schema, self.table_name, self.column_name)
    }

    /// The SQL that gives whoever seals anew what she needs of this table, and no more.
    pub fn grant_to(&self, login: &str) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let mut changed = vec![quoted(&self.column_name)];
        if let Some(index) = &self.index {
            changed.extend([quoted(&index.column), quoted(&index.version_column)]);
        }
        let changed = changed.join(", ");
        format!(
            "grant select ({}, {changed}), update ({changed}) on {}.{} to {}",
            quoted(&self.key_column),
            quoted(&self.table_schema),
            quoted(&self.table_name),
            quoted(login)
        )
    }
}

/// How closely a column is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Its names, types and rights; its values only where it is closed.
    Shape,
    /// Its values too: the whole table is read.
    Values,
}

/// A column as the frontend's database has it.
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) kind: String,
    /// Whether it alone tells rows apart.
    pub(super) unique: bool,
    pub(super) may_read: bool,
    pub(super) may_write: bool,
}

/// What is off with a column, and the mend. Names only.
fn drift(column: &HostColumn, seen: Option<&[Seen]>) -> Option<String> {
    let name = column.name();
    let again = "register it as it is now: `muneem keys columns remove`, then `add`";
    let Some(seen) = seen else {
        return Some(format!("{name}: the table is gone or renamed: rename it back, or {again}"));
    };
    let find = |wanted: &str| seen.iter().find(|seen| seen.name == wanted);
    let expect = |wanted: &str, kinds: &[&str]| match find(wanted) {
        None => Some(format!("{name}: column {wanted} is gone or renamed: rename it back, or {again}")),
        Some(seen) if !kinds.contains(&seen.kind.as_str()) => {
            Some(format!("{name}: column {wanted} is {} and was {}: change it back, or {again}", seen.kind, kinds[0]))
        }
        Some(_) => None,
    };
    let mut written = vec![column.column_name.as_str()];
    let off = expect(&column.column_name, &["bytea"]).or_else(|| expect(&column.key_column, &[&column.key_type]));
    let off = off.or_else(|| {
        let unique = find(&column.key_column).is_some_and(|seen| seen.unique);
        (!unique).then(|| {
            format!("{name}: column {} is not unique and not null: make it the primary key", column.key_column)
        })
    });
    let off = off.or_else(|| {
        let index = column.index.as_ref()?;
        written.extend([index.column.as_str(), index.version_column.as_str()]);
        expect(&index.column, &["bytea"]).or_else(|| expect(&index.version_column, &["integer", "smallint"]))
    });
    off.or_else(|| {
        let closed = written.iter().any(|wanted| find(wanted).is_some_and(|seen| !(seen.may_read && seen.may_write)))
            || find(&column.key_column).is_some_and(|seen| !seen.may_read);
        closed.then(|| format!("{name}: it may not be read and written: {}", column.grant_to("muneem_app")))
    })
}

/// A database's complaint without what it quotes of the row.
pub(super) fn in_words(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(error) => format!("SQLSTATE {}", error.code().as_deref().unwrap_or("unknown")),
        None => "the database did not answer".to_owned(),
    }
}

/// Registered columns, of one business or of all.
///
/// # Errors
/// The database fails.
pub async fn list(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Vec<HostColumn>, Error> {
    store::list(db, business).await
}

/// Refuses a column that was registered and is not any more what it was. One that nobody registered passes.
///
/// # Errors
/// [`Error::Drifted`] with what to do.
pub async fn require_sound(
    db: &mut PgConnection,
    business: BusinessId,
    table: &str,
    column: &str,
) -> Result<(), Error> {
    match store::find_finding(db, business, table, column).await? {
        None => Ok(()),
        Some(finding) => Err(Error::Drifted { finding }),
    }
}

impl Vault {
    /// A connection to our tables, or to the frontend's.
    pub(super) async fn reach(&self, host: bool) -> Result<PoolConnection<sqlx::Postgres>, Error> {
        let pool = if host { self.host.as_ref().unwrap_or(&self.db) } else { &self.db };
        Ok(pool.acquire().await?)
    }

    /// Registers a column of the frontend's own. It must be sound from the start.
    ///
    /// # Errors
    /// [`Error::Drifted`] with what is missing; [`Error::BadColumn`] for names that are none; [`Error::Registered`].
    pub async fn add_column(&self, db: &mut PgConnection, new: &NewColumn, actor: Actor) -> Result<HostColumn, Error> {
        let (schema, table) = new.table.split_once('.').ok_or(Error::BadColumn {
            problem: "the table has no schema".to_owned(),
            mend: "write schema.table, for example public.customers",
        })?;
        if schema.eq_ignore_ascii_case("muneem") {
            let mend = "name a table of your own: ours are known";
            return Err(Error::BadColumn { problem: format!("{} is one of muneem's", new.table), mend });
        }
        let now = self.clock.now().trunc_subsecs(6);
        let mut column = HostColumn {
            column_id: ColumnId(self.chance.uuid_v7(now)),
            business_id: new.business,
            table_schema: schema.to_owned(),
            table_name: table.to_owned(),
            column_name: new.column.clone(),
            class: new.class.as_str().to_owned(),
            key_column: new.key.clone(),
            key_type: String::new(),
            index: new.index.clone(),
            sound: true,
            finding: None,
            checked_at: now,
        };
        let mut there = self.reach(true).await?;
        let seen = store::look(&mut there, schema, table).await?;
        let key = seen.as_deref().and_then(|seen| seen.iter().find(|seen| seen.name == new.key));
        if let Some(key) = key {
            if !["uuid", "smallint", "integer", "bigint"].contains(&key.kind.as_str()) {
                let mend =
                    "add a unique uuid or bigint column and seal under that: where a walk stands is kept in clear";
                return Err(Error::BadColumn { problem: format!("key column {} is {}", new.key, key.kind), mend });
            }
            column.key_type.clone_from(&key.kind);
        }
        if let Some(finding) = find_drift(&mut there, &column, Look::Values).await? {
            return Err(Error::Drifted { finding });
        }
        drop(there);
        let mut tx = db.begin().await?;
        if !store::insert(&mut tx, &column, now).await? {
            return Err(Error::Registered { column: column.name() });
        }
        let name = column.name();
        let told = (column.business_id, name.as_str(), column.class.as_str());
        record(&mut tx, (&*self.chance, now), told, actor, words::COLUMN_ADDED).await?;
        tx.commit().await?;
        Ok(column)
    }

    /// Takes a column out of the register, or out of those that nobody registered: its values stay as they are, and the
    /// keys that sealed them may be retired.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]
    pub async fn remove_column(
        &self,
        db: &mut PgConnection,
        business: BusinessId,
        name: &str,
        actor: Actor,
    ) -> Result<(), Error> {
        let mut tx = db.begin().await?;
        let class = match store::delete(&mut tx, business, name).await? {
            Some(class) => Some(class),
            None => strays::forget(&mut tx, business, name).await?,
        };
        let class = class.ok_or_else(|| Error::NotRegistered { column: name.to_owned() })?;
        strays::forget(&mut tx, business, name).await?;
        let now = self.clock.now().trunc_subsecs(6);
        let told = (business, name, class.as_str());
        record(&mut tx, (&*self.chance, now), told, actor, words::COLUMN_REMOVED).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Looks at every registered column, closes what is not as it was and opens what is again. Answers those that are
    /// closed.
    ///
    /// # Errors
    /// The database of ours fails; a frontend's that does not answer is a finding.
    pub async fn check_columns(
        &self,
        db: &mut PgConnection,
        look: Look,
        actor: &Actor,
    ) -> Result<Vec<HostColumn>, Error> {
        let now = self.clock.now().trunc_subsecs(6);
        let mut closed = Vec::new();
        for column in look_at_columns(&mut *db, self.host.as_ref().unwrap_or(&self.db), look, now).await? {
            let name = column.name();
            let mut tx = db.begin().await?;
            if store::set_state(&mut tx, &column, now).await? {
                let verb = if column.sound { words::COLUMN_SOUND } else { words::COLUMN_DRIFTED };
                let told = (column.business_id, name.as_str(), column.class.as_str());
                record(&mut tx, (&*self.chance, now), told, actor.clone(), verb).await?;
            }
            tx.commit().await?;
            if let Some(finding) = &column.finding {
                tracing::error!(vault.column = name, vault.finding = finding, "a sealed column is closed");
                closed.push(column);
            }
        }
        Ok(closed)
    }
}

/// Every registered column as it is found now; nothing is written down. `there` leads to the frontend's tables.
///
/// # Errors
/// The database of ours fails; a frontend's that does not answer is a finding.
pub async fn look_at_columns(
    db: &mut PgConnection,
    there: &PgPool,
    look: Look,
    now: DateTime<Utc>,
) -> Result<Vec<HostColumn>, Error> {
    let mut columns = store::list(db, None).await?;
    if columns.is_empty() {
        return Ok(columns);
    }
    // One that does not answer is waited for once, not for each column.
    let mut there = there.acquire().await;
    for column in &mut columns {
        let look = if column.sound { look } else { Look::Values };
        let found = match &mut there {
            Ok(there) => find_drift(there, column, look).await,
            Err(error) => Ok(Some(not_seen(column, error))),
        };
        let finding = match found {
            Ok(finding) => finding,
            Err(Error::Database(error)) => Some(not_seen(column, &error)),
            Err(error) => return Err(error),
        };
        column.sound = finding.is_none();
        column.finding = finding;
        column.checked_at = now;
    }
    Ok(columns)
}

fn not_seen(column: &HostColumn, error: &sqlx::Error) -> String {
    format!("{}: it could not be looked at: {}", column.name(), in_words(error))
}

async fn find_drift(there: &mut PgConnection, column: &HostColumn, look: Look) -> Result<Option<String>, Error> {
    let seen = store::look(&mut *there, &column.table_schema, &column.table_name).await?;
    if let Some(finding) = drift(column, seen.as_deref()) {
        return Ok(Some(finding));
    }
    if look == Look::Shape {
        return Ok(None);
    }
    for place in Place::of_host(column) {
        let odd = place.count_odd(there).await?;
        if odd > 0 {
            let what = if place.purpose().is_some() {
                "rows have no blind index of 16 bytes with its version beside what is sealed"
            } else {
                "values are not sealed"
            };
            let mend = "seal them with /v1/vault/seal, or empty them";
            return Ok(Some(format!("{}: {odd} {what}: {mend}", column.name())));
        }
    }
    Ok(None)
}

async fn record(
    db: &mut PgConnection,
    (chance, now): (&dyn Chance, DateTime<Utc>),
    (business, column, class): (BusinessId, &str, &str),
    actor: Actor,
    verb: Word,
) -> Result<(), Error> {
    let event = Event {
        event_id: EventId::new(chance, now),
        business_id: (business != super::INSTALLATION).then_some(business),
        actor,
        verb,
        object: Object { kind: "column", id: column },
        details: json!({ "class": class }),
    };
    evidence::record(db, &event).await?;
    Ok(())
}

/// Looks at every registered column: at its values once a day, at the rest every hour, so that one that was closed
/// because its database did not answer is open again soon.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckColumns {
    /// Whether values are read.
    pub values: bool,
}

impl Job for CheckColumns {
    const KIND: &'static str = "vault.check_columns";
    const LANE: Lane = Lane::Maintenance;
    const SETTINGS: Settings =
        Settings { timeout: std::time::Duration::from_secs(1800), slots: Slots::OfKind(1), ..Settings::DEFAULT };
    type Error = Error;

    async fn run(self, ctx: &JobContext) -> Result<Done, Error> {
        let mut db = ctx.deps.db.acquire().await?;
        let actor = Actor::Job { kind: Self::KIND, job_id: ctx.job.0 };
        let look = if self.values { Look::Values } else { Look::Shape };
        let closed = ctx.deps.vault.check_columns(&mut db, look, &actor).await?;
        Ok(Done::Ack(Some(json!({ "closed": closed.len() }))))
    }
}
