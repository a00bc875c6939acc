use std::ops::RangeInclusive;

/// What to do about an error code of the carrier.
///
/// Waits are seconds; the n-th refusal of the same kind waits the n-th of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Never for this message.
    Permanent,
    /// The same message again after these waits; then it has failed.
    Retry(&'static [u32]),
    /// Nothing more from this scope until a person or the carrier ends it. The message waits, the last wait repeating,
    /// until its own deadline; attempts are not burnt.
    Hold(Scope, &'static [u32]),
    /// Not to this person on this channel.
    Recipient(Scope),
    /// The carrier may have sent it. Reconcile first; only then are the waits those of a retry.
    Ambiguous(&'static [u32]),
}

/// What a hold or a suppression covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The app that owns the token.
    App,
    /// The access token and its permissions.
    Credential,
    /// The WhatsApp Business Account.
    Account,
    /// The sending number.
    Number,
    /// One template in one language.
    Template,
    /// The recipient, on WhatsApp.
    Channel,
    /// The recipient, for marketing.
    Marketing,
    /// The recipient, until her identity is verified again.
    Identity,
    /// All recipients of a country.
    Country,
}

impl Scope {
    /// The name used in the database, HTTP and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Credential => "credential",
            Self::Account => "account",
            Self::Number => "number",
            Self::Template => "template",
            Self::Channel => "channel",
            Self::Marketing => "marketing",
            Self::Identity => "identity",
            Self::Country => "country",
        }
    }
}

/// Where a code was met: the same code can mean "maybe sent" in one place and "surely not" in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// In the answer to our POST.
    Response,
    /// In a `failed` status webhook: the message is finally not delivered, so another attempt is safe.
    Status,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct CodeRow {
    first: i64,
    last: i64,
    /// What it means, for the operator.
    pub meaning: &'static str,
    response: Class,
    status: Class,
}

impl CodeRow {
    /// The codes it covers.
    pub fn codes(&self) -> RangeInclusive<i64> {
        self.first..=self.last
    }

    /// What to do, depending on where the code was met.
    pub fn class(&self, via: Via) -> Class {
        match via {
            Via::Response => self.response,
            Via::Status => self.status,
        }
    }
}

const MINUTE: u32 = 60;
const HOUR: u32 = 60 * MINUTE;

/// A hold that a person ends: looked at again every few minutes at first, then hourly.
const BY_HAND: &[u32] = &[5 * MINUTE, 15 * MINUTE, HOUR];
/// A call limit that refills within the hour.
const REFILL: &[u32] = &[5 * MINUTE, 10 * MINUTE, 20 * MINUTE, HOUR];
/// What the carrier itself calls temporary, and any code that nobody knows with a hint of "later".
const LATER: &[u32] = &[MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE, 15 * MINUTE];

const fn row(code: i64, meaning: &'static str, class: Class) -> CodeRow {
    CodeRow { first: code, last: code, meaning, response: class, status: class }
}

const fn rows(first: i64, last: i64, meaning: &'static str, class: Class) -> CodeRow {
    CodeRow { first, last, meaning, response: class, status: class }
}

const fn ambiguous(code: i64, meaning: &'static str, then: &'static [u32], status: Class) -> CodeRow {
    CodeRow { first: code, last: code, meaning, response: Class::Ambiguous(then), status }
}

use Class::{Hold, Permanent, Recipient, Retry};

