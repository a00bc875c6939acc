use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Error;
use crate::people::{BusinessId, Scope, StaffId, links::LinkId};

crate::id_type! {
    /// One decision that takes a second person.
    ApprovalId
}

crate::id_type! {
    /// One yes or no.
    VoteId
}

/// Declares each kind once: its name, who may approve it, what people read.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $text:literal $scope:ident $words:literal;)*) => {
        /// What kind of thing is decided on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As it stands in rows, HTTP and evidence.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What an approver must be allowed to do.
            pub const fn scope(self) -> Scope {
                match self { $(Self::$name => Scope::$scope,)* }
            }

            /// For people: "erase personal data".
            pub const fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }
        }
    };
}

kinds! {
    /// Erasing, or correcting, what is known of a Data Principal (DPDP Act 2023 s.12).
    RightsPlan "rights.plan" RightsApprove "carry out a request of a Data Principal";
    /// Telling people and the Board of a personal data breach (DPDP Act 2023 s.8(6)).
    Intimation "breach.intimation" BreachApprove "tell people of a personal data breach";
    /// Disposing of records whose time is over (DPDP Rules 2025 r.8).
    Disposal "retention.disposal" RetentionApprove "dispose of records whose time is over";
    /// Replacing, retiring or shredding keys.
    KeyChange "keys.change" KeysApprove "change keys that open sealed data";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let kind = Self::ALL.iter().copied().find(|kind| kind.as_str() == text);
        kind.ok_or_else(|| Error::NoSuchKind(text.chars().take(80).collect()))
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One line of what an approver is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// `Records`.
    pub label: String,
    /// `1,204 in 7 tables`: masked where it is about a person.
    pub value: String,
}

/// What is to be done, and what approvers are shown of it. Both are what is approved.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything that decides what will happen: texts, lists, queries, instants, by value or by digest.
    pub content: Value,
    /// At most forty lines, without anything that tells who somebody is.
    pub summary: Vec<Line>,
}

/// Most lines of a summary.
const LINES_MAX: usize = 40;
/// Most characters of a label, and of a value.
const LABEL_MAX: usize = 60;
const VALUE_MAX: usize = 400;

impl Plan {
    /// What an approval is bound to: the SHA-256 of subject and plan in canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// [`Error::BadSummary`]; [`Error::NotCanonical`].
    pub fn digest(&self, subject: &Subject<'_>) -> Result<PlanHash, Error> {
        self.check()?;
        let whole = json!({
            "v": 1,
            "business": subject.business_id,
            "kind": subject.kind,
            "subject": subject.id,
            "content": self.content,
            "summary": self.summary,
        });
        let bytes = serde_json_canonicalizer::to_vec(&whole).map_err(Error::NotCanonical)?;
        Ok(PlanHash(Sha256::digest(bytes).into()))
    }

    /// Whoever approves may stand outside the business: nothing that spells a person goes to her.
    fn check(&self) -> Result<(), Error> {
        if self.summary.is_empty() || self.summary.len() > LINES_MAX {
            return Err(Error::BadSummary("has no lines, or more than 40".to_owned()));
        }
        for (at, line) in self.summary.iter().enumerate() {
            let sized = |text: &str, most: usize| !text.trim().is_empty() && text.chars().count() <= most;
            let problem = if !sized(&line.label, LABEL_MAX) || !sized(&line.value, VALUE_MAX) {
                "is empty or too long"
            } else if [&line.label, &line.value].iter().any(|text| text.chars().any(char::is_control)) {
                "holds a control character"
            } else if [&line.label, &line.value].iter().any(|text| spells_a_person(text)) {
                "spells a phone number, a mail address or another number of a person: mask it"
            } else {
                continue;
            };
            return Err(Error::BadSummary(format!("line {} {problem}", at + 1)));
        }
        Ok(())
    }
}

