//! `GET /sandbox/oracle`: what each phone has shown, in order, how often each reference was posted, and whether limits
//! and wishes were kept. What a test can trust.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Inner,
    world::{Message, World},
};

#[derive(Deserialize)]
pub(super) struct Asked {
    /// Figures alone: no chats and no references, which are long after many messages.
    #[serde(default)]
    summary: bool,
}

/// `GET /sandbox/oracle`
pub(super) async fn oracle(State(inner): State<Arc<Inner>>, Query(asked): Query<Asked>) -> Json<Value> {
    let (waiting, lost) = inner.hooks.counts();
    let world = inner.world();
    let mut told = json!({
        "posts": { "messages": world.posts, "media": world.uploaded },
        "numbers": numbers(&world),
        "references": { "distinct": world.references.len(), "most": world.references.values().max() },
        "after_opt_out": world.handsets.told_after(),
        "webhooks": {
            "taken": world.webhooks_taken,
            "refused": world.webhooks_refused,
            "given_up": world.webhooks_given_up,
            "unsubscribed": world.webhooks_unsubscribed,
            "waiting": waiting,
            "lost": lost,
        },
        "agenda": world.agenda.len(),
        "now": inner.now(),
    });
    if !asked.summary {
        told["recipients"] = Value::Object(recipients(&world));
        told["posts"]["by_ref"] = json!(world.posts_by_reference);
    }
    Json(told)
}

fn numbers(world: &World) -> Map<String, Value> {
    let told = world.numbers.iter().enumerate();
    told.map(|(index, line)| (line.number.id.clone(), world.limits.told(index))).collect()
}

fn recipients(world: &World) -> Map<String, Value> {
    let mut recipients = Map::new();
    for message in world.messages.values() {
        let chat = recipients.entry(message.to.clone()).or_insert_with(|| json!([]));
        if let Some(chat) = chat.as_array_mut() {
            chat.push(shown(world, message));
        }
    }
    recipients
}

fn shown(world: &World, message: &Message) -> Value {
    let content = &message.content;
    let file = content.file.as_ref();
    let name = |file: &super::send::FileRef| file.filename.clone().unwrap_or_else(|| "Untitled".to_owned());
    json!({
        "wamid": message.wamid,
        "from": world.numbers[message.number].number.id,
        "ref": message.reference,
        "category": content.category,
        "text": content.text,
        "filename": file.map(name),
        "media_id": file.and_then(|file| file.id.as_ref()),
        "context": content.context,
        "progress": message.progress,
        "accepted_at": message.accepted_at,
        "displayed_at": message.displayed_at,
    })
}
