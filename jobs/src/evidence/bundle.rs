//! What an auditor takes home: a bundle that proves itself with no network and no database.
//!
//! A bundle is a zip of five files, in this order:
//!
//! | file | content |
//! |---|---|
//! | `manifest.json` | form, the log's public key, which business it is about |
//! | `notes.jsonl` | signed heads, a JSON string a line, the oldest first: all of them, or, about one business, the last and those that anchors took |
//! | `leaves.bin` | the 32-byte leaf hash of every event of the whole log: from it every head's root is computed anew |
//! | `growth.jsonl` | about one business in place of it: how each head's tree grew into the last one's (RFC 6962 section 2.1.2) |
//! | `events.jsonl` | the events it is about, one a line, with their bodies where they are kept; about one business each with its path to the last head (RFC 6962 section 2.1.1) |
//! | `receipts.jsonl` | what anchors answered: time-stamp tokens, names of objects, Message-IDs |
//!
//! So a bundle about one business says nothing of any other, not even how many events it has at which times, and is as
//! large as its own events. That none of them is left out shows in their numbers and in the chain of their hashes.

use std::{collections::BTreeMap, io::BufRead};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Leaf, Receipt, Sealed,
    note::Verifier,
    timestamp::{self, Roots, Stamp},
    tree::{Frontier, Hash, verify_consistency, verify_inclusion},
    words,
};

/// The form of bundles that this version writes and reads.
pub const FORM: &str = "muneem-evidence-bundle/1";
/// Verb of the event that says which bodies were let go.
const RETIRED: &str = words::BODIES_RETIRED.as_str();

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
    #[serde(skip_serializing_if = "Option::is_none", default)]
    path: Option<Vec<String>>,
}

/// An event as a line of `events.jsonl`, with the line's end; `path` leads to the last head, in a bundle about one
/// business.
///
/// # Errors
/// Never for what the log holds.
pub fn event_line(sealed: &Sealed, path: Option<&[Hash]>) -> Result<String, serde_json::Error> {
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
        path: path.map(written),
    };
    Ok(serde_json::to_string(&line)? + "\n")
}

fn written(path: &[Hash]) -> Vec<String> {
    path.iter().map(|hash| STANDARD.encode(hash)).collect()
}

fn read_path(path: &[String]) -> Option<Vec<Hash>> {
    path.iter().map(|hash| STANDARD.decode(hash).ok()?.try_into().ok()).collect()
}

/// How a head's tree grew into the last one's, as a line of `growth.jsonl`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Growth {
    size: u64,
    path: Vec<String>,
}

/// A line of `growth.jsonl`, with the line's end.
///
/// # Errors
/// Never for what the log holds.
pub fn growth_line(size: u64, path: &[Hash]) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(&Growth { size, path: written(path) })? + "\n")
}

/// A receipt as a line of `receipts.jsonl`, with the line's end.
///
/// # Errors
/// Never for what the log holds.
pub fn receipt_line(receipt: &Receipt) -> Result<String, serde_json::Error> {
    let proof = STANDARD.encode(&receipt.proof);
    let line = serde_json::json!({
        "kind": receipt.kind, "anchor": receipt.anchor, "note": receipt.note, "proof": proof,
    });
    Ok(serde_json::to_string(&line)? + "\n")
}

/// Name of the object that a head is laid down as: `<millions of leaves>/<leaves>-<digest>.note`, so that names sort as
/// sizes, and the newest is found without listing all.
pub fn object_name(size: u64, note: &str) -> String {
    format!("{:014}/{size:020}-{}.note", size / 1_000_000, hex::encode(&Sha256::digest(note)[..8]))
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
    /// Time stamps over heads whose certificate led to a given root at the time they state (RFC 3161).
    pub stamps: u64,
    /// The same where no root was given: they hold in themselves, but anybody may have made them.
    pub unrooted_stamps: u64,
    /// The time stamp over most leaves.
    pub stamped: Option<Stamped>,
    /// Leaves under the last head.
    pub size: u64,
    /// When the last head was signed.
    pub signed_at: Option<DateTime<Utc>>,
}

/// What an outside authority says of the log's age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stamped {
    /// By its clock.
    pub at: DateTime<Utc>,
    /// Leaves that were there by then.
    pub size: u64,
    /// The authority, as its certificate names it.
    pub by: String,
    /// Whether that certificate led to a given root.
    pub rooted: bool,
}

/// What is wrong with an event whose leaf is another than the one under the head.
const NOT_SEALED: &str = "is not what was sealed: its number, instant, business or digest was changed";

