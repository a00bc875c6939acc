//! What an auditor takes home: a bundle that proves itself with no network and no database.
//!
//! A bundle is a tar of five kinds of files, in this order:
//!
//! | file | content |
//! |---|---|
//! | `manifest.json` | form, the log's public key, which business it is about |
//! | `notes.jsonl` | every signed head, a JSON string a line, the oldest first |
//! | `leaves.bin` | the 32-byte leaf hash of every event of the whole log: from it every head's root is computed anew |
//! | `events.jsonl` | the events it is about, one a line, with their bodies where they are kept |
//! | `receipts.jsonl` | what anchors answered |
//!
//! Leaf hashes of other businesses tell nothing about them: what is hashed holds random ids. Since every head is
//! computed over the same leaves, heads that fit are consistent with each other; an inclusion proof would say no more.

use std::{collections::BTreeMap, io::BufRead};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Leaf, Receipt, Sealed,
    note::Verifier,
    tree::{Frontier, Hash},
};

/// The form of bundles that this version writes and reads.
pub const FORM: &str = "muneem-evidence-bundle/1";
/// Verb of the event that says which bodies were let go.
pub const RETIRED: &str = "evidence.bodies_retired";

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORM`]
    pub form: String,
    /// The public key that heads are signed with, as C2SP signed-note writes it.
    pub key: String,
    /// The one business it is about; none: all.
    pub business: Option<Uuid>,
}

/// One event as a line of `events.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    id: Uuid,
    business: Option<Uuid>,
    business_seq: u64,
    previous: String,
    at_micros: i64,
    body_sha256: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    body: Option<String>,
}

/// An event as a line of `events.jsonl`, with the line's end.
///
/// # Errors
/// Never for what the log holds.
pub fn event_line(sealed: &Sealed) -> Result<String, serde_json::Error> {
    let leaf = &sealed.leaf;
    let line = Line {
        seq: sealed.seq,
        id: leaf.event_id,
        business: leaf.business_id,
        business_seq: leaf.business_seq,
        previous: hex::encode(leaf.previous),
        at_micros: leaf.at.timestamp_micros(),
        body_sha256: hex::encode(leaf.body_sha256),
        body: sealed.body.as_ref().map(|body| STANDARD.encode(body)),
    };
    Ok(serde_json::to_string(&line)? + "\n")
}

/// A receipt as a line of `receipts.jsonl`, with the line's end.
///
/// # Errors
/// Never for what the log holds.
pub fn receipt_line(receipt: &Receipt) -> Result<String, serde_json::Error> {
    let proof = STANDARD.encode(&receipt.proof);
    let line = serde_json::json!({ "kind": receipt.kind, "note": receipt.note, "proof": proof });
    Ok(serde_json::to_string(&line)? + "\n")
}

/// Why a bundle proves nothing, naming the first item that is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{item}: {problem}")]
pub struct Broken {
    /// `event 17`, `note 3`, `manifest.json`.
    pub item: String,
    /// What is wrong with it.
    pub problem: String,
}

fn broken(item: impl Into<String>, problem: impl Into<String>) -> Broken {
    Broken { item: item.into(), problem: problem.into() }
}

/// What a bundle proves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Events whose body, number, instant and place are proven.
    pub verified: u64,
    /// Events whose body was let go by policy, as a verified event of the log says; all else about them is proven.
    pub retired: u64,
    /// Events that are not under a signed head yet: nothing is proven about them.
    pub unsigned: u64,
    /// Heads whose signature and root hold.
    pub heads: u64,
    /// Heads given from outside that the bundle agrees with.
    pub outside_heads: u64,
    /// Leaves under the last head.
    pub size: u64,
    /// When the last head was signed.
    pub signed_at: Option<DateTime<Utc>>,
}

/// Checks a bundle, file by file in the order of the bundle.
pub struct Check {
    verifier: Verifier,
    business: Option<Uuid>,
    heads: BTreeMap<u64, (Hash, String)>,
    outside: Vec<(u64, Hash, String)>,
    verdict: Verdict,
    leaves: Vec<Hash>,
    next_seq: u64,
    chains: BTreeMap<Option<Uuid>, (u64, Hash)>,
    missing: Vec<(u64, DateTime<Utc>)>,
    retired_before: Option<DateTime<Utc>>,
}

