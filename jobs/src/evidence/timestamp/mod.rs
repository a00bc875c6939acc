//! Time stamps of an outside authority over a head of the log (RFC 3161, with RFC 5816 and CMS, RFC 5652).
//!
//! The authority signs the digest of a note together with the time by its own clock. Whoever trusts its root
//! certificate knows from the token alone, with no network, that the log was as the note says at that time.

mod cms;

use std::fmt;

use chrono::{DateTime, Utc};
use der::{AnyRef, Decode, Encode, Reader, SliceReader, Tag, asn1::ObjectIdentifier};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256, Sha384, Sha512};
use webpki::{EndEntityCert, KeyUsage, ring};
use x509_cert::{Certificate, ext::pkix::ExtendedKeyUsage};

use self::cms::{Attributes, Parts, SHA256, info};

/// `application/timestamp-query` and `application/timestamp-reply` (RFC 3161 section 3.4).
pub const MEDIA_TYPES: (&str, &str) = ("application/timestamp-query", "application/timestamp-reply");
/// Longest token that is read: what a receipt may hold.
pub const LONGEST: usize = 65_536;

const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const TIME_STAMPING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");

/// The algorithms that certificates may be signed with.
static CHAIN_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    ring::ECDSA_P256_SHA256,
    ring::ECDSA_P256_SHA384,
    ring::ECDSA_P384_SHA256,
    ring::ECDSA_P384_SHA384,
    ring::ED25519,
    ring::RSA_PKCS1_2048_8192_SHA256,
    ring::RSA_PKCS1_2048_8192_SHA384,
    ring::RSA_PKCS1_2048_8192_SHA512,
    ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Why a time stamp proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStamp {
    /// Not what RFC 3161 and CMS describe.
    #[error("is no time stamp of RFC 3161 ({0})")]
    Form(&'static str),
    /// The authority said no, in its own code.
    #[error("the authority refused (status {status}{})", reason(*.failure))]
    Refused {
        /// `PKIStatus`
        status: u64,
        /// First bit of `PKIFailureInfo`.
        failure: Option<u8>,
    },
    /// It is over something else.
    #[error("is over another head than this one")]
    OtherHead,
    /// It answers another question.
    #[error("answers another request (the nonce differs)")]
    OtherRequest,
    /// The authority's signature does not hold.
    #[error("has a signature of the authority that does not hold")]
    Signature,
    /// An algorithm that is not taken.
    #[error("is signed with an algorithm that is not taken ({0}): SHA-256, SHA-384 or SHA-512 with RSA or ECDSA are")]
    Algorithm(String),
    /// The certificate may not sign time stamps.
    #[error("is signed with a certificate that may not stamp time ({0})")]
    Certificate(&'static str),
    /// The certificate does not lead to a root, or not at the time it states.
    #[error("has a certificate that does not lead to a trusted root: {0}")]
    Chain(String),
}

fn reason(failure: Option<u8>) -> String {
    // PKIFailureInfo of RFC 3161 section 2.4.2, by bit.
    match failure {
        Some(0) => ", the algorithm is not recognised".to_owned(),
        Some(2) => ", the request is not supported".to_owned(),
        Some(5) => ", the request has the wrong form".to_owned(),
        Some(14) => ", its clock is not available".to_owned(),
        Some(15) => ", the policy is not supported".to_owned(),
        Some(16) => ", the extension is not supported".to_owned(),
        Some(25) => ", its system fails".to_owned(),
        Some(bit) => format!(", failure bit {bit}"),
        None => String::new(),
    }
}

impl From<der::Error> for BadStamp {
    fn from(_: der::Error) -> Self {
        Self::Form("it is not DER, or not of the structure")
    }
}

/// What a time stamp proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When the authority signed, by its own clock.
    pub at: DateTime<Utc>,
    /// The authority, as its certificate names it.
    pub authority: String,
    /// Last instant of that certificate. It may lie behind: what counts is that it held at [`Self::at`].
    pub certificate_until: DateTime<Utc>,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.at.to_rfc3339(), self.authority)
    }
}

/// Root certificates that are trusted to stamp time.
#[derive(Clone, Debug)]
pub struct Roots(Vec<TrustAnchor<'static>>);

/// What is no list of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRoots {
    /// Nothing in it.
    #[error("holds no certificate: put the authority's root into it, PEM, from `-----BEGIN CERTIFICATE-----` on")]
    Empty,
    /// One of them is broken.
    #[error("certificate {0} cannot be read: take the authority's root, PEM")]
    Broken(usize),
}

