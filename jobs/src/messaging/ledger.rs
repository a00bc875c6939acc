//! Messages under lock, and what answers, statuses and silence do to them.
//!
//! [`Ledger::lock`] reads any number of messages with their attempts; the transitions change them in memory;
//! [`Ledger::write`] writes what changed with one statement for messages and one for attempts. One message or a thousand
//! statuses take the same way, so there is one set of rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    AttemptOutcome, CampaignId, Error, FallBack, MessageClass, MessageId, Policy, Reference, Send, State, Status,
    campaign, inbound, otp,
    rules::{self, Next},
    sealed,
    store::{self, AttemptRow, MessageRow},
    trail::Trail,
    wishes::Channel,
};
use crate::{
    evidence::words,
    id::JobId,
    outbound::{
        MailOutcome, Wamid,
        carrier::{self, Class, Failure, Refusal, SendOutcome, Via},
        mailer::MailFailure,
    },
    people::BusinessId,
    queue::{self, JobContext, NewJob},
    vault::Vault,
    webhooks::{self, Emission},
};

/// A message of the ledger.
pub(super) struct Entry {
    pub(super) message: MessageRow,
    /// By number.
    pub(super) attempts: Vec<AttemptRow>,
    moved: bool,
    /// The state that its campaign's counts know it in.
    counted: State,
    /// The next way is taken, or is not to be.
    settled: bool,
}

/// A carrier's no, for whatever else it means beside this message.
pub(super) struct Sign {
    /// Of which message.
    pub(super) message: MessageId,
    /// The carrier's code.
    pub(super) code: i64,
    /// What the table says of it.
    pub(super) class: Class,
    /// How long the carrier wants to be left alone, if it says so.
    pub(super) retry_after: Option<Duration>,
}

/// A status as told by a webhook.
pub(super) struct Told<'a> {
    /// The mark of the carrier's id; none of a mail.
    pub(super) mark: Option<&'a [u8]>,
    pub(super) status: &'a Status,
    pub(super) code: Option<i64>,
    pub(super) details: Option<&'a str>,
    /// SHA-256 of the body that told it.
    pub(super) receipt: Option<&'a str>,
}

/// Messages of one business, locked until the transaction ends.
pub(super) struct Ledger {
    business: BusinessId,
    now: DateTime<Utc>,
    entries: BTreeMap<MessageId, Entry>,
    again: Vec<(MessageId, DateTime<Utc>)>,
    signs: Vec<Sign>,
}

impl Ledger {
    /// Locks these messages, each once, in the order of their ids. Whoever changes an attempt holds its message's lock.
    pub(super) async fn lock(
        conn: &mut PgConnection,
        business: BusinessId,
        ids: impl IntoIterator<Item = MessageId>,
        now: DateTime<Utc>,
    ) -> Result<Self, Error> {
        let ids: BTreeSet<_> = ids.into_iter().collect();
        let ids: Vec<_> = ids.into_iter().map(|id| id.0).collect();
        let rows = store::lock_messages(conn, business, &ids).await?;
        let mut entries: BTreeMap<_, _> = rows
            .into_iter()
            .map(|message| {
                let counted = message.state;
                (message.message_id, Entry { message, attempts: Vec::new(), moved: false, counted, settled: false })
            })
            .collect();
        for (id, attempt) in store::list_attempt_rows(conn, &ids).await? {
            if let Some(entry) = entries.get_mut(&id) {
                entry.attempts.push(attempt);
            }
        }
        Ok(Self { business, now, entries, again: Vec::new(), signs: Vec::new() })
    }

    /// One message.
    ///
    /// # Errors
    /// It is not there, or not this business's.
    pub(super) fn get(&self, id: MessageId) -> Result<&Entry, Error> {
        self.entries.get(&id).ok_or(Error::NoMessage(id))
    }

    /// What the carrier's refusals mean beyond their messages.
    pub(super) fn signs(&self) -> &[Sign] {
        &self.signs
    }