impl Check {
    /// Begins with `manifest.json`. `key` is the public key that the verifier holds from elsewhere; without one the
    /// bundle's own is taken, and only `outside` heads or a comparison of keys tie it to the installation.
    ///
    /// # Errors
    /// The manifest is of another form or names another key.
    pub fn new(manifest: &[u8], key: Option<&Verifier>) -> Result<Self, Broken> {
        let item = "manifest.json";
        let manifest: Manifest = serde_json::from_slice(manifest).map_err(|_| broken(item, "is no manifest"))?;
        if manifest.form != FORM {
            return Err(broken(item, format!("is of form `{}`, not `{FORM}`", manifest.form)));
        }
        let own = Verifier::parse(&manifest.key).ok_or_else(|| broken(item, "holds no public key of a log"))?;
        if key.is_some_and(|key| *key != own) {
            return Err(broken(item, "is signed with another key than the one given"));
        }
        Ok(Self {
            verifier: own,
            business: manifest.business,
            heads: BTreeMap::new(),
            outside: Vec::new(),
            verdict: Verdict::default(),
            leaves: Vec::new(),
            next_seq: 0,
            chains: BTreeMap::new(),
            missing: Vec::new(),
            retired_before: None,
        })
    }

    /// A head that the verifier holds from outside: what was anchored.
    ///
    /// # Errors
    /// It is of another log, or its signature does not hold.
    pub fn outside_head(&mut self, name: &str, note: &str) -> Result<(), Broken> {
        let head = self.verifier.open(note).map_err(|bad| broken(name, bad.to_string()))?;
        self.outside.push((head.size, head.root, name.to_owned()));
        Ok(())
    }

    /// `notes.jsonl`
    ///
    /// # Errors
    /// The first note whose form, signature or order is broken.
    pub fn notes(&mut self, file: impl BufRead) -> Result<(), Broken> {
        let mut last = 0;
        for (place, line) in (1_u64..).zip(file.lines()) {
            let item = format!("note {place}");
            let note: String = line
                .ok()
                .and_then(|line| serde_json::from_str(&line).ok())
                .ok_or_else(|| broken(&item, "is no JSON string"))?;
            let head = self.verifier.open(&note).map_err(|bad| broken(&item, bad.to_string()))?;
            if head.size < last {
                return Err(broken(&item, format!("is over {} leaves, the one before over {last}", head.size)));
            }
            last = head.size;
            if let Some((root, other)) = self.heads.get(&head.size)
                && *root != head.root
            {
                return Err(broken(&item, format!("has another root than {other} over as many leaves")));
            }
            self.verdict.heads += 1;
            self.verdict.size = head.size;
            self.verdict.signed_at = Some(head.at);
            self.heads.insert(head.size, (head.root, item));
        }
        if self.heads.is_empty() { Err(broken("notes.jsonl", "holds no signed head")) } else { Ok(()) }
    }

