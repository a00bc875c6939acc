//! Words by which people end and begin messages, as data: `templates/messaging/opt_words/<language>.toml`.
//!
//! - A whole message that is such a word, or such a word with nothing but polite ones around it, is a no. A no inside a
//!   sentence ("stop by the shop") is a question to her, with a button: nobody is unsubscribed by a guess.
//! - A list that no native speaker has read does not unsubscribe by itself: a word of it makes us ask. A business that
//!   knows better turns the list on ([`super::set_words`]).
//! - Text is compared in NFKC and small letters, without emoji, punctuation and what nobody sees. Letters of another
//!   script that look alike are other letters.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use crate::messaging::template::{Problem, Problems};

/// Of a message so much is read: whoever writes more says more than stop.
const READ: usize = 2048;
/// Where the files lie in the source, for people.
const SHIPPED_AT: &str = "templates/messaging/opt_words";

#[derive(rust_embed::RustEmbed)]
#[folder = "../templates/messaging/opt_words"]
struct Files;

/// The words of one language.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Messages that are a no.
    pub opt_out: Vec<String>,
    /// Words of these that mean a no also inside a sentence, so that we ask.
    pub ask: Vec<String>,
    /// Messages that take a no back.
    pub opt_in: Vec<String>,
    /// Words that may stand around a no without changing it: please, messages.
    pub beside: Vec<String>,
    /// Messages that ask for a bill.
    pub invoice: Vec<String>,
    /// Which native speaker has read the words; empty: none.
    pub reviewed_by: String,
    /// When; empty: never.
    pub reviewed_on: String,
}

impl List {
    /// Whether it is taken at its word without anybody turning it on.
    pub fn is_reviewed(&self) -> bool {
        !self.reviewed_by.is_empty() && !self.reviewed_on.is_empty()
    }
}

/// The same, ready to be compared.
struct Ready {
    list: List,
    opt_out: Vec<Vec<String>>,
    ask: Vec<Vec<String>>,
    opt_in: Vec<Vec<String>>,
    beside: Vec<String>,
    invoice: Vec<Vec<String>>,
}

static LISTS: LazyLock<BTreeMap<String, Ready>> = LazyLock::new(|| read(shipped()).unwrap_or_default());

/// Whether the lists can be used: asked once, at the start, for without them no word to stop would be heard.
///
/// # Errors
/// [`Problems`]: all that is wrong with any list, by file and line.
pub fn check() -> Result<(), Problems> {
    read(shipped()).map(drop)
}

fn shipped() -> impl Iterator<Item = (String, Vec<u8>)> {
    let lists = Files::iter().filter(|path| path.ends_with(".toml"));
    lists.filter_map(|path| Some((path.to_string(), Files::get(&path)?.data.into_owned())))
}

/// Reads lists from files by their names.
fn read(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<BTreeMap<String, Ready>, Problems> {
    let (mut lists, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, bytes) in files {
        match Ready::read_file(&bytes) {
            Ok(ready) => {
                lists.insert(name.trim_end_matches(".toml").to_owned(), ready);
            }
            Err((line, what)) => problems.push(Problem { file: format!("{SHIPPED_AT}/{name}"), line, what }),
        }
    }
    // English is what everybody tries.
    if problems.is_empty() && !lists.contains_key("en") {
        let file = format!("{SHIPPED_AT}/en.toml");
        problems.push(Problem { file, line: None, what: "is missing: no word to stop would be heard".to_owned() });
    }
    if problems.is_empty() { Ok(lists) } else { Err(Problems(problems)) }
}

/// The list of a language (BCP 47; `hi-Latn` is Hindi in Latin letters).
pub fn find(language: &str) -> Option<&'static List> {
    LISTS.get(language).map(|ready| &ready.list)
}

/// All lists by language.
pub fn lists() -> impl Iterator<Item = (&'static str, &'static List)> {
    LISTS.iter().map(|(language, ready)| (language.as_str(), &ready.list))
}

/// How far a no or a yes goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything that is not owed by law.
    All,
    /// What sells.
    Marketing,
    /// One purpose.
    Purpose(String),
}

/// What somebody means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// No more messages.
    OptOut(Extent),
    /// Messages after all.
    OptIn(Extent),
    /// Perhaps a no: ask her, with a button.
    Ask,
    /// She did not ask for the code that she was sent.
    NotMyCode,
    /// She looks for her bill.
    WhereIsMyInvoice,
    /// Something else: a person of the business reads it.
    Other,
}