/// Checks a bundle, file by file in the order of the bundle.
pub struct Check {
    verifier: Verifier,
    roots: Option<Roots>,
    loose: Vec<(Hash, String, Vec<u8>)>,
    business: Option<Uuid>,
    heads: BTreeMap<u64, (Hash, String)>,
    outside: Vec<(u64, Hash, String)>,
    verdict: Verdict,
    leaves: Vec<Hash>,
    last_root: Hash,
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
            roots: None,
            loose: Vec::new(),
            business: manifest.business,
            heads: BTreeMap::new(),
            outside: Vec::new(),
            verdict: Verdict::default(),
            leaves: Vec::new(),
            last_root: [0; 32],
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

    /// Roots of the authorities whose time stamps are believed; call it first.
    pub fn trust(&mut self, roots: Roots) {
        self.roots = Some(roots);
    }

    /// A time stamp that the verifier holds from outside, as `TimeStampResp` or as the token alone. It must be over one
    /// of the bundle's heads; call it before [`Self::notes`].
    ///
    /// # Errors
    /// It is no time stamp.
    pub fn outside_stamp(&mut self, name: &str, bytes: &[u8]) -> Result<(), Broken> {
        let token = if timestamp::is_token(bytes) { Ok(bytes) } else { timestamp::token_in(bytes) };
        let read = token.and_then(|token| Ok((timestamp::imprint_of(token)?, token.to_vec())));
        let (imprint, token) = read.map_err(|bad| broken(name, bad.to_string()))?;
        self.loose.push((imprint, name.to_owned(), token));
        Ok(())
    }

