//! Several anchors at once, each at its own pace.
//!
//! ```text
//! idle ──due, or the lead was taken──▶ asked what it holds ──it fits──▶ idle ──a head waits──▶ laying ──▶ idle
//!   ▲                                        └──────────── fails ◀──────────────────────────────┘
//!   └── 10 s, 20 s, 40 s … 15 min later ──────────┘
//! ```
//!
//! Asking and laying run beside the sealer: an authority that answers slowly, or not at all, holds up neither the
//! numbering of events nor any other anchor.

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use tokio::task::JoinHandle;

use crate::outbound::{Anchor, AnchorError, AnchorKind};

/// Pause after the first failure; doubles with each.
const BACKOFF: Duration = Duration::seconds(10);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::minutes(15);
/// Longest one call may take, whatever the anchor's own time-outs are.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);
/// Longest text of a problem that is kept.
const LONGEST_PROBLEM: usize = 900;

/// How one anchor stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AnchorState {
    /// Its name in the settings.
    pub name: String,
    /// `directory`, `objects`, `timestamp`, `mail`
    pub kind: String,
    /// Whether an operator chose the place; a directory beside the database proves nothing to others.
    pub outside: bool,
    /// Number of the last head that it took.
    #[serde(skip)]
    pub laid_id: Option<i64>,
    /// Leaves under that head.
    pub laid_size: Option<u64>,
    /// When.
    pub laid_at: Option<DateTime<Utc>>,
    /// Since when it does not do as asked.
    pub failing_since: Option<DateTime<Utc>>,
    /// How often in a row.
    pub failures: u32,
    /// What it said last.
    pub problem: Option<String>,
    /// When it is asked again.
    pub retry_at: Option<DateTime<Utc>>,
    /// When the sealer last spoke of it.
    pub seen_at: DateTime<Utc>,
}

impl AnchorState {
    fn of(anchor: &dyn Anchor) -> Self {
        Self {
            name: anchor.name().to_owned(),
            kind: anchor.kind().as_str().to_owned(),
            outside: anchor.is_outside(),
            laid_id: None,
            laid_size: None,
            laid_at: None,
            failing_since: None,
            failures: 0,
            problem: None,
            retry_at: None,
            seen_at: DateTime::UNIX_EPOCH,
        }
    }
}

/// The last signed head, as anchors get it.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) checkpoint_id: i64,
    pub(super) size: u64,
    pub(super) note: String,
}

/// What came back from an anchor.
pub(super) enum Answer {
    /// The note it holds, to be compared with the log.
    Holds { slot: usize, note: Option<String> },
    /// It took a head.
    Took { slot: usize, head: Head, proof: Vec<u8> },
}

type Call<T> = JoinHandle<Result<T, AnchorError>>;

enum Doing {
    Nothing,
    Asking(Call<Option<String>>),
    Laying(Head, Call<Vec<u8>>),
}

struct Slot {
    anchor: Arc<dyn Anchor>,
    doing: Doing,
    /// It has said what it holds since the lead was taken, and the log agrees.
    agreed: bool,
    /// The same since the last head went there.
    fresh: bool,
    /// Its last failure was not to say what it holds.
    failed_to_say: bool,
    state: AnchorState,
    /// What was last written down of it.
    written: Option<AnchorState>,
}

/// All anchors of an installation.
pub(super) struct Anchors(Vec<Slot>);

impl Anchors {
    pub(super) fn new(anchors: Vec<Arc<dyn Anchor>>) -> Self {
        let slot = |anchor: Arc<dyn Anchor>| Slot {
            state: AnchorState::of(&*anchor),
            anchor,
            doing: Doing::Nothing,
            agreed: false,
            fresh: false,
            failed_to_say: false,
            written: None,
        };
        Self(anchors.into_iter().map(slot).collect())
    }

    /// Begins a new lead: what another process did meanwhile is in `known`, and every anchor is asked anew.
    pub(super) fn take_lead(&mut self, known: &[AnchorState]) {
        for slot in &mut self.0 {
            slot.doing = Doing::Nothing;
            slot.agreed = false;
            slot.fresh = false;
            if let Some(known) = known.iter().find(|known| known.name == slot.state.name) {
                slot.state =
                    AnchorState { kind: slot.state.kind.clone(), outside: slot.state.outside, ..known.clone() };
                slot.written = Some(known.clone());
            }
        }
    }

    /// Whether enough is remembered to sign: one place outside has said what was signed last, or, where there is none
    /// outside that can, every place that can. From then on an outage holds nothing up: this process knows itself what
    /// it signed.
    pub(super) fn may_sign(&self) -> bool {
        let remembering: Vec<_> = self.0.iter().filter(|slot| slot.anchor.remembers()).collect();
        let mut outside = remembering.iter().filter(|slot| slot.state.outside).peekable();
        if outside.peek().is_some() {
            return outside.any(|slot| slot.agreed);
        }
        remembering.iter().all(|slot| slot.agreed)
    }

    /// Starts what is due at `now`.
    pub(super) fn start(&mut self, head: Option<&Head>, now: DateTime<Utc>) {
        for slot in &mut self.0 {
            slot.start(head, now);
        }
    }

