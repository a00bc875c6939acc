use clap::Subcommand;
use muneem_jobs::people::{
    Authority, Decision, StaffId,
    support::{self, GrantId},
};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{super::output::Output, staff};
use crate::app::App;

#[derive(Debug, Subcommand)]
pub(super) enum Support {
    /// List when businesses let support in, the newest first
    #[command(after_help = "Example:\n  muneem people support list --business sharma-mobiles")]
    List {
        /// Into this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: u16,
        #[command(flatten)]
        output: Output,
    },
    /// Make a token for one person of support, good until the grant ends; it is shown once
    #[command(after_help = "Example:\n  muneem people support token 0192f3c1-7000-7000-8000-987654321012 --staff \
                      0192f3c1-7000-7000-8000-aaaaaaaaaaaa")]
    Token {
        /// The grant
        grant_id: GrantId,
        /// Who will look
        #[arg(long, value_name = "ID")]
        staff: StaffId,
        #[command(flatten)]
        output: Output,
    },
    /// Send support away; its tokens open nothing from this moment on
    #[command(after_help = "Example:\n  muneem people support end 0192f3c1-7000-7000-8000-987654321012")]
    End {
        /// The grant
        grant_id: GrantId,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(app: &App, command: Support) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let now = app.deps.clock.now();
    let by = Authority::operator();
    let decision = Decision { by: &by, now, chance: &*app.deps.chance };
    match command {
        Support::List { business, limit, output } => {
            let business_id = staff::of(&mut db, business.as_deref()).await?;
            let all =
                support::list(&mut db, support::Asked { business: business_id, ..Default::default() }, limit, &by)
                    .await?;
            output.table(&["id", "business", "from", "until", "state"], &all, |grant| {
                vec![
                    grant.grant_id.to_string(),
                    grant.business_id.to_string(),
                    grant.granted_at.to_rfc3339(),
                    grant.expires_at.to_rfc3339(),
                    if grant.is_live(now) { "live" } else { "over" }.to_owned(),
                ]
            })
        }
        Support::Token { grant_id, staff, output } => {
            let (token, bearer) = support::open_token(&mut db, grant_id, staff, &decision).await?;
            let bearer = bearer.expose_secret();
            output.done(
                &json!({ "public_id": token.public_id, "token": bearer, "expires_at": token.expires_at }),
                &format!("{bearer}\nEach look with it is on record for the business. It is not shown again."),
            )
        }
        Support::End { grant_id, output } => {
            let grant = support::end(&mut db, grant_id, &decision).await?;
            output.done(&grant, &format!("ended {grant_id}"))
        }
    }
}
