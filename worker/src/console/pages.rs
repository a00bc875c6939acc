//! The pages as they lie in `templates/console`, all inside one frame.

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use handlebars::Handlebars;
use serde::Serialize;

use super::frame;

/// What a page of the console is drawn from: the frame, and its own part.
#[derive(Serialize)]
pub(super) struct Page<T> {
    /// Stands in the window's title and at the head.
    pub(super) title: &'static str,
    /// Whether somebody is signed in: then the way home and the way out are shown.
    pub(super) inside: bool,
    /// Whether the page speaks to the authenticator of the browser, the only thing that takes a script.
    pub(super) script: bool,
    #[serde(flatten)]
    pub(super) body: T,
}

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        /// Every page by name.
        const TEMPLATES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../templates/console/", $name, ".html.hbs")))),*];
    };
}

templates![
    "layout",
    "approval",
    "approval_invite",
    "approvals",
    "choose",
    "code",
    "confirm",
    "home",
    "invitation",
    "lost",
    "oidc",
    "oidc-go",
    "password",
    "recovery",
    "refusal",
    "second_factor",
    "security",
    "sessions",
    "sign_in",
    "staff",
    "staff_added",
    "support",
    "support_grant",
    "support_new",
    "token_made",
    "token_new",
    "token_revoke",
    "tokens",
    "totp",
    "whose",
];

static PAGES: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut pages = Handlebars::new();
    pages.set_strict_mode(true);
    for (name, text) in TEMPLATES {
        let read = pages.register_template_string(name, text);
        read.unwrap_or_else(|error| panic!("templates/console/{name}.html.hbs: {error}"));
    }
    pages
});

/// Draws a page.
pub(super) fn draw(name: &str, page: &impl Serialize) -> Response {
    match PAGES.render(name, &frame::around(page)) {
        Ok(html) => Html(html).into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, page = name, "a page cannot be drawn");
            (StatusCode::INTERNAL_SERVER_ERROR, "This page cannot be drawn.\n").into_response()
        }
    }
}

/// Draws a page that says what is wrong with a form.
pub(super) fn draw_again(name: &str, page: &impl Serialize) -> Response {
    let mut response = draw(name, page);
    *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    response
}

/// The whole answer of whoever goes no further.
#[derive(Serialize)]
struct Refusal<'a> {
    words: &'a str,
    back: &'a str,
}

/// A page that says why something was not done, and how to go on.
pub(super) fn refuse(status: StatusCode, title: &'static str, words: &str, inside: bool) -> Response {
    let back = if inside { "/console" } else { "/console/sign-in" };
    let body = Refusal { words, back };
    let mut response = draw("refusal", &Page { title, inside, script: false, body });
    *response.status_mut() = status;
    response
}

/// As [`refuse`] for somebody who is signed in, and on to a page of ours.
pub(super) fn refuse_to(status: StatusCode, title: &'static str, words: &str, back: &str) -> Response {
    let body = Refusal { words, back };
    let mut response = draw("refusal", &Page { title, inside: true, script: false, body });
    *response.status_mut() = status;
    response
}

/// As [`refuse`], with the seconds after which to come again.
pub(super) fn refuse_until(status: StatusCode, title: &'static str, words: &str, seconds: i64) -> Response {
    let mut response = refuse(status, title, words, false);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_page_is_well_formed_and_holds_no_script_or_style_of_its_own() {
        for (name, text) in super::TEMPLATES {
            assert!(super::PAGES.has_template(name));
            assert!(!text.contains("{{{"), "{name}: everything that is shown is escaped");
            for forbidden in [" style=", "<style", " onclick=", " onsubmit=", "javascript:"] {
                assert!(!text.contains(forbidden), "{name}: {forbidden}");
            }
            assert!(!text.contains("<script") || *name == "layout", "{name}");
        }
    }
}
