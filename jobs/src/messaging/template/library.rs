//! All words there are: those that muneem ships, and the installation's own from `messaging.templates_dir`.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{LazyLock, OnceLock},
};

use super::{Language, Template, limits};

#[derive(rust_embed::RustEmbed)]
#[folder = "../templates/messaging"]
struct Words;

/// Where the shipped files lie in the source, for people.
const SHIPPED_AT: &str = "templates/messaging";
/// The name of the one file that is read in the folder of a language.
const FILE: &str = "whatsapp.toml";
/// A template is a few kilobytes; what is longer is none.
const LONGEST_FILE: u64 = 64 * 1024;
/// Templates that an account may have (Cloud API error 2388019); an installation with more has lost its way.
const MOST_FILES: usize = 6_000;

/// Something that is wrong with words, and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line in it, from 1, where one can be named.
    pub line: Option<usize>,
    /// What is wrong, and the mend.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// Words that cannot be used: everything that is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("; "))
    }
}

impl std::error::Error for Problems {}

/// A template and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What the file says.
    pub template: Template,
    /// Whether it is the installation's own.
    pub own: bool,
}

/// Every template by folder and language.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Library {
    entries: BTreeMap<String, BTreeMap<Language, Entry>>,
    events: BTreeMap<Language, BTreeMap<String, String>>,
}

/// A file, as it was found.
struct Found {
    /// For people.
    shown: String,
    folder: String,
    language: String,
    text: String,
}

impl Library {
    /// Reads the shipped words, and the installation's own in `dir`.
    ///
    /// # Errors
    /// [`Problems`]: all that is wrong with any of them, by file and line.
    pub fn load(dir: Option<&Path>) -> Result<Self, Problems> {
        let mut library = Self::default();
        let mut problems = Vec::new();
        for found in shipped(&mut problems) {
            library.take_in(&found, false, &mut problems);
        }
        library.read_events(&mut problems);
        if let Some(dir) = dir {
            for found in own_files(dir, &mut problems) {
                library.take_in(&found, true, &mut problems);
            }
        }
        library.compare_languages(&mut problems);
        if problems.is_empty() { Ok(library) } else { Err(Problems(problems)) }
    }

