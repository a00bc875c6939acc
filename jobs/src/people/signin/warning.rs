//! What somebody is told about her own access, so that she notices when it is not hers.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Error;
use crate::{
    people::{BusinessId, StaffId, list_handles, load_business},
    queue::{self, NewJob},
};

/// The job of messaging that carries a warning; sign-in lies below messaging and knows it by name only.
const KIND: &str = "messaging.warn_staff";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Warning {
    /// She signed in with a browser that is new here.
    NewDevice,
    /// She signed in from another country than before.
    NewCountry,
    /// Somebody has tried to sign in as her again and again.
    WrongAttempts,
    /// A code to a phone of hers that nobody confirmed for long was right: it may be a stranger who has the number now.
    StalePhone,
    /// Her password was changed.
    PasswordChanged,
    /// An authenticator or a passkey was set up, or a passkey taken away.
    FactorChanged,
    /// One of her passkeys has been copied and is out of use.
    PasskeyCopied,
    /// One of her recovery codes was used.
    RecoveryCodeUsed,
    /// Somebody asked to take her second factor away.
    FactorResetAsked,
    /// That was approved: it goes in a day.
    FactorResetApproved,
    /// Her second factor was taken away.
    FactorRemoved,
}

impl Warning {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NewDevice,
        Self::NewCountry,
        Self::WrongAttempts,
        Self::StalePhone,
        Self::PasswordChanged,
        Self::FactorChanged,
        Self::PasskeyCopied,
        Self::RecoveryCodeUsed,
        Self::FactorResetAsked,
        Self::FactorResetApproved,
        Self::FactorRemoved,
    ];

    /// As it stands in payloads and in the files of words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewDevice => "new_device",
            Self::NewCountry => "new_country",
            Self::WrongAttempts => "wrong_attempts",
            Self::StalePhone => "stale_phone",
            Self::PasswordChanged => "password_changed",
            Self::FactorChanged => "factor_changed",
            Self::PasskeyCopied => "passkey_copied",
            Self::RecoveryCodeUsed => "recovery_code_used",
            Self::FactorResetAsked => "factor_reset_asked",
            Self::FactorResetApproved => "factor_reset_approved",
            Self::FactorRemoved => "factor_removed",
        }
    }

    /// Whether she is told on every channel there is, and not on one alone: who takes her factor may hold her mail.
    pub const fn is_for_every_channel(self) -> bool {
        matches!(self, Self::PasskeyCopied | Self::FactorResetAsked | Self::FactorResetApproved | Self::FactorRemoved)
    }

    /// Whether her phone is the one place where it must not be told: somebody else may read there.
    pub const fn is_kept_from_phone(self) -> bool {
        matches!(self, Self::StalePhone)
    }
}

/// The business whose jobs write to somebody: her own, or the oldest there is for staff of the platform. `None`: there
/// is none yet, so nothing can be written.
///
/// # Errors
/// The database fails.
pub async fn desk_of(db: &mut PgConnection, business: Option<BusinessId>) -> Result<Option<BusinessId>, Error> {
    if business.is_some() {
        return Ok(business);
    }
    let Some(oldest) = list_handles(db).await?.into_iter().next() else { return Ok(None) };
    Ok(Some(load_business(db, &oldest).await.map_err(Error::people)?.business_id))
}

/// Has her warned, in the caller's transaction, once for each `about` where there is one (a session, a reset).
///
/// # Errors
/// The queue refuses it.
pub async fn warn_about(
    tx: &mut PgConnection,
    business: BusinessId,
    staff: StaffId,
    warning: Warning,
    (at, about): (DateTime<Utc>, Option<Uuid>),
) -> Result<(), Error> {
    let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let payload = json!({ "staff_id": staff, "warning": warning, "at": at });
    let mut job = NewJob::named(KIND, business, payload);
    if let Some(about) = about {
        job = job.key(format!("{}:{about}", warning.as_str()));
    }
    queue::enqueue(tx, &job).await?;
    Ok(())
}

/// As [`warn_about`], of something that has no id of its own.
///
/// # Errors
/// The queue refuses it.
pub async fn warn(
    tx: &mut PgConnection,
    business: BusinessId,
    staff: StaffId,
    warning: Warning,
    at: DateTime<Utc>,
) -> Result<(), Error> {
    warn_about(tx, business, staff, warning, (at, None)).await
}
