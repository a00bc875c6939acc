//! The evidence over HTTP: read by whoever may, proven, and never another's.

use std::{sync::Arc, time::Instant};

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::{
    evidence::{
        self, Actor, Event, EventId, Object, Sealer,
        note::Signer25519,
        tree::{Hash, verify_consistency, verify_inclusion},
        words,
    },
    outbound::{Anchor, AnchorError, AnchorKind, Chance, Clock},
    people::{self, Authority, BusinessId, Decision, NewStaff, NewToken, Role, Scope, SealedContact, StaffId},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::tests::{House, is_problem};
use crate::outbound::{chance::OsChance, clock::SystemClock};

const SEED: [u8; 32] = [5; 32];

impl House {
    /// A house of whose own beginnings (businesses, tokens) nothing is in the log, so that a test can count.
    async fn with_an_empty_log() -> Self {
        let house = Self::new().await;
        let mut tx = house.db.pool().begin().await.expect("begun");
        for statement in ["set local session_replication_role = replica", "delete from muneem.evidence_events"] {
            sqlx::query(statement).execute(&mut *tx).await.expect("nothing is sealed yet");
        }
        tx.commit().await.expect("committed");
        house
    }

    async fn business(&self, handle: &str) -> BusinessId {
        let mut db = self.db.app_pool().acquire().await.expect("a connection");
        people::load_business(&mut db, handle).await.expect("a shop").business_id
    }

    async fn happens(&self, business: Option<BusinessId>, times: usize) {
        let mut db = self.db.app_pool().acquire().await.expect("a connection");
        for number in 0..times {
            let event = Event {
                event_id: EventId::new(&OsChance as &dyn Chance, DateTime::UNIX_EPOCH),
                business_id: business,
                actor: Actor::System,
                verb: words::PROBED,
                object: Object { kind: "test", id: "one" },
                details: json!({ "number": number }),
            };
            evidence::record(&mut db, &event).await.expect("recorded");
        }
    }

    /// Seals all that waits, and signs it.
    async fn seal(&self, sealer: &mut Sealer, at: DateTime<Utc>) {
        let mut db = self.db.app_pool().acquire().await.expect("a connection");
        let begun = Instant::now();
        while evidence::load_standing(&mut db).await.expect("asked").unsealed_since.is_some() {
            sealer.turn(&mut db, at).await.expect("sealed");
            assert!(begun.elapsed().as_secs() < 60, "nothing is sealed");
        }
        sealer.turn(&mut db, at + TimeDelta::seconds(11)).await.expect("signed");
    }
}

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_764_000_000, 0).expect("an instant")
}

fn path(value: &Value) -> Vec<Hash> {
    let hashes = value.as_array().expect("a path").iter();
    hashes
        .map(|hash| STANDARD.decode(hash.as_str().expect("base64")).expect("base64").try_into().expect("32"))
        .collect()
}

fn hash(value: &Value) -> Hash {
    hex::decode(value.as_str().expect("hexadecimal")).expect("hexadecimal").try_into().expect("32 bytes")
}

