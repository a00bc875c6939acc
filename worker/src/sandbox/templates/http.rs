//! The endpoints of templates.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{
        Inner,
        agenda::Due,
        door::{Caller, Room},
        refused::{Refused, no_such, refuse, refuse_template},
        world::World,
    },
    New, Shape, Step, Stored,
    check::{self, Submission},
};

/// Edits of an approved template, per day and per thirty.
const EDITS: [(TimeDelta, usize); 2] = [(TimeDelta::hours(24), 1), (TimeDelta::days(30), 10)];
/// Longest page.
const LONGEST_PAGE: usize = 1_000;

fn submission(body: &Bytes) -> Result<Submission, Refused> {
    serde_json::from_slice(body).map_err(|_| refuse(100, "The parameters cannot be read as JSON of a template."))
}

/// `POST /{version}/{account}/message_templates`
pub(in super::super) async fn create(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, waba)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Refused> {
    let mut world = inner.world();
    let usage = caller.account(&mut world, &waba, Room::Templates, inner.now())?;
    caller.made_template(&mut world, &waba, inner.now())?;
    let made = make(&inner, &mut world, &caller, &waba, submission(&body)?)?;
    Ok(([usage], Json(made)).into_response())
}

fn make(
    inner: &Inner,
    world: &mut World,
    caller: &Caller,
    waba: &str,
    submitted: Submission,
) -> Result<Value, Refused> {
    let name = check::name(submitted.name.as_deref())?.to_owned();
    let language = check::language(submitted.language.as_deref())?.to_owned();
    let asked = check::category(submitted.category.as_deref())?;
    let named = check::named(submitted.parameter_format.as_deref())?;
    let components = submitted.components.ok_or_else(|| refuse(100, "The parameter components is required."))?;
    check::components(&components, asked, named, &|handle| world.uploads.type_of(caller.app, handle))?;
    check::ttl(submitted.message_send_ttl_seconds, asked)?;
    // What sells is not refused: it is taken as what it is.
    let category = if asked == "UTILITY" && check::sells(&components) { "MARKETING" } else { asked };
    let ttl = submitted.message_send_ttl_seconds.filter(|_| category == asked);
    let new = New { waba: waba.to_owned(), name, language, category: category.to_owned(), named, components, ttl };
    let id = world.templates.make(new, inner.now())?;
    review_later(inner, world, id);
    Ok(json!({ "id": id.to_string(), "status": "PENDING", "category": category }))
}

fn review_later(inner: &Inner, world: &mut World, id: u64) {
    if let Some(after) = inner.options.review {
        let at = inner.now() + after;
        inner.later(world, at, Due::Template { id, step: Step::Review });
    }
}

#[derive(Deserialize)]
pub(in super::super) struct Filter {
    name: Option<String>,
    name_or_content: Option<String>,
    status: Option<String>,
    language: Option<String>,
    category: Option<String>,
    quality_score: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
    before: Option<String>,
    fields: Option<String>,
}

impl Filter {
    fn fits(&self, template: &Stored) -> bool {
        let one_of = |wanted: &Option<String>, is: &str| {
            wanted.as_ref().is_none_or(|wanted| {
                let wanted = wanted.trim_matches(['[', ']']);
                wanted.split(',').any(|one| one.trim().trim_matches('"').eq_ignore_ascii_case(is))
            })
        };
        self.name.as_ref().is_none_or(|name| template.name.contains(name.as_str()))
            && self
                .name_or_content
                .as_ref()
                .is_none_or(|text| template.name.contains(text.as_str()) || template.shape.body.contains(text.as_str()))
            && one_of(&self.status, &template.status)
            && one_of(&self.language, &template.language)
            && one_of(&self.category, &template.category)
            && one_of(&self.quality_score, &template.quality)
    }
}

/// What is asked for, and its id; all of it when nothing is.
fn pick(mut shown: Map<String, Value>, fields: Option<&str>) -> Map<String, Value> {
    match fields {
        None => {
            for extra in ["quality_score", "rejected_reason", "last_updated_time", "correct_category"] {
                shown.remove(extra);
            }
        }
        Some(fields) => {
            let wanted: Vec<_> =
                fields.split(',').map(|field| field.trim().split(['{', '(']).next().unwrap_or_default()).collect();
            shown.retain(|key, _| key == "id" || wanted.contains(&key.as_str()));
        }
    }
    shown
}

fn cursor(id: u64) -> String {
    URL_SAFE_NO_PAD.encode(id.to_string())
}

fn place(cursor: Option<&str>) -> Result<Option<u64>, Refused> {
    let Some(cursor) = cursor else { return Ok(None) };
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    id.map(Some).ok_or_else(|| refuse(100, "Invalid cursors values"))
}

