//! A provider of our own that tells lies, before the console in process.

mod house;

use std::collections::HashMap;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use base64::{Engine, prelude::*};
use chrono::TimeDelta;
use muneem_jobs::{
    outbound::Clock,
    people::signin::{self, Level},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::Sha256;

use super::oidc::buttons;
use crate::outbound::{chance::OsChance, clock::SystemClock};
use house::{
    ASHA, CLIENT_SECRET, DEVICE_COOKIE, Departure, FLOW_COOKIE, House, Key, RAVI, RSA_MODULUS, SESSION_COOKIE, changed,
    departure, part, shared_secret_token,
};

#[tokio::test]
async fn the_provider_is_asked_as_the_protocol_says_and_the_person_is_signed_in() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    let departure = house.begin("example").await;
    let asked: HashMap<String, String> = departure.address.query_pairs().into_owned().collect();
    let expected = [
        ("tenant", "1"),
        ("response_type", "code"),
        ("client_id", "muneem"),
        ("redirect_uri", "https://console.example.in/console/oidc/example/callback"),
        ("scope", "openid"),
        ("code_challenge_method", "S256"),
        ("max_age", "300"),
    ];
    for (name, value) in expected {
        assert_eq!(asked.get(name).map(String::as_str), Some(value), "{name}");
    }
    let token = house.key.token(&house.claims(&departure));
    house.hostile.set(|stage| stage.token = json!({ "id_token": token }));
    let answered = house.come_back(&departure).await;
    assert_eq!(answered.status, StatusCode::SEE_OTHER, "{}", answered.body);
    let session = house.session(&answered).await.expect("a session");
    assert_eq!((session.staff_id, session.level), (ASHA, Level::Full));
    assert!(answered.cookie(DEVICE_COOKIE).is_some());

    let (fields, authorization) = house.hostile.stage.lock().expect("not poisoned").redeemed.remove(0);
    assert_eq!(fields["grant_type"], "authorization_code");
    assert_eq!(fields["redirect_uri"], expected[3].1);
    let verifier =
        sha2::Digest::finalize(sha2::Digest::chain_update(<Sha256 as sha2::Digest>::new(), &fields["code_verifier"]));
    assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(verifier), asked["code_challenge"], "PKCE");
    let basic = BASE64_STANDARD.encode("muneem:our+%26+secret");
    assert_eq!(authorization, format!("Basic {basic}"), "form-encoded before it is base64");
    assert!(!fields.contains_key("client_secret"));

    let mut db = house.console.db.acquire().await.expect("a connection");
    let offered = buttons(&mut db).await.expect("listed");
    assert_eq!((offered[0].label.as_str(), offered[0].href.as_str()), ("Example", "/console/oidc/example/begin"));
    for verb in ["people.provider_vouched", "people.signed_in"] {
        let told: i64 = sqlx::query_scalar(
            "select count(*) from muneem.evidence_events where convert_from(body, 'UTF8')::jsonb ->> 'verb' = $1",
        )
        .bind(verb)
        .fetch_one(&house.db.pool())
        .await
        .expect("counted");
        assert_eq!(told, 1, "{verb}");
    }
}

