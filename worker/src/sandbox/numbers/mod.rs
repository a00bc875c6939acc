//! Numbers and accounts: what is told of them, their registration, who is subscribed, whom they block; and the script
//! that makes the carrier change them.

mod control;
mod http;

use std::collections::{BTreeSet, VecDeque};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

pub(super) use control::{credentials, phones, script};
pub(super) use http::{
    block, blocked, deregister, line, list, register, request_code, set, show_account, subscribe, subscribed, unblock,
    unsubscribe, verify_code,
};

use super::world::{Line, World};

/// A number's state beside its registration.
#[derive(Debug)]
pub(super) struct State {
    pub(super) status: String,
    pub(super) quality: String,
    /// `TIER_250` to `TIER_100K`, or `TIER_UNLIMITED`.
    pub(super) tier: String,
    pub(super) name_status: String,
    pub(super) verified: bool,
    pub(super) deleted: bool,
    /// Its throughput is being upgraded.
    pub(super) upgrading: bool,
    /// What every message is refused with, while it is.
    pub(super) refuses: Option<i64>,
    pub(super) pin: Option<String>,
    pub(super) code_requested: bool,
    pub(super) registrations: VecDeque<DateTime<Utc>>,
    pub(super) blocked: BTreeSet<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: "CONNECTED".to_owned(),
            quality: "GREEN".to_owned(),
            tier: "TIER_UNLIMITED".to_owned(),
            name_status: "APPROVED".to_owned(),
            verified: true,
            deleted: false,
            upgrading: false,
            refuses: None,
            pin: None,
            code_requested: false,
            registrations: VecDeque::new(),
            blocked: BTreeSet::new(),
        }
    }
}

impl State {
    /// People that its portfolio may begin to write to in 24 hours; none: as many as it likes.
    pub(super) fn people_a_day(&self) -> Option<usize> {
        match self.tier.as_str() {
            "TIER_50" => Some(50),
            "TIER_250" => Some(250),
            "TIER_1K" => Some(1_000),
            "TIER_2K" => Some(2_000),
            "TIER_10K" => Some(10_000),
            "TIER_100K" => Some(100_000),
            _ => None,
        }
    }

    pub(super) fn blocks(&self, phone: &str) -> bool {
        self.blocked.contains(phone)
    }

    /// The code and words that every message is refused with now.
    pub(super) fn refuses(&self) -> Option<(i64, &'static str)> {
        match (self.refuses, self.status.as_str()) {
            (Some(code), _) => Some((code, "This number may not send now")),
            (None, "BANNED") => Some((368, "The number is banned for policy violations")),
            _ => None,
        }
    }
}

/// What is told of a number, only the fields that are asked for.
pub(super) fn shown(world: &World, line: &Line, fields: Option<&str>) -> Map<String, Value> {
    let (number, state) = (&line.number, &line.state);
    let level = if state.upgrading {
        "NOT_APPLICABLE"
    } else if number.messages_per_second >= 1_000 {
        "HIGH"
    } else {
        "STANDARD"
    };
    let verified = if state.verified { "VERIFIED" } else { "NOT_VERIFIED" };
    let all = json!({
        "id": number.id,
        "display_phone_number": number.display_phone.as_e164(),
        "verified_name": number.business_name,
        "quality_rating": state.quality,
        "code_verification_status": verified,
        "name_status": state.name_status,
        "status": if line.registered { state.status.as_str() } else { "PENDING" },
        "account_mode": "LIVE",
        "platform_type": if line.registered { "CLOUD_API" } else { "NOT_APPLICABLE" },
        "throughput": { "level": level },
        "is_pin_enabled": state.pin.is_some(),
        "whatsapp_business_manager_messaging_limit": state.tier,
        "webhook_configuration": { "application": world.callback(&number.waba_id, None),
            "phone_number": line.callback_url },
        "health_status": health(world, line),
    });
    let Value::Object(mut all) = all else { return Map::new() };
    let always = ["id", "display_phone_number", "verified_name", "quality_rating"];
    let plain = ["status", "throughput", "platform_type", "code_verification_status"];
    all.retain(|key, _| match fields {
        None => always.contains(&key.as_str()) || plain.contains(&key.as_str()),
        Some(fields) => {
            key == "id" || fields.split(',').any(|field| field.trim().split(['{', '(']).next() == Some(key))
        }
    });
    all
}

/// Which of number, account, business and app is in the way.
pub(super) fn health(world: &World, line: &Line) -> Value {
    let entity = |kind: &str, id: &str, problem: Option<(i64, &str)>| {
        let can = if problem.is_some() { "BLOCKED" } else { "AVAILABLE" };
        let mut entity = json!({ "entity_type": kind, "id": id, "can_send_message": can });
        if let Some((code, what)) = problem {
            entity["errors"] = json!([{ "error_code": code, "error_description": what,
                "possible_solution": "Look at the account in the business manager." }]);
        }
        entity
    };
    let of_number = match (line.registered, line.state.refuses()) {
        (false, _) => Some((133_010, "The phone number is not registered.")),
        (true, refuses) => refuses,
    };
    let of_account = world.account(&line.number.waba_id).and_then(|account| account.blocked);
    let app = &world.apps[line.app];
    let of_app = app.expired.then_some((190, "The access token has expired."));
    let blocked = of_number.is_some() || of_account.is_some() || of_app.is_some();
    json!({
        "can_send_message": if blocked { "BLOCKED" } else { "AVAILABLE" },
        "entities": [
            entity("PHONE_NUMBER", &line.number.id, of_number),
            entity("WABA", &line.number.waba_id, of_account),
            entity("BUSINESS", "506914307656634", None),
            entity("APP", &app.id, of_app),
        ],
    })
}
