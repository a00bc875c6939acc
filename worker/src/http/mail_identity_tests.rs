//! Whom the mail of a business comes from, over HTTP: whose key speaks for the address, and who has shown its code.

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use muneem_jobs::outbound::Clock;
use serde_json::{Value, json};

use super::tests::{Answered, House, is_problem};
use crate::outbound::clock::SystemClock;

const PAGE: &str = "/v1/messaging/mail/identity";
const VERIFY: &str = "/v1/messaging/mail/identity/verify";
const REMOVE: &str = "/v1/messaging/mail/identity/remove";
const CODE: &str = "abcd-efgh-jkmn";

fn signed_by(domain: &str) -> Value {
    json!({ "from": "bills@mail.sharma.example", "dkim": { "domain": domain, "selector": "mnm2026", "algorithm": "ed25519" } })
}

impl House {
    async fn set(&self, token: &str, key: Option<&str>, body: &Value) -> Answered {
        self.post(PAGE, token, key, body).await
    }

    async fn shows(&self, token: &str, code: &str) -> Answered {
        self.post(VERIFY, token, None, &json!({ "code": code })).await
    }

    /// Puts a code in the place of the one that the job would send: its digest is all that is kept of any.
    async fn code_went_out(&self, handle: &str, code: &str, end: DateTime<Utc>) {
        let changed = sqlx::query(
            "update muneem.messaging_mail_identities i
             set code_sha256 = sha256(uuid_send(i.business_id) || convert_to($2, 'UTF8')), code_expires_at = $3,
                 code_tries = 0
             from muneem.people_businesses b
             where b.business_id = i.business_id and b.handle = $1",
        )
        .bind(handle)
        .bind(code.replace('-', ""))
        .bind(end)
        .execute(&self.db.pool())
        .await
        .expect("the owner may");
        assert_eq!(changed.rows_affected(), 1);
    }

    async fn number_of(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db.pool()).await.expect("counted")
    }

    async fn jobs_of_codes(&self) -> i64 {
        self.number_of("select count(*) from muneem.queue_jobs where kind = 'messaging.verify_mail_identity'").await
    }

    async fn with_kinds() -> Self {
        let house = Self::new().await;
        let mut owner = house.db.pool().acquire().await.expect("a connection");
        let kinds = muneem_jobs::kinds();
        muneem_jobs::queue::sync_kinds(&mut owner, &kinds).await.expect("kinds");
        house
    }
}

fn tomorrow() -> DateTime<Utc> {
    SystemClock.now() + TimeDelta::hours(20)
}

#[tokio::test]
async fn a_key_that_does_not_speak_for_the_address_is_refused_and_nothing_is_kept() {
    let house = House::with_kinds().await;
    for wrong in ["other.example", "harma.example", "deep.mail.sharma.example", "example.sharma"] {
        let refused = house.set(&house.sharma, None, &signed_by(wrong)).await;
        is_problem(&refused, 422, "messaging.bad_mail_identity");
        assert!(
            refused.body["detail"].as_str().is_some_and(|told| told.contains("signing domain")),
            "{}",
            refused.body
        );
    }
    let not_one = json!({ "from": "bills@mail.sharma.example", "dkim": { "domain": "sharma.example", "selector": "not a label",
        "algorithm": "ed25519" } });
    is_problem(&house.set(&house.sharma, None, &not_one).await, 422, "messaging.bad_mail_identity");
    for from in ["", "bills", "bills@sharma.example\r\nBcc: x@y.example", "a@b@c.example"] {
        let refused = house.set(&house.sharma, None, &json!({ "from": from })).await;
        is_problem(&refused, 422, "messaging.bad_mail_identity");
        assert!(!refused.body.to_string().contains("Bcc"), "what was sent is not repeated: {}", refused.body);
    }
    is_problem(&house.get(PAGE, &house.sharma).await, 404, "messaging.no_such_mail_identity");
    assert_eq!(house.jobs_of_codes().await, 0, "no code goes out for what was refused");
}

#[tokio::test]
async fn the_record_to_publish_is_shown_and_the_address_is_used_once_its_reader_showed_the_code() {
    let house = House::with_kinds().await;
    let set = house.set(&house.sharma, None, &signed_by("sharma.example")).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.body);
    assert_eq!((&set.body["from"], &set.body["verified_at"]), (&json!("b…@mail.sharma.example"), &Value::Null));
    assert_eq!(set.body["dkim_dns_name"], "mnm2026._domainkey.sharma.example");
    // What is published is a key (RFC 8463: 32 bytes), and the private half is nowhere in the answer.
    let record = set.body["dkim_dns_record"].as_str().expect("a record");
    let public = record.strip_prefix("v=DKIM1; k=ed25519; p=").expect("a record of RFC 6376");
    assert_eq!(STANDARD.decode(public).expect("base64").len(), 32);
    assert!(!set.body.to_string().contains("PRIVATE"));
    assert_eq!(house.jobs_of_codes().await, 1);
    is_problem(&house.shows(&house.sharma, CODE).await, 422, "messaging.wrong_mail_code");

    house.code_went_out("sharma-mobiles", CODE, tomorrow()).await;
    for wrong in ["", "abcd-efgh-jkmm", "abcdefghjkmnp"] {
        is_problem(&house.shows(&house.sharma, wrong).await, 422, "messaging.wrong_mail_code");
    }
    let tries = "select code_tries::bigint from muneem.messaging_mail_identities";
    assert_eq!(house.number_of(tries).await, 3, "a refused request is undone, its guess is not");
    assert_eq!(house.get(PAGE, &house.sharma).await.body["verified_at"], Value::Null);
    let verified = house.shows(&house.sharma, "ABCD EFGH JKMN").await;
    assert_eq!(verified.status, StatusCode::OK, "{}", verified.body);
    let shown = house.get(PAGE, &house.sharma).await;
    assert!(shown.body["verified_at"].is_string(), "{}", shown.body);
    assert_eq!(shown.body["dkim_dns_record"], record);
    is_problem(&house.shows(&house.sharma, CODE).await, 422, "messaging.wrong_mail_code");

    // A code that ran out, and one that was guessed at ten times, prove nothing.
    for (end, guesses) in [(SystemClock.now() - TimeDelta::seconds(1), 0), (tomorrow(), 10)] {
        let moved = json!({ "from": format!("bills{guesses}@mail.sharma.example") });
        assert_eq!(house.set(&house.sharma, None, &moved).await.body["verified_at"], Value::Null);
        house.code_went_out("sharma-mobiles", CODE, end).await;
        for _ in 0..guesses {
            is_problem(&house.shows(&house.sharma, "guess").await, 422, "messaging.wrong_mail_code");
        }
        is_problem(&house.shows(&house.sharma, CODE).await, 422, "messaging.wrong_mail_code");
    }
}

