//! What a receipt or a status does to a message and its attempts. Callers hold the message's lock.

use serde_json::json;
use sqlx::PgConnection;

use super::{
    AttemptOutcome, Error, MessageId, Send, State, Status,
    rules::{self, Next},
    sealed,
    store::{self, Ending, Reason},
    trail::Trail,
};
use crate::{
    evidence::words,
    outbound::{
        Wamid,
        carrier::{self, Class, Failure, Via},
    },
    people::BusinessId,
    queue::{self, JobContext, NewJob},
};

/// One attempt of a locked message.
#[derive(Clone, Copy)]
pub(super) struct Locked {
    pub(super) business: BusinessId,
    pub(super) message: MessageId,
    pub(super) attempt: i32,
    pub(super) state: State,
}

/// Records that the carrier has this attempt, and applies what it has already reported of it.
pub(super) async fn accept(
    conn: &mut PgConnection,
    ctx: &JobContext,
    locked: &mut Locked,
    accepted: &carrier::Accepted,
    trail: &mut Trail<'_>,
) -> Result<(), Error> {
    let vault = &ctx.deps.vault;
    let mark = sealed::mark(conn, vault, locked.business, &accepted.wamid).await?;
    let ending =
        Ending { wamid: Some(&mark), http_status: Some(200), trace: accepted.trace.as_deref(), ..Ending::default() };
    let before = store::find_outcome(conn, locked.message, locked.attempt).await?;
    let outcome = match before {
        // A webhook was faster and has even told of the end.
        Some(AttemptOutcome::Failed) => AttemptOutcome::Failed,
        _ => AttemptOutcome::Accepted,
    };
    if outcome != AttemptOutcome::Failed && before != Some(AttemptOutcome::Accepted) {
        let details = json!({ "attempt": locked.attempt, "told_by": "answer", "held": accepted.held });
        trail.note(words::MESSAGE_SENT, locked.message, details);
    }
    store::end_attempt(conn, (locked.message, locked.attempt), outcome, &ending, ctx.now()).await?;
    let open = matches!(locked.state, State::Queued | State::Posting | State::Unknown | State::UnknownFinal);
    if open && outcome != AttemptOutcome::Failed {
        locked.state = if accepted.held { State::Held } else { State::Accepted };
        store::set_state(conn, locked.message, locked.state, &Reason::default(), ctx.now()).await?;
    }
    let marks = sealed::marks(conn, vault, locked.business, &accepted.wamid).await?;
    for (status, code, details) in store::list_statuses_of(conn, locked.business, &marks).await? {
        let told = Told { wamid: &accepted.wamid, status: &parse(&status), code, details: details.as_deref() };
        apply(conn, ctx, locked, &told, trail).await?;
    }
    duplicate(conn, ctx, locked).await
}

/// Marks an attempt of a locked message unknown. Its [`super::Reconcile`] was planned when it began.
pub(super) async fn leave_unknown(
    conn: &mut PgConnection,
    ctx: &JobContext,
    attempt: (MessageId, i32),
    failure: &Failure,
    trail: &mut Trail<'_>,
) -> Result<(), Error> {
    trail.note(words::OUTCOME_UNKNOWN, attempt.0, json!({ "attempt": attempt.1, "code": failure.code }));
    store::end_attempt(conn, attempt, AttemptOutcome::Unknown, &ending_of(failure), ctx.now()).await?;
    let reason = Reason { error_code: failure.code, error_details: Some(&failure.what), ..Reason::default() };
    store::set_state(conn, attempt.0, State::Unknown, &reason, ctx.now()).await?;
    tracing::warn!(messaging.message_id = %attempt.0, attempt = attempt.1, "an attempt's outcome is unknown");
    Ok(())
}

/// What there is to write down of an attempt that got no answer to go by.
pub(super) fn ending_of(failure: &Failure) -> Ending<'_> {
    Ending {
        http_status: failure.http_status,
        error_code: failure.code,
        error_details: Some(&failure.what),
        trace: failure.trace.as_deref(),
        ..Ending::default()
    }
}

/// A status as told by a webhook.
pub(super) struct Told<'a> {
    pub(super) wamid: &'a Wamid,
    pub(super) status: &'a Status,
    pub(super) code: Option<i64>,
    pub(super) details: Option<&'a str>,
}

