//! What to do on a machine without Postgres.

use std::path::Path;

use crate::account::Account;
use crate::error::Error;
use crate::find::Binaries;

/// What may be fetched.
#[derive(Debug, Clone, Default)]
pub struct Fetch {}

impl Fetch {
    pub(crate) fn may_bring(&self, _major: u32) -> bool {
        false
    }
}

pub(crate) fn fetched(_dir: &Path) -> Vec<Binaries> {
    Vec::new()
}

pub(crate) fn fetch(_fetch: &Fetch, _dir: &Path, _account: Account, _say: &dyn Fn(&str)) -> Result<Binaries, Error> {
    Err(Error::NotFound { tried: "PG_BIN_DIR, /usr/lib/postgresql, PATH".into() })
}
