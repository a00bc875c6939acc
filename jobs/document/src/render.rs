use chrono::{Datelike, NaiveDate};
use typst::{
    Library, LibraryExt, World,
    diag::{FileError, FileResult, SourceDiagnostic},
    ecow::EcoVec,
    foundations::{Bytes, Datetime, Dict, Duration, IntoValue, Smart},
    syntax::{FileId, Source},
    text::{Font, FontBook},
    utils::LazyHash,
};
use typst_layout::PagedDocument;
use typst_pdf::{PdfOptions, PdfStandard, PdfStandards, Timestamp};

use crate::fonts::FONTS;

/// Typst source compiled into the binary.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// Where it lies: `invoice/tax_invoice/en/document.typ`. Named in errors.
    pub name: &'static str,
    /// The source.
    pub source: &'static str,
}

/// What belongs to the file rather than to its words.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Identifies the document for ever, the same at every rendering.
    pub ident: &'a str,
    /// Day written into the file as its creation.
    pub dated: NaiveDate,
}

/// A document could not be made. Holds no data of the document: typst's messages quote the template.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data could not be written as JSON.
    #[error("template {template}: could not hand over its data")]
    Data {
        /// Which template.
        template: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The template does not compile with this data.
    #[error("template {template}: {message}")]
    Compile {
        /// Which template.
        template: &'static str,
        /// The first complaint, with its line.
        message: String,
    },
    /// The result breaks PDF/A or PDF/UA.
    #[error("template {template}: not archivable: {message}")]
    Export {
        /// Which template.
        template: &'static str,
        /// The first complaint, with its line.
        message: String,
    },
}

/// Renders one document.
///
/// The template reads `json(bytes(sys.inputs.data))`. It takes some 15 ms of CPU in a release build: call it on a
/// thread that may block.
///
/// # Errors
/// [`Error`]; the same input fails the same way every time.
pub fn render(template: Template, data: &serde_json::Value, options: Options<'_>) -> Result<Vec<u8>, Error> {
    let data = serde_json::to_string(data).map_err(|source| Error::Data { template: template.name, source })?;
    let world = Paper::new(template, &data);
    let result = compile(&world, template, options);
    // Keeps what documents share, such as shaped labels, and forgets what only one held.
    comemo::evict(5);
    result
}

fn compile(world: &Paper, template: Template, options: Options<'_>) -> Result<Vec<u8>, Error> {
    let document: PagedDocument = typst::compile(world)
        .output
        .map_err(|errors| Error::Compile { template: template.name, message: first_message(world, &errors) })?;
    let refused = |message| Error::Export { template: template.name, message };
    let standards = PdfStandards::new(&[PdfStandard::A_3a, PdfStandard::Ua_1])
        .map_err(|error| refused(error.message().to_string()))?;
    let options = PdfOptions {
        ident: Smart::Custom(options.ident.to_owned()),
        creator: Smart::Custom(Some("muneem".to_owned())),
        timestamp: midnight_in_india(options.dated),
        standards,
        ..PdfOptions::default()
    };
    typst_pdf::pdf(&document, &options).map_err(|errors| refused(first_message(world, &errors)))
}

fn midnight_in_india(day: NaiveDate) -> Option<Timestamp> {
    const INDIA_AHEAD_OF_UTC_MINUTES: i32 = 330;

    let (month, date) = (u8::try_from(day.month()).ok()?, u8::try_from(day.day()).ok()?);
    Timestamp::new_local(Datetime::from_ymd_hms(day.year(), month, date, 0, 0, 0)?, INDIA_AHEAD_OF_UTC_MINUTES)
}

fn first_message(world: &Paper, errors: &EcoVec<SourceDiagnostic>) -> String {
    let Some(error) = errors.first() else { return "failed without a message".to_owned() };
    let range = typst::WorldExt::range(world, error.span);
    let message = without_quotations(&error.message);
    match range.and_then(|range| world.source.lines().byte_to_line(range.start)) {
        Some(line) => format!("line {}: {message}", line + 1),
        None => message,
    }
}

/// typst quotes the text it could not set, which may be somebody's name.
fn without_quotations(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut inside = false;
    for sign in message.chars() {
        match (matches!(sign, '"' | '`'), inside) {
            (true, false) => out.push('…'),
            (false, false) => out.push(sign),
            _ => {}
        }
        inside ^= matches!(sign, '"' | '`');
    }
    out
}

/// All that a template can see.
struct Paper {
    library: LazyHash<Library>,
    source: Source,
}

impl Paper {
    fn new(template: Template, data: &str) -> Self {
        let mut inputs = Dict::new();
        inputs.insert("data".into(), data.into_value());
        Self {
            library: LazyHash::new(Library::builder().with_inputs(inputs).build()),
            source: Source::detached(template.source),
        }
    }
}

impl World for Paper {
    fn library(&self) -> &LazyHash<Library> {
        &self.library
    }

    fn book(&self) -> &LazyHash<FontBook> {
        &FONTS.book
    }

    fn main(&self) -> FileId {
        self.source.id()
    }

    fn source(&self, id: FileId) -> FileResult<Source> {
        if id == self.source.id() { Ok(self.source.clone()) } else { Err(FileError::AccessDenied) }
    }

    fn file(&self, _: FileId) -> FileResult<Bytes> {
        Err(FileError::AccessDenied)
    }

    fn font(&self, index: usize) -> Option<Font> {
        FONTS.fonts.get(index).cloned()
    }

    fn today(&self, _: Option<Duration>) -> Option<Datetime> {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render_source(source: &'static str, data: &serde_json::Value) -> Result<usize, Error> {
        let dated = NaiveDate::from_ymd_opt(2026, 11, 23).expect("a day");
        render(Template { name: "test", source }, data, Options { ident: "test", dated }).map(|pdf| pdf.len())
    }

    const HEAD: &str = "#set document(title: \"t\")\n#let data = json(bytes(sys.inputs.data))\n";

    #[test]
    fn templates_reach_no_file_no_package_and_no_clock() {
        for (source, expected) in [
            ("#read(\"/etc/passwd\")", "access denied"),
            ("#import \"@preview/cetz:0.3.0\"", "access denied"),
            ("#image(\"logo.png\")", "access denied"),
            ("#datetime.today()", "date"),
        ] {
            let error = render_source(source, &json!({})).expect_err("refused").to_string();
            assert!(error.contains(expected) && error.contains("line 1"), "{error}");
        }
    }

    #[test]
    fn errors_do_not_repeat_what_they_were_given() {
        let source: &'static str = Box::leak(format!("{HEAD}#int(data.name)").into_boxed_str());
        let error = render_source(source, &json!({ "name": "Asha Verma" })).expect_err("no number").to_string();
        assert!(!error.contains("Asha"), "{error}");
    }
}
