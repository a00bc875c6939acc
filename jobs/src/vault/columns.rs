//! What a duty says of its sealed columns, so that they can be walked when keys change.

use zeroize::Zeroizing;

/// A column of ours whose values the vault sealed. Each duty lists its own; `sealed_columns()` of this crate is the
/// one list of them, and a test holds it against the schema.
#[derive(Clone, Copy, Debug)]
pub struct SealedColumn {
    /// `schema.table`
    pub table: &'static str,
    /// Its name.
    pub column: &'static str,
    /// The table in [`super::Cell`] where that is another one: values that move between two tables with their row.
    pub cell_table: &'static str,
    /// The name in [`super::Cell`] where that is another one: values that move between two columns of a row.
    pub cell_column: &'static str,
    /// Primary key: it is the row of [`super::Cell`], as text.
    pub key: Key,
    /// Whose values they are.
    pub owner: Owner,
}

/// A column of ours that holds blind indexes.
#[derive(Clone, Copy, Debug)]
pub struct IndexedColumn {
    /// `schema.table`
    pub table: &'static str,
    /// Its name.
    pub column: &'static str,
    /// Where the version of the index key stands.
    pub version: Version,
    /// `schema.table.column` of [`super::IndexColumn`]: several columns may share one key.
    pub purpose: &'static str,
    /// Primary key.
    pub key: Key,
    /// Whose index key it is.
    pub owner: Owner,
    /// What to make it anew from.
    pub source: Source,
}

/// The primary key of a table of ours.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The column's name.
    pub column: &'static str,
    /// Its type: `uuid`, `bigint`, `text`.
    pub kind: &'static str,
}

impl Key {
    /// A UUID.
    pub const fn uuid(column: &'static str) -> Self {
        Self { column, kind: "uuid" }
    }
}

/// Whose a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The row's `business_id`; [`super::INSTALLATION`] where it is null.
    Row,
    /// [`super::INSTALLATION`]
    Installation,
    /// The row does not say. Then a key is taken for used while any business has such a row.
    Unsaid,
}

/// Where the version of an index key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// In the first two bytes of the column: [`super::BlindIndex::to_bytes`].
    Within,
    /// In an integer column of this name.
    Beside(&'static str),
}

/// What a blind index is made anew from when its key changes.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A sealed column of the same row, which is one of the list too: `value` takes the canonical form out of what was
    /// sealed; nothing when it has none.
    Sealed {
        /// The column's name.
        column: &'static str,
        /// From what was sealed to what was indexed.
        value: fn(&[u8]) -> Option<Zeroizing<String>>,
    },
    /// The value itself is kept nowhere: the old key stays for look-ups as long as there are such rows.
    Gone,
}

/// What was sealed is the canonical form itself.
pub fn as_it_stands(plain: &[u8]) -> Option<Zeroizing<String>> {
    std::str::from_utf8(plain).ok().map(|text| Zeroizing::new(text.to_owned()))
}

impl SealedColumn {
    /// A column of values that each belong to the business of their row.
    pub const fn of_row(table: &'static str, column: &'static str, key: Key) -> Self {
        Self { table, column, cell_table: table, cell_column: column, key, owner: Owner::Row }
    }

    /// The same for the installation's own.
    #[must_use]
    pub const fn of_installation(mut self) -> Self {
        self.owner = Owner::Installation;
        self
    }
}