    /// Begins an attempt of a queued message; its number.
    pub(super) fn begin(&mut self, id: MessageId, reference: &Reference, (job, lease): (JobId, i32)) -> Option<i32> {
        let entry = self.entries.get_mut(&id).filter(|entry| entry.message.state == State::Queued)?;
        let number = entry.attempts.last().map_or(1, |last| last.number + 1);
        entry.attempts.push(AttemptRow::new(number, reference, (job, lease), self.now));
        entry.move_to(State::Posting);
        Some(number)
    }

    /// Ends a queued message: not to be sent, and why.
    pub(super) fn fail(
        &mut self,
        id: MessageId,
        reason: (Option<i64>, Option<&str>),
        why: &str,
        trail: &mut Trail<'_>,
    ) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.message.state == State::Queued) else {
            return;
        };
        entry.move_to(State::Failed);
        entry.message.error_code = reason.0;
        entry.message.error_details = reason.1.map(str::to_owned);
        trail.note(words::MESSAGE_FAILED, id, json!({ "why": why, "code": reason.0 }));
    }

    /// Leaves a queued message out for a reason of the recipient's or the law's.
    pub(super) fn skip(&mut self, id: MessageId, because: &'static str, trail: &mut Trail<'_>) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.message.state == State::Queued) else {
            return;
        };
        entry.move_to(State::Skipped);
        entry.message.skipped_because = Some(because.to_owned());
        trail.note(words::MESSAGE_SKIPPED, id, json!({ "because": because }));
    }

    /// Notes for people what a queued message waits for.
    pub(super) fn waits(&mut self, id: MessageId, scope: &str, code: Option<i64>) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.message.state == State::Queued) else {
            return;
        };
        let unchanged = entry.message.held_scope.as_deref() == Some(scope) && entry.message.error_code == code;
        if !unchanged {
            entry.message.held_scope = Some(scope.to_owned());
            entry.message.error_code = code;
            entry.moved = true;
        }
    }

    /// No attempt of a queued message begins before.
    pub(super) fn put_off(&mut self, id: MessageId, until: DateTime<Utc>) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.message.not_before = Some(until);
            entry.moved = true;
        }
    }

    /// It rests by our own rule: the time that it may take begins anew.
    pub(super) fn rest(&mut self, id: MessageId, until: DateTime<Utc>) {
        if let Some(entry) = self.entries.get_mut(&id)
            && let (Some(_), Some(secs)) = (entry.message.fall_back_at, entry.message.fall_back_secs)
        {
            // The other way needs some time of its own before the end.
            let last = until + (entry.message.expires_at - until) / 2;
            entry.message.fall_back_at = Some((until + TimeDelta::seconds(i64::from(secs))).min(last));
            entry.moved = true;
        }
    }

    /// The next way was taken, or is not to be.
    pub(super) fn settle(&mut self, id: MessageId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.message.fall_back_at = None;
            entry.settled = true;
            entry.moved = true;
        }
    }

    /// Whether the next way is to be taken is looked at then.
    pub(super) fn look_again(&mut self, id: MessageId, at: DateTime<Utc>) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.message.fall_back_at = Some(at);
            entry.moved = true;
        }
    }

    /// Writes down what the mail server said; what is to become of the message when another attempt may follow.
    pub(super) fn answer_mail(
        &mut self,
        (id, number): (MessageId, i32),
        outcome: &MailOutcome,
        trail: &mut Trail<'_>,
    ) -> Option<Next> {
        let now = self.now;
        let entry = self.entries.get_mut(&id)?;
        let state = entry.message.state;
        let attempt = entry.attempt(number)?;
        // A report was faster than the answer and knows better.
        if attempt.outcome != AttemptOutcome::Posting {
            return None;
        }
        match outcome {
            MailOutcome::Accepted => {
                attempt.end(AttemptOutcome::Accepted, now);
                trail.note(words::MESSAGE_SENT, id, json!({ "attempt": number, "told_by": "answer" }));
                if matches!(state, State::Queued | State::Posting | State::Unknown | State::UnknownFinal) {
                    entry.move_to(State::Accepted);
                }
                entry.note_duplicate(now);
                None
            }
            MailOutcome::Unknown(failure) => {
                self.leave_unknown((id, number), &said(failure), trail);
                None
            }
            MailOutcome::NotSent(failure) => {
                attempt.note_failure(&said(failure));
                attempt.end(AttemptOutcome::NotSent, now);
                trail.note(words::ATTEMPT_FAILED, id, came_to(number, AttemptOutcome::NotSent, None));
                if state != State::Posting {
                    return None;
                }
                entry.move_to(State::Queued);
                entry.message.error_details = Some(failure.to_string());
                Some(Next::Again(rules::after_not_sent(entry.count(&[AttemptOutcome::NotSent]))))
            }
            MailOutcome::Refused(failure) => {
                attempt.note_failure(&said(failure));
                attempt.end(AttemptOutcome::Refused, now);
                trail.note(words::ATTEMPT_FAILED, id, came_to(number, AttemptOutcome::Refused, None));
                if state != State::Posting {
                    return None;
                }
                entry.follow(Next::Never, (None, Some(&failure.to_string())));
                trail.note(words::MESSAGE_FAILED, id, json!({ "why": "refused", "status": failure.status }));
                Some(Next::Never)
            }
        }
    }

    /// Writes down what came of a POST; what is to become of the message when another attempt may follow.
    pub(super) fn answer(
        &mut self,
        (id, number): (MessageId, i32),
        outcome: &SendOutcome,
        mark: Option<&[u8]>,
        trail: &mut Trail<'_>,
    ) -> Option<Next> {
        let now = self.now;
        let entry = self.entries.get_mut(&id)?;
        let state = entry.message.state;
        let attempt = entry.attempt(number)?;
        let open = attempt.outcome == AttemptOutcome::Posting;
        match outcome {
            SendOutcome::Accepted(accepted) => {
                let before = attempt.outcome;
                attempt.note_trace(Some(200), None, None, accepted.trace.as_deref());
                attempt.mark = attempt.mark.take().or_else(|| mark.map(<[u8]>::to_vec));
                if before != AttemptOutcome::Failed {
                    attempt.end(AttemptOutcome::Accepted, now);
                    if before != AttemptOutcome::Accepted {
                        let details = json!({ "attempt": number, "told_by": "answer", "held": accepted.held });
                        trail.note(words::MESSAGE_SENT, id, details);
                    }
                    if matches!(state, State::Queued | State::Posting | State::Unknown | State::UnknownFinal) {
                        entry.move_to(if accepted.held { State::Held } else { State::Accepted });
                    }
                }
                entry.note_duplicate(now);
                None
            }
            SendOutcome::Unknown(failure) => {
                if open {
                    self.leave_unknown((id, number), failure, trail);
                }
                None
            }
            SendOutcome::NotSent(failure) if open => {
                attempt.note_failure(failure);
                attempt.end(AttemptOutcome::NotSent, now);
                trail.note(words::ATTEMPT_FAILED, id, came_to(number, AttemptOutcome::NotSent, failure.code));
                if state != State::Posting {
                    return None;
                }
                entry.move_to(State::Queued);
                entry.message.error_details = Some(failure.what.clone());
                let failures = entry.count(&[AttemptOutcome::NotSent]);
                Some(Next::Again(rules::after_not_sent(failures)))
            }
            SendOutcome::Refused(refusal) if open => self.refuse((id, number), refusal, trail),
            // A webhook was faster than the answer and knows better.
            SendOutcome::NotSent(_) | SendOutcome::Refused(_) => None,
        }
    }

    fn refuse(&mut self, (id, number): (MessageId, i32), refusal: &Refusal, trail: &mut Trail<'_>) -> Option<Next> {
        let now = self.now;
        let entry = self.entries.get_mut(&id)?;
        let attempt = entry.attempt(number)?;
        attempt.note_trace(
            Some(refusal.http_status),
            Some(refusal.code),
            Some(&refusal.details),
            refusal.trace.as_deref(),
        );
        attempt.end(AttemptOutcome::Refused, now);
        trail.note(words::ATTEMPT_FAILED, id, came_to(number, AttemptOutcome::Refused, Some(refusal.code)));
        let sign = Sign { message: id, code: refusal.code, class: refusal.class, retry_after: refusal.retry_after };
        self.signs.push(sign);
        if entry.message.state != State::Posting {
            return None;
        }
        let refusals = entry.count(&[AttemptOutcome::Refused, AttemptOutcome::Failed]);
        let next = rules::after_refusal(refusal.class, refusals, refusal.retry_after);
        entry.follow(next, (Some(refusal.code), Some(&refusal.details)));
        if entry.message.state == State::Failed {
            trail.note(words::MESSAGE_FAILED, id, json!({ "why": "refused", "code": refusal.code }));
            tracing::warn!(messaging.message_id = %id, code = refusal.code, "the carrier refused a message for good");
        }
        Some(next)
    }

    /// Marks an attempt unknown. Its [`super::Reconcile`] was planned when it began.
    pub(super) fn leave_unknown(&mut self, (id, number): (MessageId, i32), failure: &Failure, trail: &mut Trail<'_>) {
        let now = self.now;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(attempt) = entry.attempt(number) else { return };
        attempt.note_failure(failure);
        attempt.end(AttemptOutcome::Unknown, now);
        trail.note(words::OUTCOME_UNKNOWN, id, json!({ "attempt": number, "code": failure.code }));
        if entry.message.state == State::Posting {
            entry.move_to(State::Unknown);
            entry.message.error_code = failure.code;
            entry.message.error_details = Some(failure.what.clone());
        }
        tracing::warn!(messaging.message_id = %id, attempt = number, "an attempt's outcome is unknown");
    }

    /// Silence has settled an unknown attempt: it is taken for lost, and another one follows.
    pub(super) fn presume_lost(&mut self, (id, number): (MessageId, i32), trail: &mut Trail<'_>) {
        let now = self.now;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(attempt) = entry.attempt(number) else { return };
        attempt.end(AttemptOutcome::PresumedLost, now);
        entry.move_to(State::Queued);
        trail.note(words::OUTCOME_RECONCILED, id, json!({ "attempt": number, "verdict": "presumed_lost" }));
        self.again.push((id, now));
    }

    /// Silence has settled an unknown attempt: nobody will know, and none follows.
    pub(super) fn give_up(&mut self, (id, number): (MessageId, i32), trail: &mut Trail<'_>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.move_to(State::UnknownFinal);
        entry.message.error_details = Some("nobody can tell whether it was sent".to_owned());
        trail.note(words::OUTCOME_RECONCILED, id, json!({ "attempt": number, "verdict": "unknown_final" }));
        tracing::warn!(messaging.message_id = %id, "a message's fate stays unknown");
    }

    /// Applies one status: adopts an attempt whose answer is missing, folds the state, and plans another attempt when a
    /// failure's class allows one.
    pub(super) fn told(&mut self, (id, number): (MessageId, i32), told: &Told<'_>, trail: &mut Trail<'_>) {
        let now = self.now;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let state = entry.message.state;
        let Some(attempt) = entry.attempt(number) else { return };
        let before = attempt.outcome;
        let adopted = !matches!(before, AttemptOutcome::Accepted | AttemptOutcome::Failed);
        let failed = matches!(told.status, Status::Failed);
        if failed && matches!(state, State::Delivered | State::Read) {
            tracing::warn!(messaging.message_id = %id, code = told.code, "a delivered message was reported as failed");
            return;
        }
        // Told again, whatever the batch: its consequences were drawn the first time.
        if failed && before == AttemptOutcome::Failed {
            return;
        }
        let outcome = match (before, told.status) {
            (_, Status::Failed) => AttemptOutcome::Failed,
            (AttemptOutcome::Failed, Status::Sent | Status::Other(_)) => AttemptOutcome::Failed,
            _ => AttemptOutcome::Accepted,
        };
        if adopted || outcome != before {
            attempt.mark = attempt.mark.take().or_else(|| told.mark.map(<[u8]>::to_vec));
            if adopted {
                attempt.adopted_at = attempt.adopted_at.or(Some(now));
            }
            attempt.note_trace(None, told.code.filter(|_| failed), told.details.filter(|_| failed), None);
            attempt.end(outcome, now);
        }
        if failed {
            let details = json!({ "attempt": number, "outcome": outcome, "code": told.code, "receipt": told.receipt });
            trail.note(words::ATTEMPT_FAILED, id, details);
            self.fail_attempt((id, number), told, trail);
            return;
        }
        // A late `sent` of an attempt that failed says nothing of the one that follows it.
        if outcome == AttemptOutcome::Failed {
            return;
        }
        if adopted {
            let details = json!({ "attempt": number, "told_by": "webhook", "before": before, "receipt": told.receipt });
            trail.note(words::MESSAGE_SENT, id, details);
        }
        // What a webhook tells of an attempt whose answer is missing is at least an acceptance.
        let accepted = matches!(state, State::Queued | State::Posting | State::Unknown | State::UnknownFinal)
            .then_some(State::Accepted);
        if let Some(state) = rules::fold(state, told.status).or(accepted) {
            entry.move_to(state);
            if matches!(state, State::Delivered | State::Read) {
                let details = json!({ "attempt": number, "state": state, "receipt": told.receipt });
                trail.note(words::MESSAGE_DELIVERED, id, details);
            }
        }
        entry.note_duplicate(now);
    }

    /// A `failed` status is final for its attempt, so another attempt is safe where the code's class allows one.
    fn fail_attempt(&mut self, (id, number): (MessageId, i32), told: &Told<'_>, trail: &mut Trail<'_>) {
        let class = told.code.map_or(Class::Permanent, |code| carrier::class_of(code, Via::Status, 0, false));
        if let Some(code) = told.code {
            self.signs.push(Sign { message: id, code, class, retry_after: None });
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        // An earlier attempt's failure says nothing of the one that followed it.
        if entry.attempts.last().is_none_or(|last| last.number != number) {
            return;
        }
        if rules::fold(entry.message.state, told.status) != Some(State::Failed) {
            return;
        }
        let refusals = entry.count(&[AttemptOutcome::Refused, AttemptOutcome::Failed]);
        let next = rules::after_refusal(class, refusals, None);
        entry.follow(next, (told.code, told.details));
        match next {
            Next::Again(wait) | Next::Hold(_, wait) => self.again.push((id, self.now + rules::delta(wait))),
            Next::Never | Next::Reconcile => {
                trail.note(words::MESSAGE_FAILED, id, json!({ "why": "not_delivered", "code": told.code }));
            }
        }
    }

    /// Writes what changed, and plans the attempts that follow. What was noted on the trail is the caller's to write.
    pub(super) async fn write(&mut self, conn: &mut PgConnection, ctx: &JobContext) -> Result<(), Error> {
        let mut again = std::mem::take(&mut self.again);
        // A campaign's streams take what waits; one may have to come again for it.
        let mut streams = BTreeMap::<CampaignId, (DateTime<Utc>, MessageClass)>::new();
        again.retain(|(id, at)| {
            let Some(entry) = self.entries.get_mut(id) else { return true };
            // A mail has a job of its own.
            let by_wave = entry.message.campaign.filter(|_| entry.message.channel == Channel::Whatsapp);
            let Some(campaign) = by_wave else { return true };
            entry.message.not_before = Some(*at);
            entry.moved = true;
            let stream = streams.entry(campaign).or_insert((*at, entry.message.class));
            stream.0 = stream.0.min(*at);
            false
        });
        for (campaign, (at, class)) in streams {
            campaign::come_again(conn, (self.business, campaign, class), at).await?;
        }
        for entry in self.entries.values_mut() {
            entry.aim(self.now);
        }
        let moved: Vec<_> = self.entries.values().filter(|entry| entry.moved).map(|entry| &entry.message).collect();
        store::update_messages(conn, &moved, self.now).await?;
        let changed: Vec<_> = self
            .entries
            .iter()
            .flat_map(|(id, entry)| {
                entry.attempts.iter().filter(|attempt| attempt.changed).map(|attempt| (*id, attempt))
            })
            .collect();
        store::upsert_attempts(conn, &changed).await?;
        for entry in self.entries.values_mut() {
            entry.moved = false;
            entry.attempts.iter_mut().for_each(|attempt| attempt.changed = false);
        }
        let moves: Vec<_> = self
            .entries
            .values_mut()
            .filter(|entry| entry.counted != entry.message.state)
            .map(|entry| {
                let from = std::mem::replace(&mut entry.counted, entry.message.state);
                (&entry.message, from)
            })
            .collect();
        let counted: Vec<_> = moves.iter().filter_map(|(row, from)| Some((row.campaign?, *from, row.state))).collect();
        // That a message is about to be posted concerns nobody outside.
        let told = moves.iter().filter(|(row, _)| !matches!(row.state, State::Posting | State::Queued));
        let events = told.map(|(row, _)| event_of(row, self.now)).collect();
        for (row, _) in &moves {
            if row.class == MessageClass::Otp && inbound::is_lost(row.state) {
                otp::message_failed(conn, self.business, row.message_id).await.map_err(Box::new)?;
            }
        }
        for (row, _) in &moves {
            if row.fall_back_at.is_some_and(|at| at <= self.now) {
                let next = NewJob::of(self.business, &FallBack { message_id: row.message_id })?;
                queue::enqueue(conn, &next.lane(row.class.lane())).await?;
            }
        }
        campaign::count_moves(conn, (self.business, &*ctx.deps.chance), &counted).await?;
        webhooks::emit_all(conn, Emission::of(ctx), self.business, events).await?;
        for (id, at) in again {
            let entry = self.entries.get(&id).ok_or(Error::NoMessage(id))?;
            let send = NewJob::of(self.business, &Send { message_id: id })?.lane(entry.message.class.lane());
            queue::enqueue(conn, &send.run_at(at)).await?;
        }
        Ok(())
    }
}

