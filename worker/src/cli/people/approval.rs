use anyhow::Context;
use clap::Subcommand;
use muneem_jobs::{
    messaging,
    outbound::{Email, Phone},
    people::{
        Authority, Decision,
        approval::{self, Approval as Row, ApprovalId},
        links::Contact,
    },
};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    super::output::{Output, word},
    staff,
};
use crate::app::App;

#[derive(Debug, Subcommand)]
pub(super) enum Approval {
    /// List decisions that take a second person, the newest first
    #[command(after_help = "Example:\n  muneem people approval list --open")]
    List {
        /// Of this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// Only those of which something can still come
        #[arg(long)]
        open: bool,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: u16,
        #[command(flatten)]
        output: Output,
    },
    /// Show one decision: what was asked, who decided
    #[command(after_help = "Example:\n  muneem people approval show 0192f3c1-7000-7000-8000-987654321012")]
    Show {
        /// Its id
        approval_id: ApprovalId,
        #[command(flatten)]
        output: Output,
    },
    /// Withdraw a decision; nothing comes of it any more
    #[command(after_help = "Example:\n  muneem people approval withdraw 0192f3c1-7000-7000-8000-987654321012")]
    Withdraw {
        /// Its id
        approval_id: ApprovalId,
        #[command(flatten)]
        output: Output,
    },
    /// Invite somebody outside to one decision, where the business has nobody else
    #[command(after_help = "Example:\n  muneem people approval invite 0192f3c1-7000-7000-8000-987654321012 --email \
                      ravi@example.com --origin https://muneem.example.in")]
    Invite {
        /// The decision
        approval_id: ApprovalId,
        /// Her mail address: the link goes there, and with it the code
        #[arg(long, required_unless_present = "phone", conflicts_with = "phone")]
        email: Option<String>,
        /// Her phone, written to from the number of `messaging.whatsapp.installation_business`
        #[arg(long)]
        phone: Option<String>,
        /// Her language (BCP 47)
        #[arg(long, default_value = "en")]
        language: String,
        /// Where this installation answers, as she reaches it
        #[arg(long, value_name = "URL")]
        origin: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(app: &App, command: Approval) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let vault = &*app.deps.vault;
    let now = app.deps.clock.now();
    let by = Authority::operator();
    let decision = Decision { by: &by, now, chance: &*app.deps.chance };
    match command {
        Approval::List { business, open, limit, output } => {
            let business_id = staff::of(&mut db, business.as_deref()).await?;
            let filter = approval::Filter { business_id, open, before: None };
            let all = approval::list(&mut db, &filter, limit, &by).await?;
            output.table(&["id", "kind", "subject", "state", "asked", "until"], &all, |one| {
                vec![
                    one.approval_id.to_string(),
                    one.kind.to_string(),
                    one.subject_id.clone(),
                    one.state_at(now).to_string(),
                    one.requested_at.date_naive().to_string(),
                    one.expires_at.date_naive().to_string(),
                ]
            })
        }
        Approval::Show { approval_id, output } => {
            let one = approval::load(&mut db, approval_id, &by).await?;
            let summary = approval::open_summary(&mut db, vault, approval_id, &by).await?;
            let votes = approval::list_votes(&mut db, approval_id, &by).await?;
            if output.is_json() {
                return output.done(&json!({ "approval": one, "summary": summary, "votes": votes }), "");
            }
            let mut fields = heads(&one, one.state_at(now).as_str());
            fields.extend(summary.iter().map(|line| (line.label.as_str(), line.value.clone())));
            for vote in &votes {
                let who = match (vote.staff_id, vote.link_id) {
                    (Some(staff), _) => format!("staff {staff}"),
                    (None, Some(link)) => format!("outside, invitation {link}"),
                    (None, None) => String::new(),
                };
                let gone = if vote.withdrawn_at.is_some() { ", taken back" } else { "" };
                let why = vote.reason.map_or_else(String::new, |reason| format!(": {}", reason.words()));
                let said = format!("{} on version {} by {who}{gone}{why}", word(&vote.verdict), vote.version);
                fields.push(("vote", said));
            }
            output.item(&one, &fields)
        }
        Approval::Withdraw { approval_id, output } => {
            let one = approval::withdraw(&mut db, approval_id, &decision).await?;
            output.done(&one, &format!("withdrawn {approval_id}"))
        }
        Approval::Invite { approval_id, email, phone, language, origin, output } => {
            let contact = match (email, phone) {
                (_, Some(phone)) => Contact::Phone(Phone::parse(&phone)?),
                (email, None) => Contact::Email(Email::parse(email.unwrap_or_default().trim())?),
            };
            let handle = app.config.messaging.whatsapp.installation_business.as_deref();
            let origin = checked_origin(&origin)?;
            let invitation = approval::Invitation { contact: &contact, carrier: None, language: &language, origin };
            let (link, url) =
                messaging::invite_outside(&mut db, vault, approval_id, (invitation, handle), &decision).await?;
            let url = url.expose_secret();
            output.done(
                &json!({ "link_id": link.link_id, "url": url, "expires_at": link.expires_at }),
                &format!("{url}\nIt was sent to {} and is not shown again.", contact.hint()),
            )
        }
    }
}

fn heads<'a>(one: &Row, state: &str) -> Vec<(&'a str, String)> {
    vec![
        ("id", one.approval_id.to_string()),
        ("kind", one.kind.to_string()),
        ("subject", one.subject_id.clone()),
        ("state", state.to_owned()),
        ("plan", format!("{} (version {})", one.plan_sha256.short(), one.version)),
        ("needed", one.approvers_needed.to_string()),
        ("asked by", one.requested_by.clone()),
        ("until", one.expires_at.to_rfc3339()),
    ]
}

/// `https://host[:port]`, as it will stand in the mail.
fn checked_origin(text: &str) -> anyhow::Result<&str> {
    let url = reqwest::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let plain = url.is_some_and(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none());
    plain.then_some(text.trim_end_matches('/')).context("the origin is malformed: write https://host, without a path")
}