/// Every error code that the Cloud API documents for sending, and what it means for a message. More specific rows
/// stand before ranges.
pub static CODES: &[CodeRow] = &[
    // Authentication, permissions, call limits, integrity.
    row(0, "Cloud API error 0: the app user cannot be authenticated", Hold(Scope::Credential, BY_HAND)),
    row(3, "Cloud API error 3: a capability or permission is missing", Hold(Scope::Credential, BY_HAND)),
    row(10, "Cloud API error 10: a permission is absent or was removed", Hold(Scope::Credential, BY_HAND)),
    row(102, "Cloud API error 102: the session is invalid", Hold(Scope::Credential, BY_HAND)),
    row(104, "Cloud API error 104: the token or its proof is missing or wrong", Hold(Scope::Credential, BY_HAND)),
    row(190, "Cloud API error 190: the access token expired or was revoked", Hold(Scope::Credential, BY_HAND)),
    rows(
        200,
        299,
        "Cloud API error 200-299: no token, or a permission was not granted",
        Hold(Scope::Credential, BY_HAND),
    ),
    row(4, "Cloud API error 4: the app's call limit is used up", Hold(Scope::App, REFILL)),
    row(17, "Cloud API error 17: the user's call limit is used up", Retry(REFILL)),
    row(32, "Cloud API error 32: the page's call limit is used up", Retry(REFILL)),
    row(613, "Cloud API error 613: a custom call limit is used up", Retry(REFILL)),
    row(80007, "Cloud API error 80007: the account's call limit is used up", Hold(Scope::Account, REFILL)),
    row(80008, "Cloud API error 80008: the account's management call limit is used up", Hold(Scope::Account, REFILL)),
    row(
        130429,
        "Cloud API error 130429: the number's throughput is exceeded",
        Retry(&[1, 2, 4, 8, 16, 32, 60, 60, 60, 60]),
    ),
    row(
        131048,
        "Cloud API error 131048: too many people blocked or reported this number",
        Hold(Scope::Number, &[HOUR]),
    ),
    row(
        131056,
        "Cloud API error 131056: too many messages from this number to this recipient",
        Retry(&[1, 4, 16, 64, 256]),
    ),
    row(
        131064,
        "Cloud API error 131064: the account is limited for mis-categorised templates",
        Hold(Scope::Account, BY_HAND),
    ),
    row(133016, "Cloud API error 133016: too many registrations of this number", Hold(Scope::Number, &[72 * HOUR])),
    row(368, "Cloud API error 368: the account is restricted for a policy violation", Hold(Scope::Account, BY_HAND)),
    row(130497, "Cloud API error 130497: the account may not message this country", Recipient(Scope::Country)),
    row(131031, "Cloud API error 131031: the account is locked", Hold(Scope::Account, BY_HAND)),
    // Request, recipient, account.
    ambiguous(
        1,
        "Cloud API error 1: unknown, a bad request or a fault at the carrier",
        &[30, 2 * MINUTE, 10 * MINUTE],
        Retry(&[30, 2 * MINUTE, 10 * MINUTE]),
    ),
    ambiguous(
        2,
        "Cloud API error 2: the service is down or overloaded",
        &[15, MINUTE, 5 * MINUTE, 15 * MINUTE],
        Retry(&[15, MINUTE, 5 * MINUTE, 15 * MINUTE]),
    ),
    row(33, "Cloud API error 33: the sending number was deleted", Hold(Scope::Number, BY_HAND)),
    row(100, "Cloud API error 100: a parameter is unknown, misspelt or too long, or the id is not ours", Permanent),
    ambiguous(
        506,
        "Cloud API error 506: duplicate post, so the first one may have been sent",
        &[30, 2 * MINUTE, 10 * MINUTE],
        Permanent,
    ),
    row(130403, "Cloud API error 130403: the business itself blocked this recipient", Recipient(Scope::Channel)),
    row(130472, "Cloud API error 130472: the recipient is part of an experiment of the carrier", Permanent),
    ambiguous(
        131000,
        "Cloud API error 131000: unknown failure at the carrier",
        &[30, 5 * MINUTE, 30 * MINUTE],
        Retry(&[5 * MINUTE, HOUR]),
    ),
    row(131005, "Cloud API error 131005: access denied", Hold(Scope::Credential, BY_HAND)),
    row(131008, "Cloud API error 131008: a required parameter is missing", Permanent),
    row(131009, "Cloud API error 131009: a parameter has an invalid value", Permanent),
    ambiguous(
        131016,
        "Cloud API error 131016: the service is temporarily unavailable",
        &[30, 2 * MINUTE, 15 * MINUTE],
        Retry(&[30, 2 * MINUTE, 15 * MINUTE]),
    ),
    row(131021, "Cloud API error 131021: sender and recipient are the same", Permanent),
    row(
        131026,
        "Cloud API error 131026: undeliverable, the recipient is not on WhatsApp or cannot receive this",
        Recipient(Scope::Channel),
    ),
    row(131030, "Cloud API error 131030: the recipient is not on the test number's list", Permanent),
    row(131037, "Cloud API error 131037: the number has no approved display name", Hold(Scope::Number, BY_HAND)),
    row(131042, "Cloud API error 131042: the account has a payment problem", Hold(Scope::Account, BY_HAND)),
    row(131043, "Cloud API error 131043: the message expired before delivery", Permanent),
    row(131045, "Cloud API error 131045: the number's registration is broken", Hold(Scope::Number, BY_HAND)),
    row(131047, "Cloud API error 131047: more than 24 hours since the recipient last wrote", Permanent),
    row(131049, "Cloud API error 131049: held back to spare the recipient", Permanent),
    row(
        131050,
        "Cloud API error 131050: the recipient stopped marketing from this business",
        Recipient(Scope::Marketing),
    ),
    row(131051, "Cloud API error 131051: the message type is not supported", Permanent),
    row(131052, "Cloud API error 131052: media that the recipient sent could not be fetched", Permanent),
    CodeRow {
        first: 131053,
        last: 131053,
        meaning: "Cloud API error 131053: our media could not be fetched or processed",
        response: Permanent,
        status: Retry(&[MINUTE]),
    },
    row(131055, "Cloud API error 131055: only marketing templates are allowed here", Permanent),
    row(131057, "Cloud API error 131057: the account is in maintenance", Retry(&[MINUTE, 2 * MINUTE, 5 * MINUTE])),
    row(131062, "Cloud API error 131062: a business-scoped user id is not allowed for this message", Permanent),
    row(
        131063,
        "Cloud API error 131063: marketing templates are switched off for this account",
        Hold(Scope::Template, BY_HAND),
    ),
    row(134011, "Cloud API error 134011: the terms of WhatsApp Payments are not accepted", Permanent),
    row(135000, "Cloud API error 135000: unknown error with these parameters", Retry(&[MINUTE])),
    row(137000, "Cloud API error 137000: the recipient's identity key has changed", Recipient(Scope::Identity)),
    // Templates.
    row(132000, "Cloud API error 132000: the template takes another number of parameters", Permanent),
    row(
        132001,
        "Cloud API error 132001: the template does not exist in this language or is not approved",
        Hold(Scope::Template, &[MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR]),
    ),
    row(132005, "Cloud API error 132005: the filled template is too long", Permanent),
    row(132007, "Cloud API error 132007: the template breaks a policy", Hold(Scope::Template, BY_HAND)),
    row(132008, "Cloud API error 132008: a template value is wrongly formatted", Permanent),
    row(132012, "Cloud API error 132012: a template parameter has the wrong kind or name", Permanent),
    row(132015, "Cloud API error 132015: the template is paused for quality", Hold(Scope::Template, &[HOUR, 3 * HOUR])),
    row(132016, "Cloud API error 132016: the template is disabled for good", Permanent),
    row(132018, "Cloud API error 132018: a template parameter did not pass validation", Permanent),
    row(132068, "Cloud API error 132068: the flow is blocked", Hold(Scope::Template, BY_HAND)),
    row(132069, "Cloud API error 132069: the flow is throttled", Retry(&[HOUR, HOUR, HOUR])),
    row(134100, "Cloud API error 134100: only marketing messages are allowed here", Permanent),
    row(
        134101,
        "Cloud API error 134101: the template is still being copied",
        Retry(&[10 * MINUTE, 10 * MINUTE, 10 * MINUTE]),
    ),
    row(134102, "Cloud API error 134102: the template is not available here", Hold(Scope::Template, BY_HAND)),
    row(2388019, "Cloud API error 2388019: the account has its 250 templates", Hold(Scope::Template, BY_HAND)),
    row(2388023, "Cloud API error 2388023: the template's name is being deleted", Permanent),
    row(2388024, "Cloud API error 2388024: the template exists in this language", Permanent),
    row(2388039, "Cloud API error 2388039: the template's status cannot be changed now", Retry(&[24 * HOUR])),
    row(2388040, "Cloud API error 2388040: a part of the template is too long", Permanent),
    row(2388047, "Cloud API error 2388047: the template's header is malformed", Permanent),
    row(2388072, "Cloud API error 2388072: the template's body is malformed", Permanent),
    row(2388073, "Cloud API error 2388073: the template's footer is malformed", Permanent),
    row(2388293, "Cloud API error 2388293: the template has too many variables for its length", Permanent),
    row(2388299, "Cloud API error 2388299: a variable stands first or last", Permanent),
    // Registration and numbers.
    row(133000, "Cloud API error 133000: an earlier deregistration failed", Retry(&[MINUTE])),
    row(133004, "Cloud API error 133004: the registration server is unavailable", Retry(LATER)),
    row(133005, "Cloud API error 133005: wrong two-step PIN", Hold(Scope::Number, BY_HAND)),
    row(133006, "Cloud API error 133006: the number must be verified first", Hold(Scope::Number, BY_HAND)),
    row(133008, "Cloud API error 133008: too many PIN guesses", Hold(Scope::Number, BY_HAND)),
    row(133009, "Cloud API error 133009: PIN guesses came too fast", Hold(Scope::Number, BY_HAND)),
    row(133010, "Cloud API error 133010: the number is not registered", Hold(Scope::Number, BY_HAND)),
    row(133015, "Cloud API error 133015: the number is being deleted", Retry(&[5 * MINUTE, 5 * MINUTE])),
    row(136024, "Cloud API error 136024: the code could not be requested", Permanent),
    row(136025, "Cloud API error 136025: the code could not be verified", Permanent),
    row(2388012, "Cloud API error 2388012: the number is being migrated", Hold(Scope::Number, BY_HAND)),
    row(2388091, "Cloud API error 2388091: the number cannot be migrated yet", Hold(Scope::Number, BY_HAND)),
    row(2388093, "Cloud API error 2388093: the migration's verification failed", Hold(Scope::Number, BY_HAND)),
    row(2388103, "Cloud API error 2388103: the number's account is in migration", Hold(Scope::Number, BY_HAND)),
    row(2494100, "Cloud API error 2494100: the number is in maintenance", Hold(Scope::Number, &[5 * MINUTE])),
    row(2593107, "Cloud API error 2593107: the sync quota of app coexistence is used up", Permanent),
    row(2593108, "Cloud API error 2593108: the sync window of app coexistence is over", Permanent),
];

