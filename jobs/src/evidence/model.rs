use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Error, Word, screen};
use crate::{outbound::Chance, people::BusinessId};

/// Most bytes of an event's canonical JSON.
pub const MOST_BYTES: usize = 8 * 1024;

crate::id_type! {
    /// One thing that was decided or done.
    EventId
}

impl EventId {
    /// A new one, UUIDv7 (RFC 9562).
    pub fn new(chance: &dyn Chance, now: DateTime<Utc>) -> Self {
        Self(chance.uuid_v7(now))
    }
}

/// Who did it, by pseudonymous id: names, phones and addresses have no place in a log that cannot forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A person of the business or of the platform.
    Staff(Uuid),
    /// An API token, by its public id.
    Token(String),
    /// Whoever has a shell on the machine.
    Operator,
    /// A job.
    Job {
        /// Its kind.
        kind: &'static str,
        /// Its number.
        job_id: i64,
    },
    /// The person the data is about.
    Principal(Uuid),
    /// Somebody outside who was invited for one decision, by the id of her invitation.
    Outside(Uuid),
    /// The runtime itself, on nobody's behalf.
    System,
}

impl Actor {
    fn json(&self) -> Result<Value, Error> {
        Ok(match self {
            Self::Staff(id) => json!({ "kind": "staff", "id": id }),
            Self::Token(public_id) => json!({ "kind": "token", "id": screen::word(public_id, "actor")? }),
            Self::Operator => json!({ "kind": "operator" }),
            Self::Job { kind, job_id } => json!({ "kind": "job", "job": kind, "id": job_id.to_string() }),
            Self::Principal(id) => json!({ "kind": "principal", "id": id }),
            Self::Outside(id) => json!({ "kind": "outside", "id": id }),
            Self::System => json!({ "kind": "system" }),
        })
    }
}

/// What it was done to.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// `invoice`, `token`, `job`.
    pub kind: &'a str,
    /// Its id among those.
    pub id: &'a str,
}

/// One thing that was decided or done.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Its id.
    pub event_id: EventId,
    /// Whose it is; none: the installation's.
    pub business_id: Option<BusinessId>,
    /// Who did it.
    pub actor: Actor,
    /// What was done.
    pub verb: Word,
    /// To what.
    pub object: Object<'a>,
    /// Numbers, ids, states, digests. No free text and no personal values: what a person wrote is kept sealed where
    /// it belongs, and named here by its id.
    pub details: Value,
}

impl Event<'_> {
    /// The bytes that are stored and hashed: RFC 8785 canonical JSON.
    ///
    /// # Errors
    /// [`Error::BadWord`], [`Error::Personal`], [`Error::TooLarge`].
    pub fn body(&self) -> Result<Vec<u8>, Error> {
        let verb = screen::word(self.verb.as_str(), "verb")?;
        screen::details(verb, &self.details)?;
        let body = json!({
            "v": 1,
            "id": self.event_id,
            "business": self.business_id,
            "actor": self.actor.json()?,
            "verb": verb,
            "object": { "kind": screen::word(self.object.kind, "object.kind")?, "id": screen::word(self.object.id, "object.id")? },
            "details": self.details,
        });
        let bytes = serde_json_canonicalizer::to_vec(&body)
            .map_err(|source| Error::Canonical { verb: verb.to_owned(), source })?;
        if bytes.len() > MOST_BYTES {
            return Err(Error::TooLarge { verb: verb.to_owned(), size_bytes: bytes.len(), limit_bytes: MOST_BYTES });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::words;

    fn event(details: Value) -> Event<'static> {
        Event {
            event_id: EventId(Uuid::nil()),
            business_id: None,
            actor: Actor::Token("0123456789abcdef".to_owned()),
            verb: words::TOKEN_REVOKED,
            object: Object { kind: "token", id: "0123456789abcdef" },
            details,
        }
    }

    #[test]
    fn body_is_canonical_and_the_same_every_time() {
        let one = event(json!({ "b": 1.0, "a": [true, null] })).body().expect("a body");
        let two = event(json!({ "a": [true, null], "b": 1 })).body().expect("a body");
        assert_eq!(one, two);
        assert_eq!(
            String::from_utf8(one).expect("UTF-8"),
            "{\"actor\":{\"id\":\"0123456789abcdef\",\"kind\":\"token\"},\"business\":null,\
             \"details\":{\"a\":[true,null],\"b\":1},\"id\":\"00000000-0000-0000-0000-000000000000\",\
             \"object\":{\"id\":\"0123456789abcdef\",\"kind\":\"token\"},\"v\":1,\"verb\":\"people.token_revoked\"}"
        );
    }

    #[test]
    fn atk_083_an_actor_cannot_forge_lines_or_fields() {
        for forged in ["a\nb", "\u{1b}[31mred", "\u{202e}evil", "\"},{\"verb\":\"x", "", &"a".repeat(1_000_000)] {
            let mut event = event(Value::Null);
            event.actor = Actor::Token(forged.to_owned());
            assert!(matches!(event.body(), Err(Error::BadWord("actor"))), "{}", &forged[..forged.len().min(20)]);
            event.actor = Actor::System;
            event.object = Object { kind: "token", id: forged };
            assert!(matches!(event.body(), Err(Error::BadWord("object.id"))));
        }
        let agent = event(json!({ "agent": "x".repeat(1_000_000) })).body();
        assert!(matches!(agent, Err(Error::Personal { .. })), "1 MB user agent: {agent:?}");
    }

    #[test]
    fn atk_084_personal_values_and_free_text_are_refused_by_field() {
        let refused = [
            json!({ "reason": "Asha asked me to" }),
            json!({ "to": "+919876543210" }),
            json!({ "to": "9876543210" }),
            json!({ "to": "919876543210" }),
            json!({ "to": "98765-43210" }),
            json!({ "mail": "asha@example.in" }),
            json!({ "supplier": "27AAPFU0939F1ZV" }),
            json!({ "card": "4111111111111111" }),
            json!({ "card": "4111-1111-1111-1111" }),
            json!({ "list": [{ "deep": "asha@example.in" }] }),
            json!({ "+919876543210": 1 }),
        ];
        for details in refused {
            let shown = details.to_string();
            match event(details).body() {
                Err(error @ Error::Personal { .. }) => {
                    let text = error.to_string();
                    for value in ["9876543210", "98765-43210", "asha@", "27AAPFU", "4111", "Asha"] {
                        assert!(!text.contains(value), "{text}");
                    }
                }
                other => panic!("{shown}: {other:?}"),
            }
        }
        let fine = json!({
            "at": "2026-11-23T07:30:00Z", "sha256": "ab".repeat(32), "business": "0192f3c1-7000-7000-8000-987654321012",
            "number": "INV/2026-27/000123", "epoch_ms": 1_764_000_000_000_i64, "sealed": "AQEAAAAB+/8=", "state": "dead",
        });
        event(fine).body().expect("references, digests and states are what details are for");
    }
}
