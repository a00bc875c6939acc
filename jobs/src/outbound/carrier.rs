//! The carrier of WhatsApp messages: Meta's Cloud API, as far as the duties need it.
//!
//! It has no idempotency key, and its 200 means *accepted*, not *delivered*. So an answer is one of four things that
//! must never be mixed up ([`SendOutcome`]): accepted, refused, provably not sent, and *unknown*, after which the
//! message may or may not be on its way and only a status webhook can tell.

mod code;
mod form;
mod phone;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::SecretString;

pub use code::{CODES, Class, CodeRow, Scope, Via, class_of, meaning_of};
pub use form::{ButtonForm, CodeForm, HeaderForm, RemoteTemplate, SampleHandle, Submitted, TemplateForm};
pub use phone::{Phone, PhoneError};

/// Sends on behalf of one of a business's WhatsApp numbers.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Hands over a file and returns the id by which messages of this number may name it for thirty days.
    /// Repeating it does no harm: the carrier then holds the file twice.
    ///
    /// # Errors
    /// [`UploadError`]; nobody has seen anything of it.
    async fn upload_media(&self, from: &Sender, media: &Media) -> Result<MediaId, UploadError>;

    /// Posts one message, once: whoever implements this never repeats a POST by itself.
    async fn send(&self, from: &Sender, message: &OutgoingMessage) -> SendOutcome;

    /// What the carrier says of the number.
    ///
    /// # Errors
    /// [`LookUpError`]
    async fn look_up_number(&self, _of: &Sender) -> Result<NumberFacts, LookUpError> {
        Err(LookUpError::Failed(Failure::new("nobody to ask")))
    }

    /// What the carrier says of the account that the number belongs to.
    ///
    /// # Errors
    /// [`LookUpError`]
    async fn look_up_account(&self, _of: &Sender, _waba_id: &str) -> Result<AccountFacts, LookUpError> {
        Err(LookUpError::Failed(Failure::new("nobody to ask")))
    }

    /// Every template of an account, all pages.
    ///
    /// # Errors
    /// [`LookUpError`]
    async fn list_templates(&self, _of: &Sender, _waba_id: &str) -> Result<Vec<RemoteTemplate>, LookUpError> {
        Err(LookUpError::Failed(Failure::new("nobody to ask")))
    }

    /// Hands over a file that shows the carrier's reviewers what stands at a template's head.
    ///
    /// # Errors
    /// [`LookUpError`]; repeating it does no harm.
    async fn upload_sample(&self, _of: &Sender, _sample: &Media) -> Result<SampleHandle, LookUpError> {
        Err(LookUpError::Failed(Failure::new("nobody to ask")))
    }

    /// Submits a new template. The carrier refuses a name and language that it has already, so that one that was asked
    /// for twice is there once.
    ///
    /// # Errors
    /// [`LookUpError`]; where it failed, the template may be there all the same.
    async fn create_template(
        &self,
        _of: &Sender,
        _waba_id: &str,
        _form: &TemplateForm,
        _sample: Option<&SampleHandle>,
    ) -> Result<Submitted, LookUpError> {
        Err(LookUpError::Failed(Failure::new("nobody to ask")))
    }

    /// Puts other words and parts into a template that the carrier has. The category of an approved one stays.
    ///
    /// # Errors
    /// [`LookUpError`]; where it failed, it may be changed all the same.
    async fn edit_template(
        &self,
        _of: &Sender,
        _known: &RemoteTemplate,
        _form: &TemplateForm,
        _sample: Option<&SampleHandle>,
    ) -> Result<(), LookUpError> {
        Err(LookUpError::Failed(Failure::new("nobody to ask")))
    }
}

/// A number as the carrier knows it, in its own words; each part may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NumberFacts {
    /// `GREEN`, `YELLOW`, `RED`, `UNKNOWN`.
    pub quality: Option<String>,
    /// `CONNECTED`, `FLAGGED`, `BANNED` …
    pub status: Option<String>,
    /// The name that customers see.
    pub verified_name: Option<String>,
    /// `STANDARD` or `HIGH`.
    pub throughput: Option<String>,
    /// `TIER_2K`, or a number.
    pub messaging_limit: Option<serde_json::Value>,
}

/// An account as the carrier knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountFacts {
    /// In which it is billed: `INR`.
    pub currency: Option<String>,
    /// Where the business is, two letters.
    pub country: Option<String>,
}