    /// Every template with its folder and language, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Language, &Entry)> {
        self.entries.iter().flat_map(|(folder, languages)| {
            languages.iter().map(|(language, entry)| (folder.as_str(), *language, entry))
        })
    }

    /// The words of a folder for somebody of this language: in hers, or in the next that she reads
    /// ([`Language::chain`]).
    pub fn find(&self, folder: &str, language: Language) -> Option<&Template> {
        let languages = self.entries.get(folder)?;
        let entry = language.chain().find_map(|one| languages.get(&one)).or_else(|| languages.values().next());
        entry.map(|entry| &entry.template)
    }

    /// The words of a folder in exactly this language.
    pub fn exact(&self, folder: &str, language: Language) -> Option<&Entry> {
        self.entries.get(folder)?.get(&language)
    }

    /// The words of a folder in all its languages.
    pub fn of_folder(&self, folder: &str) -> impl Iterator<Item = &Template> {
        self.entries.get(folder).into_iter().flat_map(BTreeMap::values).map(|entry| &entry.template)
    }

    /// One sentence for each thing that staff is warned of.
    pub(super) fn events(&self, language: Language) -> Option<&BTreeMap<String, String>> {
        self.events.get(&language)
    }

    fn take_in(&mut self, found: &Found, own: bool, problems: &mut Vec<Problem>) {
        let mut tell = |line: Option<usize>, what: String| {
            problems.push(Problem { file: found.shown.clone(), line, what });
        };
        let Ok(language) = found.language.parse::<Language>() else {
            return tell(
                None,
                format!("`{}` is no language that words may be in: name the folder en, hi, ta …", found.language),
            );
        };
        let template: Template = match toml::from_str(&found.text) {
            Ok(template) => template,
            Err(error) => {
                let line = error.span().map(|span| line_at(&found.text, span.start));
                return tell(line, error.message().replace('\n', " "));
            }
        };
        for (at, what) in limits::faults_of(&template, language) {
            let line = parameter_line(&found.text, at, &what).or_else(|| line_of(&found.text, at));
            tell(line, format!("{at}: {what}"));
        }
        let line = |key: &str| line_of(&found.text, key);
        let before = self.exact(&found.folder, language).map(|entry| entry.template.name.clone());
        match (&before, &template.replaces) {
            (None, Some(_)) => {
                return tell(
                    line("replaces"),
                    "replaces: there is no shipped template in this folder and language".to_owned(),
                );
            }
            (Some(shipped), replaces) if replaces.as_ref() != Some(shipped) => {
                let what = format!(
                    "would stand in the place of a shipped template: name the folder otherwise, or say \
                     replaces = \"{shipped}\""
                );
                return tell(line("name"), what);
            }
            _ => {}
        }
        let same = self.iter().find(|(folder, _, entry)| {
            let known = &entry.template;
            *folder != found.folder && known.name == template.name && known.language == template.language
        });
        if let Some((folder, ..)) = same {
            let what = format!("name: `{}` is also the name of the template in folder {folder}", template.name);
            return tell(line("name"), what);
        }
        self.entries.entry(found.folder.clone()).or_default().insert(language, Entry { template, own });
    }

    /// Whoever sends names parameters once for all languages: these must not differ in them.
    fn compare_languages(&self, problems: &mut Vec<Problem>) {
        for (folder, languages) in &self.entries {
            let Some((first_language, first)) = languages.iter().next() else { continue };
            if !languages.contains_key(&Language::En) && !languages.contains_key(&Language::Hi) {
                problems.push(Problem {
                    file: folder.clone(),
                    line: None,
                    what: "needs words in en or hi, which everybody else falls back on".to_owned(),
                });
            }
            let first_shape = shape(&first.template);
            for (language, entry) in languages.iter().skip(1) {
                let differing = shape(&entry.template)
                    .iter()
                    .zip(&first_shape)
                    .find(|(one, other)| one != other)
                    .map(|(one, _)| one.0);
                if let Some(part) = differing {
                    problems.push(Problem {
                        file: format!("{folder}/{}", language.as_str()),
                        line: None,
                        what: format!("{part}: must be as in {}", first_language.as_str()),
                    });
                }
            }
        }
    }

    fn read_events(&mut self, problems: &mut Vec<Problem>) {
        for language in Language::all() {
            let path = format!("sign_in_warning/{}/events.toml", language.as_str());
            let Some(file) = Words::get(&path) else { continue };
            let shown = format!("{SHIPPED_AT}/{path}");
            match std::str::from_utf8(&file.data)
                .map_err(|error| error.to_string())
                .and_then(|text| toml::from_str(text).map_err(|error| error.message().to_owned()))
            {
                Ok(events) => {
                    self.events.insert(language, events);
                }
                Err(what) => problems.push(Problem { file: shown, line: None, what }),
            }
        }
    }
}

