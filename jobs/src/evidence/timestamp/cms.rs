//! The structures of a token, read as they stand: no byte that is signed is written anew.

use chrono::{DateTime, NaiveDate, Utc};
use der::{
    AnyRef, Decode, Reader, SliceReader, Tag,
    asn1::{ObjectIdentifier, OctetStringRef},
};

use super::BadStamp;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
pub(super) const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");

/// What stands in a token's `ContentInfo` and `SignedData`.
pub(super) struct Parts<'a> {
    /// DER `TSTInfo`
    pub(super) content: &'a [u8],
    pub(super) certificates: Vec<&'a [u8]>,
    /// Issuer and serial number of the signer's certificate, as they stand there.
    pub(super) issuer: &'a [u8],
    pub(super) serial: &'a [u8],
    pub(super) digest: ObjectIdentifier,
    /// Signed attributes with their implicit tag.
    pub(super) attributes: &'a [u8],
    pub(super) algorithm: ObjectIdentifier,
    pub(super) signature: &'a [u8],
}

impl<'a> Parts<'a> {
    pub(super) fn read(token: &'a [u8]) -> Result<Self, BadStamp> {
        let mut outer = SliceReader::new(token)?;
        let signed = outer.sequence(|reader| {
            let kind: ObjectIdentifier = reader.decode()?;
            if kind != SIGNED_DATA {
                return Err(BadStamp::Form("it is not signed data"));
            }
            let wrapped: AnyRef<'a> = reader.decode()?;
            expect(wrapped, context(0, true), "its content is not where it belongs")
        })?;
        outer.finish()?;
        let mut reader = SliceReader::new(signed)?;
        let parts = reader.sequence(Self::signed_data)?;
        reader.finish()?;
        Ok(parts)
    }

    fn signed_data(reader: &mut SliceReader<'a>) -> Result<Self, BadStamp> {
        let _version: u64 = reader.decode()?;
        let _digests: AnyRef<'a> = reader.decode()?;
        let content = reader.sequence(|reader| {
            let kind: ObjectIdentifier = reader.decode()?;
            if kind != TST_INFO {
                return Err(BadStamp::Form("what it signs is no time stamp"));
            }
            let wrapped: AnyRef<'a> = reader.decode()?;
            let inside = expect(wrapped, context(0, true), "its content is not where it belongs")?;
            Ok(<&OctetStringRef>::from_der(inside)?.as_bytes())
        })?;
        let mut certificates = Vec::new();
        let mut signers = None;
        while !reader.is_finished() {
            let field: AnyRef<'a> = reader.decode()?;
            let mut inside = SliceReader::new(field.value())?;
            if field.header().tag() == context(0, true) {
                while !inside.is_finished() {
                    certificates.push(inside.tlv_bytes()?);
                }
            } else if field.header().tag() == Tag::Set {
                signers = Some(field.value());
            }
        }
        let mut signers = SliceReader::new(signers.ok_or(BadStamp::Form("nobody signed it"))?)?;
        let signer = signers.sequence(|reader| Self::signer(reader, content, certificates))?;
        if !signers.is_finished() {
            return Err(BadStamp::Form("more than the authority signed it"));
        }
        Ok(signer)
    }

    fn signer(reader: &mut SliceReader<'a>, content: &'a [u8], certificates: Vec<&'a [u8]>) -> Result<Self, BadStamp> {
        let _version: u64 = reader.decode()?;
        // RFC 3161 names the certificate by issuer and number; a key identifier would have another tag.
        let (issuer, serial) =
            reader.sequence(|reader| Ok::<_, BadStamp>((reader.tlv_bytes()?, reader.tlv_bytes()?)))?;
        let digest = algorithm(reader)?;
        let attributes = reader.tlv_bytes()?;
        if attributes.first() != Some(&0xa0) {
            return Err(BadStamp::Form("it has no signed attributes"));
        }
        let algorithm = algorithm(reader)?;
        let signature = <&OctetStringRef>::decode(reader)?.as_bytes();
        while !reader.is_finished() {
            // Unsigned attributes prove nothing.
            let _: AnyRef<'a> = reader.decode()?;
        }
        Ok(Self { content, certificates, issuer, serial, digest, attributes, algorithm, signature })
    }
}

/// Tag `[number]`.
fn context(number: u32, constructed: bool) -> Tag {
    Tag::ContextSpecific { constructed, number: der::TagNumber(number) }
}

fn expect<'a>(field: AnyRef<'a>, tag: Tag, what: &'static str) -> Result<&'a [u8], BadStamp> {
    if field.header().tag() == tag { Ok(field.value()) } else { Err(BadStamp::Form(what)) }
}

/// The OID of an `AlgorithmIdentifier`; its parameters are those of the algorithm or none.
pub(super) fn algorithm(reader: &mut SliceReader<'_>) -> Result<ObjectIdentifier, BadStamp> {
    reader.sequence(|reader| {
        let oid = reader.decode()?;
        while !reader.is_finished() {
            let _: AnyRef<'_> = reader.decode()?;
        }
        Ok(oid)
    })
}

/// What the authority says.
pub(super) struct Info<'a> {
    pub(super) imprint: &'a [u8],
    pub(super) at: DateTime<Utc>,
    pub(super) nonce: Option<&'a [u8]>,
}