#[tokio::test]
async fn atk_057_forged_tokens_sign_nobody_in() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    let thief = Key::new("one");
    let rsa = json!({ "kty": "RSA", "kid": "rsa", "use": "sig", "n": RSA_MODULUS, "e": "AQAB" });
    house.hostile.set(|stage| stage.keys.push(rsa.clone()));
    let now = SystemClock.now().timestamp();
    let with = |name: &'static str, value: Value| {
        let house = &house;
        move |departure: &Departure| house.key.token(&changed(&house.claims(departure), name, value))
    };
    let head = |head: Value| {
        let house = &house;
        move |departure: &Departure| house.key.token_with(&head, &house.claims(departure))
    };
    let public_pem = BASE64_URL_SAFE_NO_PAD.decode(RSA_MODULUS).expect("base64url");
    type Lie<'a> = Box<dyn FnOnce(&Departure) -> String + 'a>;
    let lies: Vec<(&str, Lie<'_>)> = vec![
        ("alg none", Box::new(|d| format!("{}.{}.", part(&json!({ "alg": "none" })), part(&house.claims(d))))),
        ("alg NONE with a signature", Box::new(head(json!({ "alg": "NONE", "kid": "one" })))),
        (
            "HS256 with our own secret",
            Box::new(|d| shared_secret_token("one", CLIENT_SECRET.as_bytes(), &house.claims(d))),
        ),
        ("HS256 with an RSA key", Box::new(|d| shared_secret_token("rsa", &public_pem, &house.claims(d)))),
        (
            "HS256 with an RSA key's text",
            Box::new(|d| shared_secret_token("rsa", rsa.to_string().as_bytes(), &house.claims(d))),
        ),
        ("HS256 with nothing", Box::new(|d| shared_secret_token("one", b"", &house.claims(d)))),
        ("RS256 that no RSA key made", Box::new(head(json!({ "alg": "RS256", "kid": "rsa" })))),
        ("another's key of the same name", Box::new(|d| thief.token(&house.claims(d)))),
        (
            "a key in the token itself",
            Box::new(|d| {
                thief.token_with(&json!({ "alg": "EdDSA", "kid": "two", "jwk": thief.public() }), &house.claims(d))
            }),
        ),
        (
            "a header that must be understood",
            Box::new(head(json!({ "alg": "EdDSA", "kid": "one", "crit": ["x"], "x": 1 }))),
        ),
        ("another type of token", Box::new(head(json!({ "alg": "EdDSA", "kid": "one", "typ": "at+jwt" })))),
        ("for another client", Box::new(with("aud", json!("shop")))),
        ("for another client too", Box::new(with("aud", json!(["muneem", "shop"])))),
        ("for nobody", Box::new(with("aud", Value::Null))),
        ("asked for by another client", Box::new(with("azp", json!("shop")))),
        ("from another issuer", Box::new(with("iss", json!("https://id.example.in")))),
        ("from nearly this issuer", Box::new(with("iss", json!(format!("{}/", house.hostile.issuer))))),
        ("from nobody", Box::new(with("iss", Value::Null))),
        ("with another nonce", Box::new(with("nonce", json!("n-1")))),
        ("without a nonce", Box::new(with("nonce", Value::Null))),
        ("expired", Box::new(with("exp", json!(now - 1)))),
        ("without an end", Box::new(with("exp", Value::Null))),
        ("of yesterday", Box::new(with("iat", json!(now - 86_400)))),
        ("of tomorrow", Box::new(with("iat", json!(now + 86_400)))),
        ("without a subject", Box::new(with("sub", Value::Null))),
        ("with an empty subject", Box::new(with("sub", json!("")))),
        ("with a subject of a megabyte", Box::new(with("sub", json!("x".repeat(100_000))))),
        (
            "changed after it was signed",
            Box::new(|d| {
                let token = house.key.token(&changed(&house.claims(d), "sub", json!("ravi-at-example")));
                let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
                parts[1] = part(&house.claims(d));
                parts.join(".")
            }),
        ),
        ("half a token", Box::new(|d| part(&house.claims(d)))),
        ("no token", Box::new(|_| String::new())),
    ];
    let count = lies.len();
    for (what, lie) in lies {
        let answered = house.sign_in_with(lie).await;
        assert_eq!(answered.status, StatusCode::FORBIDDEN, "{what}: {}", answered.body);
        assert!(answered.cookie(SESSION_COOKIE).is_none(), "{what}");
        for told in ["nonce", "audience", "signature", "asha"] {
            assert!(!answered.body.contains(told), "{what}: the page helps whoever forges");
        }
    }
    assert_eq!(house.sessions().await, 0, "after {count} lies");
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(house.session(&answered).await.expect("the truth signs in").staff_id, ASHA);
    let answered = house.sign_in_with(with("aud", json!(["muneem"]))).await;
    assert!(house.session(&answered).await.is_some(), "a list of one is fine");
}

