//! Standard Webhooks 1.0.0, symmetric: HMAC-SHA256 over `id.timestamp.body`.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::outbound::Chance;

/// What a secret begins with, so that people and scanners know it.
const PREFIX: &str = "whsec_";
/// Bytes of a secret: 24 to 64 are allowed.
const SECRET_BYTES: usize = 32;

/// A new secret: `whsec_` and base64 of 32 bytes of chance.
pub(super) fn mint(chance: &dyn Chance) -> SecretString {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    chance.fill(&mut *bytes);
    let text = Zeroizing::new(STANDARD.encode(bytes.as_slice()));
    format!("{PREFIX}{}", text.as_str()).into()
}

/// One signature, `v1,<base64>`; none where the secret is not one. `timestamp` is in seconds since 1970.
pub fn sign(secret: &SecretString, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
    let key = Zeroizing::new(STANDARD.decode(secret.expose_secret().strip_prefix(PREFIX)?).ok()?);
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// The value of `webhook-signature`: one signature for each secret in force, newest first.
pub fn signatures(secrets: &[SecretString], id: &str, timestamp: i64, body: &[u8]) -> String {
    let all: Vec<String> = secrets.iter().filter_map(|secret| sign(secret, id, timestamp, body)).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that the libraries of the specification's authors share.
    #[test]
    fn the_published_vector_is_signed_as_published() {
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        for bent in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_#", ""] {
            assert_eq!(sign(&bent.into(), "msg_1", 1, body), None, "{bent}");
        }
    }

    #[test]
    fn atk_023_id_time_and_every_byte_of_the_body_are_under_the_signature() {
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let one = |id: &str, at, body: &[u8]| sign(&secret, id, at, body).expect("signed");
        let whole = one("evt_1", 7, b"{}");
        for other in [one("evt_2", 7, b"{}"), one("evt_1", 8, b"{}"), one("evt_1", 7, b"{ }"), one("evt_17", 7, b"{}")]
        {
            assert_ne!(whole, other);
        }
    }

    #[test]
    fn while_a_secret_is_replaced_both_sign() {
        let secrets = ["whsec_AAAA", "whsec_BBBB"].map(SecretString::from);
        let both = signatures(&secrets, "evt_1", 7, b"{}");
        let each: Vec<_> = secrets.iter().filter_map(|secret| sign(secret, "evt_1", 7, b"{}")).collect();
        assert_eq!(both.split(' ').collect::<Vec<_>>(), each);
    }
}
