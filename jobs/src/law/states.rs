use chrono::NaiveDate;

/// A State or Union territory as GST numbers them.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    /// Two digits: the first two of a GSTIN.
    pub code: &'static str,
    /// Name as printed.
    pub name: &'static str,
    /// A Union territory without legislature: UTGST stands in place of SGST (UTGST Act 2017 s.1(2)).
    pub utgst: bool,
    /// Last day a document may name it; `None` for codes in use.
    pub until: Option<(i32, u32, u32)>,
}

impl State {
    /// Whether a document of that day may name this code.
    pub fn is_used_on(&self, day: NaiveDate) -> bool {
        self.until
            .and_then(|(year, month, date)| NaiveDate::from_ymd_opt(year, month, date))
            .is_none_or(|until| day <= until)
    }
}

const fn state(code: &'static str, name: &'static str) -> State {
    State { code, name, utgst: false, until: None }
}

const fn territory(code: &'static str, name: &'static str) -> State {
    State { code, name, utgst: true, until: None }
}

/// Codes of the GST system. 28 went with the old Andhra Pradesh before GST began and stands on older papers alone; 25
/// was merged into 26.
pub(super) static STATES: [State; 41] = [
    state("01", "Jammu and Kashmir"),
    state("02", "Himachal Pradesh"),
    state("03", "Punjab"),
    territory("04", "Chandigarh"),
    state("05", "Uttarakhand"),
    state("06", "Haryana"),
    state("07", "Delhi"),
    state("08", "Rajasthan"),
    state("09", "Uttar Pradesh"),
    state("10", "Bihar"),
    state("11", "Sikkim"),
    state("12", "Arunachal Pradesh"),
    state("13", "Nagaland"),
    state("14", "Manipur"),
    state("15", "Mizoram"),
    state("16", "Tripura"),
    state("17", "Meghalaya"),
    state("18", "Assam"),
    state("19", "West Bengal"),
    state("20", "Jharkhand"),
    state("21", "Odisha"),
    state("22", "Chhattisgarh"),
    state("23", "Madhya Pradesh"),
    state("24", "Gujarat"),
    State { code: "25", name: "Daman and Diu", utgst: true, until: Some((2020, 7, 31)) },
    territory("26", "Dadra and Nagar Haveli and Daman and Diu"),
    state("27", "Maharashtra"),
    State { code: "28", name: "Andhra Pradesh (before division)", utgst: false, until: Some((2017, 6, 30)) },
    state("29", "Karnataka"),
    state("30", "Goa"),
    territory("31", "Lakshadweep"),
    state("32", "Kerala"),
    state("33", "Tamil Nadu"),
    state("34", "Puducherry"),
    territory("35", "Andaman and Nicobar Islands"),
    state("36", "Telangana"),
    state("37", "Andhra Pradesh"),
    territory("38", "Ladakh"),
    state("96", "Outside India"),
    territory("97", "Other Territory"),
    state("99", "Other Country"),
];

/// The State of this code, also one no longer in use.
pub fn find_state(code: &str) -> Option<&'static State> {
    STATES.iter().find(|state| state.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_once_and_in_order() {
        assert!(STATES.is_sorted_by(|a, b| a.code < b.code));
        assert_eq!(STATES.iter().filter(|state| state.until.is_some()).count(), 2);
    }

    #[test]
    fn legacy_codes_are_for_old_documents_only() {
        let daman = find_state("25").expect("a code");
        assert!(daman.is_used_on(NaiveDate::from_ymd_opt(2020, 7, 31).expect("a day")));
        assert!(!daman.is_used_on(NaiveDate::from_ymd_opt(2020, 8, 1).expect("a day")));
    }

    #[test]
    fn union_territories_without_legislature_take_utgst() {
        let utgst: Vec<_> = STATES.iter().filter(|s| s.utgst && s.until.is_none()).map(|s| s.code).collect();
        assert_eq!(utgst, ["04", "26", "31", "35", "38", "97"]);
    }
}