/// What to do about `code`.
///
/// A code that is not in the table decides nothing by itself: with 429 or the carrier's own `is_transient` it is tried
/// later, with a 5xx it may have been sent, with anything else, and in a `failed` status, the message has failed. The
/// HTTP status never overrules a known code: the carrier changes statuses without notice.
pub fn class_of(code: i64, via: Via, http_status: u16, transient: bool) -> Class {
    if let Some(row) = CODES.iter().find(|row| row.codes().contains(&code)) {
        return row.class(via);
    }
    match via {
        Via::Status => Class::Permanent,
        Via::Response if http_status == 429 || transient => Class::Retry(LATER),
        Via::Response if http_status >= 500 => Class::Ambiguous(LATER),
        Via::Response => Class::Permanent,
    }
}

/// What a code means, for a person; nothing where it is in no list.
pub fn meaning_of(code: i64) -> Option<&'static str> {
    CODES.iter().find(|row| row.codes().contains(&code)).map(|row| row.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_is_listed_twice_and_each_is_cited() {
        for (index, row) in CODES.iter().enumerate() {
            assert!(row.meaning.starts_with(&format!("Cloud API error {}", row.first)), "{}", row.meaning);
            assert!(!CODES[..index].iter().any(|other| other.codes().contains(&row.first)), "{}", row.first);
        }
    }

    #[test]
    fn every_published_sending_code_is_in_the_table() {
        let published = [
            0, 1, 2, 3, 4, 10, 17, 32, 33, 100, 102, 104, 190, 200, 299, 368, 506, 613, 80007, 80008, 130403, 130429,
            130472, 130497, 131000, 131005, 131008, 131009, 131016, 131021, 131026, 131030, 131031, 131037, 131042,
            131043, 131045, 131047, 131048, 131049, 131050, 131051, 131052, 131053, 131055, 131056, 131057, 131062,
            131063, 131064, 132000, 132001, 132005, 132007, 132008, 132012, 132015, 132016, 132018, 132068, 132069,
            133000, 133004, 133005, 133006, 133008, 133009, 133010, 133015, 133016, 134011, 134100, 134101, 134102,
            135000, 136024, 136025, 137000, 2388012, 2388019, 2388023, 2388024, 2388039, 2388040, 2388047, 2388072,
            2388073, 2388091, 2388093, 2388103, 2388293, 2388299, 2494100, 2593107, 2593108,
        ];
        for code in published {
            assert!(CODES.iter().any(|row| row.codes().contains(&code)), "{code}");
        }
    }

    #[test]
    fn codes_decide_and_http_statuses_do_not() {
        // 3 comes with a 500, yet nothing was sent.
        assert!(matches!(class_of(3, Via::Response, 500, false), Class::Hold(Scope::Credential, _)));
        assert!(matches!(class_of(190, Via::Response, 401, true), Class::Hold(Scope::Credential, _)));
        assert_eq!(class_of(131_056, Via::Response, 400, false), Class::Retry(&[1, 4, 16, 64, 256]));
        assert_eq!(class_of(100, Via::Response, 400, true), Class::Permanent);
        assert_eq!(class_of(131_026, Via::Status, 0, false), Class::Recipient(Scope::Channel));
        assert!(matches!(class_of(132_015, Via::Status, 0, false), Class::Hold(Scope::Template, _)));
    }

    #[test]
    fn maybe_sent_is_only_maybe_in_the_answer_to_the_post() {
        for code in [1, 2, 506, 131_000, 131_016] {
            assert!(matches!(class_of(code, Via::Response, 400, false), Class::Ambiguous(_)), "{code}");
            assert!(!matches!(class_of(code, Via::Status, 0, false), Class::Ambiguous(_)), "{code}");
        }
    }

    #[test]
    fn a_code_nobody_knows_neither_crashes_nor_loops() {
        assert_eq!(class_of(139_999, Via::Response, 400, false), Class::Permanent);
        assert_eq!(class_of(139_999, Via::Response, 429, false), Class::Retry(LATER));
        assert_eq!(class_of(139_999, Via::Response, 400, true), Class::Retry(LATER));
        assert!(matches!(class_of(139_999, Via::Response, 503, false), Class::Ambiguous(_)));
        assert_eq!(class_of(-7, Via::Status, 503, true), Class::Permanent);
    }
}