impl Entry {
    fn attempt(&mut self, number: i32) -> Option<&mut AttemptRow> {
        self.attempts.iter_mut().find(|attempt| attempt.number == number)
    }

    /// How many attempts came to one of these.
    fn count(&self, outcomes: &[AttemptOutcome]) -> usize {
        self.attempts.iter().filter(|attempt| outcomes.contains(&attempt.outcome)).count()
    }

    /// A new state, with nothing left of the reasons for the one before.
    fn move_to(&mut self, state: State) {
        self.message.state = state;
        self.message.held_scope = None;
        self.message.error_code = None;
        self.message.error_details = None;
        self.moved = true;
    }

    /// Sets when the next way is looked at, by where the message has come to.
    fn aim(&mut self, now: DateTime<Utc>) {
        let row = &mut self.message;
        if self.settled || self.counted == row.state || !row.has_more() {
            return;
        }
        let under_way = |state| matches!(state, State::Accepted | State::Held | State::Sent);
        let wait = TimeDelta::seconds(i64::from(row.fall_back_secs.unwrap_or(1)));
        row.fall_back_at = match row.state {
            State::Delivered | State::Read => None,
            State::Failed | State::Skipped => Some(now),
            // She may have it: twice rather than never, or never rather than twice.
            State::UnknownFinal => (row.policy == Policy::AtLeastOnce).then_some(now),
            // What the mail server took is with her server: only a report says otherwise.
            _ if under_way(row.state) && row.channel == Channel::Mail => None,
            // It has its time from here: it may have waited long before.
            _ if under_way(row.state) && !under_way(self.counted) => Some(now + wait),
            // It failed and is tried again, after its time had been found to be over.
            State::Queued => row.fall_back_at.or(Some(now + wait)),
            _ => row.fall_back_at,
        };
        self.moved = true;
    }

