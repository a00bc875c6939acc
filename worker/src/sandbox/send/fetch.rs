//! Files by link: fetched by a real client after the message was accepted, and kept for ten minutes by the exact link.

use std::sync::Arc;

use bytes::BytesMut;
use chrono::TimeDelta;

use super::super::{
    Inner, media,
    world::{Fate, Media},
};

/// How long a fetched file stands for its link.
const CACHED: TimeDelta = TimeDelta::minutes(10);
/// Links remembered.
const LINKS: usize = 10_000;

/// Fetches the file of an accepted message, and sends it on its way; or tells that it failed.
pub(super) fn start(inner: &Arc<Inner>, sequence: u64, number: usize, kind: String, link: String) {
    let inner = Arc::clone(inner);
    let ended = inner.ended.clone();
    tokio::spawn(ended.run_until_cancelled_owned(async move {
        let got = match cached(&inner, number, &link) {
            Some(id) => Ok(id),
            None => fetch(&inner, number, &kind, &link).await,
        };
        let mut world = inner.world();
        let Some(message) = world.messages.get_mut(&sequence) else { return };
        match got {
            Ok(id) => {
                message.fate = Fate::Usual;
                if let Some(file) = &mut message.content.file {
                    file.id = Some(id);
                }
            }
            Err(why) => message.fate = Fate::Fails { code: 131_053, why, after_sent: false },
        }
        inner.deliver_later(&mut world, sequence);
    }));
}

fn cached(inner: &Inner, number: usize, link: &str) -> Option<String> {
    let now = inner.now();
    let world = inner.world();
    let (id, at) = world.fetched.get(link)?;
    let fresh = now - *at < CACHED && world.media.get(id).is_some_and(|media| media.number == number);
    fresh.then(|| id.clone())
}

async fn fetch(inner: &Inner, number: usize, kind: &str, link: &str) -> Result<String, &'static str> {
    let url = reqwest::Url::parse(link).map_err(|_| "The link is no web address")?;
    // Nothing leaves this machine.
    if !matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")) {
        return Err("The media could not be downloaded: the stand-in fetches from loopback only");
    }
    let mut answer =
        inner.client.get(url).send().await.map_err(|_| "The media could not be downloaded: no answer in time")?;
    match answer.status().as_u16() {
        200 => {}
        300..400 => return Err("The media could not be downloaded: the link redirects"),
        400..500 => return Err("The media could not be downloaded: HTTP 4xx"),
        _ => return Err("The media could not be downloaded: HTTP 5xx"),
    }
    let mime = answer.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mime_type = mime.split(';').next().unwrap_or_default().trim().to_owned();
    let (is, largest) = media::kind_of(&mime_type).ok_or("The media has a type that is not supported")?;
    if is != kind && kind != "document" {
        return Err("The media is of another type than the message");
    }
    let mut content = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| "The media could not be downloaded: it broke off")? {
        if content.len() + chunk.len() > largest {
            return Err("The media is larger than its type may be");
        }
        content.extend_from_slice(&chunk);
    }
    let now = inner.now();
    let mut world = inner.world();
    let id = world.keep_media(Media { number, mime_type, content: content.freeze(), uploaded_at: now });
    if world.fetched.len() >= LINKS {
        world.fetched.clear();
    }
    world.fetched.insert(link.to_owned(), (id.clone(), now));
    Ok(id)
}