/// The carrier could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// It said no.
    #[error("the carrier refused: code {} ({})", .0.code, .0.details)]
    Refused(Refusal),
    /// No answer to go by.
    #[error("the carrier did not answer: {}", .0.what)]
    Failed(Failure),
}

/// Whose message it is on the carrier's side: the number it comes from, and the app that may send from it.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The number.
    pub number: NumberId,
    /// The business's own app; none: the installation's.
    pub app: Option<Arc<AppAccess>>,
}

/// What an app shows when it calls.
#[derive(Clone, Debug)]
pub struct AppAccess {
    /// `v25.0`; none: the installation's.
    pub api_version: Option<String>,
    /// Bearer token of its system user.
    pub access_token: SecretString,
    /// Its secret, which proves the token's possession where the app asks for it.
    pub app_secret: Option<SecretString>,
}

/// The carrier's id of a business's number (`phone_number_id`). It does not spell the number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct NumberId(String);

impl NumberId {
    /// The id as the carrier gave it.
    ///
    /// # Errors
    /// When it is not 1 to 32 digits: it becomes part of a URL.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a phone number id is 1 to 32 digits: copy it from WhatsApp Manager, API setup")
        }
    }

    /// The id in digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file to hand over.
#[derive(Clone)]
pub struct Media {
    /// The bytes.
    pub content: Bytes,
    /// MIME type; the carrier refuses `application/octet-stream` (Cloud API error 100).
    pub mime_type: &'static str,
    /// Name of the part; what the recipient sees is named in the message.
    pub filename: String,
}

/// The carrier's id of an uploaded file; valid for thirty days and for the number that uploaded it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct MediaId(pub String);

/// The carrier's id of a message. It spells the recipient's number inside, so it is personal data.
#[derive(Clone, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Wamid(String);

impl Wamid {
    /// The id as received. Empty ones are no id.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= 512 && !text.contains('\0')).then(|| Self(text.to_owned()))
    }

    /// The id, for the database and the carrier.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Wamid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wamid(…)")
    }
}

/// One message as it goes over the wire.
#[derive(Clone)]
pub struct OutgoingMessage {
    /// The recipient.
    pub to: Phone,
    /// Echoed in each status webhook (`biz_opaque_callback_data`, at most 512 characters). Every app subscribed to
    /// the account sees it, so it holds nothing about anybody.
    pub reference: String,
    /// What it says.
    pub body: OutgoingBody,
}

/// What a message says: an approved template, or words of one's own within 24 hours of her last ones.
#[derive(Clone)]
pub enum OutgoingBody {
    /// An approved template, filled.
    Template(FilledTemplate),
    /// Words.
    Text(String),
    /// A file.
    Document {
        /// The uploaded file, and the name that the recipient sees.
        file: DocumentHeader,
        /// What stands beneath it.
        caption: Option<String>,
    },
    /// A picture.
    Image {
        /// The uploaded picture.
        media: MediaId,
        /// What stands beneath it.
        caption: Option<String>,
    },
    /// Words with something to tap.
    Interactive {
        /// The words.
        body: String,
        /// The small line beneath them.
        footer: Option<String>,
        /// What is tapped.
        action: InteractiveAction,
    },
}

/// What is tapped in an interactive message (Cloud API, interactive messages).
#[derive(Clone)]
pub enum InteractiveAction {
    /// Up to three reply buttons: id and title.
    Buttons(Vec<(String, String)>),
    /// A list behind one button: its label, and up to ten rows of id, title and description.
    List {
        /// On the button that opens it.
        label: String,
        /// Id, title, description.
        rows: Vec<(String, String, Option<String>)>,
    },
    /// A page.
    Link {
        /// On the button.
        label: String,
        /// Where it leads.
        url: String,
    },
}

/// An approved template with the values of one message.
#[derive(Clone)]
pub struct FilledTemplate {
    /// The name it was approved under.
    pub name: String,
    /// The carrier's language code: `en`, `hi`.
    pub language: String,
    /// What the header is filled with, if it takes something.
    pub header: Option<FilledHeader>,
    /// Values of the named body parameters.
    pub body: Vec<(String, String)>,
    /// The code of an authentication template: its only parameter, which has no name, and what its button copies.
    pub code: Option<String>,
    /// What its buttons are filled with, those that take something.
    pub buttons: Vec<FilledButton>,
}