    /// Where the message stands after a no.
    fn follow(&mut self, next: Next, (code, details): (Option<i64>, Option<&str>)) {
        self.move_to(if matches!(next, Next::Again(_) | Next::Hold(..)) { State::Queued } else { State::Failed });
        self.message.error_code = code;
        self.message.error_details = details.map(str::to_owned);
        if let Next::Hold(scope, _) = next {
            self.message.held_scope = Some(scope.as_str().to_owned());
        }
    }

    /// Notes that the recipient has it twice, once two attempts are known to have been accepted.
    fn note_duplicate(&mut self, now: DateTime<Utc>) {
        if self.message.duplicate_delivered_at.is_none() && self.count(&[AttemptOutcome::Accepted]) > 1 {
            self.message.duplicate_delivered_at = Some(now);
            self.moved = true;
            let id = self.message.message_id;
            tracing::warn!(messaging.message_id = %id, "two attempts were accepted: the recipient has it twice");
        }
    }
}

/// Applies what webhooks told of accepted attempts before their ids were known here.
pub(super) async fn apply_early(
    conn: &mut PgConnection,
    ctx: &JobContext,
    ledger: &mut Ledger,
    accepted: &[((MessageId, i32), Wamid)],
    trail: &mut Trail<'_>,
) -> Result<(), Error> {
    let mut marks = Vec::new();
    let mut whose = BTreeMap::new();
    for (attempt, wamid) in accepted {
        for mark in sealed::marks(conn, &ctx.deps.vault, ctx.business, wamid).await? {
            whose.insert(mark.clone(), *attempt);
            marks.push(mark);
        }
    }
    if marks.is_empty() {
        return Ok(());
    }
    for early in store::list_statuses_of(conn, ctx.business, &marks).await? {
        let Some(attempt) = whose.get(&early.mark) else { continue };
        let status = parse(&early.status);
        let told = Told {
            mark: Some(&early.mark),
            status: &status,
            code: early.error_code,
            details: early.error_details.as_deref(),
            receipt: None,
        };
        ledger.told(*attempt, &told, trail);
    }
    Ok(())
}

