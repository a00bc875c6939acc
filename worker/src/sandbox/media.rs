//! Files: taken by upload, looked up, deleted.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Multipart, Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Inner,
    door::Caller,
    refused::{Refused, no_such, refuse},
    world::{MEDIA_LIFE, Media},
};

/// Life of a file's url.
const URL_LIFE: TimeDelta = TimeDelta::minutes(5);
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Types that are taken, what they are, and the largest of each in bytes.
const TYPES: [(&str, &str, usize); 22] = [
    ("application/pdf", "document", 100 * MIB),
    ("text/plain", "document", 100 * MIB),
    ("application/msword", "document", 100 * MIB),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "document", 100 * MIB),
    ("application/vnd.ms-excel", "document", 100 * MIB),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "document", 100 * MIB),
    ("application/vnd.ms-powerpoint", "document", 100 * MIB),
    ("application/vnd.openxmlformats-officedocument.presentationml.presentation", "document", 100 * MIB),
    ("image/jpeg", "image", 5 * MIB),
    ("image/png", "image", 5 * MIB),
    ("audio/aac", "audio", 16 * MIB),
    ("audio/mp4", "audio", 16 * MIB),
    ("audio/mpeg", "audio", 16 * MIB),
    ("audio/amr", "audio", 16 * MIB),
    ("audio/ogg", "audio", 16 * MIB),
    ("audio/opus", "audio", 16 * MIB),
    ("video/mp4", "video", 16 * MIB),
    ("video/3gp", "video", 16 * MIB),
    ("video/3gpp", "video", 16 * MIB),
    ("image/webp", "sticker", 500 * KIB),
    ("application/vnd.apple.pkpass", "document", 100 * MIB),
    ("application/rtf", "document", 100 * MIB),
];

/// What a type is, and its largest file in bytes.
pub(super) fn kind_of(mime: &str) -> Option<(&'static str, usize)> {
    let plain = mime.split(';').next().unwrap_or_default().trim();
    TYPES.iter().find(|(known, ..)| *known == plain).map(|(_, kind, largest)| (*kind, *largest))
}

/// `POST /{version}/{number}/media`
pub(super) async fn upload(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    mut form: Multipart,
) -> Result<Response, Refused> {
    let number = caller.number(&inner.world(), &id)?;
    let (mut product, mut file) = (None, None);
    while let Ok(Some(field)) = form.next_field().await {
        match field.name() {
            Some("messaging_product") => product = field.text().await.ok(),
            Some("file") => {
                let mime_type = field.content_type().unwrap_or("application/octet-stream").to_owned();
                file = field.bytes().await.ok().map(|content| (mime_type, content));
            }
            _ => {}
        }
    }
    if product.as_deref() != Some("whatsapp") {
        return Err(refuse(100, "The parameter messaging_product is required."));
    }
    let (mime_type, content) = file.ok_or_else(|| refuse(100, "The parameter file is required."))?;
    let Some((kind, largest)) = kind_of(&mime_type) else {
        let types: Vec<_> = TYPES.iter().map(|(mime, ..)| *mime).collect();
        let details = format!(
            "Param file must be a file with one of the following types: {}. Received file of type '{mime_type}'.",
            types.join(", ")
        );
        return Err(refuse(100, details));
    };
    if content.is_empty() || content.len() > largest {
        return Err(refuse(100, format!("The file is empty, or larger than the {largest} bytes of a {kind}")));
    }
    let uploaded_at = inner.now();
    let mut world = inner.world();
    world.uploaded += 1;
    let id = world.keep_media(Media { number, mime_type, content, uploaded_at });
    Ok(Json(json!({ "id": id })).into_response())
}

/// What is told of a file, if there is one of this id.
pub(super) fn show(inner: &Inner, caller: Caller, id: &str, of_number: Option<&str>) -> Option<Value> {
    let now = inner.now();
    let world = inner.world();
    let media = world.media.get(id).filter(|media| {
        let line = &world.numbers[media.number];
        line.app == caller.app
            && of_number.is_none_or(|id| line.number.id == id)
            && now - media.uploaded_at < MEDIA_LIFE
    });
    let media = media?.clone();
    drop(world);
    Some(json!({
        "messaging_product": "whatsapp",
        "url": format!("http://{}/attachments/{id}?ext={}", inner.address, (now + URL_LIFE).timestamp()),
        "mime_type": media.mime_type,
        "sha256": hex::encode(Sha256::digest(&media.content)),
        "file_size": media.content.len().to_string(),
        "id": id,
    }))
}

#[derive(Deserialize)]
pub(super) struct Until {
    ext: i64,
}

/// `GET` of a file's url: with the same token, for five minutes.
pub(super) async fn download(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(until): Query<Until>,
) -> Result<Response, Refused> {
    let caller = Caller::by_token(&inner, &headers)?;
    let now = inner.now();
    let world = inner.world();
    let media = world.media.get(&id).filter(|media| world.numbers[media.number].app == caller.app);
    match media.filter(|_| now.timestamp() <= until.ext) {
        Some(media) => Ok(([(header::CONTENT_TYPE, media.mime_type.clone())], media.content.clone()).into_response()),
        None => Ok(StatusCode::NOT_FOUND.into_response()),
    }
}

/// `DELETE /{version}/{media}`
pub(super) async fn delete(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let mut world = inner.world();
    let owned = world.media.get(&id).is_some_and(|media| world.numbers[media.number].app == caller.app);
    if owned && world.forget_media(&id) {
        Ok(Json(json!({ "success": true })).into_response())
    } else {
        Err(no_such(&id))
    }
}
