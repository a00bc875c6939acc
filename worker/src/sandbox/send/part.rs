//! What all kinds of messages are made of: a file, words, and what can be tapped.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::super::{
    refused::{Refused, refuse},
    world::World,
};

/// A file in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct FileRef {
    /// `document`, `image`, `video`, `audio` or `sticker`.
    pub(in super::super) kind: String,
    /// Its id, known at once or when its link was fetched.
    pub(in super::super) id: Option<String>,
    /// Where it is fetched from.
    pub(in super::super) link: Option<String>,
    pub(in super::super) filename: Option<String>,
}

/// Something to tap below a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Tap {
    /// Answers with a `button` message.
    Reply {
        text: String,
        payload: String,
    },
    /// Answers with an `interactive` message.
    Choice {
        id: String,
        title: String,
    },
    Url {
        text: String,
        url: String,
    },
    Copy {
        text: String,
        code: String,
    },
    Call {
        text: String,
        number: String,
    },
    Other {
        kind: String,
        text: String,
    },
}

/// A section of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Section {
    pub(in super::super) title: String,
    pub(in super::super) rows: Vec<Row>,
}

/// A line of a list, to be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Row {
    pub(in super::super) id: String,
    pub(in super::super) title: String,
    pub(in super::super) description: String,
}

/// A message's content as the phone shows it.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Filled {
    /// The template that it is of.
    pub(in super::super) template: Option<u64>,
    /// Its category; none inside the window.
    pub(in super::super) category: Option<String>,
    pub(in super::super) head: Option<String>,
    pub(in super::super) file: Option<FileRef>,
    pub(in super::super) text: String,
    pub(in super::super) footer: Option<String>,
    pub(in super::super) taps: Vec<Tap>,
    /// The word on the button that opens the list, and the list.
    pub(in super::super) list: Option<(String, Vec<Section>)>,
    /// The message that it answers.
    pub(in super::super) context: Option<String>,
    /// Of a reaction: the emoji.
    pub(in super::super) reaction: Option<String>,
}

/// A file by id or link.
pub(super) fn file(
    world: &World,
    number: usize,
    kind: &str,
    posted: &Value,
    now: DateTime<Utc>,
) -> Result<FileRef, Refused> {
    if posted.is_null() {
        return Err(refuse(131_008, format!("The parameter {kind} is required.")));
    }
    let text = |key: &str| posted[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (id, link) = (text("id"), text("link"));
    match (&id, &link) {
        (None, None) => return Err(refuse(131_008, format!("The parameter {kind}['id'] is required."))),
        (Some(_), Some(_)) => {
            return Err(refuse(100, format!("Only one of {kind}['id'] and {kind}['link'] may be given.")));
        }
        (Some(id), None) if world.media_of(id, number, now).is_none() => {
            return Err(refuse(100, format!("The {kind}'s id is not a media id of this number, or has expired")));
        }
        (None, Some(link)) if !(link.starts_with("http://") || link.starts_with("https://")) => {
            return Err(refuse(131_009, format!("The parameter {kind}['link'] is not a web address.")));
        }
        _ => {}
    }
    Ok(FileRef { kind: kind.to_owned(), id, link, filename: text("filename") })
}
