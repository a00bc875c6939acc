//! Scripted faults: what goes wrong, when, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One scripted fault. The first that fits a request is used up by it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Only this request, counted from 1 over all POSTs of messages.
    #[serde(default)]
    pub request: Option<u64>,
    /// Only messages to this number, digits without plus.
    #[serde(default)]
    pub to: Option<String>,
    /// Only messages from this number: its `phone_number_id`.
    #[serde(default)]
    pub from: Option<String>,
    /// Only this share of the requests, by the seed.
    #[serde(default)]
    pub chance: Option<f64>,
    /// How many requests it meets.
    #[serde(default = "once")]
    pub times: u32,
    /// What happens.
    pub what: What,
}

fn once() -> u32 {
    1
}

/// What goes wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// Takes the message, delivers it, never answers.
    AcceptThenSilence,
    /// Takes nothing and never answers: its twin, not to be told apart at once.
    Silence,
    /// Takes the message, then cuts the connection.
    AcceptThenCut,
    /// Cuts the connection before reading the body.
    Cut,
    /// Takes the message, then answers with this status and a page, half a JSON or nothing.
    AcceptThenAnswer {
        /// HTTP status.
        status: u16,
        /// What is in it.
        body: Garbage,
    },
    /// Answers late.
    Delay {
        /// By so much.
        millis: u64,
    },
    /// Takes the message and delivers it; the answer comes late.
    AnswerLate {
        /// By so much.
        millis: u64,
    },
    /// Refuses with this code.
    Refuse {
        /// The code.
        code: i64,
        /// The subcode.
        #[serde(default)]
        subcode: Option<i64>,
        /// `is_transient`.
        #[serde(default)]
        transient: Option<bool>,
        /// `error_data` as a string, or none at all.
        #[serde(default)]
        data: Option<ErrorData>,
        /// Another HTTP status than the code's.
        #[serde(default)]
        status: Option<u16>,
        /// Minutes in the usage header after which it is worth another try.
        #[serde(default)]
        regain_minutes: Option<u64>,
    },
    /// Takes the message; later it is reported as failed with this code.
    FailLater {
        /// The code.
        code: i64,
        /// First it is reported as sent.
        #[serde(default)]
        after_sent: bool,
    },
    /// Takes the message; receipt and statuses have values and fields that nobody knows.
    Odd,
    /// Takes the message as held for a quality assessment, and lets it go after so many seconds of its own clock.
    Hold {
        /// Seconds.
        secs: u32,
    },
    /// Takes the message; its statuses are told so many seconds late.
    TellLate {
        /// Seconds of the stand-in's own clock.
        secs: u32,
    },
    /// Reports `read` and never `delivered`.
    ReadOnly,
    /// Takes the message, and it is never heard of again.
    Vanish,
    /// Reports `sent` and `delivered` before it answers.
    ReportFirst,
}

/// How `error_data` is written where it is not as documented.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorData {
    /// A string.
    Text,
    /// Not at all.
    Absent,
}

/// A body that is no answer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Garbage {
    /// A proxy's error page.
    Html,
    /// A receipt that breaks off.
    HalfJson,
    /// Nothing.
    Empty,
}

/// How webhooks misbehave from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Callbacks {
    /// Every body is posted so many times.
    pub copies: u32,
    /// Events gathered into one body.
    pub batch: usize,
    /// How long events are gathered.
    pub gather_millis: u64,
    /// Events gathered are told backwards.
    pub backwards: bool,
    /// Bodies are signed with a wrong secret.
    pub forged: bool,
    /// Bodies carry no signature.
    pub unsigned: bool,
    /// Events gathered are told in any order.
    pub shuffled: bool,
    /// This share of the events is told again a little later, in another body.
    pub repeated: f64,
    /// Every event stands in an entry of its own, also those of one number.
    pub apart: bool,
    /// Nothing is posted at all; what happens meanwhile is told afterwards.
    pub stopped: bool,
}

impl Default for Callbacks {
    fn default() -> Self {
        Self {
            copies: 1,
            batch: 1,
            gather_millis: 0,
            backwards: false,
            forged: false,
            unsigned: false,
            shuffled: false,
            repeated: 0.0,
            apart: false,
            stopped: false,
        }
    }
}

/// What is asked of `POST /sandbox/faults`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Script {
    /// Forget what was scripted before.
    pub(super) reset: bool,
    pub(super) faults: Vec<Fault>,
    pub(super) callbacks: Option<Callbacks>,
    /// For so long nobody listens: connections are refused.
    pub(super) closed_millis: Option<u64>,
}

