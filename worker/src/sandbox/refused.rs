//! Refusals in the carrier's words: its codes, its envelope, its headers.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// The header that support asks for.
pub(super) const TRACE: HeaderName = HeaderName::from_static("x-fb-trace-id");
/// How much of a call limit is used up.
pub(super) const USAGE: HeaderName = HeaderName::from_static("x-business-use-case-usage");

/// How `error_data` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataAs {
    /// As documented.
    Object,
    /// As also seen.
    Text,
    /// Not at all.
    Nothing,
}

/// A refusal in the carrier's words.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) code: i64,
    pub(super) subcode: Option<i64>,
    pub(super) details: String,
    pub(super) title: Option<&'static str>,
    pub(super) transient: Option<bool>,
    pub(super) data: DataAs,
    pub(super) status: Option<u16>,
    pub(super) usage: Option<String>,
}

/// Refuses with a code and what the caller should know.
pub(super) fn refuse(code: i64, details: impl Into<String>) -> Refused {
    Refused {
        code,
        subcode: None,
        details: details.into(),
        title: None,
        transient: None,
        data: DataAs::Object,
        status: None,
        usage: None,
    }
}

/// Something of a template is not taken: the documented code is the subcode of a 100, with words for its author.
pub(super) fn refuse_template(subcode: i64, title: &'static str, details: impl Into<String>) -> Refused {
    Refused { subcode: Some(subcode), title: Some(title), transient: Some(false), ..refuse(100, details) }
}

/// An object that is not there, or not the caller's: the carrier does not tell which.
pub(super) fn no_such(id: &str) -> Refused {
    let shown: String = id.chars().take(64).collect();
    let details = format!(
        "Unsupported request. Object with ID '{shown}' does not exist, cannot be loaded due to missing permissions, \
         or does not support this operation"
    );
    Refused { subcode: Some(33), ..refuse(100, details) }
}

/// A trace id that no other answer of this process has.
pub(super) fn trace() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut mixed = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 29;
    format!("A{mixed:016x}")
}

/// The status that goes with a code where the carrier's tables name one.
fn status_of(code: i64) -> u16 {
    match code {
        0 | 190 => 401,
        10 | 200..=299 | 368 | 130_497 | 131_005 | 131_031 => 403,
        132_001 | 134_011 => 404,
        4 | 17 | 32 | 613 | 80_007 | 80_008 => 429,
        3 | 131_000 | 131_016 | 131_045 | 131_057 | 133_000 | 134_102 => 500,
        2 | 133_004 => 503,
        _ => 400,
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let trace = trace();
        let message = match self.title {
            Some(_) => "Invalid parameter".to_owned(),
            None => format!("(#{}) {}", self.code, self.details),
        };
        let mut error = json!({ "message": message, "type": "OAuthException", "code": self.code, "fbtrace_id": trace });
        match self.data {
            DataAs::Object if self.title.is_none() => {
                error["error_data"] = json!({ "messaging_product": "whatsapp", "details": self.details });
            }
            DataAs::Text => error["error_data"] = json!(self.details),
            DataAs::Object | DataAs::Nothing => {}
        }
        if let Some(title) = self.title {
            error["error_user_title"] = json!(title);
            error["error_user_msg"] = json!(self.details);
        }
        if let Some(subcode) = self.subcode {
            error["error_subcode"] = json!(subcode);
        }
        if let Some(transient) = self.transient {
            error["is_transient"] = json!(transient);
        }
        let status = self.status.unwrap_or_else(|| status_of(self.code));
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, Json(json!({ "error": error }))).into_response();
        if let Ok(trace) = HeaderValue::from_str(&trace) {
            response.headers_mut().insert(TRACE, trace);
        }
        if let Some(usage) = self.usage.and_then(|usage| HeaderValue::from_str(&usage).ok()) {
            response.headers_mut().insert(USAGE, usage);
        }
        response
    }
}

/// A body of JSON that the carrier can read, or its refusal.
pub(super) struct Given<T>(pub(super) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for Given<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let unreadable = || refuse(100, "The parameters cannot be read as JSON.");
        let body = Bytes::from_request(request, state).await.map_err(|_| unreadable())?;
        let body = if body.is_empty() { &b"{}"[..] } else { &body };
        serde_json::from_slice(body).map(Self).map_err(|_| unreadable())
    }
}
