use clap::Subcommand;
use muneem_jobs::people::{self, Authority, Changes, Decision, Plan, Profile};

use super::super::output::{Output, word};
use crate::app::App;

#[derive(Debug, Subcommand)]
pub(super) enum Business {
    /// Add a business under a short name
    #[command(after_help = "Example:\n  muneem people business add sharma-mobiles \"Sharma Mobiles Private Limited\"")]
    Add {
        /// The short name that frontends and commands use
        handle: String,
        /// The name of the registration
        legal_name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show what is known of a business; personal values as hints
    #[command(after_help = "Example:\n  muneem people business show sharma-mobiles")]
    Show {
        /// Its short name
        handle: String,
        #[command(flatten)]
        output: Output,
    },
    /// Change what is known of a business; what is not named stays
    #[command(
        after_help = "Example:\n  muneem people business set sharma-mobiles --gstin 27AAPFU0939F1ZV --language hi\n  \
                      muneem people business set sharma-mobiles --clear contact-phone,contact-email"
    )]
    Set(Box<Set>),
    /// List all businesses
    #[command(after_help = "Example:\n  muneem people business list")]
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
#[group(id = "changes", multiple = true, required = true)]
pub(super) struct Fields {
    /// The name of the registration
    #[arg(long, value_name = "NAME")]
    legal_name: Option<String>,
    /// Its GSTIN
    #[arg(long)]
    gstin: Option<String>,
    /// What it reads (BCP 47), such as hi or en
    #[arg(long)]
    language: Option<String>,
    /// Who stands for it
    #[arg(long, value_name = "NAME")]
    contact_name: Option<String>,
    /// Her phone
    #[arg(long, value_name = "PHONE")]
    contact_phone: Option<String>,
    /// Her mail address
    #[arg(long, value_name = "EMAIL")]
    contact_email: Option<String>,
    /// Its WhatsApp Business Account, as WhatsApp Manager numbers it
    #[arg(long, value_name = "ID")]
    whatsapp_account_id: Option<String>,
    /// The address that its mail is sent from
    #[arg(long, value_name = "EMAIL")]
    mail_from: Option<String>,
    /// What it pays for: basic, standard or premium
    #[arg(long)]
    plan: Option<Plan>,
    /// Its own wish for a second factor: true or false; its plan may demand one anyway
    #[arg(long, value_name = "WISH")]
    second_factor: Option<bool>,
    /// Fields to empty
    #[arg(long, value_enum, value_name = "FIELD", value_delimiter = ',')]
    clear: Vec<Clear>,
}

/// A field that may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Clear {
    Gstin,
    ContactName,
    ContactPhone,
    ContactEmail,
    WhatsappAccountId,
    MailFrom,
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// Its short name
    handle: String,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    output: Output,
}

impl Fields {
    fn changes(self) -> Changes {
        let clear = self.clear;
        let change = |said: Option<String>, field| match said {
            Some(value) => Some(Some(value)),
            None => clear.contains(&field).then_some(None),
        };
        Changes {
            legal_name: self.legal_name,
            gstin: change(self.gstin, Clear::Gstin),
            language: self.language,
            contact_name: change(self.contact_name, Clear::ContactName),
            contact_phone: change(self.contact_phone, Clear::ContactPhone),
            contact_email: change(self.contact_email, Clear::ContactEmail),
            whatsapp_account_id: change(self.whatsapp_account_id, Clear::WhatsappAccountId),
            mail_from: change(self.mail_from, Clear::MailFrom),
            plan: self.plan,
            second_factor_wanted: self.second_factor,
        }
    }
}

pub(super) async fn run(app: &App, command: Business) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let (clock, chance, vault) = (&*app.deps.clock, &*app.deps.chance, &*app.deps.vault);
    let by = Authority::operator();
    match command {
        Business::Add { handle, legal_name, output } => {
            let business = people::add_business(&mut db, &handle, &legal_name, clock, chance).await?;
            output.done(&business, &format!("added {}", business.handle))
        }
        Business::Show { handle, output } => {
            let business = people::load_business(&mut db, &handle).await?.business_id;
            let profile = people::load_profile(&mut db, vault, business, &by).await?;
            show(output, &profile)
        }
        Business::Set(set) => {
            let Set { handle, fields, output } = *set;
            let business = people::load_business(&mut db, &handle).await?.business_id;
            let decision = Decision { by: &by, now: clock.now(), chance };
            let profile = people::change_business(&mut db, vault, business, &fields.changes(), &decision).await?;
            show(output, &profile)
        }
        Business::List { output } => {
            let businesses = people::list_businesses(&mut db).await?;
            output.table(&["handle", "legal name", "since"], &businesses, |business| {
                vec![business.handle.clone(), business.legal_name.clone(), business.created_at.date_naive().to_string()]
            })
        }
    }
}

fn show(output: Output, profile: &Profile) -> anyhow::Result<()> {
    let text = |said: &Option<String>| said.clone().unwrap_or_default();
    let factor = match (profile.second_factor_required, profile.second_factor_wanted) {
        (false, _) => "as each likes",
        (true, true) => "required, by its own wish",
        (true, false) => "required, by its plan",
    };
    output.item(
        profile,
        &[
            ("handle", profile.handle.clone()),
            ("legal name", profile.legal_name.clone()),
            ("gstin", text(&profile.gstin)),
            ("language", profile.language.clone()),
            ("contact", text(&profile.contact_name)),
            ("phone", text(&profile.contact_phone)),
            ("mail", text(&profile.contact_email)),
            ("whatsapp", text(&profile.whatsapp_account_id)),
            ("mail from", text(&profile.mail_from)),
            ("plan", word(&profile.plan)),
            ("second factor", factor.to_owned()),
            ("recovery point", format!("{} minutes", profile.recovery_point_minutes)),
            ("since", profile.created_at.date_naive().to_string()),
        ],
    )
}
