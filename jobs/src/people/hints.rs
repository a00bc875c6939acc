//! What is shown in the place of a personal value: enough for its owner to recognise it, too little for anybody else.

use crate::outbound::Email;

/// `27…1V`: between the State and the check character stands a PAN.
pub(super) fn of_gstin(gstin: &str) -> String {
    let mut hint: String = gstin.chars().take(2).collect();
    hint.push('…');
    hint.extend(gstin.chars().skip(gstin.chars().count().saturating_sub(2)));
    hint
}

/// `A. V.`
pub(super) fn of_name(name: &str) -> String {
    let initials: Vec<String> =
        name.split_whitespace().filter_map(|part| part.chars().next()).take(3).map(|c| format!("{c}.")).collect();
    initials.join(" ")
}

/// `…10`
pub(super) fn of_phone(phone: &str) -> String {
    format!("…{}", phone.chars().skip(phone.chars().count().saturating_sub(2)).collect::<String>())
}

/// `a…@example.in`
pub(super) fn of_email(email: &str) -> String {
    Email::parse(email).map_or_else(|_| "…".to_owned(), |email| email.hint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_recognised_by_its_owner_alone() {
        assert_eq!(of_gstin("27AAPFU0939F1ZV"), "27…ZV");
        assert_eq!(of_name(" Asha  Verma "), "A. V.");
        assert_eq!(of_name("आशा वर्मा"), "आ. व.");
        assert_eq!(of_phone("+919876543210"), "…10");
        assert_eq!(of_email("asha@example.in"), "a…@example.in");
        assert_eq!((of_email("no address").as_str(), of_phone("").as_str(), of_name("").as_str()), ("…", "…", ""));
    }
}
