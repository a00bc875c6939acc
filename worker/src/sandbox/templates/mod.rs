//! The stand-in's own templates: kept per account, judged when they are submitted, and alive afterwards. Reviewed,
//! paused for bad quality (three hours, six hours, for good), held back while they are new, archived when nobody uses
//! them, deleted. Each change has the webhook that the carrier sends for it.

mod check;
mod control;
mod http;
mod seed;
mod shape;
mod upload;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

pub(super) use control::{list as listed, script};
pub(super) use http::{create, edit, list, remove, show, unpause, upsert};
pub(super) use shape::{Button, Head, HeadFile, Shape, fill};
pub(super) use upload::{Uploads, begin as begin_upload, progress as upload_progress, take as take_upload};

use super::refused::{Refused, refuse_template};

/// Names that an account may have.
const NAMES: usize = 250;
/// How long a name stays blocked after its template was deleted.
const NAME_BLOCKED: TimeDelta = TimeDelta::days(30);
/// Pauses for bad quality; the third time it is disabled.
const PAUSES: [TimeDelta; 2] = [TimeDelta::hours(3), TimeDelta::hours(6)];
/// A template that nobody sends for so long is archived.
const IDLE: TimeDelta = TimeDelta::days(365);
/// An archived template is deleted after so long.
const ARCHIVED: TimeDelta = TimeDelta::days(28);
/// Messages that a held template remembers; they are what a verdict releases or drops.
const HELD: usize = 10_000;

/// What a template's next step is when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The review ends well.
    Review,
    /// A pause for quality ends, if it is still this one.
    Resume { pauses: usize },
}

/// Held back while the carrier watches how the first ones are taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Pacing {
    /// So many more go out at once.
    pub(super) free: u64,
    /// Then these wait for the verdict.
    pub(super) held: Vec<u64>,
}

/// One template in one language.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) id: u64,
    pub(super) waba: String,
    pub(super) name: String,
    pub(super) language: String,
    pub(super) category: String,
    pub(super) previous_category: Option<String>,
    pub(super) correct_category: Option<String>,
    pub(super) status: String,
    pub(super) quality: String,
    pub(super) quality_at: DateTime<Utc>,
    pub(super) rejected_reason: String,
    pub(super) components: Vec<Value>,
    pub(super) named: bool,
    pub(super) ttl: Option<i64>,
    pub(super) shape: Arc<Shape>,
    pub(super) edits: Vec<DateTime<Utc>>,
    pub(super) pauses: usize,
    pub(super) by_pacing: bool,
    pub(super) pacing: Option<Pacing>,
    pub(super) used_at: DateTime<Utc>,
    pub(super) changed_at: DateTime<Utc>,
}

/// A change of a template, and what its webhook says: account, field, value.
pub(super) struct Told {
    pub(super) waba: String,
    pub(super) field: &'static str,
    pub(super) value: Value,
}

/// Everything that is new about a template that is being made.
pub(super) struct New {
    pub(super) waba: String,
    pub(super) name: String,
    pub(super) language: String,
    pub(super) category: String,
    pub(super) named: bool,
    pub(super) components: Vec<Value>,
    pub(super) ttl: Option<i64>,
}

/// All templates of all accounts.
#[derive(Debug, Default)]
pub(super) struct Store {
    next: u64,
    by_id: BTreeMap<u64, Stored>,
    by_name: HashMap<(String, String), BTreeMap<String, u64>>,
    blocked: HashMap<(String, String), DateTime<Utc>>,
    names: HashMap<String, usize>,
}

impl Store {
    pub(super) fn get(&self, id: u64) -> Option<&Stored> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Stored> {
        self.by_id.get_mut(&id)
    }

    /// The template that a message names.
    pub(super) fn find(&self, waba: &str, name: &str, language: &str) -> Option<&Stored> {
        let id = self.by_name.get(&(waba.to_owned(), name.to_owned()))?.get(language)?;
        self.by_id.get(id)
    }

    /// Every language of a name.
    pub(super) fn of_name(&self, waba: &str, name: &str) -> Vec<u64> {
        let languages = self.by_name.get(&(waba.to_owned(), name.to_owned()));
        languages.into_iter().flat_map(BTreeMap::values).copied().collect()
    }

    pub(super) fn of_account<'a>(&'a self, waba: &'a str) -> impl Iterator<Item = &'a Stored> {
        self.by_id.values().filter(move |template| template.waba == waba)
    }

