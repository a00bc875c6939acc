use std::process::ExitCode;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Subcommand;
use muneem_jobs::{
    people,
    webhooks::{
        self, Change, DeliveryFilter, DeliveryState, Emission, Endpoint, EndpointId, EventId, NewEndpoint, Which,
    },
};
use secrecy::ExposeSecret;
use serde_json::json;

use super::output::Output;
use crate::{app::App, config::Config};

/// Whom frontends have told of what happens, how they answer, and telling them again
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List endpoints, newest first
    #[command(after_help = "Example:\n  muneem webhooks list --business sharma-mobiles")]
    List {
        /// Of this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show one endpoint
    #[command(after_help = "Example:\n  muneem webhooks show 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Show(One),
    /// Add an endpoint; its secret is shown once
    #[command(after_help = "Example:\n  muneem webhooks add sharma-mobiles https://hooks.example.in/muneem \
                      --event-types 'messaging.*'")]
    Add {
        /// Handle of the business
        business: String,
        /// Where it is: https, on port 443 or 8443, at a public address
        url: String,
        /// What it is told of: exact types, 'messaging.*', or '*'
        #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "*")]
        event_types: Vec<String>,
        /// What it is for, in one line
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Change, enable or disable an endpoint; what waits for it is tried at once
    #[command(after_help = "Example:\n  muneem webhooks set 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70 --enabled true")]
    Set(Box<Set>),
    /// Replace an endpoint's secret; the new one is shown once
    #[command(
        after_help = "Example:\n  muneem webhooks rotate 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70 --overlap-hours 24"
    )]
    Rotate {
        /// The endpoint's id
        id: EndpointId,
        /// For how many hours the old secret signs beside the new one
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u16).range(0..=168))]
        overlap_hours: u16,
        #[command(flatten)]
        output: Output,
    },
    /// Remove an endpoint for good, with what waits for it
    #[command(after_help = "Example:\n  muneem webhooks remove 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Remove(One),
    /// Send an endpoint a `webhooks.ping`; workers must run
    #[command(after_help = "Example:\n  muneem webhooks test 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70")]
    Test(One),
    /// List deliveries, newest first
    #[command(after_help = "Example:\n  muneem webhooks deliveries --state failed --limit 10")]
    Deliveries {
        /// Of this business only
        #[arg(long, value_name = "HANDLE")]
        business: Option<String>,
        /// To this endpoint only
        #[arg(long, value_name = "ID")]
        endpoint: Option<EndpointId>,
        /// pending, sending, delivered, failed, expired or dropped only
        #[arg(long)]
        state: Option<DeliveryState>,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only those older than the delivery of this number: the last of the page before
        #[arg(long, value_name = "NUMBER")]
        before: Option<i64>,
        #[command(flatten)]
        output: Output,
    },
    /// Show an event with its deliveries and every attempt
    #[command(after_help = "Example:\n  muneem webhooks event evt_019ab0c26f3e7c1d9d532f6b8c1e4a70")]
    Event {
        /// Its id, which is its webhook-id
        id: EventId,
        #[command(flatten)]
        output: Output,
    },
    /// Tell again: of one event, or an endpoint of all since an instant
    #[command(after_help = "Example:\n  muneem webhooks replay --event evt_019ab0c26f3e7c1d9d532f6b8c1e4a70\n  \
                      muneem webhooks replay --endpoint 019ab0c2-6f3e-7c1d-9d53-2f6b8c1e4a70 --since \
                      2026-11-24T00:00:00+05:30 --failed-only")]
    Replay(Replay),
}

