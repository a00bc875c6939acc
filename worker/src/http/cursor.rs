//! Pages: `?limit=&cursor=`, and `next` to go on. A cursor is where the page before ended, opaque to the caller; it
//! holds no rights, so it needs no signature.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{Problem, ProblemId};

const LIMIT_DEFAULT: u16 = 50;
const LIMIT_MAX: u16 = 200;

/// One page of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// The things, newest first unless said otherwise.
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page from one item more than `limit` asks for: the surplus one says that there is a next page.
    pub(super) fn of(mut items: Vec<T>, limit: u16, position: impl Fn(&T) -> String) -> Self {
        let more = items.len() > usize::from(limit);
        items.truncate(limit.into());
        let next = items.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(position(last)));
        Self { items, next }
    }
}

/// Checked `limit`.
pub(super) fn limit(asked: Option<u16>) -> Result<u16, Problem> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(Problem::field(
            ProblemId::BadQuery,
            "limit",
            "is out of range",
            format!("take 1 to {LIMIT_MAX}, or leave it out for {LIMIT_DEFAULT}"),
        )),
    }
}

/// Where the page before ended.
pub(super) fn position<P: std::str::FromStr>(cursor: Option<&str>) -> Result<Option<P>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| ProblemId::BadCursor.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_on_from_the_last_item() {
        let page = Page::of(vec![9_i64, 8, 7], 2, ToString::to_string);
        assert_eq!(page.items, [9, 8]);
        assert_eq!(position::<i64>(page.next.as_deref()).expect("ours"), Some(8));
        assert!(Page::of(vec![9_i64, 8], 2, ToString::to_string).next.is_none());
    }

    #[test]
    fn what_is_no_cursor_is_a_problem() {
        for text in ["x", "!!", "AAAA", "bm8"] {
            assert!(position::<i64>(Some(text)).is_err(), "{text}");
        }
    }
}