    /// Keeps a new one, in review.
    pub(super) fn make(&mut self, new: New, now: DateTime<Utc>) -> Result<u64, Refused> {
        let key = (new.waba.clone(), new.name.clone());
        if self.blocked.get(&key).is_some_and(|until| *until > now) {
            return Err(refuse_template(
                2_388_023,
                "Message Template Language is Being Deleted",
                "A template of this name is being deleted. Its name can be used again 30 days after.",
            ));
        }
        let languages = self.by_name.get(&key);
        if languages.is_some_and(|languages| languages.contains_key(&new.language)) {
            return Err(refuse_template(
                2_388_024,
                "Content in This Language Already Exists",
                format!("There is already {} content for this template.", new.language),
            ));
        }
        if languages.is_none() && self.names.get(&new.waba).is_some_and(|names| *names >= NAMES) {
            let details = format!("The account has {NAMES} message templates. Delete some before creating more.");
            return Err(refuse_template(2_388_019, "Message Template Limit Exceeded", details));
        }
        if languages.is_none() {
            *self.names.entry(new.waba.clone()).or_default() += 1;
        }
        self.next += 1;
        let id = 740_000_000_000_000 + self.next * 7_919;
        self.by_name.entry(key).or_default().insert(new.language.clone(), id);
        let template = Stored {
            id,
            shape: Arc::new(Shape::of(&new.components, &new.language)),
            waba: new.waba,
            name: new.name,
            language: new.language,
            category: new.category,
            previous_category: None,
            correct_category: None,
            status: "PENDING".to_owned(),
            quality: "UNKNOWN".to_owned(),
            quality_at: now,
            rejected_reason: "NONE".to_owned(),
            components: new.components,
            named: new.named,
            ttl: new.ttl,
            edits: Vec::new(),
            pauses: 0,
            by_pacing: false,
            pacing: None,
            used_at: now,
            changed_at: now,
        };
        self.by_id.insert(id, template);
        Ok(id)
    }

    /// Forgets one; its name stays blocked.
    pub(super) fn delete(&mut self, id: u64, now: DateTime<Utc>) -> Option<Told> {
        let gone = self.by_id.remove(&id)?;
        let key = (gone.waba.clone(), gone.name.clone());
        if let Some(languages) = self.by_name.get_mut(&key) {
            languages.remove(&gone.language);
            if languages.is_empty() {
                self.by_name.remove(&key);
                self.blocked.insert(key, now + NAME_BLOCKED);
                if let Some(names) = self.names.get_mut(&gone.waba) {
                    *names = names.saturating_sub(1);
                }
            }
        }
        self.blocked.retain(|_, until| *until > now);
        Some(gone.told_status("DELETED", None, None))
    }

    /// What time alone does: idle ones are archived, archived ones deleted.
    pub(super) fn age(&mut self, now: DateTime<Utc>) -> Vec<Told> {
        let idle = |template: &Stored| template.status == "APPROVED" && now - template.used_at > IDLE;
        let gone = |template: &Stored| template.status == "ARCHIVED" && now - template.changed_at > ARCHIVED;
        let ids: Vec<_> = self.by_id.values().filter(|template| idle(template)).map(|template| template.id).collect();
        let mut told = Vec::new();
        for id in ids {
            if let Some(template) = self.by_id.get_mut(&id) {
                told.push(template.set_status("ARCHIVED", None, None, now));
            }
        }
        let ids: Vec<_> = self.by_id.values().filter(|template| gone(template)).map(|template| template.id).collect();
        told.extend(ids.into_iter().filter_map(|id| self.delete(id, now)));
        told
    }
}

impl Stored {
    fn told_status(&self, event: &str, reason: Option<&str>, title: Option<&str>) -> Told {
        let mut value = json!({
            "event": event,
            "message_template_id": self.id,
            "message_template_name": self.name,
            // Webhooks write a hyphen where the API writes an underscore.
            "message_template_language": self.language.replace('_', "-"),
            "message_template_category": self.category,
            "reason": reason.unwrap_or("NONE"),
        });
        if let Some(title) = title {
            value["other_info"] = json!({ "title": title, "description": "The template's state changed." });
        }
        if event == "REJECTED" {
            let recommendation = "Change what the reason names and submit it again.";
            value["rejection_info"] = json!({ "reason": reason.unwrap_or("NONE"), "recommendation": recommendation });
        }
        if event == "DISABLED" {
            value["disable_info"] = json!({ "disable_date": self.changed_at.timestamp() });
        }
        Told { waba: self.waba.clone(), field: "message_template_status_update", value }
    }

    /// Puts it in a status, and says what the webhook says.
    pub(super) fn set_status(
        &mut self,
        status: &str,
        reason: Option<&str>,
        title: Option<&str>,
        now: DateTime<Utc>,
    ) -> Told {
        status.clone_into(&mut self.status);
        self.changed_at = now;
        if status == "APPROVED" {
            self.used_at = now;
        }
        self.rejected_reason = reason.filter(|_| status == "REJECTED").unwrap_or("NONE").to_owned();
        self.told_status(status, reason, title)
    }

    /// The carrier judges it as another category. What the sender set about its life is gone with that.
    pub(super) fn set_category(&mut self, category: &str) -> Told {
        let previous = std::mem::replace(&mut self.category, category.to_owned());
        self.ttl = None;
        self.correct_category = None;
        self.previous_category = Some(previous.clone());
        Told {
            waba: self.waba.clone(),
            field: "template_category_update",
            value: json!({
                "message_template_id": self.id,
                "message_template_name": self.name,
                "message_template_language": self.language.replace('_', "-"),
                "previous_category": previous,
                "new_category": category,
            }),
        }
    }