impl Roots {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// [`BadRoots`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadRoots> {
        let mut anchors = Vec::new();
        for (place, certificate) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
            let certificate = certificate.map_err(|_| BadRoots::Broken(place))?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|_| BadRoots::Broken(place))?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() { Err(BadRoots::Empty) } else { Ok(Self(anchors)) }
    }
}

/// A request (DER `TimeStampReq`) for the time of `note`, with the authority's certificate in the answer.
pub fn request(note: &str, nonce: [u8; 8]) -> Vec<u8> {
    // SEQUENCE { version 1, messageImprint { { id-sha256, NULL }, OCTET STRING }, nonce, certReq TRUE }
    const HEAD: [u8; 24] = [
        0x30, 0x43, 0x02, 0x01, 0x01, 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
        0x02, 0x01, 0x05, 0x00, 0x04, 0x20,
    ];
    let mut request = HEAD.to_vec();
    request.extend_from_slice(&Sha256::digest(note));
    request.extend_from_slice(&[0x02, 0x08]);
    request.extend_from_slice(&whole(nonce));
    request.extend_from_slice(&[0x01, 0x01, 0xff]);
    request
}

/// Eight bytes as DER has a positive INTEGER of that length.
fn whole(mut nonce: [u8; 8]) -> [u8; 8] {
    nonce[0] = nonce[0] & 0x3f | 0x40;
    nonce
}

/// The token in an authority's answer (DER `TimeStampResp`), once it answers this request.
///
/// # Errors
/// The authority refused, or the answer belongs to another request. The token's signature is not looked at yet: see
/// [`verify`].
pub fn token_of(answer: &[u8], nonce: [u8; 8]) -> Result<Vec<u8>, BadStamp> {
    let token = token_in(answer)?;
    let parts = Parts::read(token)?;
    if info(parts.content)?.nonce != Some(whole(nonce).as_slice()) {
        return Err(BadStamp::OtherRequest);
    }
    Ok(token.to_vec())
}

/// The token in a `TimeStampResp`, as authorities answer and `openssl ts` writes it.
///
/// # Errors
/// It is none, or says that the authority refused.
pub fn token_in(answer: &[u8]) -> Result<&[u8], BadStamp> {
    let mut reader = SliceReader::new(answer)?;
    let token = reader.sequence(|reader| {
        let (status, failure) = reader.sequence(|reader| {
            let status: u64 = reader.decode()?;
            let mut failure = None;
            while !reader.is_finished() {
                let field: AnyRef<'_> = reader.decode()?;
                if field.header().tag() == Tag::BitString {
                    failure = first_bit(field.value());
                }
            }
            Ok::<_, BadStamp>((status, failure))
        })?;
        // 0 granted, 1 granted with modifications.
        if status > 1 {
            return Err(BadStamp::Refused { status, failure });
        }
        if reader.is_finished() {
            return Err(BadStamp::Form("the answer holds no token"));
        }
        Ok(reader.tlv_bytes()?)
    })?;
    reader.finish()?;
    Ok(token)
}

/// First set bit of a BIT STRING's content, the most significant being 0.
fn first_bit(content: &[u8]) -> Option<u8> {
    let (place, byte) = content.get(1..)?.iter().enumerate().find(|(_, byte)| **byte != 0)?;
    u8::try_from(place).ok()?.checked_mul(8)?.checked_add(u8::try_from(byte.leading_zeros()).ok()?)
}

/// Whether these bytes look like a token (DER `ContentInfo` of signed data).
pub fn is_token(bytes: &[u8]) -> bool {
    Parts::read(bytes).is_ok()
}

/// Digest of what the token is over, for finding the head it belongs to.
///
/// # Errors
/// It is no time stamp.
pub fn imprint_of(token: &[u8]) -> Result<[u8; 32], BadStamp> {
    let parts = Parts::read(token)?;
    info(parts.content)?.imprint.try_into().map_err(|_| BadStamp::Form("its digest is not SHA-256"))
}