impl Route {
    /// As it stands in rows and evidence.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::OptOut(_) => "opt_out",
            Self::OptIn(_) => "opt_in",
            Self::Ask => "ask",
            Self::NotMyCode => "not_my_code",
            Self::WhereIsMyInvoice => "where_is_my_invoice",
            Self::Other => "other",
        }
    }
}

/// What a text means, and in the words of which language. `on` are unreviewed lists that the business takes at their word.
pub fn classify(text: &str, on: &[String]) -> (Route, Option<&'static str>) {
    let said = words_of(head(text));
    if said.is_empty() {
        return (Route::Other, None);
    }
    let mut best = (Route::Other, None);
    for (language, ready) in LISTS.iter() {
        let trusted = ready.list.is_reviewed() || on.iter().any(|one| one == language);
        let route = match ready.read(&said) {
            // A yes that we may have misread would bring messages to who wants none.
            Route::OptIn(_) if !trusted => Route::Other,
            Route::OptOut(_) if !trusted => Route::Ask,
            route => route,
        };
        if rank(&route) > rank(&best.0) {
            best = (route, Some(language.as_str()));
        }
    }
    best
}

/// Of what several lists make of one text, the one that must not be missed counts.
const fn rank(route: &Route) -> u8 {
    match route {
        Route::OptOut(_) | Route::NotMyCode => 4,
        Route::Ask => 3,
        Route::OptIn(_) => 2,
        Route::WhereIsMyInvoice => 1,
        Route::Other => 0,
    }
}

impl Ready {
    /// Reads one list; what is wrong with it is named with its line, where one can be.
    fn read_file(bytes: &[u8]) -> Result<Self, (Option<usize>, String)> {
        let text = std::str::from_utf8(bytes).map_err(|_| (None, "is not UTF-8".to_owned()))?;
        let list: List = toml::from_str(text).map_err(|error| {
            let line =
                error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
            (line, error.message().replace('\n', " "))
        })?;
        let phrases = |key: &str, texts: &[String]| {
            let phrases: Vec<_> = texts.iter().map(|text| words_of(text)).collect();
            match phrases.iter().position(Vec::is_empty) {
                Some(place) => Err((None, format!("{key}: {:?} has no letter that could be compared", texts[place]))),
                None => Ok(phrases),
            }
        };
        let ready = Self {
            opt_out: phrases("opt_out", &list.opt_out)?,
            ask: phrases("ask", &list.ask)?,
            opt_in: phrases("opt_in", &list.opt_in)?,
            beside: list.beside.iter().flat_map(|text| words_of(text)).collect(),
            invoice: phrases("invoice", &list.invoice)?,
            list,
        };
        if ready.opt_out.is_empty() {
            return Err((None, "opt_out: names no word to stop".to_owned()));
        }
        Ok(ready)
    }

    fn read(&self, said: &[String]) -> Route {
        // A no that means nothing else may have polite words around it; "cancel" and "end" must stand alone.
        let plain = |phrase: &[String]| phrase.len() > 1 || self.ask.iter().any(|known| known == phrase);
        let is = |phrases: &[Vec<String>], loose: fn(&[String], bool) -> bool| {
            phrases
                .iter()
                .any(|phrase| phrase == said || (loose(phrase, plain(phrase)) && self.surrounds(said, phrase)))
        };
        if is(&self.opt_out, |_, plain| plain) {
            return Route::OptOut(Extent::All);
        }
        if is(&self.opt_in, |_, _| true) {
            return Route::OptIn(Extent::All);
        }
        let inside = |phrase: &Vec<String>| said.windows(phrase.len()).any(|part| part == phrase.as_slice());
        if self.ask.iter().any(inside) || self.opt_out.iter().filter(|phrase| phrase.len() > 1).any(inside) {
            return Route::Ask;
        }
        if self.invoice.iter().any(inside) { Route::WhereIsMyInvoice } else { Route::Other }
    }

    /// Whether the phrase stands in the message with nothing but polite words around it.
    fn surrounds(&self, said: &[String], phrase: &[String]) -> bool {
        let polite = |words: &[String]| words.iter().all(|word| self.beside.contains(word));
        (0..said.len().saturating_sub(phrase.len() - 1)).any(|at| {
            let end = at + phrase.len();
            said[at..end] == *phrase && polite(&said[..at]) && polite(&said[end..])
        })
    }
}

