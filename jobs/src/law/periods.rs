use sqlx::postgres::types::PgInterval;

/// How long a law has something kept, as data: code, length, from when on, citation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Stable name.
    pub code: &'static str,
    /// How long.
    pub length: Length,
    /// First day on which the law asks for it, year, month, day.
    pub applies_from: (i32, u32, u32),
    /// Where it stands.
    pub citation: &'static str,
}

/// A span as a law counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Days, each of 24 hours.
    Days(u16),
    /// Calendar years.
    Years(u8),
}

impl Period {
    /// As Postgres counts it.
    pub fn for_database(self) -> PgInterval {
        match self.length {
            Length::Days(days) => PgInterval { months: 0, days: days.into(), microseconds: 0 },
            Length::Years(years) => PgInterval { months: i32::from(years) * 12, days: 0, microseconds: 0 },
        }
    }

    /// Days at the least: no year is shorter than 365.
    const fn least_days(self) -> u32 {
        match self.length {
            Length::Days(days) => days as u32,
            Length::Years(years) => years as u32 * 365,
        }
    }
}

/// How long logs of what was done are kept.
static LOGS: [Period; 2] = [
    Period {
        code: "cert_in_logs",
        length: Length::Days(180),
        applies_from: (2022, 6, 28),
        citation: "CERT-In Directions No. 20(3)/2022 of 28 April 2022, direction (iv), under s.70B(6) of the IT Act 2000",
    },
    Period {
        code: "dpdp_logs",
        length: Length::Years(1),
        applies_from: (2027, 5, 13),
        citation: "DPDP Rules 2025 r.6(1)(e), G.S.R. 846(E) of 13 November 2025",
    },
];

/// The longest that any law has logs kept, also one that is made and does not apply yet: what is written today is still
/// there on the day from which it does.
pub fn logs_kept() -> Period {
    LOGS.into_iter().max_by_key(|period| period.least_days()).unwrap_or(LOGS[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_kept_as_long_as_the_strictest_law_wants() {
        assert_eq!(logs_kept().code, "dpdp_logs");
        assert_eq!(logs_kept().for_database(), PgInterval { months: 12, days: 0, microseconds: 0 });
        assert_eq!(LOGS[0].for_database(), PgInterval { months: 0, days: 180, microseconds: 0 });
        for period in LOGS {
            let (year, month, day) = period.applies_from;
            assert!(chrono::NaiveDate::from_ymd_opt(year, month, day).is_some(), "{}", period.code);
            assert!(period.least_days() <= logs_kept().least_days() && !period.citation.is_empty());
        }
    }
}
