use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive};

const ONES: [&str; 20] = [
    "Zero",
    "One",
    "Two",
    "Three",
    "Four",
    "Five",
    "Six",
    "Seven",
    "Eight",
    "Nine",
    "Ten",
    "Eleven",
    "Twelve",
    "Thirteen",
    "Fourteen",
    "Fifteen",
    "Sixteen",
    "Seventeen",
    "Eighteen",
    "Nineteen",
];
const TENS: [&str; 10] = ["", "", "Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety"];

/// The amount in words by Indian numbering: `Rupees One Lakh Forty-Four Thousand and Fifty Paise Only`.
///
/// The sign is not spoken; fractions of a paisa are rounded half up first.
pub fn amount_in_words(amount: Decimal) -> String {
    let paise = to_paise(amount);
    let (rupees, paise) = (paise / 100, paise % 100);
    match (rupees, paise) {
        (rupees, 0) => format!("Rupees {} Only", number_in_words(rupees)),
        (0, paise) => format!("{} {} Only", number_in_words(paise), paisa_or_paise(paise)),
        (rupees, paise) => {
            let (rupees, coins) = (number_in_words(rupees), paisa_or_paise(paise));
            format!("Rupees {rupees} and {} {coins} Only", number_in_words(paise))
        }
    }
}

const fn paisa_or_paise(paise: u128) -> &'static str {
    if paise == 1 { "Paisa" } else { "Paise" }
}

/// Rupees with two decimals, grouped 3-2-2 from the right: `1,44,050.50`.
pub fn grouped(amount: Decimal) -> String {
    let paise = to_paise(amount);
    let whole = group_digits(&(paise / 100).to_string());
    let sign = if amount.is_sign_negative() && paise != 0 { "-" } else { "" };
    format!("{sign}{whole}.{:02}", paise % 100)
}

/// A plain number without needless zeroes, grouped 3-2-2: quantities and unit prices.
pub(super) fn grouped_plain(value: Decimal) -> String {
    let text = value.abs().normalize().to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let sign = if value.is_sign_negative() && !value.is_zero() { "-" } else { "" };
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{dot}{fraction}", group_digits(whole))
}

fn to_paise(amount: Decimal) -> u128 {
    let rounded = amount.abs().round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero);
    let whole = rounded.trunc();
    let paise = ((rounded - whole) * Decimal::ONE_HUNDRED).to_u128().unwrap_or(0);
    // Decimal holds 96 bits: whole rupees times a hundred always fit into 128.
    whole.to_u128().unwrap_or(0) * 100 + paise
}

fn group_digits(digits: &str) -> String {
    let split = digits.len().saturating_sub(3);
    let (head, tail) = digits.split_at(split);
    let mut out = String::with_capacity(digits.len() + digits.len() / 2);
    for (index, digit) in head.chars().enumerate() {
        out.push(digit);
        if (head.len() - index) % 2 == 1 {
            out.push(',');
        }
    }
    out.push_str(tail);
    out
}

fn number_in_words(number: u128) -> String {
    if number == 0 {
        return ONES[0].to_owned();
    }
    let mut words = Vec::new();
    speak(number, &mut words);
    words.join(" ")
}

/// Crores nest: a lakh crore is spoken as `One Lakh Crore`.
fn speak(number: u128, words: &mut Vec<String>) {
    for (unit, name) in [(10_000_000, "Crore"), (100_000, "Lakh"), (1_000, "Thousand"), (100, "Hundred")] {
        if number >= unit {
            speak(number / unit, words);
            words.push(name.to_owned());
            return speak(number % unit, words);
        }
    }
    match usize::try_from(number).unwrap_or(0) {
        0 => {}
        ones @ 1..=19 => words.push(ONES[ones].to_owned()),
        tens if tens % 10 == 0 => words.push(TENS[tens / 10].to_owned()),
        tens => words.push(format!("{}-{}", TENS[tens / 10], ONES[tens % 10])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(text: &str) -> Decimal {
        text.parse().expect("a decimal")
    }

    #[test]
    fn amounts_are_spoken_in_lakh_and_crore() {
        let spoken: Vec<_> = [
            "0",
            "0.05",
            "1",
            "19.50",
            "21",
            "100",
            "101.01",
            "999",
            "1000",
            "14999",
            "99999",
            "100000",
            "144168",
            "1234567.89",
            "10000000",
            "10100001",
            "999999999.99",
            "1000000000000",
            "79228162514264337593543950335",
        ]
        .into_iter()
        .map(|text| format!("{text}: {} | {}", grouped(amount(text)), amount_in_words(amount(text))))
        .collect();
        insta::assert_snapshot!(spoken.join("\n"));
    }

    #[test]
    fn digits_are_grouped_three_two_two() {
        for (text, shown) in [
            ("0", "0.00"),
            ("999.995", "1,000.00"),
            ("1000", "1,000.00"),
            ("99999", "99,999.00"),
            ("100000", "1,00,000.00"),
            ("1234567.8", "12,34,567.80"),
            ("-0.49", "-0.49"),
            ("-0.001", "0.00"),
        ] {
            assert_eq!(grouped(amount(text)), shown);
        }
        assert_eq!(grouped_plain(amount("12711.016949")), "12,711.016949");
        assert_eq!(grouped_plain(amount("2.000")), "2");
    }

    proptest! {
        #[test]
        fn words_never_panic(lo: u32, mid: u32, hi: u32, negative: bool, scale in 0u32..=28) {
            let amount = Decimal::from_parts(lo, mid, hi, negative, scale);
            let words = amount_in_words(amount);
            prop_assert!(words.ends_with("Only"));
            prop_assert!(grouped(amount).replace([',', '-'], "").parse::<Decimal>().is_ok());
        }
    }
}