/// What a header is filled with.
#[derive(Clone)]
pub enum FilledHeader {
    /// A PDF.
    Document(DocumentHeader),
    /// A picture.
    Image(MediaId),
    /// The parameter of its line.
    Text {
        /// Its name.
        name: String,
        /// Its value.
        text: String,
    },
}

/// What a button is filled with; `index` is its place in the template, from 0.
#[derive(Clone)]
pub enum FilledButton {
    /// What comes back when it is tapped.
    QuickReply {
        /// Its place.
        index: usize,
        /// At most 256 characters.
        payload: String,
    },
    /// The end of the address.
    Url {
        /// Its place.
        index: usize,
        /// What stands in the place of the variable.
        suffix: String,
    },
    /// The code that is copied.
    CopyCode {
        /// Its place.
        index: usize,
        /// At most 15 letters and digits.
        code: String,
    },
}

/// A file at the head of a message.
#[derive(Clone)]
pub struct DocumentHeader {
    /// The uploaded file.
    pub media: MediaId,
    /// The name that the recipient sees.
    pub filename: String,
}

/// What came of one POST.
#[derive(Debug)]
pub enum SendOutcome {
    /// The carrier has it and will report by webhook.
    Accepted(Accepted),
    /// The carrier said no: nothing was sent.
    Refused(Refusal),
    /// Provably not a byte of it left this machine (name lookup, connect, TLS).
    NotSent(Failure),
    /// It may have been accepted: time-out, reset, 5xx, unreadable body, a 200 without an id, or one of the codes that
    /// the carrier uses for "something broke" (Cloud API errors 1, 2, 506, 131000, 131016).
    Unknown(Failure),
}

/// The carrier's receipt.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its id of the message.
    pub wamid: Wamid,
    /// It holds the message back for now (`held_for_quality_assessment` or `paused`: template pacing).
    pub held: bool,
    /// The carrier's trace id, if it gave one.
    pub trace: Option<String>,
}

/// A definite no.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The carrier's error code.
    pub code: i64,
    /// Its subcode, where given.
    pub subcode: Option<i64>,
    /// Its explanation, long digit runs removed.
    pub details: String,
    /// HTTP status; for information only, codes decide.
    pub http_status: u16,
    /// The carrier's trace id; its support asks for it.
    pub trace: Option<String>,
    /// What to do about it.
    pub class: Class,
    /// How long the carrier wants to be left alone, if it says so.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer to go by.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What happened, free of personal data: `time-out after 30 s`.
    pub what: String,
    /// HTTP status, if one came.
    pub http_status: Option<u16>,
    /// The carrier's error code, if one came.
    pub code: Option<i64>,
    /// The carrier's trace id, if one came.
    pub trace: Option<String>,
}

impl Failure {
    /// A failure without an answer.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), http_status: None, code: None, trace: None }
    }
}

/// An upload that did not give a media id.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The carrier said no.
    #[error("the carrier refused the file: code {} ({})", .0.code, .0.details)]
    Refused(Refusal),
    /// No answer to go by. Uploading again is harmless.
    #[error("the file did not reach the carrier: {}", .0.what)]
    Failed(Failure),
}

/// Removes digit runs long enough to be a phone number from a text that the carrier wrote.
pub fn without_numbers(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut digits = String::new();
    for character in text.chars().filter(|&character| character != '\0').chain(['\0']) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        cleaned.push_str(if digits.len() >= 8 { "…" } else { &digits });
        digits.clear();
        if character != '\0' {
            cleaned.push(character);
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wamid_never_shows_itself() {
        let wamid = Wamid::new("wamid.HBgMOTE5ODEyMzQ1Njc4").expect("not empty");
        assert_eq!(format!("{wamid:?}"), "Wamid(…)");
        assert!(Wamid::new("").is_none());
    }

    #[test]
    fn a_number_id_cannot_leave_its_place_in_the_url() {
        assert!(NumberId::parse("106540352242922").is_ok());
        for bad in ["", "../12", "12/34", "12?x", "१२"] {
            assert!(NumberId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_in_the_carriers_words_are_removed_and_codes_stay() {
        assert_eq!(without_numbers("(#131026) to +919812345678 failed, 24 h"), "(#131026) to +… failed, 24 h");
        assert_eq!(without_numbers("919812345678"), "…");
    }
}