/// Checks a token over `note`: digests, the authority's signature, its certificate's purpose, and, with `roots`, that
/// the certificate led to one of them at the time the token states.
///
/// # Errors
/// [`BadStamp`] says which of these does not hold.
pub fn verify(token: &[u8], note: &str, roots: Option<&Roots>) -> Result<Stamp, BadStamp> {
    let parts = Parts::read(token)?;
    let info = info(parts.content)?;
    if info.imprint != Sha256::digest(note).as_slice() {
        return Err(BadStamp::OtherHead);
    }
    let attributes = Attributes::read(parts.attributes)?;
    if attributes.digest != digest(parts.digest, parts.content)? {
        return Err(BadStamp::Signature);
    }
    let signer = signer(&parts, &attributes)?;
    let der = CertificateDer::from(signer);
    let holder = EndEntityCert::try_from(&der).map_err(|_| BadStamp::Certificate("it cannot be read"))?;
    check_signature(&holder, &parts)?;
    let certificate = Certificate::from_der(signer)?;
    check_purpose(&certificate)?;
    if let Some(Roots(roots)) = roots {
        let others: Vec<_> = parts.certificates.iter().map(|der| CertificateDer::from(*der)).collect();
        let at = u64::try_from(info.at.timestamp()).map_err(|_| BadStamp::Form("it states a time before 1970"))?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
        // DER of id-kp-timeStamping, without its header. That the signer's certificate has it was seen above; those in
        // between may name purposes, and then this is among them (RFC 5280 section 4.2.1.12).
        let usage = KeyUsage::required_if_present(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08]);
        holder
            .verify_for_usage(CHAIN_ALGORITHMS, roots, &others, at, usage, None, None)
            .map_err(|error| BadStamp::Chain(in_words(&error)))?;
    }
    let until = certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs();
    Ok(Stamp {
        at: info.at,
        authority: certificate.tbs_certificate().subject().to_string(),
        certificate_until: i64::try_from(until)
            .ok()
            .and_then(|secs| DateTime::from_timestamp(secs, 0))
            .unwrap_or_default(),
    })
}

fn in_words(error: &webpki::Error) -> String {
    match error {
        webpki::Error::CertExpired { .. } => "it had expired at the time it states".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "it was not valid yet at the time it states".to_owned(),
        webpki::Error::InvalidSignatureForPublicKey => {
            "a signature in its chain does not hold (a root of the same name may have another key)".to_owned()
        }
        webpki::Error::UnknownIssuer => "nobody among the given roots issued it".to_owned(),
        other => other.to_string(),
    }
}

fn digest(algorithm: ObjectIdentifier, bytes: &[u8]) -> Result<Vec<u8>, BadStamp> {
    Ok(match algorithm {
        SHA256 => Sha256::digest(bytes).to_vec(),
        SHA384 => Sha384::digest(bytes).to_vec(),
        SHA512 => Sha512::digest(bytes).to_vec(),
        other => return Err(BadStamp::Algorithm(other.to_string())),
    })
}

/// The certificate that signed: named by issuer and number, and bound by its digest in the signed attributes.
fn signer<'a>(parts: &Parts<'a>, attributes: &Attributes<'_>) -> Result<&'a [u8], BadStamp> {
    let named = |der: &[u8]| {
        let certificate = Certificate::from_der(der).ok()?;
        let tbs = certificate.tbs_certificate();
        let same = tbs.issuer().to_der().ok()? == parts.issuer && tbs.serial_number().to_der().ok()? == parts.serial;
        same.then_some(())
    };
    let found = parts.certificates.iter().find(|der| named(der).is_some());
    let signer = *found.ok_or(BadStamp::Certificate("it is not in the token"))?;
    for (algorithm, bound) in &attributes.certificate {
        let fits = match algorithm {
            Some(algorithm) => digest(*algorithm, signer)? == *bound,
            None => sha1::Sha1::digest(signer).as_slice() == *bound,
        };
        if !fits {
            return Err(BadStamp::Certificate("the token is bound to another one"));
        }
    }
    Ok(signer)
}

