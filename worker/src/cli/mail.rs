use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Subcommand;
use muneem_jobs::{
    messaging::mail::{self, IdentityInfo, NewIdentity, SigningKey},
    outbound::{Algorithm, DkimKey, Email},
    people,
};
use secrecy::SecretString;

use super::output::Output;
use crate::{app::App, outbound::chance::OsChance};

/// Mail: whom it comes from, and what came back
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The address that the mail of a business comes from, and the key it is signed with
    Identity {
        #[command(subcommand)]
        command: Identity,
    },
    /// Look once for reports of undelivered mail and complaints, in the mailbox and the Maildir of the configuration
    #[command(after_help = "Example:\n  muneem messaging mail read")]
    Read {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Identity {
    /// Set the address; a code is sent to it, unless you vouch for it
    ///
    /// With a signing key, the DNS record to publish is shown. The private key lies sealed in the database and is shown
    /// to nobody.
    #[command(
        after_help = "Example:\n  muneem messaging mail identity set sharma-mobiles --from bills@sharma-mobiles.example \
                            --dkim-selector mnm2026 --dkim-generate rsa"
    )]
    Set {
        /// Handle of the business
        business: String,
        /// The address
        #[arg(long, value_name = "ADDRESS")]
        from: String,
        /// The name beside it; that of the registration if left out
        #[arg(long)]
        name: Option<String>,
        /// Where answers go; to the address itself if left out
        #[arg(long, value_name = "ADDRESS")]
        reply_to: Option<String>,
        /// Domain of the signature; that of the address if left out
        #[arg(long, value_name = "DOMAIN", requires = "dkim_selector")]
        dkim_domain: Option<String>,
        /// Name of the key in DNS, before ._domainkey; without it, the key that is there stays
        #[arg(long, value_name = "LABEL")]
        dkim_selector: Option<String>,
        /// File with the private key (PEM)
        #[arg(long, value_name = "FILE", requires = "dkim_selector", conflicts_with = "dkim_generate")]
        dkim_key_file: Option<PathBuf>,
        /// Make a key: rsa, which every receiver checks, or ed25519
        #[arg(long, value_name = "ALGORITHM", requires = "dkim_selector")]
        dkim_generate: Option<Algorithm>,
        /// Send no code: you know that the business reads this address's mail
        #[arg(long)]
        vouched_for: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Confirm the address with the code that went to it
    #[command(after_help = "Example:\n  muneem messaging mail identity verify sharma-mobiles abcd-efgh-jkmn")]
    Verify {
        /// Handle of the business
        business: String,
        /// The code
        code: String,
        #[command(flatten)]
        output: Output,
    },
    /// List the addresses, with the DNS records of their keys
    #[command(after_help = "Example:\n  muneem messaging mail identity list")]
    List {
        /// Of this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Take the address and its key away; mail then comes from the installation's address
    #[command(after_help = "Example:\n  muneem messaging mail identity remove sharma-mobiles")]
    Remove {
        /// Handle of the business
        business: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Identity { command } => identity(app, command).await,
        Command::Read { output } => {
            let reader = app.mail_reader()?;
            let reader = reader
                .context("nothing to read is configured: set `messaging.mail.imap` or `messaging.mail.maildir`")?;
            let read = reader.look().await?;
            output.done(&serde_json::json!({ "read": read }), &format!("{read} read"))
        }
    }
}

async fn identity(app: &App, command: Identity) -> anyhow::Result<()> {
    let (mut db, vault) = (app.deps.db.acquire().await?, &app.deps.vault);
    match command {
        Identity::Set {
            business,
            from,
            name,
            reply_to,
            dkim_domain,
            dkim_selector,
            dkim_key_file,
            dkim_generate,
            vouched_for,
            output,
        } => {
            let id = people::load_business(&mut db, &business).await?.business_id;
            let from = Email::parse(&from).context("--from")?;
            let reply_to = reply_to.as_deref().map(Email::parse).transpose().context("--reply-to")?;
            let dkim = match dkim_selector {
                Some(selector) => {
                    ensure!(
                        dkim_key_file.is_some() || dkim_generate.is_some(),
                        "name the key's file with --dkim-key-file, or make one with --dkim-generate"
                    );
                    let domain = dkim_domain.unwrap_or_else(|| from.domain().to_owned());
                    Some(SigningKey { domain, selector, pem: key(dkim_key_file, dkim_generate)? })
                }
                None => None,
            };
            let new = NewIdentity { from, name, reply_to, dkim, is_vouched_for: vouched_for };
            let set = mail::set_identity(&mut db, vault, id, &new, &app.operator()).await?;
            let next = match set.verified_at {
                Some(_) => "mail comes from it now",
                None => "a code was sent to it: `muneem messaging mail identity verify`",
            };
            output.item(&set, &fields(&business, &set, next))
        }
        Identity::Verify { business, code, output } => {
            let id = people::load_business(&mut db, &business).await?.business_id;
            let verified = mail::verify_identity(&mut db, vault, id, &code, &app.operator()).await?;
            output.done(&verified, &format!("mail of {business} comes from {} now", verified.from))
        }
        Identity::List { business, output } => {
            let business = match business {
                Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
                None => None,
            };
            let all = mail::list_identities(&mut db, vault, business).await?;
            let handles = people::list_businesses(&mut db).await?;
            output.table(&["business", "from", "name", "verified", "dns name", "dns record"], &all, |identity| {
                let handle = handles.iter().find(|known| known.business_id == identity.business_id);
                let verified = identity.verified_at.map(|at| at.format("%Y-%m-%d %H:%M UTC").to_string());
                vec![
                    handle.map(|known| known.handle.clone()).unwrap_or_default(),
                    identity.from.clone(),
                    identity.name.clone(),
                    verified.unwrap_or_else(|| "no".to_owned()),
                    identity.dkim_dns_name.clone().unwrap_or_default(),
                    identity.dkim_dns_record.clone().unwrap_or_default(),
                ]
            })
        }
        Identity::Remove { business, output } => {
            let id = people::load_business(&mut db, &business).await?.business_id;
            ensure!(
                mail::remove_identity(&mut db, id, &app.operator()).await?,
                "{business} has no mail address of its own"
            );
            let line = format!("mail of {business} comes from the installation's address now");
            output.done(&serde_json::json!({ "removed": true }), &line)
        }
    }
}

fn key(file: Option<PathBuf>, algorithm: Option<Algorithm>) -> anyhow::Result<SecretString> {
    match file {
        Some(file) => {
            let pem = std::fs::read_to_string(&file).with_context(|| format!("--dkim-key-file {}", file.display()))?;
            Ok(pem.into())
        }
        None => Ok(DkimKey::generate(algorithm.unwrap_or(Algorithm::Rsa), &OsChance)?),
    }
}

fn fields(business: &str, set: &IdentityInfo, next: &str) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("business", business.to_owned()),
        ("from", set.from.clone()),
        ("name", set.name.clone()),
        ("reply to", set.reply_to.clone().unwrap_or_default()),
    ];
    if let (Some(name), Some(record)) = (&set.dkim_dns_name, &set.dkim_dns_record) {
        fields.push(("publish TXT at", name.clone()));
        fields.push(("with the text", record.clone()));
    }
    fields.push(("next", next.to_owned()));
    fields
}