/// A mail address that is not shortened, or a number as long as those of phones and cards. Days and amounts are none.
fn spells_a_person(text: &str) -> bool {
    let mail = text.split_whitespace().any(|word| {
        word.split_once('@')
            .is_some_and(|(local, domain)| domain.contains('.') && !local.is_empty() && !local.ends_with(['…', '*']))
    });
    let between = |character: char| " -()\u{a0}\u{2009}".contains(character);
    let long = text.split(|character: char| !character.is_numeric() && !between(character)).any(|run| {
        let run = run.trim_matches(between);
        let digits = run.chars().filter(|character| character.is_numeric()).count();
        digits - if begins_with_date(run) { 8 } else { 0 } >= 10
    });
    mail || long
}

/// `2026-11-23` or `23-11-2026`.
fn begins_with_date(run: &str) -> bool {
    let form: String = run.chars().take(10).map(|c| if c.is_ascii_digit() { 'd' } else { c }).collect();
    form == "dddd-dd-dd" || form == "dd-dd-dddd"
}

/// The SHA-256 that an approval is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanHash(pub(super) [u8; 32]);

impl PlanHash {
    /// Eight letters that two people can compare on the telephone: `3f2a-91bc`.
    pub fn short(&self) -> String {
        let hex = hex::encode(&self.0[..4]);
        format!("{}-{}", &hex[..4], &hex[4..])
    }

    /// As rows hold it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanHash({self})")
    }
}

impl FromStr for PlanHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| Error::BadPlanHash)?;
        Ok(Self(hash))
    }
}

impl Serialize for PlanHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The thing that is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Whose; `None`: the installation's.
    pub business_id: Option<BusinessId>,
    /// Of what kind.
    pub kind: Kind,
    /// Its id in its own duty.
    pub id: &'a str,
}

/// Where a decision stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for people.
    Pending,
    /// Enough people said yes to the plan in force.
    Approved,
    /// What was approved is done: it is done once.
    CarriedOut,
    /// Somebody said no.
    Denied,
    /// Whoever asked took it back, or left.
    Withdrawn,
    /// Its time ran out.
    Expired,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Approved, Self::CarriedOut, Self::Denied, Self::Withdrawn, Self::Expired];

    /// As it stands in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::CarriedOut => "carried_out",
            Self::Denied => "denied",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }

    /// Whether anything can still come of it.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Approved)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A decision, without what its plan says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// Its id.
    pub approval_id: ApprovalId,
    /// Whose; `None`: the installation's.
    pub business_id: Option<BusinessId>,
    /// What kind of thing is decided on.
    pub kind: Kind,
    /// The thing.
    pub subject_id: String,
    /// What an approval is bound to.
    pub plan_sha256: PlanHash,
    /// Counts the plans, from 1.
    pub version: i32,
    /// How many people must say yes.
    pub approvers_needed: i16,
    /// Who asked for the plan in force: `operator`, `staff:<id>`, `token:<public id>`.
    pub requested_by: String,
    /// The person behind it.
    pub requested_staff: Option<StaffId>,
    /// When it was first asked.
    pub requested_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// Where it stands; see [`Self::state_at`].
    pub state: State,
    /// When it was approved last.
    pub approved_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Approval {
    /// Where it stands at `now`: what has run out is expired, whether or not the job that writes it has run.
    pub fn state_at(&self, now: DateTime<Utc>) -> State {
        if self.state.is_open() && self.expires_at <= now { State::Expired } else { self.state }
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        Subject { business_id: self.business_id, kind: self.kind, id: &self.subject_id }
    }
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes.
    Approve,
    /// No: the decision has ended.
    Deny,
}

impl Verdict {
    /// As it stands in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Deny => "deny",
        }
    }
}