/// Applies one status: adopts the wamid of an attempt whose answer is missing, folds the state, and plans another
/// attempt when a failure's class allows one.
pub(super) async fn apply(
    conn: &mut PgConnection,
    ctx: &JobContext,
    locked: &mut Locked,
    told: &Told<'_>,
    trail: &mut Trail<'_>,
) -> Result<(), Error> {
    let attempt = (locked.message, locked.attempt);
    let Some(before) = store::find_outcome(conn, locked.message, locked.attempt).await? else { return Ok(()) };
    let adopted = !matches!(before, AttemptOutcome::Accepted | AttemptOutcome::Failed);
    let failed = matches!(told.status, Status::Failed);
    if failed && matches!(locked.state, State::Delivered | State::Read) {
        tracing::warn!(messaging.message_id = %locked.message, code = told.code, "a delivered message was reported as failed");
        return Ok(());
    }
    // Told again, whatever the batch: its consequences were drawn the first time.
    if failed && before == AttemptOutcome::Failed {
        return Ok(());
    }
    let outcome = match (before, told.status) {
        (_, Status::Failed) => AttemptOutcome::Failed,
        (AttemptOutcome::Failed, Status::Sent | Status::Other(_)) => AttemptOutcome::Failed,
        _ => AttemptOutcome::Accepted,
    };
    let mark = sealed::mark(conn, &ctx.deps.vault, locked.business, told.wamid).await?;
    let ending = Ending {
        wamid: Some(&mark),
        adopted,
        error_code: told.code.filter(|_| failed),
        error_details: told.details.filter(|_| failed),
        ..Ending::default()
    };
    if adopted || outcome != before {
        store::end_attempt(conn, attempt, outcome, &ending, ctx.now()).await?;
    }
    if failed {
        let details = json!({ "attempt": locked.attempt, "outcome": outcome, "code": told.code });
        trail.note(words::ATTEMPT_FAILED, locked.message, details);
        return fail(conn, ctx, locked, told, trail).await;
    }
    // A late `sent` of an attempt that failed says nothing of the one that follows it.
    if outcome == AttemptOutcome::Failed {
        return Ok(());
    }
    // What a webhook tells of an attempt whose answer is missing is at least an acceptance.
    let status_folds = rules::fold(locked.state, told.status);
    let accepted = matches!(locked.state, State::Queued | State::Posting | State::Unknown | State::UnknownFinal)
        .then_some(State::Accepted);
    if adopted {
        let details = json!({ "attempt": locked.attempt, "told_by": "webhook", "before": before });
        trail.note(words::MESSAGE_SENT, locked.message, details);
    }
    if let Some(state) = status_folds.or(accepted) {
        locked.state = state;
        store::set_state(conn, locked.message, state, &Reason::default(), ctx.now()).await?;
        if matches!(state, State::Delivered | State::Read) {
            let details = json!({ "attempt": locked.attempt, "state": state });
            trail.note(words::MESSAGE_DELIVERED, locked.message, details);
        }
    }
    if adopted { duplicate(conn, ctx, locked).await } else { Ok(()) }
}

/// A `failed` status is final for its attempt, so another attempt is safe where the code's class allows one.
async fn fail(
    conn: &mut PgConnection,
    ctx: &JobContext,
    locked: &mut Locked,
    told: &Told<'_>,
    trail: &mut Trail<'_>,
) -> Result<(), Error> {
    let last = store::find_last_attempt(conn, locked.message).await?;
    // An earlier attempt's failure says nothing of the one that followed it.
    if last.as_ref().is_none_or(|last| last.number != locked.attempt) {
        return Ok(());
    }
    let Some(State::Failed) = rules::fold(locked.state, told.status) else { return Ok(()) };
    let class = told.code.map_or(Class::Permanent, |code| carrier::class_of(code, Via::Status, 0, false));
    let refusals = last.map_or(1, |last| usize::try_from(last.refused).unwrap_or(1));
    let next = rules::after_refusal(class, refusals, None);
    let mut reason = Reason { error_code: told.code, error_details: told.details, ..Reason::default() };
    let again = match next {
        Next::Again(wait) => Some(wait),
        Next::Hold(scope, wait) => {
            reason.held_scope = Some(scope.as_str());
            Some(wait)
        }
        Next::Never | Next::Reconcile => None,
    };
    locked.state = if again.is_some() { State::Queued } else { State::Failed };
    store::set_state(conn, locked.message, locked.state, &reason, ctx.now()).await?;
    if let Some(wait) = again {
        let send = Send { message_id: locked.message };
        let job = NewJob::of(locked.business, &send)?.run_at(ctx.now() + rules::delta(wait));
        queue::enqueue(conn, &job).await?;
    } else {
        trail.note(words::MESSAGE_FAILED, locked.message, json!({ "why": "not_delivered", "code": told.code }));
    }
    Ok(())
}

async fn duplicate(conn: &mut PgConnection, ctx: &JobContext, locked: &Locked) -> Result<(), Error> {
    if store::note_duplicate(conn, locked.message, ctx.now()).await? {
        tracing::warn!(messaging.message_id = %locked.message, "two attempts were accepted: the recipient has it twice");
    }
    Ok(())
}

/// Reads a status; what we do not know is kept by name.
pub(super) fn parse(status: &str) -> Status {
    match status.parse() {
        Ok(status) => status,
        Err(never) => match never {},
    }
}