#[derive(Debug, clap::Args)]
struct One {
    /// The endpoint's id
    id: EndpointId,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
#[group(id = "changes", multiple = true, required = true, args = ["url", "event_types", "description", "enabled"])]
struct Set {
    /// The endpoint's id
    id: EndpointId,
    /// Where it is
    #[arg(long)]
    url: Option<String>,
    /// What it is told of: exact types, 'messaging.*', or '*'
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    event_types: Option<Vec<String>>,
    /// What it is for; an empty text takes it away
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Whether it is told anything: true or false
    #[arg(long, value_name = "WHETHER")]
    enabled: Option<bool>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// Of this event, to all endpoints that it went to, or to that of --endpoint
    #[arg(long, value_name = "ID", required_unless_present = "since")]
    event: Option<EventId>,
    /// To this endpoint
    #[arg(long, value_name = "ID")]
    endpoint: Option<EndpointId>,
    /// Of everything since this instant (RFC 3339)
    #[arg(long, value_name = "INSTANT", requires = "endpoint", conflicts_with = "event")]
    since: Option<DateTime<Utc>>,
    /// Only what was not delivered
    #[arg(long, requires = "since")]
    failed_only: bool,
    #[command(flatten)]
    output: Output,
}

fn any(endpoint: EndpointId) -> Which {
    Which { business: None, endpoint }
}

pub(super) async fn run(args: Args, config: Config) -> anyhow::Result<ExitCode> {
    let (_database, app) = super::open(config).await?;
    match args.command {
        Command::List { business, output } => list(&app, business.as_deref(), output).await?,
        Command::Show(One { id, output }) => {
            let mut db = app.deps.db.acquire().await?;
            let found = webhooks::find_endpoint(&mut db, &app.deps.vault, any(id), app.deps.clock.now()).await?;
            let endpoint =
                found.with_context(|| format!("there is no endpoint {id}: `muneem webhooks list` shows all"))?;
            output.item(&endpoint, &fields(&endpoint))?;
        }
        Command::Deliveries { business, endpoint, state, limit, before, output } => {
            let mut db = app.deps.db.acquire().await?;
            let business = match business {
                Some(handle) => Some(people::load_business(&mut db, &handle).await?.business_id),
                None => None,
            };
            let filter = DeliveryFilter { business, endpoint, state, before };
            let found = webhooks::list_deliveries(&mut db, &filter, limit).await?;
            output.table(&["number", "event", "type", "state", "attempts", "last"], &found, |delivery| {
                vec![
                    delivery.delivery_id.to_string(),
                    delivery.event_id.to_string(),
                    delivery.event_type.clone(),
                    delivery.state.as_str().to_owned(),
                    delivery.attempts.to_string(),
                    answer(delivery.last_status, delivery.last_cause.as_deref()),
                ]
            })?;
        }
        Command::Event { id, output } => {
            let mut db = app.deps.db.acquire().await?;
            let told = webhooks::find_told(&mut db, None, id).await?;
            let told =
                told.with_context(|| format!("there is no event {id}: `muneem webhooks deliveries` shows the newest"))?;
            event(&told, output)?;
        }
        command => act(&app, command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that changes something: in one transaction each.
async fn act(app: &App, command: Command) -> anyhow::Result<()> {
    let (deps, by) = (&app.deps, app.operator());
    let (vault, settings) = (&*deps.vault, &deps.webhooks.settings);
    let mut tx = deps.db.begin().await?;
    match command {
        Command::Add { business, url, event_types, description, output } => {
            let business = people::load_business(&mut tx, &business).await?.business_id;
            let new = NewEndpoint { business, url, event_types, description };
            let (endpoint, secret) = webhooks::add_endpoint(&mut tx, vault, &new, settings, &by).await?;
            tx.commit().await?;
            let shown = json!({ "endpoint": endpoint, "secret": secret.expose_secret() });
            let line = format!(
                "{} is told of what happens at {}; its secret, shown this once:\n{}",
                endpoint.endpoint_id,
                endpoint.origin,
                secret.expose_secret()
            );
            output.done(&shown, &line)
        }
        Command::Set(set) => {
            let Set { id, url, event_types, description, enabled, output } = *set;
            let change = Change { url, event_types, description: description.map(Some), enabled };
            let endpoint = webhooks::change_endpoint(&mut tx, vault, any(id), &change, (settings, &by)).await?;
            tx.commit().await?;
            output.item(&endpoint, &fields(&endpoint))
        }
        Command::Rotate { id, overlap_hours, output } => {
            let overlap = TimeDelta::hours(overlap_hours.into());
            let (secret, until) = webhooks::rotate_secret(&mut tx, vault, any(id), overlap, &by).await?;
            tx.commit().await?;
            let shown = json!({ "secret": secret.expose_secret(), "previous_until": until });
            let line = format!(
                "the new secret, shown this once; the one before signs until {}:\n{}",
                instant(until),
                secret.expose_secret()
            );
            output.done(&shown, &line)
        }
        Command::Remove(One { id, output }) => {
            let dropped = webhooks::remove_endpoint(&mut tx, any(id), &by).await?;
            tx.commit().await?;
            output.done(&json!({ "dropped": dropped }), &format!("{id} is removed; {dropped} deliveries were dropped"))
        }
        Command::Test(One { id, output }) => {
            let emission = Emission { vault, now: deps.clock.now(), chance: &*deps.chance };
            let event = webhooks::test_endpoint(&mut tx, emission, any(id)).await?;
            tx.commit().await?;
            output.done(
                &json!({ "event_id": event }),
                &format!("{event} is on its way: `muneem webhooks event {event}` shows what came of it"),
            )
        }
        Command::Replay(Replay { event: Some(event), endpoint, output, .. }) => {
            let to = webhooks::replay_event(&mut tx, (None, event), endpoint, &by).await?;
            tx.commit().await?;
            let line = format!("{event} goes to {} endpoints again", to.len());
            output.done(&json!({ "endpoint_ids": to }), &line)
        }
        Command::Replay(Replay { endpoint, since, failed_only, output, .. }) => {
            let (endpoint, since) = endpoint.zip(since).context("name --endpoint and --since, or --event")?;
            let replay = webhooks::Replay { since, failed_only };
            let id = webhooks::ask_replay(&mut tx, any(endpoint), &replay, &by).await?;
            tx.commit().await?;
            let line = format!("{endpoint} is told again of what happened since {}", instant(since));
            output.done(&json!({ "replay_id": id }), &line)
        }
        // The rest only looks.
        _ => Ok(()),
    }
}

async fn list(app: &App, business: Option<&str>, output: Output) -> anyhow::Result<()> {
    let mut db = app.deps.db.acquire().await?;
    let business = match business {
        Some(handle) => Some(people::load_business(&mut db, handle).await?.business_id),
        None => None,
    };
    let (mut endpoints, mut before): (Vec<Endpoint>, _) = (Vec::new(), None);
    loop {
        let page = (200, app.deps.clock.now());
        let found = webhooks::list_endpoints(&mut db, &app.deps.vault, business, before, page).await?;
        before = found.last().map(|endpoint| endpoint.endpoint_id);
        endpoints.extend(found);
        if before.is_none() {
            break;
        }
    }
    let handles = people::list_businesses(&mut db).await?;
    output.table(&["id", "business", "origin", "types", "state", "waiting", "failing since"], &endpoints, |endpoint| {
        let known = handles.iter().find(|known| known.business_id == endpoint.business_id);
        vec![
            endpoint.endpoint_id.to_string(),
            known.map(|known| known.handle.clone()).unwrap_or_default(),
            endpoint.origin.clone(),
            endpoint.event_types.join(","),
            endpoint.state.as_str().to_owned(),
            endpoint.waiting.to_string(),
            endpoint.failing_since.map(instant).unwrap_or_default(),
        ]
    })
}

fn fields(endpoint: &Endpoint) -> Vec<(&'static str, String)> {
    let at = |at: Option<DateTime<Utc>>| at.map(instant).unwrap_or_default();
    vec![
        ("id", endpoint.endpoint_id.to_string()),
        ("origin", endpoint.origin.clone()),
        ("for", endpoint.description.clone().unwrap_or_default()),
        ("types", endpoint.event_types.join(", ")),
        ("state", endpoint.state.as_str().to_owned()),
        ("why", endpoint.reason.clone().unwrap_or_default()),
        ("waiting", endpoint.waiting.to_string()),
        ("last good", at(endpoint.last_success_at)),
        ("last failed", at(endpoint.last_failure_at)),
        ("with", endpoint.last_cause.clone().unwrap_or_default()),
        ("failing since", at(endpoint.failing_since)),
        ("left in peace until", at(endpoint.wait_until)),
        ("old secret until", at(endpoint.rotating_until)),
        ("added", instant(endpoint.created_at)),
    ]
}

/// The event, and below it a line for each delivery and attempt.
fn event(told: &webhooks::Told, output: Output) -> anyhow::Result<()> {
    let mut fields = vec![
        ("id", told.event.event_id.to_string()),
        ("type", told.event.event_type.clone()),
        ("object", told.event.object.clone()),
        ("occurred", instant(told.event.occurred_at)),
    ];
    for delivery in &told.deliveries {
        let next = delivery.next_at.map(|at| format!(", next {}", instant(at))).unwrap_or_default();
        fields.push(("delivery", format!("{} {}{next}", delivery.endpoint_id, delivery.state.as_str())));
    }
    for attempt in &told.attempts {
        let answer = answer(attempt.status, attempt.cause.as_deref());
        fields.push(("attempt", format!("{} {} {answer}", instant(attempt.started_at), attempt.endpoint_id)));
    }
    output.item(told, &fields)
}

fn answer(status: Option<i16>, cause: Option<&str>) -> String {
    match (status, cause) {
        (Some(status), _) => status.to_string(),
        (None, cause) => cause.unwrap_or_default().to_owned(),
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