/// The mark of an accepted attempt's id.
pub(super) async fn mark_of(
    conn: &mut PgConnection,
    vault: &Vault,
    business: BusinessId,
    outcome: &SendOutcome,
) -> Result<Option<Vec<u8>>, Error> {
    match outcome {
        SendOutcome::Accepted(accepted) => Ok(Some(sealed::mark(conn, vault, business, &accepted.wamid).await?)),
        _ => Ok(None),
    }
}

/// What the frontend is told of a message that moved.
fn event_of(row: &MessageRow, now: DateTime<Utc>) -> webhooks::Event {
    webhooks::Event {
        event_type: format!("messaging.message.{}", row.state.as_str()),
        object: row.message_id.to_string(),
        occurred_at: now,
        data: json!({
            "message_id": row.message_id,
            "state": row.state,
            "class": row.class,
            "channel": row.channel,
            "delivery_id": row.delivery.unwrap_or(row.message_id),
            "template": row.template,
            "language": row.language,
            "campaign_id": row.campaign,
            "error_code": row.error_code,
            "held_scope": row.held_scope,
            "skipped_because": row.skipped_because,
        }),
    }
}

/// What a mail server said, as an attempt keeps it.
fn said(failure: &MailFailure) -> Failure {
    Failure::new(failure.to_string())
}

/// What an attempt came to, for the evidence.
fn came_to(attempt: i32, outcome: AttemptOutcome, code: Option<i64>) -> serde_json::Value {
    json!({ "attempt": attempt, "outcome": outcome, "code": code })
}

/// Reads a status; what we do not know is kept by name.
pub(super) fn parse(status: &str) -> Status {
    match status.parse() {
        Ok(status) => status,
        Err(never) => match never {},
    }
}