/// Why somebody says no, as one of a few words: free text may name a person, and stands in no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It does more than it should.
    TooMuch,
    /// Something in it is wrong.
    Wrong,
    /// It does not say enough to decide on.
    Unclear,
    /// It should wait.
    NotNow,
    /// Nobody knows why this is asked.
    NotExpected,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::TooMuch, Self::Wrong, Self::Unclear, Self::NotNow, Self::NotExpected];

    /// As it stands in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooMuch => "too_much",
            Self::Wrong => "wrong",
            Self::Unclear => "unclear",
            Self::NotNow => "not_now",
            Self::NotExpected => "not_expected",
        }
    }

    /// For people: "it does more than it should".
    pub const fn words(self) -> &'static str {
        match self {
            Self::TooMuch => "it does more than it should",
            Self::Wrong => "something in it is wrong",
            Self::Unclear => "it does not say enough to decide on",
            Self::NotNow => "it should wait",
            Self::NotExpected => "I do not know why this is asked",
        }
    }
}

impl FromStr for Reason {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or(Error::NoSuchReason)
    }
}

/// One yes or no of one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vote {
    /// Its id.
    pub vote_id: VoteId,
    /// The plan that it is about.
    pub version: i32,
    /// Who: of staff.
    pub staff_id: Option<StaffId>,
    /// Who: somebody outside, by her invitation.
    pub link_id: Option<LinkId>,
    /// Yes or no.
    pub verdict: Verdict,
    /// Why not, where she said so.
    pub reason: Option<Reason>,
    /// When.
    pub voted_at: DateTime<Utc>,
    /// When it ceased to count.
    pub withdrawn_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject<'static> {
        Subject { business_id: None, kind: Kind::RightsPlan, id: "R-2026-000123" }
    }

    fn plan(value: &str) -> Plan {
        let summary = vec![Line { label: "Person".to_owned(), value: value.to_owned() }];
        Plan { content: json!({ "tables": ["orders"] }), summary }
    }

    #[test]
    fn the_hash_covers_content_summary_and_subject() {
        let one = plan("A… V…").digest(&subject()).expect("a hash");
        assert_eq!(plan("A… V…").digest(&subject()).expect("a hash"), one);
        assert_eq!(one.to_string().parse::<PlanHash>().expect("reads back"), one);
        assert_eq!(one.short().len(), 9);
        assert!("abc".parse::<PlanHash>().is_err());
        let mut others = vec![
            plan("B… V…").digest(&subject()).expect("a hash"),
            plan("A… V…").digest(&Subject { id: "R-2026-000124", ..subject() }).expect("a hash"),
            plan("A… V…").digest(&Subject { kind: Kind::Disposal, ..subject() }).expect("a hash"),
            plan("A… V…")
                .digest(&Subject { business_id: Some(BusinessId(uuid::Uuid::nil())), ..subject() })
                .expect("a hash"),
        ];
        others.push(
            Plan { content: json!({ "tables": ["orders", "visits"] }), ..plan("A… V…") }
                .digest(&subject())
                .expect("a hash"),
        );
        assert!(others.iter().all(|other| *other != one));
    }

    #[test]
    fn a_summary_that_spells_a_person_is_refused_and_not_repeated() {
        for fine in ["…10", "a…@example.in", "1,204 rows in 7 tables", "23-11-2026 18:30 IST", "₹ 12,345.00", "@home"]
        {
            assert!(plan(fine).digest(&subject()).is_ok(), "{fine}");
        }
        for personal in [
            "+91 98765 43210",
            "9876543210",
            "९८७६५४३२१०",
            "asha@example.in",
            "write to asha.verma@example.in",
            "4111 1111 1111 1111",
            "",
            "two\nlines",
        ] {
            let error = plan(personal).digest(&subject()).expect_err(personal);
            let told = error.to_string();
            assert!(matches!(error, Error::BadSummary(_)), "{told}");
            assert!(personal.is_empty() || !told.contains(personal), "{told}");
        }
        let none = Plan { content: Value::Null, summary: Vec::new() };
        assert!(matches!(none.digest(&subject()), Err(Error::BadSummary(_))));
    }

    #[test]
    fn only_people_may_approve_any_kind() {
        for kind in Kind::ALL {
            assert!(kind.scope().is_for_people_alone(), "{kind}");
            assert_eq!(kind.as_str().parse::<Kind>().expect("known"), *kind);
        }
    }
}
