//! Messages that are no templates: what they may hold.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    super::{
        media,
        refused::{Refused, refuse},
        world::World,
    },
    interactive,
    part::{self, Filled},
};

/// Longest text and longest words below a file.
const LONGEST: [usize; 2] = [4096, 1024];

pub(super) fn required(name: &str) -> Refused {
    refuse(131_008, format!("The parameter {name} is required."))
}

pub(super) fn too_long(name: &str, limit: usize) -> Refused {
    refuse(100, format!("Param {name} must be at most {limit} characters long."))
}

/// A text of at most so many characters, if there is one.
pub(super) fn text<'a>(posted: &'a Value, key: &str, name: &str, limit: usize) -> Result<Option<&'a str>, Refused> {
    match &posted[key] {
        Value::Null => Ok(None),
        Value::String(text) if text.chars().count() > limit => Err(too_long(name, limit)),
        Value::String(text) => Ok(Some(text)),
        _ => Err(refuse(131_009, format!("The parameter {name} is not valid."))),
    }
}

/// As [`text`], and it must be there.
pub(super) fn words<'a>(posted: &'a Value, key: &str, name: &str, limit: usize) -> Result<&'a str, Refused> {
    text(posted, key, name, limit)?.filter(|text| !text.trim().is_empty()).ok_or_else(|| required(name))
}

/// Reads a message of `kind` that is no template.
pub(super) fn read(
    world: &World,
    number: usize,
    kind: &str,
    message: &Value,
    now: DateTime<Utc>,
) -> Result<Filled, Refused> {
    let posted = &message[kind];
    if !posted.is_object() && kind != "contacts" {
        return Err(required(kind));
    }
    match kind {
        "text" => {
            let text = words(posted, "body", "text['body']", LONGEST[0])?.to_owned();
            Ok(Filled { text, ..Filled::default() })
        }
        "document" | "image" | "video" | "audio" | "sticker" => {
            let file = part::file(world, number, kind, posted, now)?;
            let caption = text(posted, "caption", &format!("{kind}['caption']"), LONGEST[1])?;
            if caption.is_some() && matches!(kind, "audio" | "sticker") {
                return Err(refuse(100, format!("{kind} has no caption.")));
            }
            if file.filename.is_some() && kind != "document" {
                return Err(refuse(100, format!("{kind} has no filename.")));
            }
            Ok(Filled { text: caption.unwrap_or_default().to_owned(), file: Some(file), ..Filled::default() })
        }
        "interactive" => interactive::read(world, number, posted, now),
        "location" => {
            let place = |key: &str| posted[key].as_f64().or_else(|| posted[key].as_str()?.parse::<f64>().ok());
            let (latitude, longitude) = (place("latitude"), place("longitude"));
            if !latitude.is_some_and(|at| at.abs() <= 90.0) || !longitude.is_some_and(|at| at.abs() <= 180.0) {
                return Err(required("location['latitude'] and ['longitude']"));
            }
            let named = posted["name"].as_str().or_else(|| posted["address"].as_str()).unwrap_or("A place");
            Ok(Filled { text: format!("📍 {named}"), ..Filled::default() })
        }
        "contacts" => {
            let cards = posted.as_array().filter(|cards| !cards.is_empty()).ok_or_else(|| required("contacts"))?;
            let names: Option<Vec<_>> = cards.iter().map(|card| card["name"]["formatted_name"].as_str()).collect();
            let names = names.ok_or_else(|| required("contacts[..]['name']['formatted_name']"))?;
            Ok(Filled { text: format!("👤 {}", names.join(", ")), ..Filled::default() })
        }
        "reaction" => {
            let to = words(posted, "message_id", "reaction['message_id']", 512)?.to_owned();
            let emoji = text(posted, "emoji", "reaction['emoji']", 16)?.unwrap_or_default().to_owned();
            Ok(Filled { context: Some(to), reaction: Some(emoji), ..Filled::default() })
        }
        _ => Err(refuse(
            131_051,
            format!("Message type '{}' is not supported.", kind.chars().take(40).collect::<String>()),
        )),
    }
}

/// Whether the file that a message names is of its kind: nobody notices before it is delivered.
pub(super) fn is_of_its_kind(world: &World, content: &Filled) -> bool {
    let Some(file) = &content.file else { return true };
    let Some(kept) = file.id.as_deref().and_then(|id| world.media.get(id)) else { return true };
    match media::kind_of(&kept.mime_type) {
        Some((kind, _)) => kind == file.kind || file.kind == "document",
        None => false,
    }
}
