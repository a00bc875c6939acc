//! The mail sink: a mail server on loopback that takes mail for anybody, passes none on and shows all of it.

mod page;
mod smtp;

use std::{collections::VecDeque, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Inner;

pub(super) use smtp::serve;

/// Mails kept; the oldest go first.
const KEPT: usize = 2_000;

/// One mail as it was taken.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Taken {
    /// Counts from 1.
    id: u64,
    /// Of the envelope.
    from: String,
    /// Of the envelope.
    to: Vec<String>,
    message_id: Option<String>,
    subject: String,
    /// The plain text, decoded.
    text: String,
    /// As it came over the line.
    raw: String,
    /// Whom the sender signed in as.
    user: Option<String>,
    received_at: DateTime<Utc>,
}

/// One scripted misbehaviour: the next conversation that reaches `at` gets `reply`, or no answer at all.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MailFault {
    /// The step.
    at: Step,
    /// A whole reply such as `550 5.1.1 no such mailbox`. None: the line goes dead.
    reply: Option<String>,
}

/// A step of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    Greeting,
    Mail,
    Rcpt,
    Data,
    /// After the last line; with a reply below 400, or none, the mail was taken all the same.
    End,
}

/// What the sink holds.
#[derive(Debug, Default)]
pub(super) struct Room {
    next: u64,
    mails: VecDeque<Taken>,
    faults: Vec<MailFault>,
}

impl Room {
    /// Takes the first fault that is scripted for this step.
    fn fault(&mut self, at: Step) -> Option<MailFault> {
        let found = self.faults.iter().position(|fault| fault.at == at)?;
        Some(self.faults.remove(found))
    }

    fn keep(&mut self, mut taken: Taken) {
        self.next += 1;
        taken.id = self.next;
        self.mails.push_back(taken);
        if self.mails.len() > KEPT {
            self.mails.pop_front();
        }
    }
}

/// The addresses of the sink.
pub(super) fn routes() -> Router<Arc<Inner>> {
    Router::new()
        .route("/sandbox/mail", get(page::mails))
        .route("/sandbox/mail.css", get(page::style))
        .route("/sandbox/mails", get(list))
        .route("/sandbox/mail/faults", post(script))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct For {
    to: Option<String>,
}

/// `GET /sandbox/mails?to=asha@example.in`: what was taken, oldest first.
async fn list(State(inner): State<Arc<Inner>>, Query(wanted): Query<For>) -> Json<Vec<Taken>> {
    let room = inner.mail();
    let meant = |mail: &&Taken| wanted.to.as_ref().is_none_or(|to| mail.to.iter().any(|one| one == to));
    Json(room.mails.iter().filter(meant).cloned().collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    faults: Vec<MailFault>,
}

/// `POST /sandbox/mail/faults`
async fn script(State(inner): State<Arc<Inner>>, Json(script): Json<Script>) -> StatusCode {
    let sane = |fault: &MailFault| {
        fault.reply.as_ref().is_none_or(|reply| {
            reply.len() <= 200
                && reply.is_ascii()
                && !reply.chars().any(char::is_control)
                && reply.get(..3).is_some_and(|code| code.parse::<u16>().is_ok_and(|code| (200..600).contains(&code)))
        })
    };
    if !script.faults.iter().all(sane) {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    let mut room = inner.mail();
    if script.reset {
        room.faults.clear();
    }
    room.faults.extend(script.faults);
    StatusCode::NO_CONTENT
}
