//! Signing mail with the key of its sender's domain (DKIM: RFC 6376, Ed25519 by RFC 8463), relaxed both ways.
//!
//! Only signing: whoever receives the mail checks it, against the record that the domain's owner published.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use ed25519_dalek::{Signer, SigningKey};
use ring::{
    rand::SystemRandom,
    signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Chance;

/// What is signed if it is there. Whoever could change one of these could make the mail say something else.
const SIGNED: [&str; 14] = [
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "mime-version",
    "content-type",
    "content-language",
    "content-transfer-encoding",
    "auto-submitted",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "feedback-id",
];
/// Named once more than they stand there, so that none can be added on the way (RFC 6376 section 5.4.2).
const OVERSIGNED: [&str; 8] =
    ["from", "to", "subject", "date", "message-id", "reply-to", "mime-version", "content-type"];
/// Before the key in an Ed25519 PKCS #8 file (RFC 8410 section 7).
const ED25519_PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// `rsaEncryption` with its null (RFC 8017 appendix A.1).
const RSA_ALGORITHM: [u8; 15] = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
/// Bits of an RSA key that is made here: what every receiver checks (RFC 8301).
const RSA_BITS: usize = 2048;

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// `rsa-sha256`: every receiver checks it.
    Rsa,
    /// `ed25519-sha256`: small, and not yet checked by all.
    Ed25519,
}

impl Algorithm {
    /// As it stands in rows, flags and the DNS record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

impl std::str::FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rsa" => Ok(Self::Rsa),
            "ed25519" => Ok(Self::Ed25519),
            other => Err(format!("no algorithm `{other}`: take rsa or ed25519")),
        }
    }
}

/// A key that mail cannot be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDkimKey {
    /// Not a domain as DNS has them.
    #[error("the signing domain is no host name: write it like sharma-mobiles.example")]
    Domain,
    /// Not a label.
    #[error("the selector is no DNS label: write it like mnm2026")]
    Selector,
    /// Not PEM, or a kind of key that DKIM does not know.
    #[error("the key is no PEM file of an RSA key of 2048 to 4096 bits or an Ed25519 key, without a passphrase")]
    Key,
    /// The system gave no randomness, or arithmetic failed.
    #[error("a key could not be made or used")]
    Failed,
}

/// A private key with the place in DNS where its public half is published. Shows itself to nobody.
pub struct DkimKey {
    domain: String,
    selector: String,
    secret: Secret,
}

enum Secret {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Box<SigningKey>),
}

impl fmt::Debug for DkimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DkimKey({})", self.dns_name())
    }
}

impl DkimKey {
    /// Reads a PEM file: PKCS #8 of either kind, or the older `RSA PRIVATE KEY`.
    ///
    /// # Errors
    /// [`BadDkimKey`]
    pub fn read(domain: &str, selector: &str, pem: &SecretString) -> Result<Self, BadDkimKey> {
        let domain = domain.to_ascii_lowercase();
        if !domain.contains('.') || domain.len() > 189 || !domain.split('.').all(is_label) {
            return Err(BadDkimKey::Domain);
        }
        if !is_label(selector) {
            return Err(BadDkimKey::Selector);
        }
        let (label, der) = read_pem(pem.expose_secret()).ok_or(BadDkimKey::Key)?;
        let secret = match label {
            "PRIVATE KEY" => match der.strip_prefix(&ED25519_PKCS8) {
                Some(seed) => {
                    let seed: &[u8; 32] = seed.try_into().map_err(|_| BadDkimKey::Key)?;
                    Secret::Ed25519(Box::new(SigningKey::from_bytes(seed)))
                }
                None => Secret::Rsa(Box::new(RsaKeyPair::from_pkcs8(&der).map_err(|_| BadDkimKey::Key)?)),
            },
            "RSA PRIVATE KEY" => Secret::Rsa(Box::new(RsaKeyPair::from_der(&der).map_err(|_| BadDkimKey::Key)?)),
            _ => return Err(BadDkimKey::Key),
        };
        Ok(Self { domain, selector: selector.to_owned(), secret })
    }