    /// Counts a time stamp over `note`, a head over `size` leaves, once it holds.
    fn stamp(&mut self, item: &str, token: &[u8], note: &str, size: u64) -> Result<(), Broken> {
        let Stamp { at, authority, .. } = timestamp::verify(token, note, self.roots.as_ref())
            .map_err(|bad| broken(item, format!("the time stamp {bad}")))?;
        let rooted = self.roots.is_some();
        *(if rooted { &mut self.verdict.stamps } else { &mut self.verdict.unrooted_stamps }) += 1;
        if self.verdict.stamped.as_ref().is_none_or(|stamped| stamped.size < size) {
            self.verdict.stamped = Some(Stamped { at, size, by: authority, rooted });
        }
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
            self.last_root = head.root;
            self.heads.insert(head.size, (head.root, item));
            if !self.loose.is_empty() {
                let imprint = Hash::from(Sha256::digest(&note));
                let loose = std::mem::take(&mut self.loose);
                let (over, others): (Vec<_>, Vec<_>) = loose.into_iter().partition(|(of, ..)| *of == imprint);
                self.loose = others;
                for (_, name, token) in over {
                    self.stamp(&name, &token, &note, head.size)?;
                }
            }
        }
        if let Some((_, name, _)) = self.loose.first() {
            return Err(broken(name, "is a time stamp over no head of this log"));
        }
        if self.heads.is_empty() { Err(broken("notes.jsonl", "holds no signed head")) } else { Ok(()) }
    }

    /// Whether this bundle is about one business, and so has `growth.jsonl` in place of `leaves.bin`.
    pub fn is_of_one_business(&self) -> bool {
        self.business.is_some()
    }

    /// `growth.jsonl`: every head, from the bundle or from outside, leads to the last one.
    ///
    /// # Errors
    /// The first head that does not.
    pub fn growth(&mut self, file: impl BufRead) -> Result<(), Broken> {
        let (size, root) = (self.verdict.size, self.last_root);
        let mut grown: BTreeMap<u64, Hash> = BTreeMap::from([(size, root)]);
        for (place, line) in (1_u64..).zip(file.lines()) {
            let item = format!("growth {place}");
            let read = |line: String| {
                let Growth { size, path } = serde_json::from_str(&line).ok()?;
                Some((size, read_path(&path)?))
            };
            let (from, path) = line.ok().and_then(read).ok_or_else(|| broken(&item, "is no proof of growth"))?;
            let (before, note) = self.heads.get(&from).ok_or_else(|| broken(&item, "is of a head that is not here"))?;
            if from > 0 && !verify_consistency(from, before, size, &root, &path) {
                return Err(broken(note, format!("did not grow into the head over {size} events: one was changed")));
            }
            grown.insert(from, *before);
        }
        let mut wanted = self.heads.iter().map(|(size, (root, item))| (*size, *root, item));
        if let Some((at, _, item)) = wanted.find(|(at, ..)| !grown.contains_key(at)) {
            return Err(broken(item, format!("over {at} events has no proof that it grew into the last one")));
        }
        // Every log grew out of the empty one.
        grown.entry(0).or_insert_with(|| Frontier::default().root());
        for (at, outside, name) in &self.outside {
            match grown.get(at) {
                Some(here) if here == outside => {}
                Some(_) => {
                    let problem = format!("has another root than this log over {at} events: one of them was changed");
                    return Err(broken(name, problem));
                }
                None if *at > size => {
                    let problem = format!("is over {at} leaves, but there are {size}: the end of the log is gone");
                    return Err(broken(name, problem));
                }
                None => return Err(broken(name, "is none of the heads in this bundle: ask for one of the whole log")),
            }
        }
        self.verdict.outside_heads = u64::try_from(self.outside.len()).unwrap_or(u64::MAX);
        Ok(())
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
            let read = read_event(&line).ok_or_else(|| broken(format!("event {at} or after"), "is no event"))?;
            self.event(read)?;
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

    fn event(&mut self, Read { seq, leaf, body, path }: Read) -> Result<(), Broken> {
        let item = || format!("event {seq}");
        if seq < self.next_seq || (self.business.is_none() && seq != self.next_seq) {
            return Err(broken(item(), format!("stands where event {} belongs", self.next_seq)));
        }
        self.next_seq = seq + 1;
        if self.business.is_some_and(|business| leaf.business_id != Some(business)) {
            return Err(broken(item(), "is of another business"));
        }
        let hash = leaf.hash();
        if self.business.is_none() {
            let sealed = usize::try_from(seq).ok().and_then(|seq| self.leaves.get(seq));
            let sealed = sealed.ok_or_else(|| broken(item(), "has no leaf in the log"))?;
            if *sealed != hash {
                return Err(broken(item(), NOT_SEALED));
            }
        } else if seq < self.verdict.size {
            let path = path.ok_or_else(|| broken(item(), "has no path to the last head"))?;
            if !verify_inclusion(hash, seq, self.verdict.size, &path, &self.last_root) {
                return Err(broken(item(), NOT_SEALED));
            }
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
        self.retired_before = self.retired_before.max(retired_before(&body));
        self.verdict.verified += 1;
        Ok(())
    }

    /// `receipts.jsonl`, and the verdict.
    ///
    /// # Errors
    /// The first receipt that belongs to no head of this log, or whose proof does not hold.
    pub fn receipts(mut self, file: impl BufRead) -> Result<Verdict, Broken> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            kind: String,
            #[serde(default)]
            anchor: String,
            note: String,
            proof: String,
        }
        for (place, line) in (1_u64..).zip(file.lines()) {
            let mut item = format!("receipt {place}");
            let line: Line = line
                .ok()
                .and_then(|line| serde_json::from_str(&line).ok())
                .ok_or_else(|| broken(&item, "is no receipt"))?;
            let proof = STANDARD.decode(&line.proof).map_err(|_| broken(&item, "holds no proof"))?;
            if !line.anchor.is_empty() {
                item = format!("{item} ({})", line.anchor);
            }
            let head = self.verifier.open(&line.note).map_err(|bad| broken(&item, bad.to_string()))?;
            if self.heads.get(&head.size).is_none_or(|(root, _)| *root != head.root) {
                return Err(broken(&item, "is of a head that this log does not have"));
            }
            match line.kind.as_str() {
                "timestamp" => self.stamp(&item, &proof, &line.note, head.size)?,
                "directory" | "objects" if proof != object_name(head.size, &line.note).as_bytes() => {
                    return Err(broken(&item, "names another object than its head was laid down as"));
                }
                _ => {}
            }
        }
        Ok(self.verdict)
    }
}

/// The instant before which bodies were let go, if this is the body of the event that says so.
pub(super) fn retired_before(body: &[u8]) -> Option<DateTime<Utc>> {
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
    if !body.windows(RETIRED.len()).any(|part| part == RETIRED.as_bytes()) {
        return None;
    }
    let said: Retired = serde_json::from_slice(body).ok()?;
    (said.verb == RETIRED).then_some(said.details.before)
}

/// An event as it was read.
struct Read {
    seq: u64,
    leaf: Leaf,
    body: Option<Vec<u8>>,
    path: Option<Vec<Hash>>,
}

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
    let path = match line.path {
        Some(path) => Some(read_path(&path)?),
        None => None,
    };
    Some(Read { seq: line.seq, leaf, body, path })
}
