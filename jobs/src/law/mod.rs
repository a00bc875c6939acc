//! Calendars and codes of Indian law as data: days and financial years in `Asia/Kolkata`, States of GST.

mod calendar;
mod states;

pub use calendar::{FinancialYear, india_date};
pub use states::{State, find_state};