#[tokio::test]
async fn an_event_comes_with_a_proof_that_leads_to_a_signed_head() {
    let house = House::with_an_empty_log().await;
    let (sharma, verma) = (house.business("sharma-mobiles").await, house.business("verma-phones").await);
    let mut sealer = Sealer::new(Signer25519::new(&SEED), Vec::new(), "test".to_owned());
    house.happens(Some(sharma), 3).await;
    house.seal(&mut sealer, noon()).await;
    house.happens(Some(verma), 2).await;
    house.happens(None, 1).await;
    house.seal(&mut sealer, noon() + TimeDelta::minutes(1)).await;

    let listed = house.get("/v1/evidence/events?limit=2", &house.sharma).await;
    assert_eq!(listed.status, StatusCode::OK, "{}", listed.body);
    let items = listed.body["items"].as_array().expect("items");
    assert_eq!(items.iter().map(|item| item["business_seq"].as_u64()).collect::<Vec<_>>(), [Some(3), Some(2)]);
    assert!(items.iter().all(|item| item.get("body").is_none()), "only what was asked for");
    let next = listed.body["next"].as_str().expect("more");
    let rest = house.get(&format!("/v1/evidence/events?limit=2&cursor={next}"), &house.sharma).await;
    assert_eq!(rest.body["items"][0]["business_seq"], 1);
    assert!(rest.body.get("next").is_none());
    // What only a list told is not on record; the bodies are.
    let read = house.get("/v1/evidence/events?bodies=true", &house.sharma).await;
    assert_eq!(read.body["items"][0]["body"]["verb"], words::PROBED.as_str(), "{}", read.body);
    house.seal(&mut sealer, noon() + TimeDelta::minutes(2)).await;
    let newest = house.get("/v1/evidence/events?bodies=true&limit=1", &house.sharma).await;
    let look = &newest.body["items"][0]["body"];
    assert_eq!((&look["verb"], &look["details"]["count"]), (&json!("evidence.read"), &json!(3)), "{look}");
    assert_eq!(look["actor"]["kind"], "token");

    let id = items[0]["id"].as_str().expect("an id");
    let shown = house.get(&format!("/v1/evidence/events/{id}"), &house.sharma).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.body);
    let (event, proof) = (&shown.body["event"], &shown.body["proof"]);
    let (index, size) = (proof["index"].as_u64().expect("a place"), proof["head"]["size"].as_u64().expect("a size"));
    let root = hash(&proof["head"]["root"]);
    assert!(verify_inclusion(hash(&event["leaf"]), index, size, &path(&proof["path"]), &root));
    let head =
        Signer25519::new(&SEED).verifier().open(proof["head"]["note"].as_str().expect("a note")).expect("signed");
    assert_eq!((head.size, head.root), (size, root));
    assert_eq!((&shown.body["body_state"], &event["body"]["details"]["number"]), (&json!("kept"), &json!(2)));

    let heads = house.get("/v1/evidence/heads?limit=200", &house.sharma).await;
    let heads = heads.body["items"].as_array().expect("heads");
    let of = |size: u64| heads.iter().find(|head| head["size"] == size).unwrap_or_else(|| panic!("{heads:?}"));
    let grown = house.get("/v1/evidence/growth?from=3&to=6", &house.sharma).await;
    assert_eq!(grown.status, StatusCode::OK, "{}", grown.body);
    let proof = path(&grown.body["path"]);
    assert!(verify_consistency(3, &hash(&of(3)["root"]), 6, &hash(&of(6)["root"]), &proof));
    is_problem(&house.get("/v1/evidence/growth?from=2&to=6", &house.sharma).await, 404, "evidence.no_such_head");
}

#[tokio::test]
async fn atk_059_the_evidence_of_another_business_does_not_exist() {
    let house = House::with_an_empty_log().await;
    let (sharma, verma) = (house.business("sharma-mobiles").await, house.business("verma-phones").await);
    let mut sealer = Sealer::new(Signer25519::new(&SEED), Vec::new(), "test".to_owned());
    house.happens(Some(sharma), 2).await;
    house.happens(Some(verma), 1).await;
    house.happens(None, 1).await;
    house.seal(&mut sealer, noon()).await;
    let all = house.get("/v1/evidence/events?bodies=true", &house.all).await;
    let items = all.body["items"].as_array().expect("items");
    assert_eq!(items.len(), 4);
    for item in items {
        let mine = item["business_id"] == json!(verma);
        let shown = house.get(&format!("/v1/evidence/events/{}", item["id"].as_str().expect("id")), &house.verma).await;
        if mine {
            assert_eq!(shown.status, StatusCode::OK);
        } else {
            is_problem(&shown, 404, "evidence.no_such_event");
        }
    }
    let own = house.get("/v1/evidence/events", &house.verma).await;
    assert_eq!(own.body["items"].as_array().expect("items").len(), 1);
    let asked = house.get("/v1/evidence/events?business=sharma-mobiles", &house.verma).await;
    is_problem(&asked, 404, "people.no_such_business");
    let narrowed = house.get("/v1/evidence/events?business=sharma-mobiles", &house.all).await;
    assert_eq!(narrowed.body["items"].as_array().expect("items").len(), 2);
    // A refused look leaves no trace that the event is there.
    for id in ["0192f3c1-7000-7000-8000-987654321012", "1", "sharma-mobiles"] {
        is_problem(&house.get(&format!("/v1/evidence/events/{id}"), &house.verma).await, 404, "evidence.no_such_event");
    }
    // Without the scope, nothing.
    let mut owner = house.db.pool().acquire().await.expect("a connection");
    let new = NewToken { scopes: vec![Scope::EvidenceExport], ..NewToken::bootstrap() };
    let (_, bearer) = people::create_token(&mut owner, new, &SystemClock, &OsChance).await.expect("a token");
    for path in ["events", "heads", "growth?from=1&to=1", "events/0192f3c1-7000-7000-8000-987654321012"] {
        let refused = house.get(&format!("/v1/evidence/{path}"), bearer.expose_secret()).await;
        is_problem(&refused, 403, "people.missing_scope");
    }
}

