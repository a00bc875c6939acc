use chrono::{DateTime, Utc};
use clap::Subcommand;
use muneem_jobs::{
    outbound::Phone,
    people::{self, Authority, BusinessId, Decision, Enrolment, Known, Role, StaffId},
};
use sqlx::PgConnection;

use super::super::output::Output;
use crate::app::App;

#[derive(Debug, Subcommand)]
pub(super) enum Staff {
    /// Add somebody who works here
    #[command(
        after_help = "Example:\n  muneem people staff add --business sharma-mobiles --name \"Asha Verma\" --email \
                      asha@example.in --role owner"
    )]
    Add {
        /// The business she works for [default: the platform]
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// Her name
        #[arg(long)]
        name: String,
        /// Her phone
        #[arg(long, required_unless_present = "email")]
        phone: Option<String>,
        /// Her mail address
        #[arg(long)]
        email: Option<String>,
        /// Her language (BCP 47)
        #[arg(long, default_value = "en")]
        language: String,
        /// What she is, such as owner: `muneem people roles` lists all
        #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', required = true)]
        roles: Vec<Role>,
        #[command(flatten)]
        output: Output,
    },
    /// List who works here, with those who have left
    #[command(after_help = "Example:\n  muneem people staff list --business sharma-mobiles")]
    List {
        /// Of this business [default: of the platform]
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show one person; personal values as hints
    #[command(after_help = "Example:\n  muneem people staff show 0192f3c1-7000-7000-8000-987654321012")]
    Show {
        /// Her id
        staff_id: StaffId,
        #[command(flatten)]
        output: Output,
    },
    /// Remove somebody: roles, tokens, sessions and her part in open decisions end at once
    #[command(after_help = "Example:\n  muneem people staff remove 0192f3c1-7000-7000-8000-987654321012")]
    Remove {
        /// Her id
        staff_id: StaffId,
        #[command(flatten)]
        output: Output,
    },
    /// Give somebody a role
    #[command(after_help = "Example:\n  muneem people staff grant 0192f3c1-7000-7000-8000-987654321012 approver")]
    Grant {
        /// Her id
        staff_id: StaffId,
        /// One of `muneem people roles`
        role: Role,
        #[command(flatten)]
        output: Output,
    },
    /// Take a role away; it ends at once
    #[command(after_help = "Example:\n  muneem people staff revoke 0192f3c1-7000-7000-8000-987654321012 approver")]
    Revoke {
        /// Her id
        staff_id: StaffId,
        /// One of `muneem people roles`
        role: Role,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(app: &App, command: Staff) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let vault = &*app.deps.vault;
    let by = Authority::operator();
    let decision = Decision { by: &by, now: app.deps.clock.now(), chance: &*app.deps.chance };
    match command {
        Staff::Add { business, name, phone, email, language, roles, output } => {
            let business_id = of(&mut db, business.as_deref()).await?;
            let phone = phone.as_deref().map(Phone::parse).transpose()?;
            let person = Enrolment { business_id, name, language, phone, email, roles };
            let staff = people::enrol_staff(&mut db, vault, &person, &decision).await?;
            let known = people::describe_staff(&mut db, vault, staff).await?;
            output.done(&known, &format!("added {}", known.staff.staff_id))
        }
        Staff::List { business, output } => {
            let business_id = of(&mut db, business.as_deref()).await?;
            let mut all = Vec::new();
            for staff in people::list_staff(&mut db, business_id, &by).await? {
                all.push(people::describe_staff(&mut db, vault, staff).await?);
            }
            output.table(&["id", "name", "roles", "phone", "mail", "state"], &all, |known| {
                let text = |said: &Option<String>| said.clone().unwrap_or_default();
                let state = state(known, decision.now);
                vec![
                    known.staff.staff_id.to_string(),
                    text(&known.name),
                    roles(known),
                    text(&known.phone),
                    text(&known.email),
                    state,
                ]
            })
        }
        Staff::Show { staff_id, output } => {
            let staff = people::load_staff(&mut db, staff_id, &by).await?;
            show(output, &people::describe_staff(&mut db, vault, staff).await?, decision.now)
        }
        Staff::Remove { staff_id, output } => {
            let staff = people::remove_staff(&mut db, staff_id, &decision).await?;
            output.done(&staff, &format!("removed {staff_id}"))
        }
        Staff::Grant { staff_id, role, output } => {
            let staff = people::grant_role(&mut db, staff_id, role, &decision).await?;
            show(output, &people::describe_staff(&mut db, vault, staff).await?, decision.now)
        }
        Staff::Revoke { staff_id, role, output } => {
            let staff = people::withdraw_role(&mut db, staff_id, role, &decision).await?;
            show(output, &people::describe_staff(&mut db, vault, staff).await?, decision.now)
        }
    }
}

pub(super) async fn of(db: &mut PgConnection, handle: Option<&str>) -> anyhow::Result<Option<BusinessId>> {
    Ok(match handle {
        Some(handle) => Some(people::load_business(db, handle).await?.business_id),
        None => None,
    })
}

fn roles(known: &Known) -> String {
    known.staff.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(",")
}

fn state(known: &Known, now: DateTime<Utc>) -> String {
    let staff = &known.staff;
    let state = match (staff.removed_at, staff.phone_verified_at.or(staff.email_verified_at)) {
        (Some(_), _) => "left",
        (None, Some(_)) => "verified",
        (None, None) => "not verified",
    };
    match known.phone_stale_since(now) {
        Some(since) => format!("{state}; phone not confirmed since {}: it may be somebody else's", since.date_naive()),
        None => state.to_owned(),
    }
}

fn show(output: Output, known: &Known, now: DateTime<Utc>) -> anyhow::Result<()> {
    let text = |said: &Option<String>| said.clone().unwrap_or_default();
    output.item(
        known,
        &[
            ("id", known.staff.staff_id.to_string()),
            ("name", text(&known.name)),
            ("roles", roles(known)),
            ("phone", text(&known.phone)),
            ("mail", text(&known.email)),
            ("language", known.staff.language.clone()),
            ("state", state(known, now)),
            ("since", known.staff.created_at.date_naive().to_string()),
        ],
    )
}