/// `GET /{version}/{account}/message_templates`
pub(in super::super) async fn list(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((version, waba)): Path<(String, String)>,
    Query(filter): Query<Filter>,
) -> Result<Response, Refused> {
    let mut world = inner.world();
    let usage = caller.account(&mut world, &waba, Room::Templates, inner.now())?;
    let (after, before) = (place(filter.after.as_deref())?, place(filter.before.as_deref())?);
    let limit = filter.limit.unwrap_or(25).clamp(1, LONGEST_PAGE);
    let fitting: Vec<_> = world.templates.of_account(&waba).filter(|template| filter.fits(template)).collect();
    let from = match (after, before) {
        (Some(after), _) => fitting.partition_point(|template| template.id <= after),
        (None, Some(before)) => fitting.partition_point(|template| template.id < before).saturating_sub(limit),
        (None, None) => 0,
    };
    let page = &fitting[from..fitting.len().min(from + limit)];
    let data: Vec<_> = page.iter().map(|template| pick(template.shown(), filter.fields.as_deref())).collect();
    let mut answer = json!({ "data": data });
    if let (Some(first), Some(last)) = (page.first(), page.last()) {
        let (before, after) = (cursor(first.id), cursor(last.id));
        let base = format!("http://{}/{version}/{waba}/message_templates?limit={limit}", inner.address);
        answer["paging"] = json!({ "cursors": { "before": before, "after": after } });
        if from + limit < fitting.len() {
            answer["paging"]["next"] = json!(format!("{base}&after={after}"));
        }
        if from > 0 {
            answer["paging"]["previous"] = json!(format!("{base}&before={before}"));
        }
    }
    Ok(([usage], Json(answer)).into_response())
}

#[derive(Deserialize)]
pub(in super::super) struct Gone {
    name: Option<String>,
    hsm_id: Option<String>,
}

/// `DELETE /{version}/{account}/message_templates`
pub(in super::super) async fn remove(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, waba)): Path<(String, String)>,
    Query(gone): Query<Gone>,
) -> Result<Response, Refused> {
    let now = inner.now();
    let (usage, told) = {
        let mut world = inner.world();
        let usage = caller.account(&mut world, &waba, Room::Templates, now)?;
        let name = gone.name.ok_or_else(|| refuse(100, "The parameter name is required."))?;
        let mut ids = world.templates.of_name(&waba, &name);
        if let Some(only) = gone.hsm_id {
            ids.retain(|id| id.to_string() == only);
        }
        if ids.is_empty() {
            let details = "Message template was not found";
            return Err(refuse_template(2_593_002, "Message Template Not Found", details));
        }
        let told: Vec<_> = ids.into_iter().filter_map(|id| world.templates.delete(id, now)).collect();
        (usage, told)
    };
    inner.tell_all(told);
    Ok(([usage], Json(json!({ "success": true }))).into_response())
}

#[derive(Deserialize)]
struct Many {
    name: Option<String>,
    languages: Option<Vec<String>>,
    category: Option<String>,
    components: Option<Vec<Value>>,
    message_send_ttl_seconds: Option<i64>,
}

