//! What somebody signs in with, and whether a second factor is demanded of her: of staff of the platform always, of
//! staff of a business where the business wants it.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Error, standing_store as store};
use crate::people::BusinessId;

/// How somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// She has a password.
    pub password: bool,
    /// She has an authenticator that was confirmed.
    pub totp: bool,
    /// Her passkeys that work.
    pub passkeys: i64,
    /// Her recovery codes that were not used.
    pub recovery_codes_left: i64,
    /// She may not go without a second factor.
    pub second_factor_demanded: bool,
}

impl Standing {
    /// Whether she has a second factor, which is then asked for.
    pub const fn has_second_factor(&self) -> bool {
        self.totp || self.passkeys > 0
    }

    /// Whether she must set one up before anything else.
    pub const fn must_enrol(&self) -> bool {
        self.second_factor_demanded && !self.has_second_factor()
    }

    /// Whether this passkey, or this authenticator, is the last of a second factor that is demanded.
    pub const fn is_last_demanded(&self) -> bool {
        self.second_factor_demanded && self.passkeys + (if self.totp { 1 } else { 0 }) <= 1
    }
}

/// How `staff` stands; nothing of somebody who has left.
///
/// # Errors
/// The database fails.
pub async fn find_standing(db: &mut PgConnection, staff: Uuid) -> Result<Option<Standing>, Error> {
    store::find_standing(db, staff).await
}

/// Says whether everybody of `business` has to have a second factor. Who has none is asked to set one up at her next
/// request.
///
/// # Errors
/// The database fails.
pub async fn demand_second_factor(db: &mut PgConnection, business: BusinessId, demanded: bool) -> Result<(), Error> {
    store::demand_second_factor(db, business, demanded).await
}