#[tokio::test]
async fn atk_057_what_comes_back_counts_once_and_in_its_own_browser() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    house.add_provider("other").await;
    let prepare = async |house: &House| {
        let departure = house.begin("example").await;
        let token = house.key.token(&house.claims(&departure));
        house.hostile.set(|stage| stage.token = json!({ "id_token": token }));
        departure
    };
    let departure = prepare(&house).await;
    let path = format!("/console/oidc/example/callback?state={}&code=c-1", departure.state);
    let stranger = signin::new_token(&OsChance);
    for cookies in [String::new(), format!("{FLOW_COOKIE}=x")] {
        assert_eq!(house.get(&path, &cookies).await.status, StatusCode::FORBIDDEN, "{cookies}");
    }
    assert_eq!(house.come_back(&departure).await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.come_back(&departure).await.status, StatusCode::FORBIDDEN, "replayed");

    let departure = prepare(&house).await;
    let path = format!("/console/oidc/example/callback?state={}&code=c-1", departure.state);
    let other_browser = format!("{FLOW_COOKIE}={}", stranger.expose_secret());
    assert_eq!(house.get(&path, &other_browser).await.status, StatusCode::FORBIDDEN);
    assert_eq!(house.come_back(&departure).await.status, StatusCode::FORBIDDEN, "shown elsewhere, it is used up");

    let departure = prepare(&house).await;
    let path = format!("/console/oidc/other/callback?state={}&code=c-1", departure.state);
    let cookies = format!("{FLOW_COOKIE}={}", departure.cookie);
    assert_eq!(house.get(&path, &cookies).await.status, StatusCode::FORBIDDEN, "another provider's address");
    let departure = prepare(&house).await;
    let path = format!("/console/oidc/example/callback?state={}&code=c-1&iss=https://evil.example", departure.state);
    let cookies = format!("{FLOW_COOKIE}={}", departure.cookie);
    assert_eq!(house.get(&path, &cookies).await.status, StatusCode::FORBIDDEN, "sent by another provider (RFC 9207)");
    for query in ["", "?state=", "?code=c-1", "?error=access_denied", "?state=x&error=access_denied"] {
        let departure = prepare(&house).await;
        let cookies = format!("{FLOW_COOKIE}={}", departure.cookie);
        let answered = house.get(&format!("/console/oidc/example/callback{query}"), &cookies).await;
        assert_eq!(answered.status, StatusCode::FORBIDDEN, "{query}");
    }

    let departure = prepare(&house).await;
    house.clock.set_offset(TimeDelta::minutes(11));
    assert_eq!(house.come_back(&departure).await.status, StatusCode::FORBIDDEN, "eleven minutes later");
    house.clock.set_offset(TimeDelta::zero());

    let before = house.sessions().await;
    let departure = prepare(&house).await;
    let backs = (0..20).map(|_| house.come_back(&departure));
    let done = futures_util::future::join_all(backs).await;
    assert_eq!(done.iter().filter(|answered| answered.status == StatusCode::SEE_OTHER).count(), 1);
    assert_eq!(house.sessions().await, before + 1, "twenty at once are one");
}

#[tokio::test]
async fn atk_057_a_mail_address_links_nobody_and_only_a_person_signed_in_links_herself() {
    let house = House::new().await;
    for verified in [json!(true), json!(false), json!("true"), Value::Null] {
        let answered = house
            .sign_in_with(|d| house.key.token(&changed(&house.claims(d), "email_verified", verified.clone())))
            .await;
        assert!([StatusCode::FORBIDDEN].contains(&answered.status), "{verified}: {}", answered.status);
    }
    assert_eq!(house.sessions().await, 0);

    // Nobody who is not signed in, and nobody whose proof is old, begins to link.
    assert_eq!(house.post("/console/oidc/example/link", "").await.status, StatusCode::UNAUTHORIZED);
    let asha = house.signed_in(ASHA).await;
    let cookies = format!("{SESSION_COOKIE}={}", asha.expose_secret());
    house.clock.set_offset(TimeDelta::minutes(6));
    assert_eq!(house.post("/console/oidc/example/link", &cookies).await.status, StatusCode::FORBIDDEN);
    house.clock.set_offset(TimeDelta::zero());
    let from_elsewhere = Request::post("/console/oidc/example/link")
        .header("cookie", &cookies)
        .header("origin", "https://evil.example")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::empty())
        .expect("a request");
    assert_eq!(house.send(from_elsewhere).await.status, StatusCode::FORBIDDEN);

    let go = async |cookies: &str| {
        let page = house.post("/console/oidc/example/link", cookies).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert!(!page.body.contains("<script"), "{}", page.body);
        let (_, rest) = page.body.split_once("<a href=\"").expect("a way on");
        let address = rest.split('"').next().expect("an address").replace("&amp;", "&").replace("&#x3D;", "=");
        let departure = departure(&address, page.cookie(FLOW_COOKIE).expect("bound"));
        let token = house.key.token(&house.claims(&departure));
        house.hostile.set(|stage| stage.token = json!({ "id_token": token }));
        departure
    };
    let back = async |departure: &Departure, session: &str| {
        let path = format!("/console/oidc/example/callback?state={}&code=c-1", departure.state);
        house.get(&path, &format!("{FLOW_COOKIE}={}; {session}", departure.cookie)).await
    };
    // The session that began it is gone, or is another person's: nobody is linked.
    let departure = go(&cookies).await;
    assert_eq!(back(&departure, "").await.status, StatusCode::FORBIDDEN);
    let ravi = house.signed_in(RAVI).await;
    let ravis = format!("{SESSION_COOKIE}={}", ravi.expose_secret());
    let departure = go(&cookies).await;
    assert_eq!(back(&departure, &ravis).await.status, StatusCode::FORBIDDEN);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::FORBIDDEN, "still linked with nobody");

    let departure = go(&cookies).await;
    assert_eq!(back(&departure, &cookies).await.status, StatusCode::SEE_OTHER);
    let page = house.get("/console/oidc", &cookies).await;
    assert!(page.body.contains("End the link"), "{}", page.body);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(house.session(&answered).await.expect("signed in").staff_id, ASHA);
    let departure = go(&ravis).await;
    assert_eq!(back(&departure, &ravis).await.status, StatusCode::CONFLICT, "it is Asha's");

    assert_eq!(house.post("/console/oidc/example/unlink", &cookies).await.status, StatusCode::SEE_OTHER);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::FORBIDDEN, "unlinked");
}

