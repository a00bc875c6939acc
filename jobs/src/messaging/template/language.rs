//! The languages that words may be in: English and the 22 of the Eighth Schedule to the Constitution, which a person may
//! choose from (DPDP Act 2023 s.5(3)).

use serde::{Deserialize, Serialize};

/// A language that words may be in. Adding words in one is adding a folder named by its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    En,
    /// Hindi.
    Hi,
    /// Assamese.
    As,
    /// Bengali.
    Bn,
    /// Bodo.
    Brx,
    /// Dogri.
    Doi,
    /// Gujarati.
    Gu,
    /// Kannada.
    Kn,
    /// Konkani.
    Kok,
    /// Kashmiri.
    Ks,
    /// Maithili.
    Mai,
    /// Malayalam.
    Ml,
    /// Manipuri (Meitei).
    Mni,
    /// Marathi.
    Mr,
    /// Nepali.
    Ne,
    /// Odia.
    Or,
    /// Punjabi.
    Pa,
    /// Sanskrit.
    Sa,
    /// Santali.
    Sat,
    /// Sindhi.
    Sd,
    /// Tamil.
    Ta,
    /// Telugu.
    Te,
    /// Urdu.
    Ur,
}

/// One row a language: BCP 47, whether the carrier takes templates in it, whether it is written in Devanagari, and its
/// name in English.
///
/// The carrier's list is the one of Meta's page "Supported languages" for message templates: an Indian language that is
/// not on it can be written in a mail and not in a template.
const ROWS: [(Language, &str, bool, bool, &str); 23] = [
    (Language::En, "en", true, false, "English"),
    (Language::Hi, "hi", true, true, "Hindi"),
    (Language::As, "as", false, false, "Assamese"),
    (Language::Bn, "bn", true, false, "Bengali"),
    (Language::Brx, "brx", false, true, "Bodo"),
    (Language::Doi, "doi", false, true, "Dogri"),
    (Language::Gu, "gu", true, false, "Gujarati"),
    (Language::Kn, "kn", true, false, "Kannada"),
    (Language::Kok, "kok", false, true, "Konkani"),
    (Language::Ks, "ks", false, false, "Kashmiri"),
    (Language::Mai, "mai", false, true, "Maithili"),
    (Language::Ml, "ml", true, false, "Malayalam"),
    (Language::Mni, "mni", false, false, "Manipuri"),
    (Language::Mr, "mr", true, true, "Marathi"),
    (Language::Ne, "ne", false, true, "Nepali"),
    (Language::Or, "or", false, false, "Odia"),
    (Language::Pa, "pa", true, false, "Punjabi"),
    (Language::Sa, "sa", false, true, "Sanskrit"),
    (Language::Sat, "sat", false, false, "Santali"),
    (Language::Sd, "sd", false, false, "Sindhi"),
    (Language::Ta, "ta", true, false, "Tamil"),
    (Language::Te, "te", true, false, "Telugu"),
    (Language::Ur, "ur", true, false, "Urdu"),
];

impl Language {
    /// Every one, English and Hindi first.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.0)
    }

    const fn row(self) -> &'static (Self, &'static str, bool, bool, &'static str) {
        // Rows stand in the order of the variants: a test holds that.
        &ROWS[self as usize]
    }

    /// BCP 47, which is also the name of its folders.
    pub const fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The carrier's code; nothing where the carrier takes no templates in it.
    pub const fn carrier_code(self) -> Option<&'static str> {
        let row = self.row();
        if row.2 { Some(row.1) } else { None }
    }

    /// Its name in English.
    pub const fn english_name(self) -> &'static str {
        self.row().4
    }

    /// Whose words somebody of this language is written to with, best first: her own, then what she most likely reads.
    /// Hindi stands before English for those who write Devanagari, behind it for everybody else.
    pub fn chain(self) -> impl Iterator<Item = Self> {
        let others = if self.row().3 { [Self::Hi, Self::En] } else { [Self::En, Self::Hi] };
        std::iter::once(self).chain(others.into_iter().filter(move |other| *other != self))
    }

    /// The language that a code names, written as BCP 47 or as the carrier does (`hi-IN`, `en_US`), if it is one of ours.
    pub fn find(code: &str) -> Option<Self> {
        let first = code.split(['-', '_']).next()?;
        ROWS.iter().find(|row| row.1.eq_ignore_ascii_case(first)).map(|row| row.0)
    }

    /// The one to write in to somebody whose language is this (BCP 47: `hi-IN` is Hindi); English where we have no such.
    pub fn of(bcp47: &str) -> Self {
        Self::find(bcp47).unwrap_or(Self::En)
    }
}

impl std::str::FromStr for Language {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let exact = ROWS.iter().find(|row| row.1 == text).map(|row| row.0);
        exact.ok_or_else(|| {
            let codes: Vec<_> = ROWS.iter().map(|row| row.1).collect();
            format!("no words in language `{text}`: take one of {}", codes.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_stands_in_its_row_and_is_written_as_its_code() {
        for (place, row) in ROWS.iter().enumerate() {
            assert_eq!(row.0 as usize, place, "{}", row.4);
            assert_eq!(serde_json::to_value(row.0).expect("a word"), row.1);
            assert_eq!(row.1.parse(), Ok(row.0));
            assert_eq!(Language::of(&format!("{}-IN", row.1)), row.0);
        }
        assert_eq!(Language::all().count(), 1 + 22, "English and the Eighth Schedule");
    }

    #[test]
    fn who_has_no_words_of_her_own_reads_hindi_or_english_as_declared() {
        let chain = |language: Language| language.chain().map(Language::as_str).collect::<Vec<_>>();
        assert_eq!(chain(Language::En), ["en", "hi"]);
        assert_eq!(chain(Language::Hi), ["hi", "en"]);
        assert_eq!(chain(Language::Mr), ["mr", "hi", "en"]);
        assert_eq!(chain(Language::Ta), ["ta", "en", "hi"]);
        assert_eq!(chain(Language::Or), ["or", "en", "hi"]);
    }

    #[test]
    fn the_carrier_lacks_some_and_both_spellings_are_understood() {
        let lacking: Vec<_> =
            Language::all().filter(|one| one.carrier_code().is_none()).map(Language::as_str).collect();
        assert_eq!(lacking, ["as", "brx", "doi", "kok", "ks", "mai", "mni", "ne", "or", "sa", "sat", "sd"]);
        assert_eq!(Language::find("en_US"), Some(Language::En));
        assert_eq!((Language::find("pt_BR"), Language::of("pt-BR")), (None, Language::En));
        assert!("xx".parse::<Language>().is_err());
    }
}