    /// Makes a private key, as the PEM that [`Self::read`] takes. An RSA key takes a second or more: not on a thread that
    /// others wait for.
    ///
    /// # Errors
    /// [`BadDkimKey::Failed`]
    pub fn generate(algorithm: Algorithm, chance: &dyn Chance) -> Result<SecretString, BadDkimKey> {
        let der = match algorithm {
            Algorithm::Ed25519 => {
                let mut der = Zeroizing::new(ED25519_PKCS8.to_vec());
                let mut seed = Zeroizing::new([0; 32]);
                chance.fill(&mut *seed);
                der.extend_from_slice(&*seed);
                der
            }
            Algorithm::Rsa => {
                let key = rsa::RsaPrivateKey::new(&mut Dice(chance), RSA_BITS).map_err(|_| BadDkimKey::Failed)?;
                let der = rsa::pkcs8::EncodePrivateKey::to_pkcs8_der(&key).map_err(|_| BadDkimKey::Failed)?;
                Zeroizing::new(der.as_bytes().to_vec())
            }
        };
        let body = Zeroizing::new(STANDARD.encode(&*der));
        let mut pem = String::with_capacity(body.len() + 100);
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for line in wrapped(&body, 64) {
            pem.push_str(line);
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(pem.into())
    }

    /// The domain that answers for the mail.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Which of the domain's keys it is.
    pub fn selector(&self) -> &str {
        &self.selector
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        match self.secret {
            Secret::Rsa(_) => Algorithm::Rsa,
            Secret::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// Whether mail from an address of `domain` is aligned with this key's, as DMARC asks (RFC 7489 section 3.1.1).
    pub fn is_aligned_with(&self, domain: &str) -> bool {
        domain == self.domain || domain.strip_suffix(&self.domain).is_some_and(|rest| rest.ends_with('.'))
    }

    /// Where the record stands: `mnm2026._domainkey.sharma-mobiles.example`.
    pub fn dns_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// The text of the TXT record to publish there (RFC 6376 section 3.6.1).
    pub fn dns_record(&self) -> String {
        let public = match &self.secret {
            Secret::Rsa(key) => subject_public_key_info(key.public_key().as_ref()),
            Secret::Ed25519(key) => key.verifying_key().to_bytes().to_vec(),
        };
        format!("v=DKIM1; k={}; p={}", self.algorithm().as_str(), STANDARD.encode(public))
    }

    /// The `DKIM-Signature` header for a whole message with CRLF line ends, its own line end included: put it before
    /// the message, which must not change any more.
    ///
    /// # Errors
    /// [`BadDkimKey::Failed`]: arithmetic failed, or the message has no body.
    pub fn sign(&self, message: &[u8], at: DateTime<Utc>) -> Result<String, BadDkimKey> {
        let end = message.windows(4).position(|four| four == b"\r\n\r\n").ok_or(BadDkimKey::Failed)?;
        let (head, body) = (&message[..end + 2], &message[end + 4..]);
        let headers = headers(head);
        let body_hash = STANDARD.encode(Sha256::digest(relaxed_body(body)));
        let mut names: Vec<&str> = Vec::new();
        let mut signed: Vec<u8> = Vec::new();
        for name in SIGNED {
            // From the bottom up, where there are several (RFC 6376 section 5.4.2).
            for (_, line) in headers.iter().rev().filter(|(known, _)| known == name) {
                names.push(name);
                signed.extend_from_slice(relaxed_header(name, line).as_bytes());
                signed.extend_from_slice(b"\r\n");
            }
            if OVERSIGNED.contains(&name) {
                names.push(name);
            }
        }
        let value = format!(
            "v=1; a={}-sha256; c=relaxed/relaxed; d={};\r\n\ts={}; t={};\r\n\th={};\r\n\tbh={body_hash};\r\n\tb=",
            self.algorithm().as_str(),
            self.domain,
            self.selector,
            at.timestamp(),
            names.join(":\r\n\t "),
        );
        signed.extend_from_slice(relaxed_header("dkim-signature", value.as_bytes()).as_bytes());
        let signature = STANDARD.encode(self.signature(&signed)?);
        let folded = wrapped(&signature, 72).collect::<Vec<_>>().join("\r\n\t");
        Ok(format!("DKIM-Signature: {value}{folded}\r\n"))
    }

    fn signature(&self, signed: &[u8]) -> Result<Vec<u8>, BadDkimKey> {
        match &self.secret {
            Secret::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed, &mut signature)
                    .map_err(|_| BadDkimKey::Failed)?;
                Ok(signature)
            }
            // RFC 8463 section 3: the digest is what is signed.
            Secret::Ed25519(key) => Ok(key.sign(&Sha256::digest(signed)).to_bytes().to_vec()),
        }
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Pieces of at most `width` bytes of an ASCII text.
fn wrapped(text: &str, width: usize) -> impl Iterator<Item = &str> {
    text.as_bytes().chunks(width).map(|piece| std::str::from_utf8(piece).unwrap_or_default())
}

/// The first key of a PEM file: its label and its bytes.
fn read_pem(text: &str) -> Option<(&str, Zeroizing<Vec<u8>>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    Some((label, Zeroizing::new(STANDARD.decode(&*body).ok()?)))
}

/// An RSA key as everybody else's DNS records hold it (RFC 5280 section 4.1.2.7).
fn subject_public_key_info(key: &[u8]) -> Vec<u8> {
    let mut bits = vec![0];
    bits.extend_from_slice(key);
    let mut inner = RSA_ALGORITHM.to_vec();
    inner.extend(tagged(3, &bits));
    tagged(0x30, &inner)
}

/// One value in DER, of less than 64 KiB.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut out = match value.len() {
        0..=127 => vec![tag, low],
        128..=255 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    out.extend_from_slice(value);
    out
}

/// Each header of a head: its name in lower case, and its raw value with the folding still in it.
fn headers(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            if let Some((_, value)) = headers.last_mut() {
                value.extend_from_slice(line);
            }
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = String::from_utf8_lossy(&line[..colon]).trim().to_ascii_lowercase();
        headers.push((name, line[colon + 1..].to_vec()));
    }
    headers
}

/// RFC 6376 section 3.4.2: one line, runs of white space as one space, none at its ends.
fn relaxed_header(name: &str, value: &[u8]) -> String {
    let value = String::from_utf8_lossy(value);
    let words: Vec<&str> = value.split([' ', '\t', '\r', '\n']).filter(|word| !word.is_empty()).collect();
    format!("{name}:{}", words.join(" "))
}

/// RFC 6376 section 3.4.4: no white space at the ends of lines, runs of it as one space, no empty lines at the end.
fn relaxed_body(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut empty = 0_usize;
    let body = body.strip_suffix(b"\r\n").unwrap_or(body);
    if body.is_empty() {
        return out;
    }
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let kept = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
        if kept == 0 {
            empty += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty) {
            out.extend_from_slice(b"\r\n");
        }
        let mut in_space = false;
        for byte in &line[..kept] {
            let space = matches!(byte, b' ' | b'\t');
            match (space, in_space) {
                (true, true) => {}
                (true, false) => out.push(b' '),
                (false, _) => out.push(*byte),
            }
            in_space = space;
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Our chance, for a library that wants its own kind.
struct Dice<'a>(&'a dyn Chance);

impl rsa::rand_core::RngCore for Dice<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl rsa::rand_core::CryptoRng for Dice<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Ed25519 key and message of RFC 8463 appendix A.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    fn key() -> DkimKey {
        DkimKey::read("football.example.com", "brisbane", &KEY.to_owned().into()).expect("a key")
    }

    #[test]
    fn the_public_half_is_the_one_of_rfc_8463() {
        let key = key();
        assert_eq!(key.dns_name(), "brisbane._domainkey.football.example.com");
        assert_eq!(key.dns_record(), "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        assert_eq!(format!("{key:?}"), "DkimKey(brisbane._domainkey.football.example.com)");
    }

    #[test]
    fn canonical_forms_are_those_of_rfc_6376() {
        // Section 3.4.5.
        let head = headers(b"A: X\r\nB : Y\t\r\n\tZ  \r\n");
        let forms: Vec<_> = head.iter().map(|(name, value)| relaxed_header(name, value)).collect();
        assert_eq!(forms, ["a:X", "b:Y Z"]);
        assert_eq!(relaxed_body(b" C \r\nD \t E\r\n\r\n\r\n"), b" C\r\nD E\r\n");
        for (body, form) in [
            (&b""[..], &b""[..]),
            (b"\r\n", b""),
            (b"\r\n\r\n", b""),
            (b"a", b"a\r\n"),
            (b"\r\na\r\n \r\n", b"\r\na\r\n"),
        ] {
            assert_eq!(relaxed_body(body), form, "{:?}", String::from_utf8_lossy(body));
        }
        // The body of RFC 8463 appendix A.2 and its hash.
        let body = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
        assert_eq!(STANDARD.encode(Sha256::digest(relaxed_body(body))), "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=");
    }

    #[test]
    fn alignment_is_with_the_domain_and_what_lies_below_it() {
        let key = key();
        assert!(key.is_aligned_with("football.example.com") && key.is_aligned_with("mail.football.example.com"));
        assert!(!key.is_aligned_with("example.com") && !key.is_aligned_with("badfootball.example.com"));
    }

    #[test]
    fn keys_that_nobody_should_sign_with_are_refused() {
        let read =
            |domain: &str, selector: &str, pem: &str| DkimKey::read(domain, selector, &pem.to_owned().into()).err();
        assert_eq!(read("example", "a", KEY), Some(BadDkimKey::Domain));
        assert_eq!(read("example.com; x=", "a", KEY), Some(BadDkimKey::Domain));
        assert_eq!(read("example.com", "a.b", KEY), Some(BadDkimKey::Selector));
        for pem in ["", "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----", &KEY.replace("rn9g", "rn8")] {
            assert_eq!(read("example.com", "a", pem), Some(BadDkimKey::Key), "{pem}");
        }
    }
}