    /// `leaves.bin`: computes every head anew.
    ///
    /// # Errors
    /// The first head, from the bundle or from outside, that these leaves do not lead to.
    pub fn leaves(&mut self, file: &[u8]) -> Result<(), Broken> {
        let (leaves, rest) = file.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(broken("leaves.bin", "ends in the middle of a leaf"));
        }
        let size = u64::try_from(leaves.len()).unwrap_or(u64::MAX);
        let mut wanted: BTreeMap<u64, Vec<(Hash, String)>> = BTreeMap::new();
        for (size, (root, item)) in &self.heads {
            wanted.entry(*size).or_default().push((*root, item.clone()));
        }
        for (size, root, name) in &self.outside {
            wanted.entry(*size).or_default().push((*root, name.clone()));
        }
        if let Some((beyond, heads)) = wanted.range(size + 1..).next() {
            let item = heads.first().map_or("a head", |(_, item)| item);
            return Err(broken(
                item,
                format!("is over {beyond} leaves, but there are {size}: the end of the log is gone"),
            ));
        }
        let mut tree = Frontier::default();
        let mut heads = wanted.iter().peekable();
        let mut next = leaves.iter();
        while let Some((at, wanted)) = heads.peek() {
            if tree.size() < **at {
                next.next().into_iter().for_each(|leaf| tree.push(*leaf));
                continue;
            }
            let root = tree.root();
            if let Some((_, item)) = wanted.iter().find(|(wanted, _)| *wanted != root) {
                return Err(broken(
                    item,
                    format!("has another root than the first {at} leaves: one of them was changed"),
                ));
            }
            heads.next();
        }
        self.verdict.outside_heads = u64::try_from(self.outside.len()).unwrap_or(u64::MAX);
        self.leaves = leaves.to_vec();
        Ok(())
    }

    /// `events.jsonl`
    ///
    /// # Errors
    /// The first event that is not what its leaf says, out of order, left out or slipped in.
    pub fn events(&mut self, file: impl BufRead) -> Result<(), Broken> {
        for line in file.lines() {
            let at = self.next_seq;
            let line = line.map_err(|_| broken(format!("event {at}"), "cannot be read"))?;
            let (seq, leaf, body) =
                read_event(&line).ok_or_else(|| broken(format!("event {at} or after"), "is no event"))?;
            self.event(seq, &leaf, body)?;
        }
        if self.business.is_none() && self.next_seq != u64::try_from(self.leaves.len()).unwrap_or(u64::MAX) {
            return Err(broken(format!("event {}", self.next_seq), "is missing"));
        }
        let unproven = self.missing.iter().find(|(_, at)| self.retired_before.is_none_or(|before| *at >= before));
        if let Some((seq, _)) = unproven {
            return Err(broken(format!("event {seq}"), "has no body, and no retirement in the log covers it: missing"));
        }
        Ok(())
    }

    fn event(&mut self, seq: u64, leaf: &Leaf, body: Option<Vec<u8>>) -> Result<(), Broken> {
        let item = || format!("event {seq}");
        if seq < self.next_seq || (self.business.is_none() && seq != self.next_seq) {
            return Err(broken(item(), format!("stands where event {} belongs", self.next_seq)));
        }
        self.next_seq = seq + 1;
        if self.business.is_some_and(|business| leaf.business_id != Some(business)) {
            return Err(broken(item(), "is of another business"));
        }
        let hash = usize::try_from(seq).ok().and_then(|seq| self.leaves.get(seq));
        let hash = *hash.ok_or_else(|| broken(item(), "has no leaf in the log"))?;
        if leaf.hash() != hash {
            return Err(broken(item(), "is not what was sealed: its number, instant, business or digest was changed"));
        }
        let (number, previous) = self.chains.get(&leaf.business_id).copied().unwrap_or((0, [0; 32]));
        if leaf.business_seq != number + 1 || leaf.previous != previous {
            return Err(broken(item(), format!("does not follow number {number} of its business: one is left out")));
        }
        self.chains.insert(leaf.business_id, (leaf.business_seq, hash));
        if seq >= self.verdict.size {
            self.verdict.unsigned += 1;
            return Ok(());
        }
        let Some(body) = body else {
            self.missing.push((seq, leaf.at));
            self.verdict.retired += 1;
            return Ok(());
        };
        if Hash::from(Sha256::digest(&body)) != leaf.body_sha256 {
            return Err(broken(item(), "has a body that was changed"));
        }
        self.retirement(&body);
        self.verdict.verified += 1;
        Ok(())
    }

    /// Takes note of a proven event that says which bodies were let go.
    fn retirement(&mut self, body: &[u8]) {
        #[derive(Deserialize)]
        struct Retired {
            verb: String,
            details: Before,
        }
        #[derive(Deserialize)]
        struct Before {
            before: DateTime<Utc>,
        }
        // Cheaper than to parse each of a million bodies.
        if body.windows(RETIRED.len()).any(|part| part == RETIRED.as_bytes())
            && let Ok(said) = serde_json::from_slice::<Retired>(body)
            && said.verb == RETIRED
        {
            self.retired_before = self.retired_before.max(Some(said.details.before));
        }
    }

    /// `receipts.jsonl`, and the verdict.
    ///
    /// # Errors
    /// The first receipt that belongs to no head of this log.
    pub fn receipts(self, file: impl BufRead) -> Result<Verdict, Broken> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            #[serde(rename = "kind")]
            _kind: String,
            note: String,
            proof: String,
        }
        for (place, line) in (1_u64..).zip(file.lines()) {
            let item = format!("receipt {place}");
            let line: Line = line
                .ok()
                .and_then(|line| serde_json::from_str(&line).ok())
                .ok_or_else(|| broken(&item, "is no receipt"))?;
            STANDARD.decode(&line.proof).map_err(|_| broken(&item, "holds no proof"))?;
            let head = self.verifier.open(&line.note).map_err(|bad| broken(&item, bad.to_string()))?;
            if self.heads.get(&head.size).is_none_or(|(root, _)| *root != head.root) {
                return Err(broken(&item, "is of a head that this log does not have"));
            }
        }
        Ok(self.verdict)
    }
}

/// An event as it was read: its number, its leaf, its body.
type Read = (u64, Leaf, Option<Vec<u8>>);

fn read_event(line: &str) -> Option<Read> {
    let line: Line = serde_json::from_str(line).ok()?;
    let digest = |text: &str| {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).ok().map(|()| digest)
    };
    let body = match line.body {
        Some(body) => Some(STANDARD.decode(body).ok()?),
        None => None,
    };
    let leaf = Leaf {
        event_id: line.id,
        business_id: line.business,
        business_seq: line.business_seq,
        previous: digest(&line.previous)?,
        at: DateTime::from_timestamp_micros(line.at_micros)?,
        body_sha256: digest(&line.body_sha256)?,
    };
    Some((line.seq, leaf, body))
}
