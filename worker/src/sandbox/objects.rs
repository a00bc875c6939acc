//! `/{version}/{id}`: the carrier has one path for everything that has an id.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Inner,
    door::Caller,
    media, numbers,
    refused::{Refused, refuse},
    templates,
};

#[derive(Deserialize)]
pub(super) struct Fields {
    fields: Option<String>,
    /// A file is looked up only if it is this number's.
    phone_number_id: Option<String>,
}

fn template(inner: &Inner, id: &str) -> Option<u64> {
    id.parse().ok().filter(|id| inner.world().templates.get(*id).is_some())
}

/// `GET /{version}/{id}`: a file, a template, an upload or a number.
pub(super) async fn show(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    Query(query): Query<Fields>,
) -> Result<Response, Refused> {
    if let Some(file) = media::show(&inner, caller, &id, query.phone_number_id.as_deref()) {
        return Ok(Json(file).into_response());
    }
    if let Some(template) = template(&inner, &id) {
        return templates::show(&inner, &caller, template, query.fields.as_deref());
    }
    if id.starts_with("upload:") {
        return Ok(templates::upload_progress(&inner, &caller, &id));
    }
    let is_account = inner.world().account(&id).is_some();
    if is_account {
        return numbers::show_account(&inner, caller, &id);
    }
    numbers::line(&inner, caller, &id, query.fields.as_deref())
}

/// `POST /{version}/{id}`: a template or the bytes of an upload.
pub(super) async fn change(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    if id.starts_with("upload:") {
        return Ok(templates::take_upload(&inner, &caller, &id, &headers, &body));
    }
    if let Some(template) = template(&inner, &id) {
        return templates::edit(&inner, &caller, template, &body);
    }
    numbers::set(&inner, caller, &id, &body).await
}

#[derive(Deserialize)]
pub(super) struct HistoryQuery {
    limit: Option<usize>,
    message_id: Option<String>,
}

/// `GET /{version}/{number}/message_history`: wamids and events; neither recipients nor references, like the carrier.
pub(super) async fn history(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response, Refused> {
    let world = inner.world();
    let number = caller.number(&world, &id)?;
    let limit = query.limit.unwrap_or(25);
    if limit > 100 {
        return Err(refuse(100, "Param limit must be at most 100."));
    }
    let data: Vec<_> = world
        .messages
        .values()
        .rev()
        .filter(|message| message.number == number)
        .filter(|message| query.message_id.as_ref().is_none_or(|wanted| *wanted == message.wamid))
        .take(limit)
        .map(|message| {
            let events: Vec<_> = message
                .events
                .iter()
                .map(|(progress, at)| {
                    let status = json!(progress).as_str().unwrap_or_default().to_uppercase();
                    json!({ "delivery_status": status, "timestamp": at.timestamp() })
                })
                .collect();
            json!({ "message_id": message.wamid, "events": events })
        })
        .collect();
    Ok(Json(json!({ "data": data })).into_response())
}
