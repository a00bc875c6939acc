//! Calendars and codes of Indian law as data: days and financial years in `Asia/Kolkata`, States of GST, how long logs are
//! kept.

mod calendar;
mod clock;
mod periods;
mod states;

pub use calendar::{FinancialYear, india_date};
pub use clock::{clock_offset, hold_clock, load_clock, move_clock, set_sandbox};
pub use periods::{Length, Period, logs_kept};
pub use states::{State, find_state};

use sha2::{Digest, Sha256};

/// Digest (SHA-256, hexadecimal) of all data of the law that this program brings: processes that show the same one
/// apply the same law. The evidence log says since when which one was in force.
pub fn data_sha256() -> String {
    hex::encode(Sha256::digest(format!("{:?}", states::STATES)))
}