/// `POST /{version}/{account}/upsert_message_templates`: authentication templates in many languages at once.
pub(in super::super) async fn upsert(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, waba)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Refused> {
    let mut world = inner.world();
    let now = inner.now();
    let usage = caller.account(&mut world, &waba, Room::Templates, now)?;
    let many: Many =
        serde_json::from_slice(&body).map_err(|_| refuse(100, "The parameters cannot be read as JSON."))?;
    if many.category.as_deref() != Some("AUTHENTICATION") {
        return Err(refuse(100, "Param category must be one of {AUTHENTICATION}."));
    }
    let languages = many.languages.filter(|languages| !languages.is_empty());
    let languages = languages.ok_or_else(|| refuse(100, "The parameter languages is required."))?;
    let name = check::name(many.name.as_deref())?.to_owned();
    for language in &languages {
        check::language(Some(language))?;
    }
    let components = many.components.ok_or_else(|| refuse(100, "The parameter components is required."))?;
    // Here the button's own words depend on the language; what is given stands for all.
    check::components(&components, "AUTHENTICATION", false, &|_| None)?;
    check::ttl(many.message_send_ttl_seconds, "AUTHENTICATION")?;
    let mut data = Vec::new();
    for language in languages {
        let known = world.templates.find(&waba, &name, &language).map(|template| template.id);
        let id = match known {
            Some(id) => {
                if let Some(template) = world.templates.get_mut(id) {
                    template.shape = Arc::new(Shape::of(&components, &language));
                    template.components.clone_from(&components);
                    template.ttl = many.message_send_ttl_seconds;
                    template.changed_at = now;
                }
                id
            }
            None => {
                let submitted = Submission {
                    name: Some(name.clone()),
                    language: Some(language.clone()),
                    category: many.category.clone(),
                    parameter_format: None,
                    components: Some(components.clone()),
                    message_send_ttl_seconds: many.message_send_ttl_seconds,
                };
                caller.made_template(&mut world, &waba, now)?;
                let made = make(&inner, &mut world, &caller, &waba, submitted)?;
                made["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default()
            }
        };
        let status = world.templates.get(id).map(|template| template.status.clone());
        data.push(json!({ "id": id.to_string(), "status": status, "language": language }));
    }
    Ok(([usage], Json(json!({ "data": data }))).into_response())
}

/// `GET /{version}/{template}`
pub(in super::super) fn show(
    inner: &Inner,
    caller: &Caller,
    id: u64,
    fields: Option<&str>,
) -> Result<Response, Refused> {
    let mut world = inner.world();
    let usage = own(&mut world, caller, id, inner.now())?;
    let template = world.templates.get(id).ok_or_else(|| no_such(&id.to_string()))?;
    Ok(([usage], Json(pick(template.shown(), fields))).into_response())
}

/// Counts the call, and says whether the template is the caller's to see.
fn own(world: &mut World, caller: &Caller, id: u64, now: DateTime<Utc>) -> Result<super::super::door::Usage, Refused> {
    let waba = world.templates.get(id).map(|template| template.waba.clone());
    let waba = waba.ok_or_else(|| no_such(&id.to_string()))?;
    caller.account(world, &waba, Room::Templates, now)
}

/// `POST /{version}/{template}`
pub(in super::super) fn edit(inner: &Inner, caller: &Caller, id: u64, body: &Bytes) -> Result<Response, Refused> {
    let mut world = inner.world();
    let now = inner.now();
    let usage = own(&mut world, caller, id, now)?;
    let submitted = submission(body)?;
    let template = world.templates.get(id).ok_or_else(|| no_such(&id.to_string()))?;
    let locked = |details: &str| refuse_template(2_388_039, "Message Template Cannot Be Edited", details);
    let approved = template.status == "APPROVED";
    if !approved && !["REJECTED", "PAUSED"].contains(&template.status.as_str()) {
        return Err(locked("The template is in review, or in a status in which it cannot be changed."));
    }
    for (within, most) in EDITS.into_iter().filter(|_| approved) {
        if template.edits.iter().filter(|at| now - **at < within).count() >= most {
            return Err(locked("An approved template can be edited once in 24 hours, and 10 times in 30 days."));
        }
    }
    let category = match submitted.category.as_deref() {
        Some(given) if approved && given != template.category => {
            return Err(refuse(100, "The category of an approved template cannot be changed."));
        }
        Some(given) => check::category(Some(given))?.to_owned(),
        None => template.category.clone(),
    };
    let named = match submitted.parameter_format.as_deref() {
        Some(format) => check::named(Some(format))?,
        None => template.named,
    };
    if submitted.components.is_none() && submitted.message_send_ttl_seconds.is_none() && category == template.category {
        return Err(refuse(100, "There is nothing to change: components, category or message_send_ttl_seconds."));
    }
    let handle = |handle: &str| {
        let before = template.components.iter().any(|one| one["example"]["header_handle"][0] == handle);
        let kind = template.components.iter().find_map(|one| one["format"].as_str());
        let known = match kind.filter(|_| before) {
            Some("IMAGE") => Some("image/png".to_owned()),
            Some("VIDEO") => Some("video/mp4".to_owned()),
            Some(_) => Some("application/pdf".to_owned()),
            None => None,
        };
        known.or_else(|| world.uploads.type_of(caller.app, handle))
    };
    if let Some(components) = &submitted.components {
        check::components(components, &category, named, &handle)?;
    }
    check::ttl(submitted.message_send_ttl_seconds, &category)?;
    let Some(template) = world.templates.get_mut(id) else { return Err(no_such(&id.to_string())) };
    template.edits.retain(|at| now - *at < TimeDelta::days(31));
    template.edits.push(now);
    template.category = category;
    template.named = named;
    template.ttl = submitted.message_send_ttl_seconds.or(template.ttl);
    if let Some(components) = submitted.components {
        template.shape = Arc::new(Shape::of(&components, &template.language));
        template.components = components;
        let _ = template.set_status("PENDING", None, None, now);
        review_later(inner, &mut world, id);
    }
    Ok(([usage], Json(json!({ "success": true }))).into_response())
}

/// `POST /{version}/{template}/unpause`: only what pacing paused; a pause for quality ends by itself.
pub(in super::super) async fn unpause(
    State(inner): State<Arc<Inner>>,
    caller: Caller,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let now = inner.now();
    let (usage, told) = {
        let mut world = inner.world();
        let number = id.parse().map_err(|_| no_such(&id))?;
        let usage = own(&mut world, &caller, number, now)?;
        let template = world.templates.get_mut(number).ok_or_else(|| no_such(&id))?;
        if template.status != "PAUSED" || !template.by_pacing {
            let reason = "The template is not paused by pacing.";
            return Ok(([usage], Json(json!({ "success": false, "reason": reason }))).into_response());
        }
        template.by_pacing = false;
        (usage, template.set_status("APPROVED", None, Some("UNPAUSE"), now))
    };
    inner.tell_all(vec![told]);
    Ok(([usage], Json(json!({ "success": true }))).into_response())
}
