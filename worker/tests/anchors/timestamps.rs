use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use muneem::outbound::{
    anchor_timestamp::TimestampAnchor,
    chance::OsChance,
    http::{Timeouts, client},
};
use muneem_jobs::{
    evidence::timestamp::{self, BadStamp, Roots, Stamp},
    outbound::Anchor,
};

use super::authority::{Authority, Holder, Keys, broken, has_openssl};

const NOTE: &str = "a head of the log\n";
const NONCE: [u8; 8] = [7; 8];

fn roots(authority: &Authority) -> Roots {
    Roots::from_pem(&authority.root()).expect("a root")
}

fn token(authority: &Authority) -> Vec<u8> {
    timestamp::token_of(&authority.answer(&timestamp::request(NOTE, NONCE)), NONCE).expect("an answer to this request")
}

fn anchor(url: String, roots: Roots) -> TimestampAnchor {
    let with = (client(Timeouts::DEFAULT).expect("a client"), Arc::new(OsChance) as _);
    TimestampAnchor::new("timestamp".to_owned(), url, roots, Duration::from_secs(3600), with)
}

fn in_words(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    format!("{error} {cause}")
}

#[test]
fn a_token_of_openssl_is_read_and_checked_up_to_its_root() {
    if !has_openssl() {
        return;
    }
    for keys in [Keys::Rsa, Keys::Ecdsa] {
        let authority = Authority::new(keys, Holder::Sound);
        let request = timestamp::request(NOTE, NONCE);
        std::fs::write(authority.path("ours.tsq"), &request).expect("written");
        authority.run("ts -query -in ours.tsq -text -out ours.txt");
        let read = std::fs::read_to_string(authority.path("ours.txt")).expect("OpenSSL reads our request");
        assert!(read.contains("sha256") && read.contains("Certificate required: yes"), "{read}");
        let token = token(&authority);
        let Stamp { at, authority: by, certificate_until } =
            timestamp::verify(&token, NOTE, Some(&roots(&authority))).unwrap_or_else(|bad| panic!("{keys:?}: {bad}"));
        assert_eq!(by, "CN=Test-tsa");
        assert!(at.timestamp() > 1_700_000_000 && certificate_until.timestamp() > at.timestamp());
        assert!(timestamp::verify(&token, NOTE, None).is_ok(), "in itself it holds");
        // The authority's own answer to somebody else, or to an older request of ours.
        let answer = authority.answer(&request);
        assert_eq!(timestamp::token_of(&answer, [8; 8]), Err(BadStamp::OtherRequest));
        assert_eq!(timestamp::verify(&token, "another head\n", None), Err(BadStamp::OtherHead));
    }
}

#[test]
fn atk_086_a_token_with_any_byte_changed_proves_nothing_else() {
    if !has_openssl() {
        return;
    }
    let authority = Authority::new(Keys::Ecdsa, Holder::Sound);
    let (roots, sound) = (roots(&authority), token(&authority));
    let whole = timestamp::verify(&sound, NOTE, Some(&roots)).expect("sound");
    let mut refused = 0;
    for place in 0..sound.len() {
        let mut bent = sound.clone();
        bent[place] ^= 1;
        match timestamp::verify(&bent, NOTE, Some(&roots)) {
            Err(_) => refused += 1,
            // Bytes outside all that is signed say nothing: versions, lists of algorithms, the root that came along.
            Ok(stamp) => assert_eq!(stamp, whole, "byte {place}"),
        }
    }
    assert!(refused * 2 > sound.len(), "{refused} of {}", sound.len());
    for length in 0..sound.len() {
        assert!(timestamp::verify(&sound[..length], NOTE, Some(&roots)).is_err(), "{length} bytes");
    }
}

#[test]
fn atk_086_expired_foreign_and_wrong_certificates_are_named() {
    if !has_openssl() {
        return;
    }
    let (sound, other) = (Authority::new(Keys::Rsa, Holder::Sound), Authority::new(Keys::Ecdsa, Holder::Sound));
    let expired = Authority::new(Keys::Rsa, Holder::Expired);
    let told = |token: &[u8], roots: &Roots| match timestamp::verify(token, NOTE, Some(roots)) {
        Ok(stamp) => panic!("{stamp}"),
        Err(bad) => bad.to_string(),
    };
    let late = told(&token(&expired), &roots(&expired));
    assert!(late.contains("had expired at the time it states"), "{late}");
    let foreign = told(&token(&sound), &roots(&other));
    assert!(foreign.contains("nobody among the given roots"), "{foreign}");
    // A root that only bears the name.
    let namesake = told(&token(&sound), &roots(&expired));
    assert!(namesake.contains("does not hold"), "{namesake}");
    std::fs::write(sound.path("answer.tsr"), sound.answer(&timestamp::request(NOTE, NONCE))).expect("written");
    let server = sound.token_of_a_server(&sound.path("answer.tsr"));
    let purpose = told(&server, &roots(&sound));
    assert!(purpose.contains("for other purposes"), "{purpose}");
    assert!(Roots::from_pem(b"no certificate").is_err());
}

#[tokio::test]
async fn an_authority_is_asked_over_http_and_believed_only_by_its_root() {
    if !has_openssl() {
        return;
    }
    let (sound, other) =
        (Arc::new(Authority::new(Keys::Ecdsa, Holder::Sound)), Authority::new(Keys::Rsa, Holder::Sound));
    let url = sound.listen().await;
    let token = anchor(url.clone(), roots(&sound)).lay(1, NOTE).await.expect("taken");
    timestamp::verify(&token, NOTE, Some(&roots(&sound))).expect("sound");
    let foreign = anchor(url, roots(&other)).lay(1, NOTE).await.expect_err("another root");
    assert!(in_words(&foreign).contains("nobody among the given roots"), "{}", in_words(&foreign));
    let cases = [
        (StatusCode::INTERNAL_SERVER_ERROR, b"no".to_vec(), "HTTP 500"),
        (StatusCode::OK, b"<html>".to_vec(), "no time stamp of RFC 3161"),
        (StatusCode::OK, vec![0; 100_000], "more than"),
        // Somebody else's answer, taken down earlier.
        (StatusCode::OK, sound.answer(&timestamp::request(NOTE, NONCE)), "another request"),
    ];
    for (status, answer, words) in cases {
        let error = anchor(broken(status, answer).await, roots(&sound)).lay(1, NOTE).await.expect_err(words);
        assert!(in_words(&error).contains(words), "{words}: {}", in_words(&error));
    }
}