/// Reads a `TSTInfo` (RFC 3161 section 2.4.2).
pub(super) fn info(content: &[u8]) -> Result<Info<'_>, BadStamp> {
    let mut outer = SliceReader::new(content)?;
    let info = outer.sequence(|reader| {
        let version: u64 = reader.decode()?;
        if version != 1 {
            return Err(BadStamp::Form("it is of another version"));
        }
        let _policy: ObjectIdentifier = reader.decode()?;
        let imprint = reader.sequence(|reader| {
            if algorithm(reader)? != SHA256 {
                return Err(BadStamp::Form("its digest is not SHA-256"));
            }
            Ok(<&OctetStringRef>::decode(reader)?.as_bytes())
        })?;
        let _serial = reader.tlv_bytes()?;
        let at: AnyRef<'_> = reader.decode()?;
        let at = time(expect(at, Tag::GeneralizedTime, "it states no time")?)?;
        let mut nonce = None;
        while !reader.is_finished() {
            // Accuracy, ordering, nonce, the authority's name, extensions: each has a tag of its own.
            let field: AnyRef<'_> = reader.decode()?;
            if field.header().tag() == Tag::Integer {
                nonce = Some(field.value());
            }
        }
        Ok(Info { imprint, at, nonce })
    })?;
    outer.finish()?;
    Ok(info)
}

/// `GeneralizedTime` in UTC, with or without a fraction of a second (RFC 3161 section 2.4.2).
pub(super) fn time(text: &[u8]) -> Result<DateTime<Utc>, BadStamp> {
    let read = || {
        let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let number = |from: usize, to: usize| whole.get(from..to)?.parse::<u32>().ok();
        if whole.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || fraction.len() > 9 {
            return None;
        }
        let day = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(4, 6)?, number(6, 8)?)?;
        let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
        Some(day.and_hms_nano_opt(number(8, 10)?, number(10, 12)?, number(12, 14)?, nanos)?.and_utc())
    };
    read().ok_or(BadStamp::Form("the time it states is none"))
}

/// The signed attributes that RFC 3161 demands.
pub(super) struct Attributes<'a> {
    pub(super) digest: &'a [u8],
    /// Digests of the signer's certificate: SHA-256 or as named (RFC 5816), or SHA-1 (RFC 2634).
    pub(super) certificate: Vec<(Option<ObjectIdentifier>, &'a [u8])>,
}

impl<'a> Attributes<'a> {
    pub(super) fn read(attributes: &'a [u8]) -> Result<Self, BadStamp> {
        let mut digest = None;
        let mut content_type = None;
        let mut certificate = Vec::new();
        let all = AnyRef::from_der(attributes)?;
        let mut reader = SliceReader::new(all.value())?;
        while !reader.is_finished() {
            let (kind, values) = reader.sequence(|reader| {
                let kind: ObjectIdentifier = reader.decode()?;
                let values: AnyRef<'a> = reader.decode()?;
                Ok::<_, BadStamp>((kind, expect(values, Tag::Set, "an attribute has no values")?))
            })?;
            match kind {
                CONTENT_TYPE => content_type = Some(ObjectIdentifier::from_der(values)?),
                MESSAGE_DIGEST => digest = Some(<&OctetStringRef>::from_der(values)?.as_bytes()),
                SIGNING_CERTIFICATE => certificate.push((None, first_id(values, false)?.1)),
                SIGNING_CERTIFICATE_V2 => {
                    let (algorithm, digest) = first_id(values, true)?;
                    certificate.push((Some(algorithm), digest));
                }
                _ => {}
            }
        }
        if content_type != Some(TST_INFO) {
            return Err(BadStamp::Form("its attributes are of another content"));
        }
        let digest = digest.ok_or(BadStamp::Form("its attributes hold no digest"))?;
        if certificate.is_empty() {
            return Err(BadStamp::Form("it does not say which certificate signed it"));
        }
        Ok(Self { digest, certificate })
    }
}

/// Digest of the first certificate in a `SigningCertificate` or, where `named`, a `SigningCertificateV2`, whose
/// algorithm is SHA-256 unless it says otherwise.
fn first_id(value: &[u8], named: bool) -> Result<(ObjectIdentifier, &[u8]), BadStamp> {
    let mut reader = SliceReader::new(value)?;
    let first = reader.sequence(|reader| {
        let ids: AnyRef<'_> = reader.decode()?;
        while !reader.is_finished() {
            // Policies.
            let _: AnyRef<'_> = reader.decode()?;
        }
        let ids = expect(ids, Tag::Sequence, "it does not say which certificate signed it")?;
        let mut ids = SliceReader::new(ids)?;
        ids.sequence(|reader| {
            let mut oid = SHA256;
            if named && Tag::peek(reader)? == Tag::Sequence {
                oid = algorithm(reader)?;
            }
            let digest = <&OctetStringRef>::decode(reader)?.as_bytes();
            while !reader.is_finished() {
                // Issuer and serial number once more.
                let _: AnyRef<'_> = reader.decode()?;
            }
            Ok::<_, BadStamp>((oid, digest))
        })
    })?;
    Ok(first)
}