#[tokio::test]
async fn the_second_factor_is_ours_unless_the_provider_is_trusted_and_saw_one_just_now() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    let mut db = house.console.db.acquire().await.expect("a connection");
    signin::begin_totp(&mut db, ASHA, b"sealed", house.now()).await.expect("begun");
    signin::confirm_totp(&mut db, ASHA, b"sealed", 1, house.now(), &OsChance).await.expect("confirmed");
    let now = SystemClock.now().timestamp();
    for (amr, auth_time, level) in [
        (json!(["pwd"]), json!(now), Level::First),
        (json!(["pwd", "mfa"]), json!(now), Level::Full),
        (json!(["mfa"]), json!(now - 3600), Level::First),
        (json!(["mfa"]), Value::Null, Level::First),
        (Value::Null, json!(now), Level::First),
    ] {
        let answered = house
            .sign_in_with(|d| {
                let claims = changed(&house.claims(d), "amr", amr.clone());
                house.key.token(&changed(&claims, "auth_time", auth_time.clone()))
            })
            .await;
        assert_eq!(house.session(&answered).await.expect("a session").level, level, "{amr} {auth_time}");
        let to = answered.headers[header::LOCATION].to_str().expect("text").to_owned();
        assert_eq!(to.starts_with("/console/second-factor?"), level == Level::First, "{to}");
    }
}

#[tokio::test]
async fn a_provider_that_changes_its_keys_goes_on_and_one_that_is_down_is_told_of() {
    let house = House::new().await;
    house.link(ASHA, "asha-at-example").await;
    let signed_in = async |house: &House| {
        let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
        house.session(&answered).await.is_some()
    };
    assert!(signed_in(&house).await);
    let mut house = house;
    house.key = Key::new("two");
    assert!(!signed_in(&house).await, "a key that it does not publish");
    house.hostile.set(|stage| stage.keys.push(house.key.public()));
    assert!(signed_in(&house).await, "read anew");
    // The same name for another key.
    house.key = Key::new("two");
    house.hostile.set(|stage| stage.keys = vec![house.key.public()]);
    assert!(signed_in(&house).await, "replaced under its name");
    let read = house.hostile.stage.lock().expect("not poisoned").keys_read;
    for _ in 0..5 {
        assert!(signed_in(&house).await);
    }
    assert_eq!(house.hostile.stage.lock().expect("not poisoned").keys_read, read, "keys that fit are not read again");

    house.hostile.set(|stage| stage.token_status = 503);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE);
    house.hostile.set(|stage| stage.token_status = 400);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::FORBIDDEN);
    house.hostile.set(|stage| stage.token_status = 302);
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE, "nobody is followed");
    house.hostile.set(|stage| stage.token_status = 200);
    assert!(signed_in(&house).await, "it is back");
}

#[tokio::test]
async fn what_a_provider_publishes_about_itself_must_be_its_own() {
    let house = House::new().await;
    for (what, published) in [
        ("another's name", json!({ "issuer": "https://id.example.in" })),
        ("plain http elsewhere", json!({ "token_endpoint": "http://10.0.0.9/token" })),
        ("keys elsewhere in clear", json!({ "jwks_uri": "http://192.168.1.1/keys" })),
        ("no address", json!({ "authorization_endpoint": "javascript:alert(1)" })),
        ("nonsense", json!({ "token_endpoint": 7 })),
    ] {
        house.hostile.set(|stage| stage.metadata = published);
        let answered = house.get("/console/oidc/example/begin", "").await;
        assert_eq!(answered.status, StatusCode::SERVICE_UNAVAILABLE, "{what}");
        assert!(house.room.providers.probe(&house.hostile.issuer).await.is_err(), "{what}");
    }
    house.hostile.set(|stage| (stage.metadata, stage.is_down) = (Value::Null, true));
    assert_eq!(house.get("/console/oidc/example/begin", "").await.status, StatusCode::SERVICE_UNAVAILABLE);
    house.hostile.set(|stage| stage.is_down = false);
    assert_eq!(house.get("/console/oidc/example/begin", "").await.status, StatusCode::SEE_OTHER);
    assert_eq!(house.get("/console/oidc/nobody/begin", "").await.status, StatusCode::NOT_FOUND);
    // Whoever says that it names itself in its answers must do so.
    let house = House::new().await;
    house.hostile.set(|stage| stage.metadata = json!({ "authorization_response_iss_parameter_supported": true }));
    house.link(ASHA, "asha-at-example").await;
    let answered = house.sign_in_with(|d| house.key.token(&house.claims(d))).await;
    assert_eq!(answered.status, StatusCode::FORBIDDEN);
}
