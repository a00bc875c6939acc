//! Calendars and codes of Indian law as data: days and financial years in `Asia/Kolkata`, States of GST, how long logs are
//! kept.

mod calendar;
mod clock;
mod periods;
mod states;

pub use calendar::{FinancialYear, india_date};
pub use clock::{clock_offset, hold_clock, move_clock};
pub use periods::{Length, Period, logs_kept};
pub use states::{State, find_state};