    /// What came back since the last call; failures are noted.
    pub(super) async fn collect(&mut self, now: DateTime<Utc>) -> Vec<Answer> {
        let mut answers = Vec::new();
        for (place, slot) in self.0.iter_mut().enumerate() {
            let is_done = match &slot.doing {
                Doing::Nothing => false,
                Doing::Asking(call) => call.is_finished(),
                Doing::Laying(_, call) => call.is_finished(),
            };
            if !is_done {
                continue;
            }
            match std::mem::replace(&mut slot.doing, Doing::Nothing) {
                Doing::Nothing => {}
                Doing::Asking(call) => match ended(call).await {
                    Ok(note) => answers.push(Answer::Holds { slot: place, note }),
                    Err(error) => {
                        slot.failed_to_say = slot.state.failures == 0 || slot.failed_to_say;
                        slot.fail(&error, now);
                    }
                },
                Doing::Laying(head, call) => match ended(call).await {
                    Ok(proof) => answers.push(Answer::Took { slot: place, head, proof }),
                    Err(error) => {
                        slot.failed_to_say = false;
                        slot.fail(&error, now);
                    }
                },
            }
        }
        answers
    }

    /// What this anchor holds fits the log.
    pub(super) fn agrees(&mut self, slot: usize) {
        let slot = &mut self.0[slot];
        slot.agreed = true;
        slot.fresh = true;
        if std::mem::take(&mut slot.failed_to_say) {
            // What failed was this question; whether it takes heads again is seen when it takes one.
            let AnchorState { laid_id, laid_size, laid_at, .. } = slot.state;
            slot.state = AnchorState { laid_id, laid_size, laid_at, ..AnchorState::of(&*slot.anchor) };
        }
    }

    /// This anchor took `head`.
    pub(super) fn took(&mut self, slot: usize, head: &Head, now: DateTime<Utc>) {
        let slot = &mut self.0[slot];
        slot.fresh = false;
        slot.state = AnchorState {
            laid_id: Some(head.checkpoint_id),
            laid_size: Some(head.size),
            laid_at: Some(now),
            ..AnchorState::of(&*slot.anchor)
        };
    }

    pub(super) fn name_of(&self, slot: usize) -> &str {
        self.0[slot].anchor.name()
    }

    pub(super) fn kind_of(&self, slot: usize) -> AnchorKind {
        self.0[slot].anchor.kind()
    }

    /// States that differ from what was written down, or were not spoken of for a minute.
    pub(super) fn due_for_writing(&mut self, now: DateTime<Utc>) -> Vec<AnchorState> {
        let mut due = Vec::new();
        for slot in &mut self.0 {
            let known = slot.written.as_ref();
            let stale = known.is_none_or(|known| now < known.seen_at || known.seen_at + Duration::minutes(1) <= now);
            slot.state.seen_at = known.map_or(now, |known| known.seen_at);
            if stale || known != Some(&slot.state) {
                slot.state.seen_at = now;
                slot.written = Some(slot.state.clone());
                due.push(slot.state.clone());
            }
        }
        due
    }

    /// How each stands.
    pub(super) fn states(&self) -> Vec<AnchorState> {
        self.0.iter().map(|slot| slot.state.clone()).collect()
    }

    /// What is wrong, one line for each anchor that fails.
    pub(super) fn failing(&self) -> Vec<String> {
        let failing = self.0.iter().filter_map(|slot| Some((&slot.state.name, slot.state.problem.as_ref()?)));
        failing.map(|(name, problem)| format!("anchor `{name}`: {problem}")).collect()
    }

    /// Waits until nothing is under way.
    #[cfg(test)]
    pub(super) async fn settle(&self) {
        let busy = |slot: &Slot| match &slot.doing {
            Doing::Nothing => false,
            Doing::Asking(call) => !call.is_finished(),
            Doing::Laying(_, call) => !call.is_finished(),
        };
        while self.0.iter().any(busy) {
            tokio::task::yield_now().await;
        }
    }
}

impl Slot {
    fn start(&mut self, head: Option<&Head>, now: DateTime<Utc>) {
        let waits = self.state.retry_at.is_some_and(|at| now < at && at <= now + BACKOFF_MAX);
        if !matches!(self.doing, Doing::Nothing) || waits {
            return;
        }
        let every = Duration::from_std(self.anchor.every()).unwrap_or(Duration::MAX);
        let rested =
            self.state.laid_at.is_none_or(|at| now < at || at.checked_add_signed(every).is_none_or(|due| due <= now));
        let due = head.filter(|head| rested && self.state.laid_id.is_none_or(|laid| laid < head.checkpoint_id));
        let must_ask = self.anchor.remembers() && (!self.agreed || (due.is_some() && !self.fresh));
        let anchor = Arc::clone(&self.anchor);
        if must_ask {
            self.doing = Doing::Asking(tokio::spawn(patiently(async move { anchor.latest().await })));
        } else if let Some(head) = due.cloned() {
            let laid = head.clone();
            let call = tokio::spawn(patiently(async move { anchor.lay(laid.size, &laid.note).await }));
            self.doing = Doing::Laying(head, call);
        }
    }

    fn fail(&mut self, error: &AnchorError, now: DateTime<Utc>) {
        let state = &mut self.state;
        let doublings = state.failures.min(10);
        let pause = BACKOFF.checked_mul(1 << doublings).unwrap_or(BACKOFF_MAX).min(BACKOFF_MAX);
        state.failures = state.failures.saturating_add(1);
        state.failing_since = state.failing_since.or(Some(now));
        state.retry_at = Some(now + pause);
        state.problem = Some(super::sealer::chain(error).chars().take(LONGEST_PROBLEM).collect());
        self.fresh = false;
    }
}

async fn patiently<T>(call: impl Future<Output = Result<T, AnchorError>>) -> Result<T, AnchorError> {
    let late = || AnchorError::new(format!("no answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(late()))
}

async fn ended<T>(call: Call<T>) -> Result<T, AnchorError> {
    call.await.unwrap_or_else(|error| Err(AnchorError::because("the call broke off", error)))
}