/// What a button says that we, or the carrier, put there: `OPTOUT:all`, `OPTOUT:marketing`, `OPTOUT:marketing.offers`,
/// `OPTIN:…` alike, `DID_NOT_REQUEST_CODE` (Cloud API, authentication templates), `WHERE_IS_MY_INVOICE`.
pub fn classify_payload(payload: &str) -> Route {
    let extent = |rest: &str| match rest {
        "all" => Some(Extent::All),
        "marketing" => Some(Extent::Marketing),
        purpose => super::checked_purpose(purpose).ok().map(|purpose| Extent::Purpose(purpose.to_owned())),
    };
    match payload.trim() {
        "DID_NOT_REQUEST_CODE" => Route::NotMyCode,
        "WHERE_IS_MY_INVOICE" => Route::WhereIsMyInvoice,
        // A no is heard even where it is not said for what.
        other => match (other.strip_prefix("OPTOUT:"), other.strip_prefix("OPTIN:")) {
            (Some(rest), _) => Route::OptOut(extent(rest).unwrap_or(Extent::All)),
            (_, Some(rest)) => extent(rest).map_or(Route::Other, Route::OptIn),
            _ => Route::Other,
        },
    }
}

fn head(text: &str) -> &str {
    let mut end = text.len().min(READ);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The words of a text: NFKC, small letters, nothing but letters, digits and the marks on them. Joiners are left out, as
/// people and keyboards do.
fn words_of(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    // Small letters may come apart into several, so that they are composed afterwards.
    for character in text.nfkc().flat_map(char::to_lowercase).nfc() {
        if is_invisible(character) {
            continue;
        }
        let inside = words.last().is_some_and(|word| !word.is_empty());
        if character.is_alphanumeric() || (inside && is_combining_mark(character)) {
            if let Some(word) = words.last_mut() {
                word.push(character);
            }
        } else if matches!(character, '\'' | '’') && inside {
            // "don't" is one word.
        } else {
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Joiners, marks of direction, soft hyphens, what makes an emoji of a letter: in a word or out of it, they mean nothing.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{20d0}'..='\u{20ff}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(text: &str) -> Route {
        classify(text, &[]).0
    }

    const OUT: Route = Route::OptOut(Extent::All);

    #[test]
    fn a_word_to_stop_is_heard_however_it_is_typed() {
        for text in [
            "STOP",
            "stop",
            " Stop. ",
            "stop!!!",
            "\"stop\"",
            "🛑 STOP 🛑",
            "ＳＴＯＰ",
            "s\u{200b}top",
            "\u{202e}stop\u{202c}",
            "stop please",
            "Please stop",
            "stop sending messages",
            "stop msgs pls",
            "opt-out",
            "opt out",
            "OPTOUT",
            "unsubscribe",
            "Unsubscribe me",
            "stop all",
            "no more messages please",
            "ST\u{ad}OP",
            "stop\u{fe0f}",
            "stop 🙏🏽",
        ] {
            assert_eq!(route(text), OUT, "{text}");
        }
    }

    #[test]
    fn a_word_to_stop_inside_a_sentence_is_asked_about_and_never_acted_on() {
        for text in [
            "stop by the shop",
            "I will stop by the shop tomorrow",
            "don't stop",
            "Don’t stop sending offers",
            "does the bus stop here",
            "can I unsubscribe from the newspaper here",
            "stop it, my order 12 is missing",
            "why should I opt out",
        ] {
            assert_eq!(route(text), Route::Ask, "{text}");
        }
    }

    #[test]
    fn what_says_nothing_about_messages_goes_to_a_person() {
        for text in [
            "",
            " ",
            "🛑",
            "👍",
            "please",
            "hello",
            "yes",
            "ok",
            "stopover in Pune",
            "nonstop",
            "please send it by the end of the day",
            "cancel my order",
            "cancel this",
            "remove the second item",
            "ѕтор",
            "5t0p",
            "\u{200b}",
        ] {
            assert_eq!(route(text), Route::Other, "{text}");
        }
        assert_eq!(route("where is my invoice"), Route::WhereIsMyInvoice);
        assert_eq!(route("Please send the BILL again"), Route::WhereIsMyInvoice);
        assert_eq!(route("START"), Route::OptIn(Extent::All));
        assert_eq!(route("start please"), Route::OptIn(Extent::All));
        assert_eq!(route("start the engine"), Route::Other);
    }

    #[test]
    fn words_of_a_list_that_nobody_has_read_are_asked_about_until_it_is_turned_on() {
        for (text, language) in [
            ("बंद करो", "hi"),
            ("बंद करें 🙏", "hi"),
            ("band karo", "hi-Latn"),
            ("message mat bhejo", "hi-Latn"),
            ("बंद करा", "mr"),
            ("বন্ধ করুন", "bn"),
            ("બંધ કરો", "gu"),
            ("ਬੰਦ ਕਰੋ", "pa"),
            ("நிறுத்தவும்", "ta"),
            ("ఆపండి", "te"),
            ("ನಿಲ್ಲಿಸಿ", "kn"),
            ("നിർത്തുക", "ml"),
            ("ବନ୍ଦ କରନ୍ତୁ", "or"),
            ("বন্ধ কৰক", "as"),
            ("بند کریں", "ur"),
        ] {
            assert_eq!(route(text), Route::Ask, "{text}");
            assert_eq!(classify(text, &[language.to_owned()]), (OUT, Some(language)), "{text}");
        }
        // A yes of such a list is none until then.
        assert_eq!(route("चालू करो"), Route::Other);
        assert_eq!(classify("चालू करो", &["hi".to_owned()]).0, Route::OptIn(Extent::All));
    }

    #[test]
    fn one_way_to_write_letters_with_marks_is_as_good_as_another() {
        let on = ["hi".to_owned(), "bn".to_owned(), "ml".to_owned()];
        // Precomposed and with a nukta of its own; a chillu of its own and with a joiner.
        for (one, other) in
            [("रोक दो", "रोक दो"), ("नि\u{0930}\u{094b}", "नि\u{0930}\u{094b}"), ("बन्\u{200d}द करो", "बन्द करो")]
        {
            assert_eq!(classify(one, &on), classify(other, &on), "{one} {other}");
        }
        assert_eq!(classify("ब\u{902}द\u{200c} करो", &on).0, OUT);
    }

    #[test]
    fn every_list_is_whole_and_says_who_has_read_it() {
        let languages: Vec<_> = lists().map(|(language, _)| language).collect();
        assert_eq!(
            languages,
            ["as", "bn", "en", "gu", "hi", "hi-Latn", "kn", "ml", "mr", "or", "pa", "ta", "te", "ur"]
        );
        for (language, ready) in LISTS.iter() {
            let list = &ready.list;
            assert!(!list.opt_out.is_empty() && !list.opt_in.is_empty() && !list.ask.is_empty(), "{language}");
            assert_eq!(list.reviewed_by.is_empty(), list.reviewed_on.is_empty(), "{language}");
            let kept = [&ready.opt_out, &ready.ask, &ready.opt_in, &ready.invoice].map(Vec::len);
            let written = [&list.opt_out, &list.ask, &list.opt_in, &list.invoice].map(Vec::len);
            assert_eq!(kept, written, "{language}: a phrase without a letter");
            for phrase in &ready.opt_out {
                assert!(
                    phrase.iter().any(|word| !ready.beside.contains(word)),
                    "{language}: {phrase:?} is polite alone"
                );
                assert!(!ready.opt_in.contains(phrase), "{language}: {phrase:?} is both");
                assert_eq!(ready.read(phrase), OUT, "{language}: {phrase:?}");
            }
        }
        // What is said of the others is not true of them.
        let reviewed: Vec<_> = lists().filter(|(_, list)| list.is_reviewed()).map(|(language, _)| language).collect();
        assert_eq!(reviewed, ["en"]);
    }

    #[test]
    fn a_bad_list_is_an_error_at_the_start_that_names_its_file_and_line() {
        assert_eq!(check(), Ok(()));
        let good = shipped().find(|(name, _)| name == "en.toml").expect("English").1;
        let text = String::from_utf8(good.clone()).expect("text");
        let told = |name: &str, bytes: Vec<u8>| {
            let files = [("en.toml".to_owned(), good.clone()), (name.to_owned(), bytes)];
            read(files).err().expect("a fault").to_string()
        };
        assert_eq!(told("xx.toml", vec![0xff]), "templates/messaging/opt_words/xx.toml: is not UTF-8");
        let unknown = told("xx.toml", format!("{text}\ncolour = \"red\"\n").into_bytes());
        assert!(unknown.starts_with("templates/messaging/opt_words/xx.toml:"), "{unknown}");
        assert!(unknown.contains("colour") && !unknown.contains('\n'), "{unknown}");
        let line = text.lines().count() + 2;
        assert!(unknown.contains(&format!("xx.toml:{line}: ")), "{unknown} at line {line}");
        let list = |opt_out: &str| {
            let rest = "ask = []\nopt_in = []\nbeside = []\ninvoice = []\nreviewed_by = \"\"\nreviewed_on = \"\"\n";
            format!("opt_out = {opt_out}\n{rest}").into_bytes()
        };
        assert!(told("xx.toml", list("[\"stop\", \"!!\"]")).contains("opt_out: \"!!\" has no letter"));
        assert!(told("xx.toml", list("[]")).contains("names no word to stop"));
        assert!(read([("hi.toml".to_owned(), good.clone())]).is_err(), "English is missing");
        // All faults at once, and a good list beside them does not hide them.
        let two =
            [("aa.toml".to_owned(), vec![0xff]), ("en.toml".to_owned(), good), ("bb.toml".to_owned(), list("[]"))];
        assert_eq!(read(two).err().expect("faults").0.len(), 2);
    }

    #[test]
    fn buttons_say_what_was_put_there() {
        for (payload, expected) in [
            ("OPTOUT:all", OUT),
            ("OPTOUT:marketing", Route::OptOut(Extent::Marketing)),
            ("OPTOUT:marketing.offers", Route::OptOut(Extent::Purpose("marketing.offers".to_owned()))),
            ("OPTOUT:", OUT),
            ("OPTOUT:Robert'); drop", OUT),
            ("OPTIN:all", Route::OptIn(Extent::All)),
            ("OPTIN:", Route::Other),
            ("DID_NOT_REQUEST_CODE", Route::NotMyCode),
            ("WHERE_IS_MY_INVOICE", Route::WhereIsMyInvoice),
            ("did_not_request_code", Route::Other),
            ("KEEP", Route::Other),
            ("", Route::Other),
        ] {
            assert_eq!(classify_payload(payload), expected, "{payload}");
        }
    }

    /// What nobody sees or means: it may stand before, after and around a word.
    const NOISE: [&str; 14] =
        [" ", "\n", "\t", ".", "!", "…", "\"", "🙏", "👍🏽", "\u{200b}", "\u{200d}", "\u{feff}", "\u{202e}", "\u{fe0f}"];

    proptest! {
        #[test]
        fn noise_around_a_word_changes_nothing(before in prop::collection::vec(0..NOISE.len(), 0..6), after in prop::collection::vec(0..NOISE.len(), 0..6), upper in any::<u8>()) {
            let noise = |places: &[usize]| places.iter().map(|&place| NOISE[place]).collect::<String>();
            let word: String = "stop".chars().enumerate().map(|(at, letter)| if upper >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter }).collect();
            let text = format!("{}{word}{}", noise(&before), noise(&after));
            prop_assert_eq!(route(&text), OUT, "{:?}", text);
        }

        #[test]
        fn no_text_makes_it_panic_and_other_words_are_never_a_no(text in ".{0,200}", other in "[a-z]{4,12}") {
            let _ = classify(&text, &["hi".to_owned(), "ur".to_owned()]);
            let _ = classify_payload(&text);
            let beside = &LISTS["en"].beside;
            prop_assume!(!beside.contains(&other) && !LISTS["en"].opt_out.iter().flatten().any(|word| *word == other));
            // A no in a sentence with a word that changes it.
            let text = format!("stop {} the shop", other);
            prop_assert!(route(&text) != OUT, "{}", text);
        }

        #[test]
        fn composed_or_not_a_text_means_the_same(at in 0..2_usize) {
            let text = ["बंद करो", "വേണ്ട"][at];
            let on = ["hi".to_owned(), "ml".to_owned()];
            let (apart, together): (String, String) = (text.nfd().collect(), text.nfc().collect());
            prop_assert_eq!(classify(&apart, &on), classify(&together, &on));
        }
    }
}
