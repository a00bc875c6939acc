use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{
    ApplyMailReport,
    bounce::{self, Kind, Read, Report},
    report_store::{self as store, NewReport},
    token::{Known, MailToken, find_token},
};
use crate::{
    evidence::{Act, By, Object, words},
    messaging::Error,
    outbound::{Chance, Clock, Email},
    queue::{self, NewJob},
    vault::Vault,
};

/// Where a report came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A mailbox read by IMAP.
    Imap,
    /// A directory that the mail server of this machine delivers into.
    Maildir,
    /// `/webhooks/mail/…`
    Webhook,
}

impl Source {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Maildir => "maildir",
            Self::Webhook => "webhook",
        }
    }
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Format {
    /// A whole mail (RFC 5322).
    Rfc822,
    /// [`Said`], as a mail service that reports by webhook is made to write it.
    Json,
}

impl Format {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Rfc822 => "rfc822",
            Self::Json => "json",
        }
    }
}

/// What became of a report at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is about a mail of ours, and a job will look at it.
    New,
    /// These bytes are here already.
    Replayed,
    /// It is about no mail of ours, or no report. That it came is kept.
    Unmatched,
    /// Nobody can read it; nothing was kept.
    Unreadable,
}

/// A report in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    /// The Message-ID of the mail, with or without its brackets.
    message_id: String,
    /// Whom it was to.
    recipient: String,
    event: Event,
    /// Enhanced status code: `5.1.1`.
    #[serde(default)]
    status: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Event {
    Delivered,
    Delayed,
    Failed,
    Complaint,
}

/// What raw bytes of this format say.
pub(super) fn read(format: Format, raw: &[u8]) -> Read {
    match format {
        Format::Rfc822 => bounce::read(raw),
        Format::Json => serde_json::from_slice(raw).map_or(Read::Unreadable, |said: Said| {
            let kind = match said.event {
                Event::Delivered => Kind::Delivered,
                Event::Delayed => Kind::Delayed,
                Event::Failed => Kind::Failed,
                Event::Complaint => Kind::Complaint,
            };
            let status = said.status.as_deref().and_then(bounce::status_of);
            let permanent = kind == Kind::Failed && status.as_deref().is_some_and(|status| status.starts_with('5'));
            Read::Reports(vec![Report {
                tokens: MailToken::all_in(&said.message_id),
                recipients: Email::parse(said.recipient.trim()).into_iter().collect(),
                kind,
                status,
                permanent,
            }])
        }),
    }
}

/// The report that is about a mail of ours, the mail, and the token that says so.
pub(super) async fn match_up(
    conn: &mut PgConnection,
    reports: &[Report],
) -> Result<Option<(Report, MailToken, Known)>, Error> {
    let Some(tokens) = reports.first().map(|report| report.tokens.clone()) else { return Ok(None) };
    let Some((token, known)) = find_token(conn, &tokens).await? else { return Ok(None) };
    // A report may be about several recipients of whoever sent it on; one of ours has one.
    let hers = reports.iter().find(|report| known.fit(&token, &report.recipients) == super::token::Fit::Named);
    let report = hers.or(reports.first()).cloned();
    Ok(report.map(|report| (report, token, known)))
}

/// Keeps what came back and enqueues its application, in the caller's transaction. Commit before it is marked as read or
/// answered with 200: nobody brings it again.
///
/// What is no report is somebody's letter: that it came is kept, its words are not.
///
/// # Errors
/// The database or the vault fails; leave it where it was, and it comes again.
pub async fn receive_report(
    conn: &mut PgConnection,
    vault: &Vault,
    (clock, chance): (&dyn Clock, &dyn Chance),
    (source, format): (Source, Format),
    raw: &[u8],
) -> Result<Kept, Error> {
    let now = clock.now();
    let id = chance.uuid_v7(now);
    let sha256: [u8; 32] = Sha256::digest(raw).into();
    let (matched, other) = match read(format, raw) {
        Read::Reports(reports) => (match_up(conn, &reports).await?, "unmatched"),
        Read::AutoReply => (None, "answer"),
        Read::NoReport => (None, "ignored"),
        Read::Unreadable if format == Format::Json => return Ok(Kept::Unreadable),
        Read::Unreadable => (None, "ignored"),
    };
    let business = matched.as_ref().map(|(_, _, known)| known.business);
    let state = if business.is_some() { "received" } else { other };
    let body = match business {
        Some(business) => Some(store::seal_body(conn, vault, (business, id), raw).await?),
        None => None,
    };
    let new = NewReport { id, sha256: &sha256, source, format, business, body: body.as_deref(), state, now };
    if !store::insert_report(conn, &new).await? {
        return Ok(Kept::Replayed);
    }
    let kept = Act {
        word: words::MAIL_REPORT_KEPT,
        business,
        object: Object { kind: "mail_report", id: &id.to_string() },
        details: json!({ "sha256": hex::encode(sha256), "source": source.as_str(), "state": state }),
    };
    By::system(now, chance).record(conn, kept).await?;
    let Some(business) = business else {
        tracing::info!(messaging.report_id = %id, state, "what came back concerns no mail of ours");
        return Ok(Kept::Unmatched);
    };
    queue::enqueue(conn, &NewJob::of(business, &ApplyMailReport { report_id: id })?).await?;
    Ok(Kept::New)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_in_json_is_as_strict_as_it_is_small() {
        let good = r#"{"message_id":"<gaytemzugu3doobzmfrggzdfmy@x.in>","recipient":"asha@example.in","event":"failed","status":"5.1.1"}"#;
        let Read::Reports(reports) = read(Format::Json, good.as_bytes()) else { panic!("a report") };
        assert_eq!((reports[0].kind, reports[0].permanent, reports[0].tokens.len()), (Kind::Failed, true, 1));
        let soft = good.replace("5.1.1", "4.2.2");
        let Read::Reports(reports) = read(Format::Json, soft.as_bytes()) else { panic!("a report") };
        assert!(!reports[0].permanent);
        for bad in [
            "",
            "[]",
            "{}",
            &good.replace("failed", "vanished"),
            &good.replace("\"status\"", "\"suppress\""),
            &good.replace("\"recipient\"", "\"to\""),
        ] {
            assert_eq!(read(Format::Json, bad.as_bytes()), Read::Unreadable, "{bad}");
        }
    }
}