fn check_signature(holder: &EndEntityCert<'_>, parts: &Parts<'_>) -> Result<(), BadStamp> {
    // RFC 5652 section 5.4: signed are the attributes as a SET OF, not with the implicit tag they are sent with.
    let mut signed = parts.attributes.to_vec();
    signed[0] = 0x31;
    let candidates: &[&dyn SignatureVerificationAlgorithm] = match (parts.algorithm, parts.digest) {
        (RSA | RSA_SHA256, SHA256) => &[ring::RSA_PKCS1_2048_8192_SHA256],
        (RSA | RSA_SHA384, SHA384) => &[ring::RSA_PKCS1_2048_8192_SHA384],
        (RSA | RSA_SHA512, SHA512) => &[ring::RSA_PKCS1_2048_8192_SHA512],
        (ECDSA_SHA256, SHA256) => &[ring::ECDSA_P256_SHA256, ring::ECDSA_P384_SHA256],
        (ECDSA_SHA384, SHA384) => &[ring::ECDSA_P384_SHA384, ring::ECDSA_P256_SHA384],
        (other, _) => return Err(BadStamp::Algorithm(other.to_string())),
    };
    let holds = |algorithm: &&dyn SignatureVerificationAlgorithm| {
        holder.verify_signature(*algorithm, &signed, parts.signature).is_ok()
    };
    if candidates.iter().any(holds) { Ok(()) } else { Err(BadStamp::Signature) }
}

/// RFC 3161 section 2.3: one purpose, time stamping, and critical.
fn check_purpose(certificate: &Certificate) -> Result<(), BadStamp> {
    match certificate.tbs_certificate().get_extension::<ExtendedKeyUsage>() {
        Ok(Some((true, ExtendedKeyUsage(purposes)))) if purposes == [TIME_STAMPING] => Ok(()),
        Ok(Some((false, ExtendedKeyUsage(purposes)))) if purposes == [TIME_STAMPING] => {
            Err(BadStamp::Certificate("its purpose is not marked critical"))
        }
        Ok(Some(_)) => Err(BadStamp::Certificate("it is for other purposes")),
        Ok(None) => Err(BadStamp::Certificate("it names no purpose")),
        Err(_) => Err(BadStamp::Certificate("its purpose cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use der::asn1::OctetStringRef;

    use super::{
        cms::{algorithm, time},
        *,
    };

    #[test]
    fn a_request_is_der_of_the_length_it_says() {
        let request = request("note", [0xff; 8]);
        assert_eq!(request.len(), 0x43 + 2);
        let mut reader = SliceReader::new(&request).expect("DER");
        let nonce = reader
            .sequence(|reader| {
                assert_eq!(reader.decode::<u64>()?, 1);
                let imprint = reader.sequence(|reader| {
                    assert_eq!(algorithm(reader).expect("an algorithm"), SHA256);
                    Ok::<_, der::Error>(<&OctetStringRef>::decode(reader)?.as_bytes())
                })?;
                assert_eq!(imprint, Sha256::digest("note").as_slice());
                let nonce = reader.decode::<u64>()?;
                assert!(reader.decode::<bool>()?);
                Ok::<_, der::Error>(nonce)
            })
            .expect("a request");
        assert_eq!(nonce, 0x7fff_ffff_ffff_ffff);
        reader.finish().expect("nothing behind it");
    }

    #[test]
    fn times_have_fractions_or_not_and_are_utc() {
        let at = |text: &str| time(text.as_bytes()).map(|at| at.to_rfc3339()).ok();
        assert_eq!(at("20261123073000Z").as_deref(), Some("2026-11-23T07:30:00+00:00"));
        assert_eq!(at("20261123073000.25Z").as_deref(), Some("2026-11-23T07:30:00.250+00:00"));
        for bad in
            ["20261123073000", "20261323073000Z", "20261123073000+0530", "2026112307300Z", "+0261123073000Z", "Z"]
        {
            assert_eq!(at(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_refusal_says_why_and_garbage_is_no_answer() {
        // TimeStampResp { status rejection, failInfo timeNotAvailable (bit 14) }
        let refused = [0x30, 0x09, 0x30, 0x07, 0x02, 0x01, 0x02, 0x03, 0x02, 0x01, 0x00];
        let mut refused = refused.to_vec();
        refused.splice(7.., [0x03, 0x03, 0x01, 0x00, 0x02]);
        refused[1] = 0x0a;
        refused[3] = 0x08;
        let error = token_of(&refused, [0; 8]).expect_err("refused");
        assert_eq!(error, BadStamp::Refused { status: 2, failure: Some(14) });
        assert!(error.to_string().contains("clock"), "{error}");
        for garbage in [&b""[..], b"<html>", &[0x30, 0x80], &[0x30, 0x03, 0x02, 0x01, 0x00]] {
            assert!(matches!(token_of(garbage, [0; 8]), Err(BadStamp::Form(_))), "{garbage:?}");
            assert!(!is_token(garbage));
        }
    }
}