#[tokio::test]
async fn atk_060_the_address_of_another_business_is_not_there() {
    let house = House::with_kinds().await;
    let mine = json!({ "from": "bills@sharma.example" });
    assert_eq!(house.set(&house.sharma, None, &mine).await.status, StatusCode::OK);
    house.code_went_out("sharma-mobiles", CODE, tomorrow()).await;
    // Hers by name: there is no such business for this token.
    let of_sharma = |body: Value| {
        let mut body = body;
        body["business"] = json!("sharma-mobiles");
        body
    };
    let named = format!("{PAGE}?business=sharma-mobiles");
    is_problem(&house.get(&named, &house.verma).await, 404, "people.no_such_business");
    for (path, body) in [(PAGE, mine), (VERIFY, json!({ "code": CODE })), (REMOVE, json!({}))] {
        let refused = house.post(path, &house.verma, None, &of_sharma(body)).await;
        is_problem(&refused, 404, "people.no_such_business");
    }
    // Without a name it is the caller's own, which has none; a code of another business opens nothing.
    is_problem(&house.get(PAGE, &house.verma).await, 404, "messaging.no_such_mail_identity");
    is_problem(&house.shows(&house.verma, CODE).await, 404, "messaging.no_such_mail_identity");
    assert_eq!(house.set(&house.verma, None, &json!({ "from": "bills@verma.example" })).await.status, StatusCode::OK);
    house.code_went_out("verma-phones", "zzzz-zzzz-zzzz", tomorrow()).await;
    is_problem(&house.shows(&house.verma, CODE).await, 422, "messaging.wrong_mail_code");
    let removed = house.post(REMOVE, &house.verma, None, &json!({})).await;
    assert_eq!(removed.body, json!({ "removed": true }));
    // And of all that nothing came upon the first one.
    assert_eq!(house.number_of("select sum(code_tries) from muneem.messaging_mail_identities").await, 0);
    assert_eq!(house.shows(&house.sharma, CODE).await.status, StatusCode::OK);
    // Whoever may see all names one of them.
    let shown = house.get(&named, &house.all).await;
    assert_eq!((shown.status, &shown.body["from"]), (StatusCode::OK, &json!("b…@sharma.example")));
}

#[tokio::test]
async fn the_same_request_again_makes_no_second_key_and_sends_no_second_code() {
    let house = House::with_kinds().await;
    let body = signed_by("sharma.example");
    let first = house.set(&house.sharma, Some("set-1"), &body).await;
    let again = house.set(&house.sharma, Some("set-1"), &body).await;
    assert_eq!((first.status, again.status), (StatusCode::OK, StatusCode::OK), "{}", again.body);
    assert_eq!(first.body, again.body, "the same key, though each request would make another");
    assert_eq!(house.jobs_of_codes().await, 1);
    let anew = house.set(&house.sharma, Some("set-2"), &body).await;
    assert_ne!(first.body["dkim_dns_record"], anew.body["dkim_dns_record"]);
    let other = json!({ "from": "else@sharma.example" });
    is_problem(&house.set(&house.sharma, Some("set-1"), &other).await, 422, "http.idempotency_key_reused");

    house.code_went_out("sharma-mobiles", CODE, tomorrow()).await;
    let code = json!({ "code": CODE });
    let first = house.post(VERIFY, &house.sharma, Some("verify-1"), &code).await;
    let again = house.post(VERIFY, &house.sharma, Some("verify-1"), &code).await;
    assert_eq!((first.status, again.status), (StatusCode::OK, StatusCode::OK), "{}", again.body);
    assert_eq!(first.body, again.body, "although a code is used once");
    let removed = house.post(REMOVE, &house.sharma, Some("remove-1"), &json!({})).await;
    let again = house.post(REMOVE, &house.sharma, Some("remove-1"), &json!({})).await;
    assert_eq!((removed.body, again.body), (json!({ "removed": true }), json!({ "removed": true })));
    let nothing = house.post(REMOVE, &house.sharma, Some("remove-2"), &json!({})).await;
    assert_eq!(nothing.body, json!({ "removed": false }));
}
