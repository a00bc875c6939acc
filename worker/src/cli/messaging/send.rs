use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use muneem_jobs::{
    files,
    messaging::{
        self, Address, Content, Document, Free, Language, MessageClass, Named, NewMessage, Policy, Recipient,
        wishes::{Channel, Contact, language_of},
    },
    outbound::{Email, Phone},
    people,
};
use serde_json::json;

use super::super::output::Output;
use crate::app::App;

/// Send one message to one person
///
/// It goes out once, by the first of her ways that reaches her. Words of your own (`--text`) are for somebody who has
/// written within 24 hours; before that, a template.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  muneem messaging send sharma-mobiles --phone +919812345678 --mail asha@example.in \\\n    \
                        --template order_ready --param business_name=\"Sharma Mobiles\" --param order_number=ORD-2207 \\\n    \
                        --purpose shop.order_ready"
)]
pub(super) struct Args {
    /// Handle of the business
    business: String,
    /// Her mobile number, for WhatsApp
    #[arg(long)]
    phone: Option<String>,
    /// Her mail address: the way after WhatsApp, or the only one
    #[arg(long)]
    mail: Option<String>,
    /// By mail first
    #[arg(long, requires = "phone", requires = "mail")]
    mail_first: bool,
    /// Folder of the words: `muneem messaging templates list` shows them
    #[arg(long, required_unless_present = "text", conflicts_with = "text")]
    template: Option<String>,
    /// A value that the words want; once for each
    #[arg(long = "param", value_name = "NAME=VALUE", requires = "template")]
    params: Vec<String>,
    /// Words of your own
    #[arg(long)]
    text: Option<String>,
    /// Language of the words, such as hi; hers if it is known, else English
    #[arg(long)]
    language: Option<String>,
    /// Why it is said: two words of small letters
    #[arg(long)]
    purpose: String,
    /// The file that goes with it: PDF, PNG or JPEG
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Rather never than twice, where nobody can tell whether it went out
    #[arg(long)]
    at_most_once: bool,
    /// No attempt starts before this instant, such as 2026-11-24T10:00:00+05:30
    #[arg(long, value_name = "INSTANT")]
    not_before: Option<DateTime<Utc>>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(app: &App, args: Args) -> anyhow::Result<()> {
    let deps = &app.deps;
    let phone = args.phone.as_deref().map(Phone::parse).transpose().context("--phone")?;
    let mail = args.mail.as_deref().map(Email::parse).transpose().context("--mail")?;
    let mut ways: Vec<Address> = phone.map(Address::Phone).into_iter().chain(mail.map(Address::Email)).collect();
    if args.mail_first {
        ways.reverse();
    }
    let content = match (args.template, args.text) {
        (Some(template), _) => {
            let mut parameters = BTreeMap::new();
            for param in &args.params {
                let (name, value) = param.split_once('=').context("--param is written NAME=VALUE")?;
                parameters.insert(name.to_owned(), value.to_owned());
            }
            Content::Named(Named { template, parameters })
        }
        (None, Some(body)) => {
            ways.retain(|way| way.channel() == Channel::Whatsapp);
            Content::Free(Free::Text { body })
        }
        (None, None) => bail!("--template or --text is missing"),
    };
    if content.class() == MessageClass::Otp {
        bail!("one-time codes are made and sent by POST /v1/messaging/otp alone");
    }
    let to = ways.into_iter().map(Recipient::from).reduce(Recipient::or);
    let to = to.context("give --phone, --mail or both")?;
    let mut conn = deps.db.acquire().await?;
    let business = people::load_business(&mut conn, &args.business).await?.business_id;
    let mut document = None;
    let mut stored = None;
    if let Some(path) = &args.document {
        let filename = path.file_name().and_then(|name| name.to_str()).context("--document names no file")?;
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let kind = messaging::kind_of(filename, &bytes).map_err(|mend| anyhow::anyhow!("--document {mend}"))?;
        let put = files::put(deps, business, kind, Bytes::from(bytes)).await?;
        document = Some(Document { digest: put.digest.clone(), filename: filename.to_owned() });
        stored = Some(put);
    }
    let mut language = args.language.as_deref().map(Language::of);
    for way in to.ways() {
        let contact = match way {
            Address::Phone(phone) => Contact::Phone(phone.clone()),
            Address::Email(email) => Contact::Email(email.clone()),
        };
        if language.is_none() {
            language = language_of(&mut conn, &deps.vault, business, &contact).await?;
        }
    }
    drop(conn);
    let at_most_once = args.at_most_once || content.class() == MessageClass::Marketing;
    let policy = if at_most_once { Policy::AtMostOnce } else { Policy::AtLeastOnce };
    let new = NewMessage {
        document,
        not_before: args.not_before,
        ..NewMessage::new(business, to, (content, language.unwrap_or(Language::En)), (policy, args.purpose))
    };
    let mut tx = deps.db.begin().await?;
    if let Some(stored) = &stored {
        files::record(&mut tx, deps, stored, None).await?;
    }
    let id = messaging::ask(&mut tx, &deps.vault, &new, &app.operator()).await?;
    tx.commit().await?;
    let follow = format!("muneem messaging show {id}");
    args.output.item(&json!({ "id": id }), &[("id", id.to_string()), ("follow", follow)])
}
