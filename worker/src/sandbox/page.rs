//! The phone: what a customer sees, in a browser.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Form,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};
use chrono_tz::Asia::Kolkata;
use handlebars::Handlebars;
use serde::{Deserialize, Serialize};

use super::{
    Inner,
    world::{Message, Progress},
};

const PAGE: &str = include_str!("../../../templates/sandbox/phone.html.hbs");
const STYLE: &str = include_str!("../../../templates/sandbox/phone.css");
/// Nothing from elsewhere, no script, no frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";
/// Chats and messages shown.
const SHOWN: usize = 200;

#[derive(Deserialize)]
pub(super) struct Which {
    phone: Option<String>,
}

#[derive(Serialize)]
struct Page {
    business: String,
    initials: String,
    business_phone: String,
    chats: Vec<Chat>,
    open: Option<Open>,
}

#[derive(Serialize)]
struct Chat {
    phone: String,
    label: String,
    last: String,
    time: String,
    unread: usize,
    open: bool,
    hue: u32,
}

#[derive(Serialize)]
struct Open {
    phone: String,
    label: String,
    day: String,
    /// Newest first: the chat is laid out from its end.
    bubbles: Vec<Bubble>,
    unread: bool,
}

#[derive(Serialize)]
struct Bubble {
    text: String,
    time: String,
    lang: &'static str,
    ticks: &'static str,
    told: &'static str,
    document: Option<Card>,
}

#[derive(Serialize)]
struct Card {
    id: String,
    filename: String,
    facts: String,
}