/// What is known of a request when a fault is looked for.
#[derive(Clone, Copy)]
pub(super) struct Met<'a> {
    /// Counted from 1.
    pub(super) request: u64,
    /// The sender's id.
    pub(super) from: &'a str,
    /// Not known before the body is read: only faults that do not ask for it fit then.
    pub(super) to: Option<&'a str>,
    /// Where the seed's chance fell, from 0 to 1.
    pub(super) chance: f64,
}

/// Takes the first fault that fits, and uses it up once.
pub(super) fn take(faults: &mut Vec<Fault>, met: Met<'_>) -> Option<What> {
    let early = met.to.is_none();
    let index = faults.iter().position(|fault| {
        matches!(fault.what, What::Cut) == early
            && fault.request.is_none_or(|wanted| wanted == met.request)
            && fault.from.as_deref().is_none_or(|wanted| wanted == met.from)
            && fault.to.as_deref().is_none_or(|wanted| Some(wanted) == met.to)
            && fault.chance.is_none_or(|share| met.chance < share)
    })?;
    let what = faults[index].what.clone();
    faults[index].times = faults[index].times.saturating_sub(1);
    if faults[index].times == 0 {
        faults.remove(index);
    }
    Some(what)
}

/// What the carrier does where it is not the same for everybody, or has changed with time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// How a message outside the window is refused.
    pub window: WindowRule,
    /// The code with which a portfolio's limit is told; none is documented.
    pub portfolio_code: i64,
    /// Marketing messages that one person gets in 24 hours.
    pub marketing_cap: Option<u32>,
    /// So many in vain lock her for another 24 hours.
    pub marketing_lock_after: u32,
    /// The statuses that come with `pricing`.
    pub pricing_on: Vec<String>,
    /// `conversation` stands beside it, as up to v23.0.
    pub conversation: bool,
    /// Webhooks name people by their business-scoped ids too.
    pub user_ids: bool,
}

/// What becomes of a message that is no template when nobody wrote within 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowRule {
    /// Refused at once.
    Refused,
    /// Taken, and told as failed.
    Failed,
    /// It goes out.
    Open,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            window: WindowRule::Refused,
            portfolio_code: 131_049,
            marketing_cap: None,
            marketing_lock_after: 3,
            pricing_on: vec!["sent".to_owned(), "delivered".to_owned()],
            conversation: false,
            user_ids: false,
        }
    }
}

/// How quickly a message gets on, when nothing is scripted.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From acceptance to `sent`.
    pub sent: Duration,
    /// From `sent` to `delivered`.
    pub delivered: Duration,
    /// From `delivered` to `read`; nobody reads by herself if absent.
    pub read: Option<Duration>,
}

impl Pace {
    /// What looks alive: delivered in half a second, read two seconds later.
    pub const LIVELY: Self = Self {
        sent: Duration::from_millis(150),
        delivered: Duration::from_millis(350),
        read: Some(Duration::from_secs(2)),
    };
    /// As fast as it goes.
    pub const INSTANT: Self = Self { sent: Duration::ZERO, delivered: Duration::ZERO, read: Some(Duration::ZERO) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_what_it_is_scripted_for_and_is_used_up() {
        let script = r#"{"faults":[
            {"to":"919812345678","times":2,"what":{"refuse":{"code":131056}}},
            {"request":3,"what":"cut"},
            {"chance":0.5,"what":"silence"}]}"#;
        let script: Script = serde_json::from_str(script).expect("a script");
        let mut faults = script.faults;
        let met = |request, to, chance| Met { request, from: "1065", to, chance };
        assert!(take(&mut faults, met(1, None, 0.9)).is_none());
        assert!(matches!(take(&mut faults, met(3, None, 0.9)), Some(What::Cut)));
        assert!(take(&mut faults, met(3, None, 0.9)).is_none());
        assert!(take(&mut faults, met(4, Some("919800000000"), 0.9)).is_none());
        for _ in 0..2 {
            let taken = take(&mut faults, met(4, Some("919812345678"), 0.9));
            assert!(matches!(taken, Some(What::Refuse { code: 131_056, .. })));
        }
        assert!(take(&mut faults, met(4, Some("919812345678"), 0.9)).is_none());
        assert!(matches!(take(&mut faults, met(5, Some("919812345678"), 0.1)), Some(What::Silence)));
        assert!(faults.is_empty());
        let other: Fault = serde_json::from_str(r#"{"from":"7","what":"odd"}"#).expect("a fault");
        assert!(take(&mut vec![other], met(6, Some("9"), 0.0)).is_none());
    }
}
