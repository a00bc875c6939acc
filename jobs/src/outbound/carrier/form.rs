//! Templates as they are submitted to the carrier, and as they come back.

/// A template's words and parts, in the carrier's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateForm {
    /// Lower-case letters, digits, underscores.
    pub name: String,
    /// The carrier's code.
    pub language: String,
    /// `UTILITY`, `AUTHENTICATION`, `MARKETING`, or what nobody knows yet.
    pub category: String,
    /// Whether its parameters have names (`parameter_format`).
    pub named: bool,
    /// What stands at its head.
    pub header: HeaderForm,
    /// The words; empty where they are the carrier's own.
    pub body: String,
    /// An example for each parameter of header and body. What comes back has none.
    pub examples: Vec<(String, String)>,
    /// The small line below.
    pub footer: Option<String>,
    /// What can be tapped, in order.
    pub buttons: Vec<ButtonForm>,
    /// Of an authentication template: what there is instead of words and buttons.
    pub code: Option<CodeForm>,
    /// `message_send_ttl_seconds`
    pub ttl_secs: Option<i64>,
}

/// What stands at the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderForm {
    /// Nothing.
    None,
    /// A line, perhaps with a parameter.
    Text(String),
    /// A PDF.
    Document,
    /// A picture.
    Image,
    /// Something that we never submit.
    Other(String),
}

/// What can be tapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ButtonForm {
    /// Answers.
    QuickReply {
        /// The words on it.
        text: String,
    },
    /// Opens a page.
    Url {
        /// The words on it.
        text: String,
        /// Its variable, if it has one, is `{{1}}` at the end.
        url: String,
        /// A whole address, where it has a variable. What comes back has none.
        example: Option<String>,
    },
    /// Copies a code.
    CopyCode {
        /// One that could be. What comes back has none.
        example: String,
    },
    /// Calls.
    Phone {
        /// The words on it.
        text: String,
        /// In E.164.
        number: String,
    },
    /// Something that we never submit.
    Other {
        /// The carrier's word.
        kind: String,
        /// The words on it.
        text: String,
    },
}

/// The switches of an authentication template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeForm {
    /// Says not to share the code (`add_security_recommendation`); nothing where what came back does not tell.
    pub warns: Option<bool>,
    /// Says for how many minutes it works (`code_expiration_minutes`).
    pub minutes: Option<u8>,
}

/// A template as the carrier has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteTemplate {
    /// The carrier's id.
    pub id: String,
    /// `APPROVED`, `PENDING`, `REJECTED`, `PAUSED` … as the carrier writes it.
    pub status: String,
    /// `GREEN`, `YELLOW`, `RED`, `UNKNOWN`.
    pub quality: Option<String>,
    /// The category that the carrier finds right and will put it in.
    pub correct_category: Option<String>,
    /// Why it was rejected.
    pub rejected_reason: Option<String>,
    /// Its parts.
    pub form: TemplateForm,
}

/// What the carrier answers to a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its id.
    pub id: String,
    /// Usually `PENDING`.
    pub status: String,
    /// Its category: not always the one that was asked for.
    pub category: String,
}

/// The carrier's handle of a sample file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleHandle(pub String);
