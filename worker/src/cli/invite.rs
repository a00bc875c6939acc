use chrono_tz::Asia::Kolkata;
use muneem_jobs::{
    evidence::Actor,
    people::{
        self, StaffId,
        signin::{Invitee, invite},
    },
};
use secrecy::ExposeSecret;
use serde_json::json;

use super::output::Output;
use crate::app::App;

/// Make a link with which somebody comes in to the console
///
/// Without options: the owner of the only business, or, where there is none yet, of one that she names herself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muneem people invite                            the owner of your business\n  \
                  muneem people invite --business sharma-mobiles  an owner of one of several\n  \
                  muneem people invite --platform                 whoever runs this installation\n  \
                  muneem people invite --staff 0192f3c1-7000-7000-8000-000000000001   somebody who is here already")]
pub(super) struct Args {
    /// The business that she will be an owner of
    #[arg(long, value_name = "HANDLE")]
    business: Option<String>,
    /// A new business, which she names herself
    #[arg(long, conflicts_with_all = ["business", "platform", "staff"])]
    new_business: bool,
    /// An operator of this installation
    #[arg(long, conflicts_with_all = ["business", "staff"])]
    platform: bool,
    /// Somebody who is here already and has nothing to sign in with
    #[arg(long, value_name = "ID", conflicts_with = "business")]
    staff: Option<StaffId>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(app: &App, args: Args) -> anyhow::Result<()> {
    let deps = &app.deps;
    let mut db = deps.db.acquire().await?;
    let invitee = match (args.staff, args.business) {
        (Some(staff_id), _) => {
            let staff = people::find_active_staff(&mut db, staff_id).await?;
            Invitee::Staff(staff.ok_or(people::Error::NoSuchStaff(staff_id))?.staff_id)
        }
        (None, Some(handle)) => Invitee::Owner(Some(people::load_business(&mut db, &handle).await?.business_id)),
        (None, None) if args.platform => Invitee::Operator,
        (None, None) if args.new_business => Invitee::Owner(None),
        (None, None) => match people::list_businesses(&mut db).await?.as_slice() {
            [] => Invitee::Owner(None),
            [only] => Invitee::Owner(Some(only.business_id)),
            several => anyhow::bail!(
                "there are {} businesses: name one with --business, or take --new-business",
                several.len()
            ),
        },
    };
    let (invitation, token) = invite(&mut db, invitee, &Actor::Operator, deps.clock.now(), &*deps.chance).await?;
    let link = format!("{}/console/invitation/{}", app.config.console_origin(), token.expose_secret());
    let until = invitation.expires_at.with_timezone(&Kolkata).format("%-d %B %Y, %H:%M");
    args.output.done(
        &json!({ "invitation_id": invitation.invitation_id, "link": link, "expires_at": invitation.expires_at }),
        &format!("{link}\nIt works once, until {until} in India. Whoever holds it comes in: hand it over in person."),
    )
}