    /// Says in advance that another category is right.
    pub(super) fn announce_category(&mut self, category: &str) -> Told {
        self.correct_category = Some(category.to_owned());
        Told {
            waba: self.waba.clone(),
            field: "template_category_update",
            value: json!({
                "message_template_id": self.id,
                "message_template_name": self.name,
                "message_template_language": self.language.replace('_', "-"),
                "correct_category": category,
                "new_category": self.category,
            }),
        }
    }

    /// Its quality is seen anew. Red pauses it, and in the end disables it. Says when a pause is over.
    pub(super) fn set_quality(&mut self, quality: &str, now: DateTime<Utc>) -> (Vec<Told>, Option<DateTime<Utc>>) {
        let previous = std::mem::replace(&mut self.quality, quality.to_owned());
        self.quality_at = now;
        let mut told = vec![Told {
            waba: self.waba.clone(),
            field: "message_template_quality_update",
            value: json!({
                "previous_quality_score": previous,
                "new_quality_score": quality,
                "message_template_id": self.id,
                "message_template_name": self.name,
                "message_template_language": self.language.replace('_', "-"),
            }),
        }];
        if quality != "RED" || self.status != "APPROVED" {
            return (told, None);
        }
        let pause = PAUSES.get(self.pauses).copied();
        self.pauses += 1;
        self.by_pacing = false;
        let title = ["FIRST_PAUSE", "SECOND_PAUSE"].get(self.pauses - 1).copied();
        told.push(match pause {
            Some(_) => self.set_status("PAUSED", None, title, now),
            None => self.set_status("DISABLED", None, Some("DISABLED"), now),
        });
        (told, pause.map(|pause| now + pause))
    }

    /// A pause for quality ends by itself.
    pub(super) fn resume(&mut self, pauses: usize, now: DateTime<Utc>) -> Option<Told> {
        if self.status != "PAUSED" || self.by_pacing || self.pauses != pauses {
            return None;
        }
        self.quality = "UNKNOWN".to_owned();
        Some(self.set_status("APPROVED", None, Some("UNPAUSE"), now))
    }

    /// How long the carrier goes on trying to deliver a message of it.
    pub(super) fn life(&self) -> TimeDelta {
        match self.ttl {
            Some(seconds) if seconds > 0 => TimeDelta::seconds(seconds),
            None if self.category == "AUTHENTICATION" => TimeDelta::minutes(10),
            _ => TimeDelta::days(30),
        }
    }

    /// Whether one more message of it has to wait for the verdict; `sequence` is the message.
    pub(super) fn holds(&mut self, sequence: u64) -> bool {
        let Some(pacing) = &mut self.pacing else { return false };
        if pacing.free > 0 {
            pacing.free -= 1;
            return false;
        }
        if pacing.held.len() < HELD {
            pacing.held.push(sequence);
        }
        true
    }

    /// As `GET` shows it.
    pub(super) fn shown(&self) -> serde_json::Map<String, Value> {
        let mut shown = serde_json::Map::new();
        let mut put = |key: &str, value: Value| shown.insert(key.to_owned(), value);
        put("id", json!(self.id.to_string()));
        put("name", json!(self.name));
        put("parameter_format", json!(if self.named { "NAMED" } else { "POSITIONAL" }));
        put("components", json!(self.read_back()));
        put("language", json!(self.language));
        put("status", json!(self.status));
        put("category", json!(self.category));
        put("quality_score", json!({ "score": self.quality, "date": self.quality_at.timestamp() }));
        put("rejected_reason", json!(self.rejected_reason));
        put("last_updated_time", json!(self.changed_at.format("%Y-%m-%dT%H:%M:%S+0000").to_string()));
        if let Some(previous) = &self.previous_category {
            put("previous_category", json!(previous));
        }
        if let Some(correct) = &self.correct_category {
            put("correct_category", json!(correct));
        }
        if let Some(ttl) = self.ttl {
            put("message_send_ttl_seconds", json!(ttl));
        }
        shown
    }

    /// Components as they come back: the words around a code are spelt out, and its button is one with a URL.
    fn read_back(&self) -> Vec<Value> {
        if self.category != "AUTHENTICATION" {
            return self.components.clone();
        }
        let mut components = self.components.clone();
        for component in &mut components {
            if component["type"] == "BODY" {
                component["text"] = json!(self.shape.body);
                component["example"] = json!({ "body_text": [["123456"]] });
            } else if component["type"] == "FOOTER" {
                component["text"] = json!(self.shape.footer);
            } else if component["type"] == "BUTTONS" {
                let text = self.shape.buttons.first().map_or("Copy code", Button::text);
                let url = "https://www.whatsapp.com/otp/code/?otp_type=COPY_CODE&code=otp{{1}}";
                component["buttons"] =
                    json!([{ "type": "URL", "text": text, "url": url, "example": [url.replace("{{1}}", "123456")] }]);
            }
        }
        components
    }
}