/// What must be the same in all languages of a folder.
fn shape(template: &Template) -> [(&'static str, String); 5] {
    let mut parameters: Vec<_> =
        template.parameters.iter().map(|one| format!("{} {} {}", one.name, one.kind.as_str(), one.longest())).collect();
    parameters.sort();
    let buttons: Vec<_> =
        template.buttons.iter().map(|one| format!("{} {}", one.kind(), one.parameter().unwrap_or_default())).collect();
    [
        ("category", template.category.as_str().to_owned()),
        ("class", format!("{:?}", template.class())),
        ("parameters", parameters.join(", ")),
        ("header", template.header.as_str().to_owned()),
        ("buttons", buttons.join(", ")),
    ]
}

fn shipped(problems: &mut Vec<Problem>) -> Vec<Found> {
    let mut found = Vec::new();
    for path in Words::iter() {
        let parts: Vec<_> = path.split('/').collect();
        let [folder, language, FILE] = parts.as_slice() else { continue };
        let shown = format!("{SHIPPED_AT}/{path}");
        let text = Words::get(&path).map(|file| String::from_utf8(file.data.into_owned()));
        match text {
            Some(Ok(text)) => {
                found.push(Found { shown, folder: (*folder).to_owned(), language: (*language).to_owned(), text });
            }
            Some(Err(_)) | None => problems.push(Problem { file: shown, line: None, what: "is not UTF-8".to_owned() }),
        }
    }
    found.sort_by(|one, other| one.shown.cmp(&other.shown));
    found
}

/// The files of the installation: `<dir>/<template>/<language>/whatsapp.toml`. Whatever else lies there is a mistake in a
/// name, and told; names that begin with a dot are left alone.
fn own_files(dir: &Path, problems: &mut Vec<Problem>) -> Vec<Found> {
    let mut found = Vec::new();
    let mut tell = |path: &Path, what: String| {
        problems.push(Problem { file: path.display().to_string(), line: None, what });
    };
    let list = |path: &Path| -> std::io::Result<Vec<PathBuf>> {
        let mut paths: Vec<_> =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        paths.retain(|path| !name_of(path).starts_with('.'));
        paths.sort();
        Ok(paths)
    };
    let folders = match list(dir) {
        Ok(folders) => folders,
        Err(error) => {
            tell(dir, format!("{error}: `messaging.templates_dir` must name a directory that can be read"));
            return found;
        }
    };
    for folder in folders {
        let name = name_of(&folder);
        let plain = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) && name.len() <= 64;
        if !folder.is_dir() || !plain {
            tell(
                &folder,
                "is no folder of a template: name it in lower-case letters, digits and underscores".to_owned(),
            );
            continue;
        }
        for language in list(&folder).unwrap_or_default() {
            if !language.is_dir() {
                tell(&language, "is not read: put it into the folder of its language".to_owned());
                continue;
            }
            for file in list(&language).unwrap_or_default() {
                if name_of(&file) != FILE {
                    tell(&file, format!("is not read: the file is named {FILE}"));
                    continue;
                }
                if found.len() >= MOST_FILES {
                    tell(&file, format!("there are more than {MOST_FILES} templates"));
                    return found;
                }
                match read(&file) {
                    Ok(text) => found.push(Found {
                        shown: file.display().to_string(),
                        folder: name.clone(),
                        language: name_of(&language),
                        text,
                    }),
                    Err(what) => tell(&file, what),
                }
            }
        }
    }
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?;
    // A pipe would be waited for, and has no length.
    if !size.is_file() || size.len() > LONGEST_FILE {
        return Err(format!("is no file of at most {LONGEST_FILE} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

fn line_at(text: &str, place: usize) -> usize {
    text.get(..place).map_or(1, |before| before.matches('\n').count() + 1)
}

/// The line that declares the parameter which a fault names.
fn parameter_line(text: &str, at: &str, what: &str) -> Option<usize> {
    let name = what.split('`').nth(1).filter(|_| at == "parameters")?;
    let declared = format!("name = \"{name}\"");
    text.lines().position(|line| line.contains(&declared)).map(|place| place + 1)
}

/// The line on which a key is set.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let sets = |line: &str| {
        let line = line.trim_start().trim_start_matches('[');
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', ']']))
    };
    text.lines().position(sets).map(|place| place + 1)
}

/// `subject` or `body` of a mail, as it lies in `templates/messaging/<folder>/<language>/`.
#[cfg(test)]
pub(in crate::messaging) fn mail_part(folder: &str, language: Language, part: &str) -> Option<String> {
    let file = Words::get(&format!("{folder}/{}/{part}.txt.hbs", language.as_str()))?;
    String::from_utf8(file.data.into_owned()).ok()
}

static SHIPPED: LazyLock<Library> = LazyLock::new(|| Library::load(None).unwrap_or_default());
static INSTALLED: OnceLock<Library> = OnceLock::new();

/// Another library is already in use in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("other words are in use already: a process reads its templates once")]
pub struct InUse;

/// Puts a library in use for this process, once, at its start.
///
/// # Errors
/// [`InUse`] when another one is in use; the same again is nothing new.
pub fn install(library: &Library) -> Result<(), InUse> {
    let installed = INSTALLED.get_or_init(|| library.clone());
    if installed == library { Ok(()) } else { Err(InUse) }
}

/// The words in use: those that were installed, else the shipped ones.
pub fn library() -> &'static Library {
    INSTALLED.get().unwrap_or(&SHIPPED)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files, and what is wrong with them.
    fn with(files: &[(&str, &str)]) -> Result<Library, String> {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let root = format!("{}/", dir.path().display());
        Library::load(Some(dir.path()))
            .map_err(|problems| problems.0.iter().map(|one| one.to_string().replace(&root, "") + "\n").collect())
    }

    const FESTIVAL: &str = r#"
name = "festival_v1"
language = "en"
category = "MARKETING"
header = "image"
parameters = [
    { name = "customer_name", type = "person", example = "Asha" },
    { name = "coupon", type = "code", example = "DIWALI25" },
]
body = """
Dear {{customer_name}}, our festival week begins on Monday. Show this message at the counter and take a tenth off."""
footer = "Reply STOP to hear no more of this"
reviewed_by = "Sharma Mobiles"
reviewed_on = 2026-11-23

[[buttons]]
type = "copy_code"
parameter = "coupon"

[[buttons]]
type = "quick_reply"
text = "Stop"
payload = "OPTOUT:mk"
"#;

    #[test]
    fn the_shipped_words_have_no_fault_and_speak_english_and_hindi() {
        let library = Library::load(None).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(library.iter().count() > 10);
        for (folder, languages) in &library.entries {
            for language in [Language::En, Language::Hi] {
                assert!(languages.contains_key(&language), "{folder} does not speak {}", language.english_name());
            }
        }
        assert_eq!(library.events.len(), 2);
    }

    #[test]
    fn an_installation_adds_templates_and_languages_of_its_own() {
        let invoice =
            shipped(&mut Vec::new()).into_iter().find(|one| one.shown.contains("tax_invoice/en")).expect("shipped");
        let tamil = invoice.text.replace("language = \"en\"", "language = \"ta\"");
        let library =
            with(&[("festival/en/whatsapp.toml", FESTIVAL), ("tax_invoice/ta/whatsapp.toml", &tamil)]).expect("good");
        assert!(library.exact("festival", Language::En).is_some_and(|entry| entry.own));
        assert_eq!(library.find("tax_invoice", Language::Ta).expect("Tamil").language, "ta");
        assert_eq!(library.find("tax_invoice", Language::Te).expect("a fallback").language, "en");
        assert_eq!(library.find("tax_invoice", Language::Mr).expect("a fallback").language, "hi");
        assert_eq!(library.find("festival", Language::Hi).expect("a fallback").language, "en");
    }

    #[test]
    fn a_shipped_template_is_replaced_only_by_one_that_says_so() {
        let invoice =
            shipped(&mut Vec::new()).into_iter().find(|one| one.shown.contains("tax_invoice/en")).expect("shipped");
        let own = invoice.text.replace("tax_invoice_v1", "our_invoice_v1");
        let silent = with(&[("tax_invoice/en/whatsapp.toml", &own)]).expect_err("silent");
        assert!(silent.contains("replaces = \"tax_invoice_v1\""), "{silent}");
        let said = own.replace("reviewed_by", "replaces = \"tax_invoice_v1\"\nreviewed_by");
        let library = with(&[("tax_invoice/en/whatsapp.toml", &said)]).expect("said");
        assert_eq!(library.find("tax_invoice", Language::En).expect("ours").name, "our_invoice_v1");
        let nothing = FESTIVAL.replace("reviewed_by", "replaces = \"festival_v0\"\nreviewed_by");
        assert!(with(&[("festival/en/whatsapp.toml", &nothing)]).is_err());
        let taken = FESTIVAL.replace("festival_v1", "tax_invoice_v1");
        assert!(with(&[("festival/en/whatsapp.toml", &taken)]).expect_err("taken").contains("tax_invoice"));
    }

    #[test]
    fn what_is_wrong_is_told_by_file_and_line() {
        let changed = |from: &str, to: &str| {
            assert!(FESTIVAL.contains(from), "{from}");
            FESTIVAL.replace(from, to)
        };
        let long = "x".repeat(61);
        let faults: Vec<(String, String)> = [
            ("name = \"festival_v1\"", "name = \"Festival\"".to_owned()),
            ("language = \"en\"", "language = \"ta\"".to_owned()),
            ("header = \"image\"", "header = { text = \"*Hello* {{customer_name}}\" }".to_owned()),
            ("header = \"image\"", "header = \"video\"".to_owned()),
            ("Dear {{customer_name}},", "{{customer_name}}".to_owned()),
            ("Dear {{customer_name}},", "Dear {{customer_name}} {{customer_name}},".to_owned()),
            ("Dear {{customer_name}},", "Dear {{stranger}},".to_owned()),
            ("the counter", "the counter {{".to_owned()),
            ("example = \"DIWALI25\"", "example = \"DIWALI 25\"".to_owned()),
            ("footer = \"Reply STOP to hear no more of this\"", format!("footer = \"{long}\"")),
            ("reviewed_by = \"Sharma Mobiles\"", "reviewed_by = \"\"".to_owned()),
            ("reviewed_on = 2026-11-23", "reviewed_on = 2026-11-23\nttl_secs = 60".to_owned()),
            ("reviewed_on = 2026-11-23", "reviewed_on = 2026-11-23\nclass = \"statutory\"".to_owned()),
            ("reviewed_on = 2026-11-23", "reviewed_on = 2026-11-23\ncolour = \"red\"".to_owned()),
            ("text = \"Stop\"", format!("text = \"{long}\"")),
            ("payload = \"OPTOUT:mk\"", "payload = \"\"".to_owned()),
            (
                "type = \"quick_reply\"\ntext = \"Stop\"\npayload = \"OPTOUT:mk\"",
                "type = \"url\"\ntext = \"Open\"\nurl = \"http://shop.example\"".to_owned(),
            ),
            (
                "type = \"quick_reply\"\ntext = \"Stop\"\npayload = \"OPTOUT:mk\"",
                "type = \"phone\"\ntext = \"Call\"\nphone = \"98765\"".to_owned(),
            ),
        ]
        .iter()
        .map(|(from, to)| (to.clone(), changed(from, to)))
        .collect();
        let mut told = String::new();
        for (fault, text) in &faults {
            let problems = with(&[("festival/en/whatsapp.toml", text)]).expect_err(fault);
            told += &format!("{}\n  {}\n", fault.replace('\n', " / "), problems.trim_end().replace('\n', "\n  "));
        }
        insta::assert_snapshot!("faults_by_file_and_line", told);
    }

    #[test]
    fn atk_029_words_that_want_more_than_their_parameters_are_refused_where_they_are_read() {
        for words in [
            "{{{customer_name}}}",
            "{{&customer_name}}",
            "{{> layout}}",
            "{{#if coupon}}x{{/if}}",
            "{{lookup . \"secret\"}}",
            "{{log coupon}}",
            "{{customer_name.constructor}}",
            "{{../coupon}}",
            "{{nobody_gave_this}}",
        ] {
            let text = FESTIVAL.replace("Show this message", &format!("Show {words} this message"));
            assert!(with(&[("festival/en/whatsapp.toml", &text)]).is_err(), "{words}");
        }
    }

    #[test]
    fn atk_030_words_cannot_repeat_themselves_into_a_flood() {
        let nested = "{{#each coupon}}{{#each coupon}}{{#each coupon}}x{{/each}}{{/each}}{{/each}}";
        let text = FESTIVAL.replace("Show this message", &format!("Show {nested} this message"));
        let told = with(&[("festival/en/whatsapp.toml", &text)]).expect_err("no loops");
        assert!(told.contains("festival/en/whatsapp.toml"), "{told}");
        let long = FESTIVAL.replace("Show this message", &"Show this message ".repeat(100));
        assert!(with(&[("festival/en/whatsapp.toml", &long)]).is_err(), "no longer than the carrier takes");
    }

    #[test]
    fn what_is_not_read_is_told_and_hidden_files_are_left_alone() {
        let told = with(&[
            (".git/config", "x"),
            ("festival/en/whatsap.toml", FESTIVAL),
            ("festival/xx/whatsapp.toml", FESTIVAL),
            ("festival/or/whatsapp.toml", FESTIVAL),
            ("Bad-Name/en/whatsapp.toml", FESTIVAL),
            ("festival/notes.txt", "x"),
        ])
        .expect_err("faults");
        insta::assert_snapshot!("files_that_are_not_read", told);
        let gone = Library::load(Some(Path::new("/nowhere/templates"))).expect_err("no directory");
        assert!(gone.to_string().contains("messaging.templates_dir"), "{gone}");
    }

    #[test]
    fn languages_of_one_template_agree_on_what_they_are_given() {
        let hindi =
            FESTIVAL.replace("language = \"en\"", "language = \"hi\"").replace("type = \"person\"", "type = \"text\"");
        let told = with(&[("festival/en/whatsapp.toml", FESTIVAL), ("festival/hi/whatsapp.toml", &hindi)])
            .expect_err("differ");
        assert_eq!(told, "festival/hi: parameters: must be as in en\n");
        let tamil = FESTIVAL.replace("language = \"en\"", "language = \"ta\"");
        let told = with(&[("festival/ta/whatsapp.toml", &tamil)]).expect_err("nobody falls back on Tamil");
        assert!(told.contains("needs words in en or hi"), "{told}");
    }

    #[test]
    fn a_process_reads_its_words_once() {
        let shipped = Library::load(None).expect("shipped");
        assert_eq!(install(&shipped), Ok(()));
        assert_eq!(install(&shipped), Ok(()));
        assert_eq!(install(&with(&[("festival/en/whatsapp.toml", FESTIVAL)]).expect("good")), Err(InUse));
        assert!(library().find("tax_invoice", Language::En).is_some());
    }
}