/// `GET /sandbox?phone=919812345678`
pub(super) async fn phone(State(inner): State<Arc<Inner>>, Query(which): Query<Which>) -> Response {
    let page = page(&inner, which.phone.as_deref());
    let mut engine = Handlebars::new();
    engine.set_strict_mode(true);
    match engine.render_template(PAGE, &page) {
        Ok(html) => ([(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")], Html(html))
            .into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the phone cannot be drawn");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn page(inner: &Inner, wanted: Option<&str>) -> Page {
    let world = inner.world();
    let mut chats: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
    for message in world.messages.values().filter(|message| message.displayed_at.is_some()) {
        chats.entry(&message.to).or_default().push(message);
    }
    let mut order: Vec<_> = chats.iter().collect();
    order.sort_by_key(|(_, messages)| std::cmp::Reverse(messages.last().map(|message| message.displayed_at)));
    let open = wanted.filter(|phone| chats.contains_key(phone)).or_else(|| order.first().map(|(phone, _)| **phone));
    let listed =
        order.iter().take(SHOWN).map(|(phone, messages)| chat(phone, messages, open == Some(**phone))).collect();
    let opened = open.and_then(|phone| {
        let messages = chats.get(phone)?;
        let last = messages.last()?;
        Some(Open {
            phone: phone.to_owned(),
            label: label(phone),
            day: last.displayed_at?.with_timezone(&Kolkata).format("%-d %B %Y").to_string(),
            bubbles: messages.iter().rev().take(SHOWN).map(|message| bubble(&world.media, message)).collect(),
            unread: messages.iter().any(|message| message.progress == Progress::Delivered),
        })
    });
    let number = inner.options.numbers.first();
    let business = number.map_or("Business", |number| number.business_name.as_str()).to_owned();
    Page {
        initials: business.split_whitespace().filter_map(|word| word.chars().next()).take(2).collect(),
        business,
        business_phone: number.map(|number| label(number.display_phone.digits())).unwrap_or_default(),
        chats: listed,
        open: opened,
    }
}

fn chat(phone: &str, messages: &[&Message], open: bool) -> Chat {
    let last = messages.last();
    let words = last.map(|message| match &message.document {
        Some((_, filename)) => filename.clone(),
        None => message.text.chars().take(60).collect(),
    });
    Chat {
        phone: phone.to_owned(),
        label: label(phone),
        last: words.unwrap_or_default(),
        time: last.and_then(|message| message.displayed_at).map(clock_time).unwrap_or_default(),
        unread: messages.iter().filter(|message| message.progress == Progress::Delivered).count(),
        open,
        hue: phone.bytes().map(u32::from).sum::<u32>() % 6,
    }
}

fn bubble(media: &BTreeMap<String, super::world::Media>, message: &Message) -> Bubble {
    let (ticks, told) = match message.progress {
        Progress::Read => ("read", "Read"),
        Progress::Delivered => ("delivered", "Delivered"),
        Progress::Accepted | Progress::Sent | Progress::Failed => ("sent", "Sent"),
    };
    let devanagari = message.text.chars().any(|character| ('\u{900}'..='\u{97f}').contains(&character));
    Bubble {
        text: message.text.clone(),
        time: message.displayed_at.map(clock_time).unwrap_or_default(),
        lang: if devanagari { "hi" } else { "en" },
        ticks,
        told,
        document: message.document.as_ref().map(|(id, filename)| Card {
            id: id.clone(),
            filename: filename.clone(),
            facts: media.get(id).map_or_else(|| "no longer kept".to_owned(), |media| facts(&media.content)),
        }),
    }
}

/// `1 page · 84 kB · PDF`, the pages where the file says so in clear.
fn facts(content: &[u8]) -> String {
    let size = match content.len() {
        bytes if bytes < 1000 => format!("{bytes} B"),
        bytes if bytes < 1_000_000 => format!("{} kB", bytes / 1000),
        bytes => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
    };
    match pages(content) {
        0 => format!("{size} · PDF"),
        1 => format!("1 page · {size} · PDF"),
        pages => format!("{pages} pages · {size} · PDF"),
    }
}

/// Page objects written in clear.
fn pages(content: &[u8]) -> usize {
    let text = String::from_utf8_lossy(content);
    let follows = |after: &str| !after.starts_with(|next: char| next.is_ascii_alphanumeric());
    text.split("/Type/Page").skip(1).filter(|after| follows(after)).count()
        + text.split("/Type /Page").skip(1).filter(|after| follows(after)).count()
}

/// `+91 98123 45678`
fn label(digits: &str) -> String {
    match digits.strip_prefix("91").filter(|national| national.len() == 10) {
        Some(national) => format!("+91 {} {}", &national[..5], &national[5..]),
        None => format!("+{digits}"),
    }
}

fn clock_time(at: DateTime<Utc>) -> String {
    at.with_timezone(&Kolkata).format("%-I:%M %P").to_string()
}

/// `GET /sandbox/phone.css`
pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

/// `GET /sandbox/media/{id}`: the file, opened by a tap.
pub(super) async fn media(State(inner): State<Arc<Inner>>, Path(id): Path<String>) -> Response {
    let media = inner.world().media.get(&id).cloned();
    match media {
        Some(media) => (
            [
                (header::CONTENT_TYPE, media.mime_type.as_str()),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::CONTENT_DISPOSITION, "inline"),
            ],
            media.content,
        )
            .into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[derive(Deserialize)]
pub(super) struct Seen {
    phone: String,
}

/// `POST /sandbox/read`: the person looks at the chat.
pub(super) async fn mark_read(State(inner): State<Arc<Inner>>, Form(seen): Form<Seen>) -> Response {
    {
        let mut world = inner.world();
        let unread: Vec<_> = world
            .messages
            .values()
            .filter(|message| message.to == seen.phone && message.progress == Progress::Delivered)
            .map(|message| message.sequence)
            .collect();
        for sequence in unread {
            inner.advance(&mut world, sequence, Progress::Read);
        }
    }
    // Digits only: it becomes part of a header.
    let phone: String = seen.phone.chars().filter(char::is_ascii_digit).take(15).collect();
    Redirect::to(&format!("/sandbox?phone={phone}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_files_read_well() {
        assert_eq!(label("919812345678"), "+91 98123 45678");
        assert_eq!(label("14155550123"), "+14155550123");
        assert_eq!(facts(b"%PDF /Type /Pages /Count 1 /Type /Page /Type/Page "), "2 pages · 50 B · PDF");
        assert_eq!(facts(&[b'x'; 1_500]), "1 kB · PDF");
        assert_eq!(facts(&vec![b'x'; 2_340_000]), "2.3 MB · PDF");
    }
}
