//! `/sandbox/templates`: an operator or a test plays the carrier's reviewers.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{Inner, agenda::Due},
    Pacing, Shape, Step, Stored, Told,
};

/// What is done to a template. Everything that is named happens, in this order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Script {
    /// Its id; or its name, and the account where several have one.
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    waba: Option<String>,
    /// New words, as the carrier may change them.
    #[serde(default)]
    components: Option<Vec<Value>>,
    /// The category that the carrier puts it in.
    #[serde(default)]
    category: Option<String>,
    /// The category that the carrier says in advance to be right.
    #[serde(default)]
    correct_category: Option<String>,
    /// `GREEN`, `YELLOW`, `RED` (which pauses or disables), `UNKNOWN`, or what nobody knows yet.
    #[serde(default)]
    quality: Option<String>,
    /// Any status, known or not.
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    /// `other_info.title` of the webhook.
    #[serde(default)]
    title: Option<String>,
    /// After so many messages the next ones are held back for a verdict.
    #[serde(default)]
    hold_after: Option<u64>,
    /// The verdict on those held back.
    #[serde(default)]
    verdict: Option<Verdict>,
    /// Change it and tell nobody.
    #[serde(default)]
    silently: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// They go out.
    Release,
    /// They fail, and the template is paused until it is unpaused by hand.
    Drop,
}

/// `POST /sandbox/templates`
pub(in super::super) async fn script(State(inner): State<Arc<Inner>>, Json(script): Json<Script>) -> Response {
    let now = inner.now();
    let (mut told, mut released, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
    {
        let mut world = inner.world();
        let ids: Vec<u64> = match (&script.id, &script.name) {
            (Some(id), _) => id.parse().ok().filter(|id| world.templates.get(*id).is_some()).into_iter().collect(),
            (None, Some(name)) => {
                let accounts: Vec<_> = world
                    .accounts()
                    .filter(|waba| script.waba.as_deref().is_none_or(|one| one == *waba))
                    .map(str::to_owned)
                    .collect();
                let of_name = accounts.iter().flat_map(|waba| world.templates.of_name(waba, name));
                of_name
                    .filter(|id| {
                        let language = world.templates.get(*id).map(|template| template.language.as_str());
                        script.language.is_none() || language == script.language.as_deref()
                    })
                    .collect()
            }
            (None, None) => Vec::new(),
        };
        if ids.is_empty() {
            return (StatusCode::NOT_FOUND, "no such template\n").into_response();
        }
        for id in ids {
            if script.status.as_deref() == Some("DELETED") {
                told.extend(world.templates.delete(id, now));
                continue;
            }
            let Some(template) = world.templates.get_mut(id) else { continue };
            told.extend(change(template, &script, now));
            if let Some(quality) = &script.quality {
                let (more, until) = template.set_quality(quality, now);
                told.extend(more);
                let step = Step::Resume { pauses: template.pauses };
                if let Some(until) = until {
                    inner.later(&mut world, until, Due::Template { id, step });
                }
            }
            let Some(template) = world.templates.get_mut(id) else { continue };
            if let Some(status) = &script.status {
                template.by_pacing = status == "PAUSED" && script.title.as_deref() == Some("RATE_LIMITING_PAUSE");
                told.push(template.set_status(status, script.reason.as_deref(), script.title.as_deref(), now));
            }
            if let Some(free) = script.hold_after {
                template.pacing = Some(Pacing { free, held: Vec::new() });
            }
            if let Some(verdict) = script.verdict {
                let held = template.pacing.take().map(|pacing| pacing.held).unwrap_or_default();
                if verdict == Verdict::Release {
                    released.extend(held);
                } else {
                    dropped.extend(held);
                    template.by_pacing = true;
                    told.push(template.set_status("PAUSED", None, Some("RATE_LIMITING_PAUSE"), now));
                }
            }
        }
    }
    if !script.silently {
        inner.tell_all(told);
    }
    inner.let_go(&released);
    inner.drop_held(&dropped);
    StatusCode::NO_CONTENT.into_response()
}

fn change(template: &mut Stored, script: &Script, now: chrono::DateTime<chrono::Utc>) -> Vec<Told> {
    let mut told = Vec::new();
    if let Some(components) = &script.components {
        template.components.clone_from(components);
        template.shape = Arc::new(Shape::of(components, &template.language));
        template.changed_at = now;
        told.push(Told {
            waba: template.waba.clone(),
            field: "message_template_components_update",
            value: json!({
                "message_template_id": template.id,
                "message_template_name": template.name,
                "message_template_language": template.language.replace('_', "-"),
                "message_template_element": template.shape.body,
            }),
        });
    }
    if let Some(category) = &script.category {
        told.push(template.set_category(category));
    }
    if let Some(category) = &script.correct_category {
        told.push(template.announce_category(category));
    }
    told
}

/// `GET /sandbox/templates`: every template of every account, and what is held back.
pub(in super::super) async fn list(State(inner): State<Arc<Inner>>) -> Json<Value> {
    let world = inner.world();
    let accounts: Vec<_> = world.accounts().map(str::to_owned).collect();
    let all: Vec<_> = accounts
        .iter()
        .flat_map(|waba| world.templates.of_account(waba))
        .map(|template| {
            let mut shown = template.shown();
            shown.insert("waba".to_owned(), json!(template.waba));
            shown.insert("pauses".to_owned(), json!(template.pauses));
            let held = template.pacing.as_ref().map(|pacing| pacing.held.len());
            shown.insert("held".to_owned(), json!(held));
            shown
        })
        .collect();
    Json(json!({ "data": all }))
}
