use chrono::{DateTime, Datelike, NaiveDate, Utc};
use chrono_tz::Asia::Kolkata;

/// The calendar day in India at this instant.
pub fn india_date(at: DateTime<Utc>) -> NaiveDate {
    at.with_timezone(&Kolkata).date_naive()
}

/// A financial year, 1 April to 31 March, named by the year it starts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FinancialYear(i32);

impl FinancialYear {
    /// The year that `day` lies in.
    pub fn of(day: NaiveDate) -> Self {
        Self(if day.month() >= 4 { day.year() } else { day.year() - 1 })
    }

    /// First calendar year: 2026 for 2026-27.
    pub const fn start_year(self) -> i32 {
        self.0
    }

    /// Last day until which books of this year are kept: eight years from its end. A sound superset of CGST Act s.36
    /// (72 months from the due date of the annual return), Companies Act s.128(5) and the income-tax rules; what a
    /// hold keeps is kept longer.
    pub fn books_keep_until(self) -> NaiveDate {
        NaiveDate::from_ymd_opt(self.0 + 9, 3, 31).unwrap_or(NaiveDate::MAX)
    }

    /// Last day on which a credit note for a supply of this year can still be declared, unless the annual return was
    /// filed earlier: 30 November after its end.
    ///
    /// Law: CGST Act s.34(2).
    pub fn credit_notes_until(self) -> NaiveDate {
        NaiveDate::from_ymd_opt(self.0 + 1, 11, 30).unwrap_or(NaiveDate::MAX)
    }
}

/// `2026-27`.
impl std::fmt::Display for FinancialYear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.0, (self.0 + 1).rem_euclid(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a date")
    }

    #[test]
    fn the_financial_year_turns_on_the_first_of_april() {
        for (on, year) in
            [("2026-03-31", "2025-26"), ("2026-04-01", "2026-27"), ("2027-01-01", "2026-27"), ("2099-04-01", "2099-00")]
        {
            assert_eq!(FinancialYear::of(day(on)).to_string(), year, "{on}");
        }
    }

    #[test]
    fn the_day_in_india_starts_at_half_past_six_in_the_evening_of_utc() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("an instant");
        assert_eq!(india_date(at("2026-03-31T18:29:59Z")), day("2026-03-31"));
        assert_eq!(india_date(at("2026-03-31T18:30:00Z")), day("2026-04-01"));
    }

    #[test]
    fn books_are_kept_eight_years_and_credit_notes_end_in_november() {
        let year = FinancialYear::of(day("2025-06-01"));
        assert_eq!(year.books_keep_until(), day("2034-03-31"));
        assert_eq!(year.credit_notes_until(), day("2026-11-30"));
    }
}
