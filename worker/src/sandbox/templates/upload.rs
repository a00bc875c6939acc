//! Sample files for templates: `POST /{app}/uploads` opens a place, `POST /{upload}` fills it from an offset and gives
//! a handle.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::json;

use super::super::{
    Inner,
    door::Caller,
    refused::{no_such, refuse},
};

/// Uploads remembered; the oldest go first.
const KEPT: usize = 1_000;
/// Longest sample, in bytes.
const LONGEST: u64 = 100 * 1024 * 1024;
const TYPES: [&str; 5] = ["application/pdf", "image/jpeg", "image/jpg", "image/png", "video/mp4"];

#[derive(Debug)]
struct Upload {
    id: String,
    app: usize,
    mime: String,
    length: u64,
    /// Bytes that came; what is in them is of no further use.
    offset: u64,
    handle: Option<String>,
}

/// What is being uploaded, and what was.
#[derive(Debug, Default)]
pub(in super::super) struct Uploads(VecDeque<Upload>);

impl Uploads {
    /// The type of the file behind a handle of this app.
    pub(super) fn type_of(&self, app: usize, handle: &str) -> Option<String> {
        // Samples of ours that were there before.
        if handle == "4::sample" {
            return Some("application/pdf".to_owned());
        }
        let upload = self.0.iter().find(|one| one.app == app && one.handle.as_deref() == Some(handle))?;
        Some(upload.mime.clone())
    }

    fn of(&mut self, app: usize, id: &str) -> Option<&mut Upload> {
        self.0.iter_mut().find(|one| one.app == app && one.id == id)
    }
}

#[derive(Deserialize)]
pub(in super::super) struct Wanted {
    file_name: Option<String>,
    file_length: Option<u64>,
    file_type: Option<String>,
}

/// `POST /{version}/{app}/uploads`
pub(in super::super) async fn begin(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let mut world = inner.world();
    if id != "app" && world.apps.get(caller.app).is_none_or(|app| app.id != id) {
        return no_such(&id).into_response();
    }
    let (Some(length), Some(mime)) = (wanted.file_length, wanted.file_type) else {
        return refuse(100, "The parameters file_length and file_type are required.").into_response();
    };
    if wanted.file_name.is_some_and(|name| name.contains(['<', '>', '@', '%'])) {
        return refuse(100, "Param file_name holds characters that it must not.").into_response();
    }
    if !TYPES.contains(&mime.as_str()) {
        return refuse(100, format!("Param file_type must be one of {TYPES:?}.")).into_response();
    }
    if length == 0 || length > LONGEST {
        return refuse(100, "Param file_length must be within 1 and 104857600.").into_response();
    }
    let id = format!("upload:{}", URL_SAFE_NO_PAD.encode(format!("attachment:{:016x}", world.random())));
    let answer = json!({ "id": format!("{id}?sig={:x}", world.random()) });
    if world.uploads.0.len() >= KEPT {
        world.uploads.0.pop_front();
    }
    world.uploads.0.push_back(Upload { id, app: caller.app, mime, length, offset: 0, handle: None });
    Json(answer).into_response()
}

/// `POST /{version}/upload:…`
pub(in super::super) fn take(inner: &Inner, caller: &Caller, id: &str, headers: &HeaderMap, body: &Bytes) -> Response {
    let offset = headers.get("file_offset").and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let Some(offset) = offset else {
        return refuse(100, "The header file_offset is required.").into_response();
    };
    let mut world = inner.world();
    let salt = world.random();
    let Some(upload) = world.uploads.of(caller.app, id) else { return no_such(id).into_response() };
    if offset != upload.offset {
        let details = format!("Param file_offset must be {}, where the upload stands.", upload.offset);
        return refuse(100, details).into_response();
    }
    let came = u64::try_from(body.len()).unwrap_or(u64::MAX);
    if came == 0 || came > upload.length - upload.offset {
        return refuse(100, "The bytes that came are none or more than file_length said.").into_response();
    }
    upload.offset += came;
    if upload.offset < upload.length {
        return Json(json!({ "id": upload.id, "file_offset": upload.offset })).into_response();
    }
    let handle = format!("4::{}", URL_SAFE_NO_PAD.encode(format!("{}:{salt:016x}", upload.mime)));
    upload.handle = Some(handle.clone());
    Json(json!({ "h": handle })).into_response()
}

/// `GET /{version}/upload:…`: how far it came.
pub(in super::super) fn progress(inner: &Inner, caller: &Caller, id: &str) -> Response {
    let mut world = inner.world();
    match world.uploads.of(caller.app, id) {
        Some(upload) => Json(json!({ "id": upload.id, "file_offset": upload.offset })).into_response(),
        None => no_such(id).into_response(),
    }
}