#[tokio::test]
async fn atk_085_what_cannot_be_recorded_is_neither_shown_nor_done() {
    let house = House::new().await;
    let sharma = house.business("sharma-mobiles").await;
    let mut sealer = Sealer::new(Signer25519::new(&SEED), Vec::new(), "test".to_owned());
    house.happens(Some(sharma), 1).await;
    house.seal(&mut sealer, noon()).await;
    let place = json!({ "table": "public.customers", "column": "phone" });
    let cells = json!([{ "row": "7", "value": "98765 43210" }]);
    let sealed = house
        .post("/v1/vault/seal", &house.sharma, None, &json!({ "place": place, "class": "contact", "cells": cells }))
        .await;
    let stored = &sealed.body["cells"][0]["sealed"];
    let listed = house.get("/v1/evidence/events", &house.sharma).await;
    let id = listed.body["items"][0]["id"].as_str().expect("an id").to_owned();
    // No event can be written any more, as when the disk is full.
    sqlx::query("alter table muneem.evidence_events add constraint full_disk check (false) not valid")
        .execute(&house.db.pool())
        .await
        .expect("altered");
    let open = json!({ "place": place, "cells": [{ "row": "7", "sealed": stored }] });
    for answered in [
        house.post("/v1/vault/open", &house.sharma, None, &open).await,
        house.get("/v1/evidence/events?bodies=true", &house.sharma).await,
        house.get(&format!("/v1/evidence/events/{id}"), &house.sharma).await,
    ] {
        is_problem(&answered, 500, "http.internal");
        let text = answered.body.to_string();
        assert!(!text.contains("98765") && !text.contains(words::PROBED.as_str()), "{text}");
    }
    let mut db = house.db.app_pool().acquire().await.expect("a connection");
    let (by, now) = (Authority::operator(), noon());
    let new = NewStaff {
        staff_id: StaffId(uuid::Uuid::from_u128(7)),
        business_id: Some(sharma),
        name: vec![1],
        language: "hi".to_owned(),
        phone: Some(SealedContact { sealed: vec![2], index: vec![7; 16], index_version: 1 }),
        email: None,
        roles: vec![Role::Manager],
    };
    let added = people::add_staff(&mut db, &new, &Decision { by: &by, now, chance: &OsChance }).await;
    let staff: i64 =
        sqlx::query_scalar("select count(*) from muneem.people_staff").fetch_one(&mut *db).await.expect("ok");
    assert!(added.is_err() && staff == 0, "somebody whom nobody recorded: {added:?}, {staff}");
}

/// A place that never answers as it should.
struct Dead;

#[async_trait::async_trait]
impl Anchor for Dead {
    fn name(&self) -> &str {
        "objects"
    }

    fn kind(&self) -> AnchorKind {
        AnchorKind::Objects
    }

    fn every(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }

    fn remembers(&self) -> bool {
        false
    }

    fn is_outside(&self) -> bool {
        true
    }

    async fn lay(&self, _: u64, _: &str) -> Result<Vec<u8>, AnchorError> {
        Err(AnchorError::new("the bucket of asha@example.in is gone"))
    }

    async fn latest(&self) -> Result<Option<String>, AnchorError> {
        Ok(None)
    }
}

#[tokio::test]
async fn health_shows_how_each_anchor_stands_and_a_dead_one_does_not_make_it_unready() {
    let house = House::new().await;
    let mut sealer = Sealer::new(Signer25519::new(&SEED), vec![Arc::new(Dead)], "test".to_owned());
    let mut db = house.db.app_pool().acquire().await.expect("a connection");
    let begun = Instant::now();
    while evidence::list_anchor_states(&mut db).await.expect("listed").iter().all(|state| state.failures == 0) {
        sealer.turn(&mut db, SystemClock.now()).await.expect("it stops nothing");
        assert!(begun.elapsed().as_secs() < 60, "nobody noticed");
    }
    let ready = house.get("/health/ready", "").await;
    assert_eq!(ready.status, StatusCode::OK, "{}", ready.body);
    let anchor = &ready.body["anchors"][0];
    assert_eq!((&anchor["name"], &anchor["kind"]), (&json!("objects"), &json!("objects")));
    assert!(anchor["failing_since"].is_string() && anchor["laid_size"].is_null(), "{anchor}");
    // What it said is for those who may look into the log of this process.
    assert!(!ready.body.to_string().contains("bucket"), "{}", ready.body);
}
