//! Messages with something to tap: buttons, lists, a link.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    super::{
        refused::{Refused, refuse},
        world::World,
    },
    free::{required, text, words},
    part::{self, FileRef, Filled, Row, Section, Tap},
};

/// Choices of a list, over all its sections.
const ROWS: usize = 10;

fn invalid(details: &str) -> Refused {
    refuse(131_009, format!("The parameter interactive is not valid: {details}"))
}

/// Reads `interactive`.
pub(super) fn read(world: &World, number: usize, posted: &Value, now: DateTime<Utc>) -> Result<Filled, Refused> {
    let kind = words(posted, "type", "interactive['type']", 64)?;
    let body = words(&posted["body"], "text", "interactive['body']['text']", 1024)?.to_owned();
    let footer = text(&posted["footer"], "text", "interactive['footer']['text']", 60)?.map(str::to_owned);
    let (head, file) = header(world, number, kind, &posted["header"], now)?;
    let mut filled = Filled { head, file, text: body, footer, ..Filled::default() };
    let action = &posted["action"];
    if !action.is_object() {
        return Err(required("interactive['action']"));
    }
    match kind {
        "button" => filled.taps = buttons(action)?,
        "list" => filled.list = Some(list(action)?),
        "cta_url" => {
            let parameters = &action["parameters"];
            let label = words(parameters, "display_text", "display_text", 20)?.to_owned();
            let url = words(parameters, "url", "url", 2000)?.to_owned();
            if !(url.starts_with("https://") || url.starts_with("http://")) {
                return Err(invalid("the URL is no web address"));
            }
            filled.taps = vec![Tap::Url { text: label, url }];
        }
        _ => return Err(invalid("the type must be one of button, list, cta_url")),
    }
    Ok(filled)
}

fn header(
    world: &World,
    number: usize,
    kind: &str,
    header: &Value,
    now: DateTime<Utc>,
) -> Result<(Option<String>, Option<FileRef>), Refused> {
    if header.is_null() {
        return Ok((None, None));
    }
    match header["type"].as_str() {
        Some("text") => {
            let text = words(header, "text", "interactive['header']['text']", 60)?;
            Ok((Some(text.to_owned()), None))
        }
        Some(file @ ("document" | "image" | "video")) if kind != "list" => {
            Ok((None, Some(part::file(world, number, file, &header[file], now)?)))
        }
        _ => Err(invalid("this header's type is not for this kind of message")),
    }
}

fn buttons(action: &Value) -> Result<Vec<Tap>, Refused> {
    let given = action["buttons"].as_array().ok_or_else(|| required("interactive['action']['buttons']"))?;
    if !(1..=3).contains(&given.len()) {
        return Err(invalid("there must be 1 to 3 buttons"));
    }
    let mut seen = (BTreeSet::new(), BTreeSet::new());
    let mut taps = Vec::with_capacity(given.len());
    for button in given {
        if button["type"] != "reply" {
            return Err(invalid("a button's type must be reply"));
        }
        let id = words(&button["reply"], "id", "reply['id']", 256)?;
        let title = words(&button["reply"], "title", "reply['title']", 20)?;
        if !seen.0.insert(id) || !seen.1.insert(title) {
            return Err(invalid("ids and titles of buttons must differ"));
        }
        taps.push(Tap::Choice { id: id.to_owned(), title: title.to_owned() });
    }
    Ok(taps)
}

fn list(action: &Value) -> Result<(String, Vec<Section>), Refused> {
    let label = words(action, "button", "interactive['action']['button']", 20)?.to_owned();
    let given = action["sections"].as_array().ok_or_else(|| required("interactive['action']['sections']"))?;
    if given.is_empty() || given.len() > ROWS {
        return Err(invalid("there must be 1 to 10 sections"));
    }
    let mut seen = BTreeSet::new();
    let mut sections = Vec::with_capacity(given.len());
    for section in given {
        let title = text(section, "title", "sections[..]['title']", 24)?.unwrap_or_default().to_owned();
        if title.is_empty() && given.len() > 1 {
            return Err(required("sections[..]['title']"));
        }
        let mut rows = Vec::new();
        for row in section["rows"].as_array().into_iter().flatten() {
            let id = words(row, "id", "rows[..]['id']", 200)?;
            if !seen.insert(id) {
                return Err(invalid("ids of rows must differ"));
            }
            rows.push(Row {
                id: id.to_owned(),
                title: words(row, "title", "rows[..]['title']", 24)?.to_owned(),
                description: text(row, "description", "rows[..]['description']", 72)?.unwrap_or_default().to_owned(),
            });
        }
        sections.push(Section { title, rows });
    }
    if seen.is_empty() || seen.len() > ROWS {
        return Err(invalid("a list must have 1 to 10 rows over all its sections"));
    }
    Ok((label, sections))
}
