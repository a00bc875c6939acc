//! What a message costs, as data: `rates.toml`, which cites its sources.

use std::sync::LazyLock;

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde::Deserialize;

use crate::messaging::Category;

/// Rates of one market, each from a day on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Card {
    /// ISO 4217.
    pub(super) currency: String,
    pub(super) market: String,
    /// What the numbers of the market begin with, behind their plus sign.
    pub(super) calling_code: String,
    /// Its own name.
    pub(super) card: String,
    rates: Vec<Rate>,
    taxes: Vec<Tax>,
}

/// What one delivered message of a category costs, without tax.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    category: Word,
    /// For recipients who wrote within the last 24 hours, where that makes a difference.
    #[serde(default)]
    in_window: bool,
    /// The first day, in India.
    pub(super) valid_from: NaiveDate,
    pub(super) per_message: Decimal,
}

/// Tax on it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tax {
    valid_from: NaiveDate,
    percent: Decimal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Marketing,
    Utility,
    Authentication,
}

impl From<Category> for Word {
    fn from(category: Category) -> Self {
        match category {
            Category::Marketing => Self::Marketing,
            Category::Utility => Self::Utility,
            Category::Authentication => Self::Authentication,
        }
    }
}

impl Card {
    /// The rate in force on a day; nothing where none is known.
    pub(super) fn rate(&self, category: Category, in_window: bool, on: NaiveDate) -> Option<&Rate> {
        let word = Word::from(category);
        let of = |within: bool| {
            let known = self.rates.iter().filter(move |rate| rate.category == word && rate.in_window == within);
            known.filter(|rate| rate.valid_from <= on).max_by_key(|rate| rate.valid_from)
        };
        if in_window { of(true).or_else(|| of(false)) } else { of(false) }
    }

    /// Since when the rate of a category, by the carrier's word for it, is in force.
    pub(super) fn since(&self, category: &str, in_window: bool, on: NaiveDate) -> Option<NaiveDate> {
        let known = [Category::Marketing, Category::Utility, Category::Authentication];
        let category = known.into_iter().find(|one| one.as_str() == category)?;
        self.rate(category, in_window, on).map(|rate| rate.valid_from)
    }

    /// Whether the window makes a difference to a category at all.
    pub(super) fn has_window(&self, category: Category) -> bool {
        self.rates.iter().any(|rate| rate.in_window && rate.category == category.into())
    }

    /// Tax in percent on a day.
    pub(super) fn tax_percent(&self, on: NaiveDate) -> Decimal {
        let known = self.taxes.iter().filter(|tax| tax.valid_from <= on);
        known.max_by_key(|tax| tax.valid_from).map_or(Decimal::ZERO, |tax| tax.percent)
    }
}

/// The rates in use. A card that does not read knows no rate, and no estimate then names a price; a test reads it.
pub(super) fn card() -> &'static Card {
    static CARD: LazyLock<Card> = LazyLock::new(|| toml::from_str(include_str!("rates.toml")).unwrap_or_default());
    &CARD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_reads_and_each_rate_holds_from_its_first_day() {
        let card: Card = toml::from_str(include_str!("rates.toml")).expect("it reads");
        let day = |text: &str| text.parse::<NaiveDate>().expect("a day");
        let price = |category, in_window, on: &str| {
            card.rate(category, in_window, day(on)).map(|rate| rate.per_message.to_string())
        };
        for (category, in_window, on, expected) in [
            (Category::Marketing, false, "2025-06-30", None),
            (Category::Marketing, false, "2025-12-31", Some("0.7846")),
            (Category::Marketing, false, "2026-01-01", Some("0.8631")),
            (Category::Marketing, true, "2026-11-24", Some("0.8631")),
            (Category::Utility, false, "2026-11-24", Some("0.1150")),
            (Category::Utility, true, "2026-09-30", Some("0")),
            (Category::Utility, true, "2026-10-01", Some("0.1150")),
            (Category::Authentication, true, "2026-10-01", Some("0.1150")),
        ] {
            assert_eq!(price(category, in_window, on).as_deref(), expected, "{category:?} {in_window} {on}");
        }
        assert_eq!(card.tax_percent(day("2026-11-24")), Decimal::from(18));
        assert!(card.has_window(Category::Utility) && !card.has_window(Category::Marketing));
        assert_eq!((card.currency.as_str(), card.calling_code.as_str()), ("INR", "91"));
    }
}
